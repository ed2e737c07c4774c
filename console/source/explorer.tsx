/** GraphiQL, with the key, Clarion's examples and its look. */

import "./workers";

import type { Fetcher, FetcherParams } from "@graphiql/toolkit";
import { HISTORY_PLUGIN } from "@graphiql/plugin-history";
import { useGraphiQL } from "@graphiql/react";
import { GraphiQL } from "graphiql";
import { Kind, parse } from "graphql";
import { useEffect, useMemo, useRef, useState } from "react";

import { type Account, call, type Exchange } from "./api";
import { chapters, exampleResource } from "./examples";
import { examplesPlugin } from "./examples-panel";
import { EDITOR_THEMES } from "./editor-themes";
import { NARROW } from "./narrow";
import { hasTabs, preparePanel } from "./session";
import { TopBar } from "./top-bar";

import "@graphiql/react/style.css";
import "@graphiql/plugin-doc-explorer/style.css";
import "@graphiql/plugin-history/style.css";
import "graphiql/graphiql.css";
import "./explorer.css";

const INTROSPECTION = "IntrospectionQuery";

interface Properties {
  readonly apiKey: string;
  readonly account: Account;
  readonly remembered: boolean;
  readonly onLeave: () => void;
  readonly onRefused: () => void;
}

export default function Explorer({ apiKey, account, remembered, onLeave, onRefused }: Properties) {
  const [exchange, setExchange] = useState<Exchange | null>(null);
  const refused = useRef(onRefused);
  useEffect(() => {
    refused.current = onRefused;
  }, [onRefused]);

  // GraphiQL asks for the schema again whenever this changes.
  const fetcher = useMemo<Fetcher>(
    () => async (parameters, options) => {
      const headers = options?.headers ?? {};
      const called = await call(apiKey, withOwnName(parameters), headers);
      if (parameters.operationName !== INTROSPECTION) setExchange(called.exchange);
      const ownKey = Object.keys(headers).some((name) => name.toLowerCase() === "authorization");
      if (called.exchange.status === 401 && !ownKey) refused.current();
      return called.answer;
    },
    [apiKey],
  );
  const resource = exampleResource(account.resources);
  const offered = useMemo(() => chapters(resource), [resource]);
  const plugins = useMemo(() => [examplesPlugin(offered), HISTORY_PLUGIN], [offered]);
  const firstTabs = useMemo(() => offered[0]?.examples.map(({ query, variables }) => ({ query, variables })) ?? [], [offered]);
  const beside = useMemo(() => (matchMedia(NARROW).matches ? undefined : plugins[0]), [plugins]);
  // Of the first of the default tabs GraphiQL shows the query without its variables.
  const [firstVariables] = useState(() => (hasTabs() ? undefined : firstTabs[0]?.variables));
  useState(preparePanel);

  return (
    <div className="explorer">
      <TopBar account={account} remembered={remembered} onLeave={onLeave} />
      <main>
        <GraphiQL
          fetcher={fetcher}
          plugins={plugins}
          {...(beside === undefined ? {} : { visiblePlugin: beside })}
          {...(firstVariables === undefined ? {} : { initialVariables: firstVariables })}
          defaultTabs={firstTabs}
          defaultQuery=""
          defaultEditorToolsVisibility="variables"
          editorTheme={EDITOR_THEMES}
          inputValueDeprecation
          schemaDescription
          shouldPersistHeaders={false}
          showPersistHeadersSettings={false}
        >
          <EditorSettings />
          <GraphiQL.Logo>{null}</GraphiQL.Logo>
          <GraphiQL.Footer>
            <AnswerBar exchange={exchange} />
          </GraphiQL.Footer>
        </GraphiQL>
      </main>
    </div>
  );
}

/** GraphiQL learns an operation's name a moment after its text: until then it may send that of another tab. */
function withOwnName(parameters: FetcherParams): FetcherParams {
  const { operationName, ...rest } = parameters;
  try {
    const { definitions } = parse(parameters.query, { noLocation: true });
    const isThere = definitions.some((one) => one.kind === Kind.OPERATION_DEFINITION && one.name?.value === operationName);
    return isThere ? parameters : rest;
  } catch {
    return parameters;
  }
}

/** What GraphiQL has no property for: long lines are wrapped, text is as large as the page's, the active tab is in sight. */
function EditorSettings() {
  const activeTab = useGraphiQL((state) => state.activeTabIndex);
  useEffect(() => {
    document.getElementById(`graphiql-session-tab-${String(activeTab)}`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [activeTab]);

  const editors = useGraphiQL((state) => ({
    query: state.queryEditor,
    variables: state.variableEditor,
    headers: state.headerEditor,
    response: state.responseEditor,
  }));
  useEffect(() => {
    for (const editor of Object.values(editors)) editor?.updateOptions({ wordWrap: "on", fontSize: 14 });
  }, [editors]);
  return null;
}

function AnswerBar({ exchange }: { readonly exchange: Exchange | null }) {
  if (exchange === null) return <p className="answer-bar">Run with Ctrl-Enter, or Command-Enter</p>;
  return (
    <p className="answer-bar" role="status">
      <span className={exchange.status === 200 ? "good" : "bad"}>HTTP {exchange.status}</span>
      <span>{exchange.milliseconds} ms</span>
      <span>{exchange.bytes.toLocaleString("en")} bytes</span>
      {exchange.remaining !== null && <span>{Number(exchange.remaining).toLocaleString("en")} points left</span>}
      {exchange.requestId !== null && <span>request {exchange.requestId}</span>}
    </p>
  );
}
