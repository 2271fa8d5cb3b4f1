// Inverted trees, whose branches are made when they are looked at: whatever looks at them, they are there.

import { expect, test } from "vitest";
import { settle, shoot } from "./open.ts";
import { page, start } from "./stage.ts";

const text = async (id: string) => (await page.textContent(`#${id}`))?.trim() ?? "";
const crumbs = () => page.locator("#path button").allTextContents();
const clickBox = async (depth: number, share: number) => {
  const bounds = await page.locator("#graph").boundingBox();
  if (bounds === null) throw new Error("there is no graph");
  await page.mouse.click(bounds.x + bounds.width * share, bounds.y + depth * 22 + 11);
  await settle(page);
};
const press = async (...keys: string[]) => {
  await page.focus("#scroll");
  for (const key of keys) await page.keyboard.press(key);
  await settle(page);
};

test("clicks, a search, and another metric, unit and thread while zoomed", async () => {
  await start("service.html");
  await press("v");
  await page.fill("#search", "serve");
  await settle(page);
  expect(await text("matched")).toBe("100.0% matched: 74.0 MiB in 2 stacks");
  await clickBox(1, 0.97);
  expect(await crumbs()).toEqual(["all", "Cache.put"]);
  expect(await text("matched")).toBe("100.0% matched: 6.00 MiB in 1 stack");
  expect(await text("detail")).toBe("Cache.put  /srv/cache.py:22  6.00 MiB (8.1%), 6 blocks");
  await clickBox(2, 0.5);
  expect(await crumbs()).toEqual(["all", "Cache.put", "serve"]);
  // What is further in than the zoomed frame is not below it.
  await page.fill("#search", "Cache");
  await settle(page);
  expect(await text("matched")).toBe("0.0% matched: 0 B in 0 stacks");
  await shoot(page, "inverted-zoomed");
  await page.click(".tile[data-metric=allocated]");
  await page.click("[data-unit=blocks]");
  await page.selectOption("#thread", { label: "0x1268 (worker-1)" });
  await settle(page);
  expect(await crumbs()).toEqual(["all", "Cache.put", "serve"]);
  expect(await text("detail")).toBe("serve  /srv/app.py:14  8.00 MiB (80.0%), 8 blocks");
  await page.selectOption("#thread", { label: "0x1267 (MainThread)" });
  await settle(page);
  expect(await page.locator("#path").isVisible()).toBe(false);
});

test("a range of time leaves the zoom where it is, as long as that is there", async () => {
  await start("phases.html");
  await press("v");
  const names = async () => {
    const found: string[] = [];
    await press("Escape", "ArrowDown", "ArrowDown");
    for (let at = ""; at !== (at = await text("detail")); ) {
      found.push(at.split("  ")[0]!);
      await press("ArrowRight");
    }
    return found;
  };
  expect(await names()).toEqual(["load", "burst"]);
  await press("Enter");
  expect(await crumbs()).toEqual(["all", "burst"]);
  const choose = async (from: string, to: string) => {
    await page.fill("#range-from", from);
    await page.fill("#range-to", to);
    await page.press("#range-to", "Enter");
    await settle(page);
  };
  await choose("0.6", "0.9");
  expect(await crumbs()).toEqual(["all", "burst"]);
  expect(await text("detail")).toBe("burst  /srv/phases.py:11  3.00 MiB (27.3%), 3 blocks");
  await page.click("#range-reset");
  await settle(page);
  expect(await crumbs()).toEqual(["all", "burst"]);
  await choose("1.6", "2");
  expect(await page.locator("#path").isVisible()).toBe(false);
  expect(await names()).toEqual(["put", "late", "churn"]);
});

test.each(["wide-100000.html", "large-100000.html"])("the keyboard reaches what is too narrow to be seen, and the address leads back: %s", async (name) => {
  await start(name);
  await press("v");
  const walked: string[] = [];
  // Down to the first caller of all, to the right where there is anything.
  await press("ArrowDown");
  for (let at = ""; at !== (at = await text("detail")); ) {
    walked.push(at.split("  ")[0]!);
    await press("ArrowDown");
    await press("ArrowRight");
  }
  expect(walked.length).toBeGreaterThan(5);
  await press("ArrowUp", "Enter");
  const path = await crumbs();
  const [detail, details, hash] = [await text("detail"), await text("details"), new URL(page.url()).hash];
  // Of long paths the middle is left out.
  expect(path.at(-1)).toBe(walked.at(-2));
  expect(path[0]).toBe("all");
  await start(name, hash);
  expect(await crumbs()).toEqual(path);
  expect([await text("detail"), await text("details")]).toEqual([detail, details]);
  // The same frames with other widths.
  await press("b", "b");
  expect(await crumbs()).toEqual(path);
  await press("Escape", "v");
  expect(await page.getAttribute("#invert", "aria-pressed")).toBe("false");
  await page.goBack();
  await settle(page);
  expect(await page.getAttribute("#invert", "aria-pressed")).toBe("true");
});
