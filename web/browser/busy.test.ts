// A million stacks that share few places: the page answers while it works, and the last wish counts.

import { beforeEach, expect, test } from "vitest";
import { settle, shoot } from "./open.ts";
import { page, start } from "./stage.ts";

beforeEach(() => start("wide-1000000.html"));

/** Clicks, in one task of the page, and says whether it worked on after each. */
const click = (...selectors: string[]) =>
  page.evaluate(
    (all) =>
      all.map((selector) => {
        document.querySelector<HTMLElement>(selector)?.click();
        return document.documentElement.hasAttribute("data-busy");
      }),
    selectors,
  );
const isPressed = (selector: string) => page.getAttribute(selector, "aria-pressed");
const detail = () => page.textContent("#detail");
/** The widest boxes of a row are what a click in it finds. */
const nameBelowRoot = async () => {
  await page.focus("#scroll");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  return detail();
};

test("inverting blocks nothing: frames are drawn meanwhile", async () => {
  const straight = await nameBelowRoot();
  const { frames, busy } = await page.evaluate(async () => {
    document.querySelector<HTMLElement>("#invert")?.click();
    const busy = document.documentElement.hasAttribute("data-busy");
    let frames = 0;
    for (; document.documentElement.hasAttribute("data-busy"); frames++) {
      await new Promise((done) => requestAnimationFrame(done));
    }
    return { frames, busy };
  });
  expect(busy).toBe(true);
  expect(frames).toBeGreaterThan(2);
  expect(await isPressed("#invert")).toBe("true");
  expect(await nameBelowRoot()).not.toBe(straight);
  await shoot(page, "million-inverted");
});

test("a second click while it works goes back", async () => {
  const straight = await nameBelowRoot();
  const hash = new URL(page.url()).hash;
  expect((await click("#invert", "#invert"))[0]).toBe(true);
  await settle(page);
  expect(await isPressed("#invert")).toBe("false");
  expect(new URL(page.url()).hash).toBe(hash);
  await page.keyboard.press("Escape");
  expect(await nameBelowRoot()).toBe(straight);
});

test("another wish while it works joins the first", async () => {
  const before = await detail();
  const wishes = ["#invert", ".tile[data-metric=temporary]", "[data-unit=blocks]"];
  // In one task, so that none of it is shown yet and must not be told as if it was.
  const told = await page.evaluate((all) => {
    for (const selector of all) document.querySelector<HTMLElement>(selector)?.click();
    return [document.documentElement.hasAttribute("data-busy"), document.querySelector("#detail")?.textContent];
  }, wishes);
  expect(told).toEqual([true, before]);
  await settle(page);
  expect(await isPressed("#invert")).toBe("true");
  expect(await page.getAttribute(".tile[data-metric=temporary]", "aria-checked")).toBe("true");
  expect(await isPressed("[data-unit=blocks]")).toBe("true");
  const temporary = await page.textContent(".tile[data-metric=temporary] strong");
  expect(await detail()).toContain(`all    ${temporary} (100.0%)`);
  expect(new URL(page.url()).hash).toContain("metric=temporary");
});

test("Stop keeps what is shown", async () => {
  const straight = await nameBelowRoot();
  expect(await click("#invert", "#stop")).toEqual([true, false]);
  expect(await isPressed("#invert")).toBe("false");
  expect(await page.locator("#busy").isVisible()).toBe(false);
  expect(new URL(page.url()).hash).toBe("");
  await page.keyboard.press("Escape");
  expect(await nameBelowRoot()).toBe(straight);
});

test("what is zoomed to while it works stays zoomed", async () => {
  await nameBelowRoot();
  const zoomed = await page.evaluate(() => {
    document.querySelector<HTMLElement>(".tile[data-metric=temporary]")?.click();
    const busy = document.documentElement.hasAttribute("data-busy");
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
    return { busy, path: document.querySelector("#path")?.textContent };
  });
  expect(zoomed.busy).toBe(true);
  expect(zoomed.path).toMatch(/^all./);
  await settle(page);
  expect(await page.textContent("#path")).toBe(zoomed.path);
  await shoot(page, "million");
});
