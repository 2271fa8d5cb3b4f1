// What the run was, and which keys there are.

import type { PageData } from "../model/data.ts";
import { bytesText, countText } from "../text.ts";
import { button, element, make } from "./dom.ts";

export function fillAbout(data: PageData): void {
  const dialog = element<HTMLDialogElement>("about");
  const title = make("h2", "", "Details of the run");
  title.id = "about-title";
  const body = make("div", "facts");
  if (data.head.notes.length > 0) {
    const notes = make("ul", "notes", ...data.head.notes.map((note) => make("li", "", note)));
    body.append(make("section", "wide", make("h3", "", "Notes and warnings"), notes));
  }
  for (const [name, rows] of data.head.facts) {
    const list = make("dl", "");
    for (const [key, value] of rows) list.append(make("dt", "", key), make("dd", "", value));
    body.append(make("section", "", make("h3", "", name), list));
  }
  const sizes = histogram(data);
  if (sizes !== null) body.append(sizes);
  dialog.append(head(title, dialog), body);
}

function head(title: HTMLElement, dialog: HTMLDialogElement): HTMLElement {
  const close = button("Close", "quiet", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  return make("header", "", title, close);
}

function histogram(data: PageData): HTMLElement | null {
  const bins = data.head.histogram;
  if (bins.length === 0) return null;
  const most = Math.max(...bins.map(([, count]) => count));
  const list = make("ul", "bars sizes");
  for (const [high, count] of bins) {
    const bar = make("i", "bar");
    bar.style.width = `${most > 0 ? (count * 100) / most : 0}%`;
    const name = high === null ? "more" : `< ${bytesText(high + 1)}`;
    list.append(make("li", "", bar, make("span", "", name), make("b", "", countText(count))));
  }
  return make("section", "", make("h3", "", "Allocations by size"), list);
}

const KEYS: [string, string][] = [
  ["← ↑ ↓ →", "move from frame to frame, or from row to row"],
  ["Enter", "zoom into the selected frame; a click does the same"],
  ["Backspace", "zoom out by one frame; the browser's Back goes back"],
  ["Esc", "clear the search, then show everything again"],
  ["/", "search; /text/ is a regular expression"],
  ["m", "next of: peak, live, allocated, temporary"],
  ["b", "widths are bytes, or numbers of blocks"],
  ["v", "inverted: what allocated first, its callers after it"],
  ["i", "icicles or flames"],
  ["g", "flame graph or table"],
  ["t", "light or dark"],
  ["?", "this help"],
];

export function fillHelp(data: PageData): void {
  const dialog = element<HTMLDialogElement>("help");
  const title = make("h2", "", "How to read this page");
  title.id = "help-title";
  const words = [
    "A box is a frame of the call stack, as wide as the memory that it and everything it called hold. Callers and " +
      "callees touch; boxes beside each other are different calls, the largest first. Not time: order means nothing.",
    "The figures above choose what is shown: what was held when the heap was at its largest, what was never given " +
      "back, everything that was ever allocated, or what was freed right after it was allocated.",
    "Colours tell modules apart; grey is the standard library. Of frames that are narrower than a pixel only some are " +
      "drawn, and nothing below them: zoom into their caller to see them.",
  ];
  if (data.temporal !== null) {
    words.push(
      "Drag over the chart to choose a stretch of time. The page then shows what was held at the peak inside it, or " +
        "what was allocated in it and was still there at its end. A click on the chart goes back to the whole run.",
    );
  }
  if (data.temporal !== null && data.temporal.parts.length > 1) {
    words.push(
      "Of several processes the page shows what each held at its own peak inside the stretch; the curve is the sum of " +
        "all of them. A process that was not there in the stretch is left out.",
    );
  }
  const keys = make("dl", "keys");
  for (const [key, text] of KEYS) keys.append(make("dt", "", make("kbd", "", key)), make("dd", "", text));
  dialog.append(head(title, dialog), make("div", "", ...words.map((text) => make("p", "", text)), keys));
}
