/** Calls to the API, which answers by POST at the page's own address. */

/** What is shown of an answer's HTTP side. */
export interface Exchange {
  readonly status: number;
  readonly milliseconds: number;
  readonly bytes: number;
  readonly requestId: string | null;
  readonly remaining: string | null;
}

export interface GraphQLAnswer {
  readonly data?: Record<string, unknown> | null;
  readonly errors?: readonly { readonly message: string }[];
}

export interface Called {
  readonly answer: GraphQLAnswer | readonly GraphQLAnswer[];
  readonly exchange: Exchange;
}

/** The answer to one request. Throws a TypeError when the server cannot be reached. */
export async function call(key: string, body: unknown, headers: Record<string, unknown> = {}): Promise<Called> {
  const sent = new Headers({ accept: "application/json", "content-type": "application/json", authorization: `Bearer ${key}` });
  for (const [name, value] of Object.entries(headers)) sent.set(name, String(value));
  const begun = performance.now();
  const response = await fetch(location.pathname, {
    method: "POST",
    headers: sent,
    body: JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
  });
  const text = await response.text();
  return {
    answer: parsed(text, response),
    exchange: {
      status: response.status,
      milliseconds: Math.round(performance.now() - begun),
      bytes: new TextEncoder().encode(text).length,
      requestId: response.headers.get("x-request-id"),
      remaining: response.headers.get("ratelimit-remaining"),
    },
  };
}

/** A proxy in between may answer with a page of its own. */
function parsed(text: string, response: Response): GraphQLAnswer {
  try {
    return JSON.parse(text, exactly) as GraphQLAnswer;
  } catch {
    return { errors: [{ message: `HTTP ${String(response.status)} ${response.statusText}, and no JSON: ${text.slice(0, 200)}` }] };
  }
}

/** What browsers have and TypeScript's library does not list yet; an older browser lacks it. */
interface ExactJSON {
  readonly rawJSON?: (text: string) => unknown;
}

/** A number that JavaScript's own cannot hold, or would write otherwise, stays as the API wrote it, to be shown so. */
function exactly(this: unknown, _name: string, value: unknown, context?: { readonly source?: string }): unknown {
  const { rawJSON } = JSON as ExactJSON;
  const source = context?.source;
  if (typeof value !== "number" || source === undefined || rawJSON === undefined || String(value) === source) return value;
  return rawJSON(source);
}

/** Who holds a key, as far as the API says. */
export interface Account {
  readonly client: string | null;
  readonly organisation: string | null;
  readonly permissions: readonly string[];
  readonly resources: readonly string[];
}

export type Entry = { readonly account: Account } | { readonly refused: string };

const RESOURCES = "{ resources { name } }";
const VIEWER = "{ viewer { client { name } organisation { name } permissions } }";

/** The account behind a key, or why there is none. */
export async function enter(key: string): Promise<Entry> {
  // A header takes Latin-1 alone; such a text is nobody's key, and `fetch` would throw.
  if (!/^[\x21-\x7e]+$/.test(key)) return { refused: "This is no API key: a key has no spaces, and only letters, digits and signs." };
  let called: Called;
  try {
    called = await call(key, [{ query: RESOURCES }, { query: VIEWER }]);
  } catch {
    return { refused: "The API cannot be reached. Is `clarion serve` running, and this machine online?" };
  }
  const { answer, exchange } = called;
  if (exchange.status === 401) return { refused: "The API does not know this key, or it has expired or was revoked." };
  if (exchange.status !== 200 || !isPair(answer)) return { refused: firstError(answer) ?? `The API answered with HTTP ${String(exchange.status)}.` };
  const names = (answer[0].data as { resources: { name: string }[] } | null | undefined)?.resources.map(({ name }) => name);
  if (names === undefined) return { refused: firstError(answer[0]) ?? "The API answered without data." };
  const viewer = (answer[1].data as { viewer: Viewer } | null | undefined)?.viewer;
  return {
    account: {
      client: viewer?.client.name ?? null,
      organisation: viewer?.organisation.name ?? null,
      permissions: viewer?.permissions ?? [],
      resources: names,
    },
  };
}

interface Viewer {
  readonly client: { readonly name: string };
  readonly organisation: { readonly name: string };
  readonly permissions: readonly string[];
}

function isPair(answer: Called["answer"]): answer is readonly [GraphQLAnswer, GraphQLAnswer] {
  return Array.isArray(answer) && answer.length === 2;
}

function firstError(answer: Called["answer"]): string | undefined {
  return "errors" in answer ? answer.errors?.[0]?.message : undefined;
}
