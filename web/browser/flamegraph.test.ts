import { expect, test } from "vitest";
import { settle, shoot } from "./open.ts";
import { page, start } from "./stage.ts";

const text = async (id: string) => (await page.textContent(`#${id}`))?.trim() ?? "";
const crumbs = () => page.locator("#path button").allTextContents();
/** Clicks the box at a depth, at a share of the graph's width. */
const clickBox = async (depth: number, share: number) => {
  const bounds = await page.locator("#graph").boundingBox();
  if (bounds === null) throw new Error("there is no graph");
  await page.mouse.click(bounds.x + bounds.width * share, bounds.y + depth * 22 + 11);
  await settle(page);
};

test("the graph opens with the peak and says how the program ended", async () => {
  await start("service.html");
  expect(await text("state")).toBe("killed by SIGKILL (the OOM killer, memory cgroup limit 100 MiB)");
  expect(await text("command")).toBe("python app.py '--name=big one'");
  expect(await page.getAttribute(".tile[data-metric=peak]", "aria-checked")).toBe("true");
  expect(await text("detail")).toBe("all    74.0 MiB (100.0%), 10 blocks");
  expect(await page.locator("#chart").isVisible()).toBe(true);
  await shoot(page, "flamegraph-light");
});

test("a click zooms, Back and Forward and the address know", async () => {
  await start("service.html");
  await clickBox(3, 0.4);
  expect(await crumbs()).toEqual(["all", "<module>", "serve", "load_table"]);
  expect(await page.textContent("#details h2")).toBe("load_table");
  const hash = new URL(page.url()).hash;
  expect(hash).toMatch(/^#zoom=\d+$/);
  await page.click("#path button:nth-of-type(1)");
  await page.goBack();
  await settle(page);
  expect(await crumbs()).toEqual(["all", "<module>", "serve", "load_table"]);
  await page.goBack();
  await settle(page);
  expect(await page.locator("#path").isVisible()).toBe(false);
  await page.goForward();
  await settle(page);
  expect(await crumbs()).toEqual(["all", "<module>", "serve", "load_table"]);
  await page.keyboard.press("Escape");
  expect(await page.locator("#path").isVisible()).toBe(false);
  await start("service.html", hash);
  expect(await crumbs()).toEqual(["all", "<module>", "serve", "load_table"]);
});

test("the keyboard moves, zooms, searches, switches and helps", async () => {
  await start("service.html");
  await page.focus("#scroll");
  for (const key of ["ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight"]) await page.keyboard.press(key);
  expect(await text("detail")).toBe("serve  /srv/app.py:14  6.00 MiB (8.1%), 6 blocks");
  await page.keyboard.press("Enter");
  expect(await crumbs()).toEqual(["all", "<module>", "serve"]);
  await page.keyboard.press("Backspace");
  expect(await crumbs()).toEqual(["all", "<module>"]);
  await page.keyboard.press("Escape");
  await page.keyboard.press("/");
  await page.keyboard.type("/^(Cache.put|load_table) /");
  expect(await text("matched")).toBe("100.0% matched: 74.0 MiB in 2 stacks");
  await shoot(page, "search");
  await page.keyboard.press("Escape");
  expect(await text("matched")).toBe("");
  await page.keyboard.press("m");
  expect(await page.getAttribute(".tile[data-metric=live]", "aria-checked")).toBe("true");
  expect(await text("detail")).toBe("all    70.0 MiB (100.0%), 8 blocks");
  await page.keyboard.press("b");
  expect(await page.getAttribute("[data-unit=blocks]", "aria-pressed")).toBe("true");
  await page.keyboard.press("i");
  expect(await page.getAttribute("#flame", "aria-pressed")).toBe("true");
  await shoot(page, "flames-by-blocks");
  await page.keyboard.press("?");
  expect(await page.locator("#help").isVisible()).toBe(true);
  await shoot(page, "help");
  await page.keyboard.press("Escape");
  expect(await page.locator("#help").isVisible()).toBe(false);
});

test("an expression that is not finished is no error", async () => {
  await start("service.html");
  await page.fill("#search", "/(/");
  expect(await page.getAttribute("#search", "class")).toContain("wrong");
  await page.fill("#search", "/(put)/");
  expect(await page.getAttribute("#search", "class")).not.toContain("wrong");
  expect(await text("matched")).toContain("6.00 MiB");
});

test("inverted: what allocated first, then its callers", async () => {
  await start("service.html");
  await page.keyboard.press("v");
  await settle(page);
  await clickBox(1, 0.3);
  expect(await crumbs()).toEqual(["all", "load_table"]);
  await clickBox(2, 0.3);
  expect(await crumbs()).toEqual(["all", "load_table", "serve"]);
  const hash = new URL(page.url()).hash;
  await start("service.html", hash);
  expect(await crumbs()).toEqual(["all", "load_table", "serve"]);
  await start("service-inverted.html");
  expect(await page.getAttribute("#invert", "aria-pressed")).toBe("true");
  await clickBox(1, 0.3);
  expect(await crumbs()).toEqual(["all", "load_table"]);
});

test("one thread alone", async () => {
  await start("service.html");
  const threads = await page.locator("#thread option").allTextContents();
  expect(threads).toEqual(["all", "0x1267 (MainThread)", "0x1268 (worker-1)"]);
  await page.selectOption("#thread", { label: "0x1268 (worker-1)" });
  expect(await text("detail")).toBe("all    6.00 MiB (100.0%), 8 blocks");
});

test("the tooltip says what a box is", async () => {
  await start("service.html");
  const bounds = await page.locator("#graph").boundingBox();
  await page.mouse.move((bounds?.x ?? 0) + 60, (bounds?.y ?? 0) + 3 * 22 + 10);
  await settle(page);
  const tooltip = await text("tooltip");
  for (const word of ["load_table", "/srv/tables.py:31", "68.0 MiB", "91.9%", "2 blocks"]) expect(tooltip).toContain(word);
  await page.mouse.move(10, 10);
  expect(await page.locator("#tooltip").isVisible()).toBe(false);
});

test("light or dark is the system's choice until the user's", async () => {
  await start("service.html", "", "dark");
  expect(await page.getAttribute("html", "data-theme")).toBe("dark");
  await shoot(page, "flamegraph-dark");
  await page.click("#theme");
  expect(await page.getAttribute("html", "data-theme")).toBe("light");
  await page.reload();
  await page.waitForSelector("html[data-ready]");
  expect(await page.getAttribute("html", "data-theme")).toBe("light");
});

test("details of the run", async () => {
  await start("service.html");
  await page.click("#about-button");
  const about = await text("about");
  for (const word of ["box", "3.12.13 (main)", "Allocations by size", "aggregated"]) expect(about).toContain(word);
  await shoot(page, "about");
});

test("the table of a flame graph leads back to it", async () => {
  await start("service.html");
  await page.keyboard.press("g");
  expect(await page.locator("#table-pane").isVisible()).toBe(true);
  await page.locator(".row", { hasText: "Cache.put" }).first().click();
  expect(await page.textContent("#details h2")).toBe("Cache.put");
  await page.click("text=Find everywhere");
  expect(await page.locator("#graph-pane").isVisible()).toBe(true);
  expect(await text("matched")).toBe("8.1% matched: 6.00 MiB in 1 stack");
});

test("a program that allocated nothing has a page", async () => {
  await start("empty.html");
  expect(await page.locator("#empty").isVisible()).toBe(true);
  expect(await page.locator("#chart").isVisible()).toBe(false);
  for (const key of ["ArrowDown", "Enter", "v", "m", "g", "b", "Escape"]) await page.keyboard.press(key);
});

test("a narrow window", async () => {
  await start("service.html");
  await page.setViewportSize({ width: 420, height: 800 });
  await shoot(page, "narrow");
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  expect(wide).toBeLessThanOrEqual(420);
});

test("the source of a frame, with what allocates marked", async () => {
  await start("source.html");
  await clickBox(2, 0.2);
  expect(await page.textContent("#details h2")).toBe("cart");
  const lines = await page.locator(".source .line").allTextContents();
  expect(lines).toEqual([
    "1# <b>not bold</b> \\u202e and not turned around",
    "2def cart(rows):",
    "3\treturn [dict(row) for row in rows]",
    "4",
    "5x = cart(range(1_000_000))",
  ]);
  expect(await page.textContent(".source .here")).toContain("return [dict");
  // Bytes 4 to 20 of the line, as the line tables of the testkit say.
  expect(await page.locator(".source mark").allTextContents()).toEqual(["\treturn [dict(row) for row in rows]".slice(4, 20)]);
  expect(await page.textContent("#details .hint")).toContain("changed after the recording");
  await shoot(page, "source");
  const bounds = await page.locator("#graph").boundingBox();
  await page.mouse.move((bounds?.x ?? 0) + 60, (bounds?.y ?? 0) + 2 * 22 + 10);
  await settle(page);
  expect(await page.textContent("#tooltip code")).toBe("return [dict(row) for row in rows]");
});
