/** The page: asks for a key, then opens the explorer. */

import { lazy, Suspense, useEffect, useState } from "react";

import { type Account, enter } from "./api";
import { forgetKey, isRemembered, storedKey, storeKey } from "./session";
import { SignIn } from "./sign-in";

// Most of the bytes are the editor's: they come while the key is typed.
const loading = import("./explorer");
const Explorer = lazy(async () => loading);

type State =
  | { readonly kind: "out"; readonly refused: string | null }
  | { readonly kind: "entering" }
  | { readonly kind: "in"; readonly key: string; readonly account: Account };

export function Console() {
  const [state, setState] = useState<State>(() => (storedKey() === null ? { kind: "out", refused: null } : { kind: "entering" }));

  async function open(key: string, remember: boolean): Promise<void> {
    const entry = await enter(key);
    if ("refused" in entry) {
      setState({ kind: "out", refused: entry.refused });
      return;
    }
    storeKey(key, remember);
    setState({ kind: "in", key, account: entry.account });
  }

  function leave(refused: string | null): void {
    forgetKey();
    setState({ kind: "out", refused });
  }

  useEffect(() => {
    const key = storedKey();
    if (key !== null) void open(key, isRemembered());
  }, []);

  switch (state.kind) {
    case "out":
      return <SignIn refused={state.refused} onKey={open} />;
    case "entering":
      return <Waiting />;
    case "in":
      return (
        <Suspense fallback={<Waiting />}>
          <Explorer
            apiKey={state.key}
            account={state.account}
            remembered={isRemembered()}
            onLeave={() => {
              leave(null);
            }}
            onRefused={() => {
              leave("The API no longer takes this key: it has expired or was revoked. Your tabs are kept.");
            }}
          />
        </Suspense>
      );
  }
}

function Waiting() {
  return (
    <main className="waiting" aria-busy="true">
      <p role="status">Opening the explorer …</p>
    </main>
  );
}
