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
    const devtools = await page.context().newCDPSession(page);
    // Of the processor, not of the clock: other programs may run meanwhile.
    await devtools.send("Performance.enable", { timeDomain: "threadTicks" });
    const spent = async () => {
      const { metrics } = await devtools.send("Performance.getMetrics");
      return (metrics.find((metric) => metric.name === "TaskDuration")?.value ?? 0) * 1000;
    };
    await page.reload();
    await page.waitForSelector("html[data-ready]");
    await settle(page);
    const opened = await spent();
    const clock = await page.evaluate(() => performance.getEntriesByName("heaptide-ready")[0]?.startTime ?? 0);
    const timed = async (what: string, act: () => Promise<void>) => {
      const before = await spent();
      await act();
      await settle(page);
      return `${what} ${((await spent()) - before).toFixed(0)}`;
    };
    const press = (key: string) => () => page.keyboard.press(key);
    const figures = [
      `${(statSync(join(PAGES, name)).size / 1e6).toFixed(2)} MB`,
      `open ${opened.toFixed(0)} (${clock.toFixed(0)} by the clock)`,
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
    console.log(`${name}: ${figures.join(", ")} (ms of the page's thread; hover is ten moves)`);
  } finally {
    await browser.close();
  }
});
