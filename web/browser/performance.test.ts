// How fast large pages are, by the clock and in processor time of the page's thread, and how long its longest
// task is meanwhile. The figures are printed and not judged: machines differ.

import { statSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { test } from "vitest";
import { open, PAGES, settle, startBrowser } from "./open.ts";

/** Told of by browsers from this length on, in milliseconds. */
const LONG_MS = 50;

/** Durations of the long tasks that the page's thread has had since the last call. */
const longTasks = (page: Page) => page.evaluate(() => (window as unknown as { longTasks: () => number[] }).longTasks());

/** In the page, before anything else of it. */
const observeTasks = () => {
  const durations: number[] = [];
  const take = (entries: PerformanceEntryList) => durations.push(...entries.map(({ duration }) => duration));
  const observer = new PerformanceObserver((list) => take(list.getEntries()));
  observer.observe({ entryTypes: ["longtask"] });
  Object.assign(window, {
    longTasks: () => {
      take(observer.takeRecords());
      return durations.splice(0);
    },
  });
};

interface Action {
  what: string;
  act(page: Page): Promise<unknown>;
}

const press = (what: string, ...keys: string[]): Action => ({
  what,
  async act(page) {
    for (const key of keys) await page.keyboard.press(key);
  },
});
const click = (what: string, selector: string): Action => ({ what, act: (page) => page.click(selector) });
const find = (what: string, text: string): Action => ({ what, act: (page) => page.fill("#search", text) });

/** As a reader would, one after another. */
const ACTIONS: Action[] = [
  press("zoom", "ArrowDown", "ArrowDown", "Enter"),
  press("reset", "Escape"),
  find("search", "function_7"),
  press("clear", "Escape"),
  click("metric", ".tile[data-metric=allocated]"),
  click("blocks", "[data-unit=blocks]"),
  click("bytes", "[data-unit=bytes]"),
  click("invert", "#invert"),
  click("back", "#invert"),
];
const THREAD: Action = { what: "thread", act: (page) => page.selectOption("#thread", { index: 2 }) };
const THREADS: Action = { what: "all threads", act: (page) => page.selectOption("#thread", { index: 0 }) };
const brush = async (page: Page) => {
  const bounds = await page.locator("#chart").boundingBox();
  if (bounds === null) throw new Error("there is no chart");
  await page.mouse.move(bounds.x + 300, bounds.y + 60);
  await page.mouse.down();
  await page.mouse.move(bounds.x + 800, bounds.y + 60);
  await page.mouse.up();
};
const LARGE_ACTIONS: Action[] = [
  ...ACTIONS,
  THREAD,
  THREADS,
  { what: "brush", act: brush },
  click("left in it", ".tile[data-metric=live]"),
  click("whole run", "#range-reset"),
  click("table", "[data-view=table]"),
  click("sort by count", "[data-column=count]"),
  click("by function", "[data-column=function]"),
  click("by location", "[data-column=place]"),
  find("filter", "function_7"),
  press("no filter", "Escape"),
  { ...THREAD, what: "rows of a thread" },
];

test.each([
  ["wide-100000.html", ACTIONS],
  ["large-100000.html", LARGE_ACTIONS],
  ["wide-1000000.html", ACTIONS],
  ["large-1000000.html", LARGE_ACTIONS],
] as const)("how fast %s is", async (name, actions) => {
  const browser = await startBrowser();
  try {
    const { page } = await open(browser, name);
    await settle(page);
    await page.addInitScript(observeTasks);
    const devtools = await page.context().newCDPSession(page);
    // Of the processor, not of the clock: other programs may run meanwhile.
    await devtools.send("Performance.enable", { timeDomain: "threadTicks" });
    const spent = async () => {
      const { metrics } = await devtools.send("Performance.getMetrics");
      return (metrics.find((metric) => metric.name === "TaskDuration")?.value ?? 0) * 1000;
    };
    const figures: string[] = [];
    const timed = async (what: string, act: () => Promise<unknown>) => {
      const before = await spent();
      const start = performance.now();
      await act();
      await settle(page);
      const took = performance.now() - start;
      const processor = (await spent()) - (what === "open" ? 0 : before);
      const tasks = await longTasks(page);
      const longest = tasks.length > 0 ? Math.max(...tasks).toFixed(0) : `below ${LONG_MS}`;
      figures.push(`${what} ${took.toFixed(0)}, ${processor.toFixed(0)} (${longest})`);
    };
    await timed("open", async () => {
      await page.reload();
      await page.waitForSelector("html[data-ready]");
    });
    await page.focus("#scroll");
    for (const { what, act } of actions) await timed(what, () => act(page));
    const megabytes = (statSync(join(PAGES, name)).size / 1e6).toFixed(1);
    console.log(`${name}, ${megabytes} MB, ms by the clock, of the page's thread (of its longest task): ${figures.join("; ")}`);
  } finally {
    await browser.close();
  }
});
