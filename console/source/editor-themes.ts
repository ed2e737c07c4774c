/** The editor's colours: those of the page (see explorer.css), which the editor cannot read from there. */

import * as monaco from "monaco-graphql/esm/monaco-editor.js";

export const EDITOR_THEMES = { dark: "clarion-dark", light: "clarion-light" };

interface Palette {
  readonly background: string;
  readonly accent: string;
  readonly field: string;
  readonly argument: string;
  readonly keyword: string;
  readonly text: string;
  readonly number: string;
  readonly comment: string;
}

const DARK: Palette = {
  background: "#142033",
  accent: "#f5b942",
  field: "#8ecbff",
  argument: "#b9a7ff",
  keyword: "#f5b942",
  text: "#8fdcb0",
  number: "#ff9f8a",
  comment: "#7d8ca3",
};

const LIGHT: Palette = {
  background: "#ffffff",
  accent: "#a76400",
  field: "#0b5cad",
  argument: "#6b4fc8",
  keyword: "#a76400",
  text: "#1a7a4c",
  number: "#b3412a",
  comment: "#6c7a8e",
};

function define(name: string, base: "vs" | "vs-dark", palette: Palette): void {
  const faint = `${palette.accent}22`;
  const rule = (token: string, foreground: string) => ({ token, foreground: foreground.slice(1) });
  monaco.editor.defineTheme(name, {
    base,
    inherit: true,
    rules: [
      rule("comment.gql", palette.comment),
      rule("keyword.gql", palette.keyword),
      rule("key.identifier.gql", palette.field),
      rule("argument.identifier.gql", palette.argument),
      rule("string.gql", palette.text),
      rule("number.gql", palette.number),
      rule("string.key.json", palette.field),
      rule("string.value.json", palette.text),
      rule("number.json", palette.number),
      rule("keyword.json", palette.keyword),
    ],
    colors: {
      "editor.background": "#ffffff00",
      "scrollbar.shadow": "#ffffff00",
      focusBorder: palette.accent,
      highlight: palette.accent,
      "editorCursor.foreground": palette.accent,
      "textLink.foreground": palette.accent,
      "textLink.activeForeground": palette.accent,
      "editorLink.activeForeground": palette.accent,
      "editorHoverWidget.background": palette.background,
      "editorWidget.background": palette.background,
      "editorWidget.resizeBorder": palette.accent,
      "editorSuggestWidget.background": palette.background,
      "editorSuggestWidget.selectedBackground": faint,
      "editorSuggestWidget.selectedForeground": palette.accent,
      "editorSuggestWidget.highlightForeground": palette.accent,
      "list.hoverBackground": faint,
      "list.highlightForeground": palette.accent,
      "list.focusHighlightForeground": palette.accent,
      "menu.background": palette.background,
      "menu.selectionBackground": faint,
      "menu.selectionForeground": palette.accent,
      "quickInput.background": palette.background,
      "quickInputList.focusBackground": faint,
      "quickInputList.focusForeground": palette.accent,
      "pickerGroup.foreground": palette.accent,
      "toolbar.hoverBackground": faint,
      "inputOption.hoverBackground": faint,
    },
  });
}

define(EDITOR_THEMES.dark, "vs-dark", DARK);
define(EDITOR_THEMES.light, "vs", LIGHT);
