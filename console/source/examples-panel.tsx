import { type GraphiQLPlugin, useGraphiQL, useGraphiQLActions } from "@graphiql/react";

import type { Chapter, Example } from "./examples";
import { NARROW } from "./narrow";

/** The panel with all examples; each opens in a tab. */
export function examplesPlugin(chapters: readonly Chapter[]): GraphiQLPlugin {
  return { title: "Examples", icon: ExamplesIcon, content: () => <Examples chapters={chapters} /> };
}

function Examples({ chapters }: { readonly chapters: readonly Chapter[] }) {
  const open = useOpen();
  return (
    <nav className="examples" aria-label="Examples">
      <h2>Examples</h2>
      {chapters.map((chapter) => (
        <section key={chapter.title} aria-label={chapter.title}>
          <h3>{chapter.title}</h3>
          <ul>
            {chapter.examples.map((example) => (
              <li key={example.title}>
                <button
                  type="button"
                  onClick={() => {
                    open(example);
                  }}
                >
                  <strong>{example.title}</strong>
                  <span>{example.purpose}</span>
                </button>
              </li>
            ))}
          </ul>
        </section>
      ))}
    </nav>
  );
}

/** Shows an example in the tab that has it already, in an empty one, or in a new one. */
function useOpen(): (example: Example) => void {
  const { addTab, changeTab, setVisiblePlugin, updateActiveTabValues } = useGraphiQLActions();
  const { tabs, queryEditor, variableEditor } = useGraphiQL((state) => ({
    tabs: state.tabs,
    queryEditor: state.queryEditor,
    variableEditor: state.variableEditor,
  }));
  return (example) => {
    const index = tabs.findIndex((tab) => tab.query === example.query);
    if (index >= 0) {
      changeTab(index);
    } else {
      if (queryEditor?.getValue().trim() !== "") addTab();
      queryEditor?.setValue(example.query);
      variableEditor?.setValue(example.variables);
      updateActiveTabValues({ query: example.query, variables: example.variables });
    }
    if (matchMedia(NARROW).matches) setVisiblePlugin(null);
    queryEditor?.focus();
  };
}

function ExamplesIcon() {
  return (
    <svg viewBox="0 0 24 24" height="1em" fill="none" stroke="currentColor" strokeWidth="1.7" strokeLinecap="round" strokeLinejoin="round">
      <path d="M9 4.5 4.5 12 9 19.5M15 4.5l4.5 7.5-4.5 7.5" />
    </svg>
  );
}
