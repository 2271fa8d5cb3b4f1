import { expect, test } from "vitest";
import { open, settle, shoot, startBrowser } from "./open.ts";

// Function, file and thread names of these pages are markup, marks of direction and control characters.
test.each(["hostile.html", "hostile-table.html"])("hostile names stay text in %s", async (name) => {
  const browser = await startBrowser();
  try {
    const { page, troubles } = await open(browser, name);
    await settle(page);
    const use = async () => {
      const bounds = await page.locator("main").boundingBox();
      for (let step = 1; step < 12; step++) {
        await page.mouse.move((bounds?.x ?? 0) + 40 * step, (bounds?.y ?? 0) + 12 + 22 * step);
        await settle(page);
      }
      await page.mouse.click((bounds?.x ?? 0) + 60, (bounds?.y ?? 0) + 90);
      await settle(page);
    };
    await use();
    for (const key of ["ArrowDown", "ArrowDown", "Enter", "g"]) {
      await page.keyboard.press(key);
      await settle(page);
    }
    await use();
    await page.fill("#search", "</script><img src=x onerror=alert(");
    await settle(page);
    await page.click("#about-button");
    await shoot(page, name.replace(".html", ""));
    const made = await page.evaluate(() => ({
      images: document.images.length,
      scripts: document.scripts.length,
      text: document.body.textContent ?? "",
    }));
    expect(made.images).toBe(0);
    // The data's own element is taken out once it is read.
    expect(made.scripts).toBe(1);
    expect(made.text).toContain("<img src=x onerror=alert(");
    expect(made.text).toContain("\\u202e\\x1b");
    expect(made.text).not.toMatch(/[\u202e\u001b]/);
    expect(troubles).toEqual([]);
  } finally {
    await browser.close();
  }
});

test("what is not of the page may not run in it", async () => {
  const browser = await startBrowser();
  try {
    const { page, troubles } = await open(browser, "service.html");
    const ran = await page.evaluate(() => {
      const script = document.createElement("script");
      script.textContent = "document.documentElement.dataset.foreign = 'ran'";
      document.body.append(script);
      return document.documentElement.dataset["foreign"] ?? null;
    });
    expect(ran).toBeNull();
    expect(troubles.every((trouble) => trouble.includes("Content Security Policy"))).toBe(true);
    expect(troubles.length).toBe(1);
  } finally {
    await browser.close();
  }
});
