// What is known of the selected frame: amounts, source, who allocated.

import type { MetricName, PageData } from "../model/data.ts";
import type { Figures, MetricSums } from "../model/figures.ts";
import { commonIndent, type Mark, segmentsOf } from "../model/source.ts";
import { bytesText, countText, shareText } from "../text.ts";
import { button, make } from "./dom.ts";

/** Lines shown before and after the one of the frame. */
const CONTEXT = 3;

export interface Selection {
  /** Undefined for the whole. */
  location: number | undefined;
  title: string;
  bytes: number;
  ownBytes: number | null;
  count: number;
  whole: { bytes: number; count: number };
  /** Those of the location that the frame allocates from, the places inside its line. */
  spans: ReadonlySet<number>;
  /** What the sum is made of; null for not to be told. */
  figures: Figures | null;
  metric: MetricName;
}

export interface DetailActions {
  zoom: (() => void) | null;
  find: ((query: string) => void) | null;
}

export function showDetails(pane: HTMLElement, data: PageData, selection: Selection, actions: DetailActions): void {
  pane.replaceChildren();
  const { location } = selection;
  pane.append(make("h2", "", selection.title));
  const place = location === undefined ? "" : data.placeOf(location);
  if (place !== "") pane.append(make("p", "place", place));
  pane.append(amounts(selection));
  const buttons = make("div", "buttons");
  const { zoom, find } = actions;
  if (zoom !== null) buttons.append(button("Zoom here", "", zoom));
  if (find !== null && location !== undefined) {
    buttons.append(button("Find everywhere", "", () => find(`${data.functionOf(location)}  ${place}`)));
  }
  if (buttons.childElementCount > 0) pane.append(buttons);
  if (location !== undefined) {
    const source = sourceOf(data, location, selection.spans);
    if (source !== null) pane.append(source);
  }
  const { figures } = selection;
  if (figures !== null) {
    if (figures.metrics !== null) pane.append(otherMetrics(data, selection, figures.metrics));
    pane.append(...breakdowns(data, figures));
  }
}

function amounts(selection: Selection): HTMLElement {
  const list = make("dl", "amounts");
  const row = (name: string, value: string, share: string) => {
    list.append(make("dt", "", name), make("dd", "", value, make("small", "", share)));
  };
  const { bytes, ownBytes, count, whole } = selection;
  row(ownBytes === null ? "Size" : "Total", bytesText(bytes), shareText(bytes, whole.bytes));
  if (ownBytes !== null) row("Own", bytesText(ownBytes), shareText(ownBytes, whole.bytes));
  row("Blocks", countText(count), shareText(count, whole.count));
  if (count > 0) row("Average", bytesText(bytes / count), "a block");
  return list;
}

/** The lines around a location, its own one marked, and in it the parts that allocate. */
function sourceOf(data: PageData, location: number, spans: ReadonlySet<number>): HTMLElement | null {
  const file = data.fileOf(location);
  const line = data.locations.lines[location]!;
  const own = data.source(file, line);
  if (line <= 0 || own === null) return null;
  const marks = marksOf(data, location, spans);
  const lines: { number: number; text: string }[] = [];
  const last = Math.max(line, ...marks.keys());
  for (let number = line - CONTEXT; number <= Math.min(last + CONTEXT, line + 12); number++) {
    const found = data.source(file, number);
    if (found !== null) lines.push({ number, text: found.text });
  }
  const indent = commonIndent(lines.map(({ text }) => text));
  const code = make("pre", "source");
  for (const { number, text } of lines) {
    const made = make("div", number === line ? "line here" : "line", make("i", "", String(number)));
    const content = make("span", "");
    let skipped = 0;
    for (const segment of segmentsOf(text, marks.get(number) ?? [])) {
      const skip = Math.min(Math.max(indent - skipped, 0), segment.text.length);
      skipped += skip;
      const rest = segment.text.slice(skip);
      if (rest !== "") content.append(segment.marked ? make("mark", "", rest) : rest);
    }
    made.append(content);
    code.append(made);
  }
  const section = make("section", "", make("h3", "", "Source"), code);
  if (own.changed) {
    section.append(make("p", "hint", "The file was changed after the recording; its lines may not be those that ran."));
  }
  return section;
}

/** By line: the parts of it that spans of the location are. */
export function marksOf(data: PageData, location: number, spans: ReadonlySet<number>): Map<number, Mark[]> {
  const { firstSpan, spanLines, spanColumn, spanEnd, lines } = data.locations;
  const marks = new Map<number, Mark[]>();
  const add = (line: number, mark: Mark) => marks.set(line, [...(marks.get(line) ?? []), mark]);
  const line = lines[location]!;
  for (const number of spans) {
    const span = firstSpan[location]! + number - 1;
    const further = spanLines[span]!;
    const [from, to] = [spanColumn[span]!, spanEnd[span]!];
    for (let step = 0; step <= Math.min(further, 12); step++) {
      add(line + step, { from: step === 0 ? from : 0, to: step === further ? to : Infinity });
    }
  }
  return marks;
}

function otherMetrics(data: PageData, selection: Selection, sums: MetricSums): HTMLElement {
  const rows = data.head.metrics.map((metric) => {
    const { bytes, count } = sums[metric.name];
    const name = make("th", "", metric.title);
    name.scope = "row";
    const row = make(
      "tr",
      metric.name === selection.metric ? "current" : "",
      name,
      make("td", "", bytesText(bytes)),
      make("td", "", countText(count)),
      make("td", "", shareText(bytes, metric.bytes)),
    );
    return row;
  });
  const head = make("tr", "", ...["", "bytes", "blocks", "share"].map((text) => make("th", "", text)));
  const table = make("table", "figures", make("thead", "", head), make("tbody", "", ...rows));
  return make("section", "", make("h3", "", "All figures"), table);
}

function breakdowns(data: PageData, { allocators, threads }: Figures): HTMLElement[] {
  const sections = [bars("Allocators", allocators, (index) => data.head.allocators[index] ?? "")];
  if (data.head.split_threads) sections.push(bars("Threads", threads, (index) => data.head.threads[index] ?? ""));
  return sections.filter((section) => section !== null);
}

const MOST_BARS = 8;

function bars(title: string, amounts: Float64Array, name: (index: number) => string): HTMLElement | null {
  const rows = Array.from(amounts.entries()).filter(([, bytes]) => bytes > 0);
  rows.sort((left, right) => right[1] - left[1]);
  if (rows.length === 0) return null;
  const whole = rows.reduce((sum, [, bytes]) => sum + bytes, 0);
  const list = make("ul", "bars");
  for (const [index, bytes] of rows.slice(0, MOST_BARS)) {
    const bar = make("i", "bar");
    bar.style.width = `${whole > 0 ? (bytes * 100) / whole : 0}%`;
    list.append(make("li", "", bar, make("span", "", name(index)), make("b", "", bytesText(bytes))));
  }
  if (rows.length > MOST_BARS) list.append(make("li", "more", `${countText(rows.length - MOST_BARS)} more`));
  return make("section", "", make("h3", "", title), list);
}
