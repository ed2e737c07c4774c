/** The API key: for this tab alone, or kept in this browser when the user says so. */

const NAME = "clarion:api-key";

/** Where GraphiQL keeps its tabs, and how wide its left panel is. */
const TABS = "graphiql:tabState";
const PANEL = "graphiql:docExplorerFlex";
const PANEL_SHARE = "0.3";

/** What a browser that forbids storage leaves us: the key is asked for again after each reload. */
function quietly<Value>(work: () => Value): Value | null {
  try {
    return work();
  } catch {
    return null;
  }
}

export function storedKey(): string | null {
  return quietly(() => sessionStorage.getItem(NAME)) ?? quietly(() => localStorage.getItem(NAME));
}

export function isRemembered(): boolean {
  return quietly(() => localStorage.getItem(NAME)) !== null;
}

export function storeKey(key: string, remember: boolean): void {
  forgetKey();
  quietly(() => {
    (remember ? localStorage : sessionStorage).setItem(NAME, key);
  });
}

export function forgetKey(): void {
  quietly(() => {
    sessionStorage.removeItem(NAME);
  });
  quietly(() => {
    localStorage.removeItem(NAME);
  });
}

/** Whether this browser has tabs from an earlier visit. */
export function hasTabs(): boolean {
  return quietly(() => localStorage.getItem(TABS)) !== null;
}

/** A narrower left panel than GraphiQL's own, until the user drags it. */
export function preparePanel(): void {
  quietly(() => {
    if (localStorage.getItem(PANEL) === null) localStorage.setItem(PANEL, PANEL_SHARE);
  });
}

/** The choice of an earlier visit between light and dark, for the page before the explorer. */
export function applyTheme(): void {
  const theme = quietly(() => localStorage.getItem("graphiql:theme"));
  if (theme === "light" || theme === "dark") document.body.classList.add(`graphiql-${theme}`);
}
