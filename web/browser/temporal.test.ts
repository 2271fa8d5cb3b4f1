// The page of `fixtures::phases`, whose heap is described there.

import { expect, test } from "vitest";
import { settle, shoot } from "./open.ts";
import { page, start } from "./stage.ts";

const detail = async () => (await page.textContent("#detail"))?.trim();
/** Functions of the table and their sizes. */
const rows = async () => {
  await settle(page);
  const names = await page.locator(".row .function").allTextContents();
  const sizes = await page.locator(".row .bytes").evaluateAll((cells) => cells.map((cell) => cell.firstChild?.textContent ?? ""));
  return names.map((name, index) => `${name} ${sizes[index]}`);
};
/** Drags over the chart from one second to another. */
const drag = async (from: number, to: number) => {
  const bounds = await page.locator("#chart").boundingBox();
  if (bounds === null) throw new Error("there is no chart");
  const end = Number(await page.inputValue("#range-to"));
  const x = (seconds: number) => bounds.x + 64 + ((bounds.width - 80) * seconds) / end;
  await page.mouse.move(x(from), bounds.y + 60);
  await page.mouse.down();
  await page.mouse.move(x((from + to) / 2), bounds.y + 60);
  await page.mouse.move(x(to), bounds.y + 60);
  await page.mouse.up();
  await settle(page);
};
const choose = async (from: string, to: string) => {
  await page.fill("#range-from", from);
  await page.fill("#range-to", to);
  await page.press("#range-to", "Enter");
  await settle(page);
};

test("a drag over the chart chooses a stretch, a click takes it back", async () => {
  await start("phases.html");
  const whole = await detail();
  await drag(1.1, 1.4);
  expect(await page.locator("#range-reset").isEnabled()).toBe(true);
  expect(new URL(page.url()).hash).toContain("range=1.");
  expect(await page.textContent("#details h2")).toBe("At the peak in the range");
  expect(await page.isDisabled(".tile[data-metric=allocated]")).toBe(true);
  await shoot(page, "temporal-range");
  const bounds = await page.locator("#chart").boundingBox();
  await page.mouse.click((bounds?.x ?? 0) + 300, (bounds?.y ?? 0) + 50);
  await settle(page);
  expect(await detail()).toBe(whole);
  await page.goBack();
  await settle(page);
  expect(await page.textContent("#details h2")).toBe("At the peak in the range");
});

test("the peak inside a stretch, and what a stretch left behind", async () => {
  await start("phases.html");
  await page.keyboard.press("g");
  // The last stretch: `load`'s 8 MiB are gone, 2 + 1 MiB are kept.
  await choose("1.6", "2");
  expect(await rows()).toEqual(["put 2.00 MiB", "late 1.00 MiB", "churn 12.0 KiB"]);
  await page.click(".tile[data-metric=live]");
  expect(await rows()).toEqual([]);
  await choose("0.6", "1.4");
  expect(await rows()).toEqual(["put 2.00 MiB", "late 1.00 MiB"]);
  await choose("0.1", "0.4");
  expect(await rows()).toEqual(["load 8.00 MiB"]);
  await start("phases-leaks.html", "#range=0.600000-0.900000&view=table", "dark");
  expect(await rows()).toEqual(["put 2.00 MiB"]);
  await page.keyboard.press("g");
  await shoot(page, "temporal-leaks-dark");
});

test("two processes, the second one a second later: each at its own peak, or not there", async () => {
  await start("phases-group.html");
  await page.keyboard.press("g");
  // The second alone: the first has ended.
  await choose("2.7", "2.9");
  expect(await rows()).toEqual(["put 2.00 MiB", "late 1.00 MiB", "churn 12.0 KiB"]);
  // The first one's end, and the begin of the second.
  await choose("1.6", "1.9");
  expect(await rows()).toEqual(["load 8.00 MiB", "burst 3.00 MiB", "put 2.00 MiB", "late 1.00 MiB", "churn 12.0 KiB"]);
  await page.click(".tile[data-metric=live]");
  await choose("0.6", "2.4");
  expect(await rows()).toEqual(["put 2.00 MiB", "put 2.00 MiB", "late 1.00 MiB", "late 1.00 MiB"]);
  // The first one alone: the second is yet to come.
  await page.click(".tile[data-metric=peak]");
  await choose("0.1", "0.4");
  expect(await rows()).toEqual(["load 8.00 MiB"]);
});
