// How fast large pages are. The figures are printed and not judged: machines differ.

import { statSync } from "node:fs";
import { join } from "node:path";
import { test } from "vitest";
import { open, PAGES, settle, startBrowser } from "./open.ts";

const PAGES_WITH_STACKS = ["wide-100000.html", "wide-1000000.html", "wide-100000-table.html"];

test.each(PAGES_WITH_STACKS)("how fast %s is", async (name) => {
  const browser = await startBrowser();
  try {
    const { page } = await open(browser, name);
    await settle(page);
    const opened = await page.evaluate(() => {
      const [navigation] = performance.getEntriesByType("navigation") as PerformanceNavigationTiming[];
      const ready = performance.getEntriesByName("heaptide-ready")[0];
      return { parsed: navigation?.responseEnd ?? 0, ready: ready?.startTime ?? 0 };
    });
    const timed = async (what: string, act: () => Promise<void>) => {
      const before = await page.evaluate(() => performance.now());
      await act();
      await settle(page);
      const after = await page.evaluate(() => performance.now());
      return `${what} ${(after - before).toFixed(0)}`;
    };
    const press = (key: string) => () => page.keyboard.press(key);
    const figures = [
      `${(statSync(join(PAGES, name)).size / 1e6).toFixed(2)} MB`,
      `ready after ${opened.ready.toFixed(0)} ms`,
      await timed("zoom", async () => {
        for (const key of ["ArrowDown", "ArrowDown", "Enter"]) await page.keyboard.press(key);
      }),
      await timed("reset", press("Escape")),
      await timed("search", () => page.fill("#search", "function_7")),
      await timed("clear", press("Escape")),
      await timed("metric", () => page.click(".tile[data-metric=temporary]")),
      await timed("invert", async () => {
        await page.focus("#theme");
        await page.keyboard.press("v");
      }),
      await timed("hover", async () => {
        for (let step = 0; step < 10; step++) {
          await page.mouse.move(100 + 80 * step, 500 + step);
          await settle(page);
        }
      }),
    ];
    console.log(`${name}: ${figures.join(", ")} (ms, with two frames of the screen each; hover is ten moves)`);
  } finally {
    await browser.close();
  }
});
