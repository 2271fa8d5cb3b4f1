// The start: reads the data of the page and fills it.

import { App } from "./app.ts";
import { listenToKeys } from "./keys.ts";
import { blockOf, bytesOfBase64Work, inflate } from "./model/block.ts";
import { readDataWork } from "./model/data.ts";
import { flagsWork } from "./model/frames.ts";
import type { Work } from "./model/work.ts";
import { OPENING_SLICE_MS, paced, pause } from "./pace.ts";
import { countText } from "./text.ts";
import { csvOf } from "./views/chart.ts";
import { fillAbout, fillHelp } from "./views/dialogs.ts";
import { element, make } from "./views/dom.ts";

async function start(): Promise<void> {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser is too old: it needs DecompressionStream (Chrome 80, Firefox 113, Safari 16.4)");
  }
  const holder = element("data");
  const read = <Result>(work: Work<Result>) => paced(work, OPENING_SLICE_MS);
  const bytes = await read(bytesOfBase64Work(holder.textContent.trim()));
  const data = await read(readDataWork(blockOf(await inflate(bytes, pause))));
  holder.remove();
  const { head } = data;
  const command = element("command");
  command.textContent = head.command;
  command.title = head.command;
  element("state").dataset["state"] = head.state.word;
  element("state").title = head.state.text;
  if (head.notes.length > 0) {
    const notes = element<HTMLButtonElement>("notes-button");
    notes.hidden = false;
    notes.textContent = `${countText(head.notes.length)} ${head.notes.length === 1 ? "note" : "notes"}`;
    notes.title = head.notes.join("\n");
    notes.addEventListener("click", () => element<HTMLDialogElement>("about").showModal());
  }
  fillAbout(data);
  fillHelp(data);
  element("about-button").addEventListener("click", () => element<HTMLDialogElement>("about").showModal());
  element("help-button").addEventListener("click", () => element<HTMLDialogElement>("help").showModal());
  element("csv").addEventListener("click", () => {
    const alone = data.temporal?.parts.length === 1;
    const series = alone && data.temporal !== null ? data.temporal : data.samples;
    const link = make("a", "");
    link.href = URL.createObjectURL(new Blob([csvOf(series, head.time.start_unix_ms)], { type: "text/csv" }));
    link.download = "memory.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  const app = new App(data, await read(flagsWork(data)), (error) => tell("What was asked for cannot be shown", error));
  await app.open();
  listenToKeys(app);
  window.addEventListener("popstate", () => app.readAddress());
  window.addEventListener("hashchange", () => app.readAddress());
  // For tests: the page has come this far without an error, and when.
  performance.mark("heaptide-ready");
  document.documentElement.dataset["ready"] = "true";
}

function tell(what: string, error: unknown): void {
  const message = error instanceof Error ? error.message : String(error);
  document.querySelector(".failure")?.remove();
  const failure = make("p", "failure", `${what}: ${message}`);
  failure.setAttribute("role", "alert");
  document.body.prepend(failure);
}

start().catch((error: unknown) => {
  tell("The page cannot be shown", error);
  element("busy").hidden = true;
  document.documentElement.dataset["ready"] = "failed";
});
