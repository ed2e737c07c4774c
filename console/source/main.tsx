import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { Console } from "./console";
import { applyTheme } from "./session";

import "./fonts.css";
import "./console.css";

const root = document.getElementById("root");
if (root === null) throw new Error("the page has no element `root`");
applyTheme();
createRoot(root).render(
  <StrictMode>
    <Console />
  </StrictMode>,
);
