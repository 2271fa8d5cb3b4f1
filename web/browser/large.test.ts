// A million stacks, most with a place of their own, in four threads and over time: whatever is asked for is
// done in steps between which the page can answer. They are counted, so no clock decides.

import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { settle, shoot } from "./open.ts";
import { page, start } from "./stage.ts";

/** In the page: makes every step a slice of its own, and counts the messages that lie between slices. */
const countSlices = () => {
  let now = performance.now();
  Object.assign(performance, { now: () => (now += 1000) });
  let slices = 0;
  const { postMessage } = MessagePort.prototype;
  MessagePort.prototype.postMessage = function (this: MessagePort, ...message: [unknown]) {
    slices += 1;
    postMessage.apply(this, message);
  } as MessagePort["postMessage"];
  Object.assign(window, { slices: () => [slices, (slices = 0)][0] });
};

/** How many slices something takes until all of it is shown. */
async function slicesOf(act: (page: Page) => Promise<unknown>): Promise<number> {
  await page.evaluate(() => (window as unknown as { slices: () => number }).slices());
  await act(page);
  await settle(page);
  return page.evaluate(() => (window as unknown as { slices: () => number }).slices());
}

/** A loop over the tree that is done in one piece would be 15 slices less, one over texts a hundred. */
const expectAtLeast = <Name extends string>(slices: Record<Name, number>, least: Record<Name, number>) => {
  for (const name of Object.keys(least) as Name[]) expect(slices[name], name).toBeGreaterThanOrEqual(least[name]);
};

const click = (selector: string) => (on: Page) => on.click(selector);
const thread = (index: number) => (on: Page) => on.selectOption("#thread", { index });
const find = (query: string) => (on: Page) => on.fill("#search", query);
const choose = (on: Page) =>
  on.evaluate(() => {
    const [from, to] = ["from", "to"].map((end) => document.querySelector<HTMLInputElement>(`#range-${end}`));
    from!.value = "12";
    to!.value = "37.5";
    // One wish, not two of which the second may come at any moment of the first.
    to!.dispatchEvent(new Event("change"));
  });

test("the graph: threads, ranges of time, both ways around, search", async () => {
  await start("large-1000000.html");
  await page.evaluate(countSlices);
  const slices = {
    thread: await slicesOf(thread(2)),
    all: await slicesOf(thread(0)),
    range: await slicesOf(choose),
    left: await slicesOf(click(".tile[data-metric=live]")),
    whole: await slicesOf(click("#range-reset")),
    blocks: await slicesOf(click("[data-unit=blocks]")),
    inverted: await slicesOf(click("#invert")),
    back: await slicesOf(click("#invert")),
    search: await slicesOf(find("function_7")),
  };
  expectAtLeast(slices, {
    thread: 260,
    all: 112,
    range: 355,
    left: 126,
    whole: 112,
    blocks: 25,
    inverted: 90,
    back: 112,
    search: 130,
  });
  expect(await page.textContent("#matched")).toMatch(/^\d+\.\d% matched: [\d,]+ blocks in [\d,]+ stacks$/);
});

test("the table: rows, orders, filters, and how far scrolling reaches", async () => {
  await start("large-1000000.html");
  await page.evaluate(countSlices);
  await slicesOf(click(".tile[data-metric=allocated]"));
  const slices = {
    rows: await slicesOf(click("[data-view=table]")),
    count: await slicesOf(click("[data-column=count]")),
    function: await slicesOf(click("[data-column=function]")),
    place: await slicesOf(click("[data-column=place]")),
    filter: await slicesOf(find("function_7")),
    thread: await slicesOf(thread(2)),
  };
  expectAtLeast(slices, { rows: 340, count: 310, function: 325, place: 325, filter: 130, thread: 322 });
  await slicesOf(find(""));
  await slicesOf(thread(0));
  expect(await page.textContent(".summary")).toMatch(
    /^\d{3},\d{3} rows: .* blocks; scrolling reaches the first 500,000, sorting and search the others$/,
  );
  await shoot(page, "many-rows");
  await page.evaluate(() => document.querySelector(".rows")?.scrollTo(0, 1e9));
  await settle(page);
  const last = page.locator(".row").last();
  expect(await last.getAttribute("aria-rowindex")).toBe("500001");
  // Of the others those that are searched for can be reached.
  await slicesOf(find("function_123 "));
  expect(await page.textContent(".summary")).toMatch(/^\d+ of \d{3},\d{3} rows: [^;]* blocks$/);
});

test("Stop takes back a search, an order and the way to the table", async () => {
  await start("large-1000000.html");
  await page.evaluate(countSlices);
  /** Does something and stops it in the same task; says whether it worked on after each. */
  const stopped = (selector: string, query: string | null) =>
    page.evaluate(
      ([selector, query]) => {
        const target = document.querySelector<HTMLElement>(selector!);
        if (query !== null && target instanceof HTMLInputElement) {
          target.value = query!;
          target.dispatchEvent(new Event("input"));
        } else target?.click();
        const busy = document.documentElement.hasAttribute("data-busy");
        document.querySelector<HTMLElement>("#stop")?.click();
        return [busy, document.documentElement.hasAttribute("data-busy")];
      },
      [selector, query] as const,
    );
  expect(await stopped("#search", "function_7")).toEqual([true, false]);
  expect(await page.inputValue("#search")).toBe("");
  expect(await page.textContent("#matched")).toBe("");
  expect(await stopped("[data-view=table]", null)).toEqual([true, false]);
  expect(await page.getAttribute("[data-view=table]", "aria-pressed")).toBe("false");
  expect(await page.locator("#graph-pane").isVisible()).toBe(true);
  await page.click("[data-view=table]");
  await settle(page);
  expect(await stopped("[data-column=function]", null)).toEqual([true, false]);
  expect(await page.getAttribute("[aria-sort]", "aria-sort")).toBe("descending");
  expect(await page.locator("[aria-sort] button").textContent()).toBe("Size ↓");
});
