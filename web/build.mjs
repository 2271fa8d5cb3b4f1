// Builds the page into the crate that embeds it. With --check only compares: is what is committed
// what the sources give?
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const target = new URL("../crates/heaptide-report/page/", import.meta.url);
const here = (name) => new URL(name, import.meta.url).pathname;

// --plain leaves names and lines as they are, to look for what takes long.
const options = { bundle: true, minify: !process.argv.includes("--plain"), write: false, target: ["chrome90", "firefox113", "safari16.4"], charset: "ascii", legalComments: "none" };
const bundle = async (entry, more) => (await build({ ...options, ...more, entryPoints: [here(entry)] })).outputFiles[0].text.trim();

const script = await bundle("src/main.ts", { format: "iife" });
const style = await bundle("src/app.css", {});
for (const end of ["</script", "<!--", "</style"]) {
  if ((script + style).includes(end)) throw new Error(`${end} in the built page would end its element`);
}
// Only what is built here may run in the page, whatever a name in it says.
const hash = (text) => `sha256-${createHash("sha256").update(text).digest("base64")}`;
const page = readFileSync(here("src/page.html"), "utf8")
  .replace("@script-hash@", hash(script))
  .replace("@style-hash@", hash(style));

const files = { "page.html": page, "app.js": script, "app.css": style };
const check = process.argv.includes("--check");
let stale = false;
for (const [name, content] of Object.entries(files)) {
  const path = new URL(name, target);
  if (check) {
    if (readFileSync(path, "utf8") !== content) {
      console.error(`crates/heaptide-report/page/${name} is not what the sources give: run npm run build in web/`);
      stale = true;
    }
  } else {
    writeFileSync(path, content);
    console.log(`${name} ${content.length} bytes`);
  }
}
if (stale) process.exit(1);
