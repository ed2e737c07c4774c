import { type FormEvent, useEffect, useId, useRef, useState } from "react";

import logo from "./clarion.svg";

interface Properties {
  readonly refused: string | null;
  readonly onKey: (key: string, remember: boolean) => Promise<void>;
}

export function SignIn({ refused, onKey }: Properties) {
  const [key, setKey] = useState("");
  const [remember, setRemember] = useState(false);
  const [shown, setShown] = useState(false);
  const [busy, setBusy] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  const id = useId();

  useEffect(() => {
    field.current?.focus();
  }, [refused]);

  function submit(event: FormEvent): void {
    event.preventDefault();
    const typed = key.trim();
    if (typed === "" || busy) return;
    setBusy(true);
    void onKey(typed, remember).finally(() => {
      setBusy(false);
      field.current?.select();
    });
  }

  return (
    <main className="sign-in">
      <div className="card">
        <header>
          <img src={logo} alt="" width="44" height="44" />
          <div>
            <h1>Clarion</h1>
            <p>API explorer</p>
          </div>
        </header>
        <p className="lead">Try every query and mutation, with completion and the schema&rsquo;s documentation beside it. What you run is real.</p>
        <form onSubmit={submit}>
          <label htmlFor={`${id}key`}>API key</label>
          <div className="key">
            <input
              ref={field}
              id={`${id}key`}
              type={shown ? "text" : "password"}
              value={key}
              onChange={(event) => {
                setKey(event.target.value);
              }}
              autoComplete="off"
              autoCapitalize="none"
              spellCheck={false}
              placeholder="clk_…"
              aria-invalid={refused !== null}
              aria-describedby={refused === null ? undefined : `${id}refused`}
            />
            <button
              type="button"
              className="quiet"
              aria-pressed={shown}
              onClick={() => {
                setShown(!shown);
              }}
            >
              {shown ? "Hide" : "Show"}
            </button>
          </div>
          {refused !== null && (
            <div className="refused" role="alert" id={`${id}refused`}>
              <p>{refused}</p>
              <p>Look for spaces or missing characters at the ends; or ask an administrator of your organisation for a new key.</p>
            </div>
          )}
          <label className="choice">
            <input
              type="checkbox"
              checked={remember}
              onChange={(event) => {
                setRemember(event.target.checked);
              }}
            />
            <span>
              Remember it in this browser
              <small>Otherwise it is gone when this tab is closed.</small>
            </span>
          </label>
          <button type="submit" className="primary" disabled={busy || key.trim() === ""}>
            {busy ? "Asking the API …" : "Open the explorer"}
          </button>
        </form>
        <details>
          <summary>Where do I get a key?</summary>
          <ul>
            <li>
              <code>clarion demo</code> prints one when it is ready.
            </li>
            <li>
              Whoever runs the server makes one with <code>clarion keys create --name you --role INTEGRATOR</code>.
            </li>
          </ul>
          <p>A key goes to this server alone, in the header <code>Authorization</code> of each request.</p>
        </details>
      </div>
    </main>
  );
}
