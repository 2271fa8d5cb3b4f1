// One browser for the tests of a file, a page for each test, and no trouble in any of them. Whoever
// imports this has these hooks.

import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { open, settle, startBrowser } from "./open.ts";

let browser: Browser;
/** What went wrong in the pages of the running test. */
let troubles: string[][] = [];
/** The page that the running test has opened last. */
export let page: Page;

beforeAll(async () => {
  browser = await startBrowser();
});
afterAll(async () => {
  await browser.close();
});
afterEach(async () => {
  const all = troubles.flat();
  troubles = [];
  for (const context of browser.contexts()) await context.close();
  expect(all).toEqual([]);
});

/** Opens a page, instead of the one before, and waits until it is drawn. */
export async function start(name: string, hash = "", scheme: "light" | "dark" = "light"): Promise<void> {
  for (const context of browser.contexts()) await context.close();
  const opened = await open(browser, name, hash, scheme);
  ({ page } = opened);
  troubles.push(opened.troubles);
  await settle(page);
}
