// Pages as Rust writes them, in a browser without a screen.

import { existsSync } from "node:fs";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";

/** Where `make_pages` has written; `cargo xtask test` says it. */
export const PAGES = process.env["HEAPTIDE_PAGES"] ?? join(import.meta.dirname, "../../target/pages");
/** Where screenshots go, to look at. */
const SHOTS = join(PAGES, "screenshots");

const BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** A browser on `PATH`; undefined when there is none. */
export function browserPath(): string | undefined {
  const directories = (process.env["PATH"] ?? "").split(":");
  const candidates = directories.flatMap((directory) => BROWSERS.map((name) => join(directory, name)));
  return candidates.find((path) => existsSync(path));
}

export async function startBrowser(): Promise<Browser> {
  const executablePath = browserPath();
  if (executablePath === undefined) throw new Error(`none of ${BROWSERS.join(", ")} is on PATH`);
  return chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
}

export interface Opened {
  page: Page;
  /** Errors, dialogs and requests, none of which there may be. */
  troubles: string[];
}

export async function open(browser: Browser, name: string, hash = "", colorScheme: "light" | "dark" = "light"): Promise<Opened> {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme });
  const page = await context.newPage();
  const troubles: string[] = [];
  page.on("pageerror", (error) => troubles.push(`error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") troubles.push(`console: ${message.text()}`);
  });
  page.on("dialog", (dialog) => {
    troubles.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    if (!/^(file|data|blob):/.test(request.url())) troubles.push(`request: ${request.url()}`);
  });
  await page.goto(`file://${join(PAGES, name)}${hash}`);
  await page.waitForSelector("html[data-ready]");
  if ((await page.getAttribute("html", "data-ready")) !== "true") {
    troubles.push(`not ready: ${await page.textContent(".failure")}`);
  }
  return { page, troubles };
}

/** Waits until what was asked for is computed and drawn. */
export async function settle(page: Page): Promise<void> {
  await page.waitForSelector("html:not([data-busy]):not(:has([aria-busy=true]))", { state: "attached" });
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
}

export async function shoot(page: Page, name: string): Promise<void> {
  await settle(page);
  mkdirSync(SHOTS, { recursive: true });
  await page.screenshot({ path: join(SHOTS, `${name}.png`) });
}
