import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The page is at `/graphql`, and its address may have a prefix in front: all addresses are relative to the page's.
export default defineConfig({
  base: "./",
  plugins: [react()],
  publicDir: false,
  worker: { format: "es" },
  build: {
    target: "es2023",
    assetsDir: "graphql/assets",
    // A `data:` address would need an exception in the policy that the page is served with.
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 5000,
    license: { fileName: "licenses.md" },
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
