import { expect, test } from "vitest";
import { settle, shoot } from "./open.ts";
import { page, start } from "./stage.ts";

const column = async (name: string) => {
  await settle(page);
  return page.locator(`.row .${name}`).allTextContents();
};

test("rows sort by any column and filter by any text", async () => {
  await start("service-table.html");
  expect(await page.locator(".titles button").allTextContents()).toEqual([
    "Size ↓", "Allocations", "Average", "Allocator", "Thread ID", "Function", "Location",
  ]);
  expect(await column("function")).toEqual(["load_table", "Cache.put", "load_table", "walk", "<no Python frame>"]);
  expect((await column("bytes"))[0]).toContain("64.0 MiB");
  await shoot(page, "table");
  await page.click("[data-column=count]");
  expect((await column("count"))[0]).toBe("100");
  await page.click("[data-column=function]");
  expect((await column("function"))[0]).toBe("<no Python frame>");
  await page.fill("#search", "worker");
  expect(await column("function")).toEqual(["<no Python frame>", "Cache.put"]);
  expect(await page.textContent(".summary")).toBe("2 of 5 rows: 8.00 MiB (10.5%) in 10 blocks");
  await page.fill("#search", "mmap");
  expect(await column("allocator")).toEqual(["mmap"]);
  await page.click(".tile[data-metric=live]");
  await settle(page);
  expect(await page.textContent(".summary")).toContain("1 of");
});

test("the keyboard goes through the rows and shows what they are", async () => {
  await start("service-table.html");
  await page.focus(".rows");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  await settle(page);
  expect(await page.textContent("#details h2")).toBe("Cache.put");
  expect(await page.textContent(".row.selected .function")).toBe("Cache.put");
});

test("a table has no graph to go to", async () => {
  await start("service-table.html", "#view=graph&zoom=3");
  await page.keyboard.press("g");
  expect(await page.locator("#table-pane").isVisible()).toBe(true);
  expect(await page.locator("#graph-pane").isVisible()).toBe(false);
  expect(await page.locator("#views").isVisible()).toBe(false);
});
