import { useRef } from "react";

import type { Account } from "./api";
import logo from "./clarion.svg";

interface Properties {
  readonly account: Account;
  readonly remembered: boolean;
  readonly onLeave: () => void;
}

export function TopBar({ account, remembered, onLeave }: Properties) {
  const details = useRef<HTMLDetailsElement>(null);
  function close(): void {
    if (details.current !== null) details.current.open = false;
  }
  const who = account.client ?? "Signed in";
  return (
    <header className="top-bar">
      <img src={logo} alt="" width="28" height="28" />
      <h1>
        Clarion <span>API explorer</span>
      </h1>
      <details
        className="account"
        ref={details}
        onKeyDown={(event) => {
          if (event.key === "Escape") close();
        }}
        onBlur={(event) => {
          if (!event.currentTarget.contains(event.relatedTarget)) close();
        }}
      >
        <summary>
          <span className="dot" aria-hidden="true" />
          <span className="who">{who}</span>
          {account.organisation !== null && <span className="organisation">{account.organisation}</span>}
        </summary>
        <div className="sheet" tabIndex={-1}>
          <dl>
            <dt>Client</dt>
            <dd>{account.client ?? "not told by this API"}</dd>
            {account.organisation !== null && (
              <>
                <dt>Organisation</dt>
                <dd>{account.organisation}</dd>
              </>
            )}
            <dt>API key</dt>
            <dd>{remembered ? "remembered in this browser" : "kept until this tab is closed"}</dd>
            {account.permissions.length > 0 && (
              <>
                <dt>May</dt>
                <dd className="permissions">
                  {account.permissions.map((permission) => (
                    <code key={permission}>{permission}</code>
                  ))}
                </dd>
              </>
            )}
          </dl>
        </div>
      </details>
      <button type="button" className="quiet" onClick={onLeave}>
        {remembered ? "Forget key" : "Sign out"}
      </button>
    </header>
  );
}
