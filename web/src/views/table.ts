// The table: only the rows that can be seen exist, so that a million of them scroll.

import type { PageData } from "../model/data.ts";
import { type Column, sortRows, type TableRow } from "../model/rows.ts";
import { blocksText, bytesText, countText, shareText, unreachableText } from "../text.ts";
import { element, make } from "./dom.ts";

const ROW = 30;
/** Browsers cut elements that are higher; beyond, only the first rows can be reached by scrolling. */
const MOST_ROWS = 500_000;

interface ColumnView {
  column: Column;
  title: string;
  number: boolean;
  hint: string;
}

export class Table {
  private readonly scroll = make("div", "rows");
  private readonly sizer = make("div", "sizer");
  private readonly titles = make("div", "titles");
  private readonly summary = make("output", "summary");
  private readonly columns: ColumnView[];
  private column: Column = "bytes";
  private descending = true;
  private all: TableRow[] = [];
  private shown: TableRow[] = [];
  private whole = { bytes: 0, count: 0 };
  private selected = -1;
  private drawing = false;
  private readonly data: PageData;
  private readonly choose: (row: TableRow) => void;

  constructor(data: PageData, choose: (row: TableRow) => void) {
    this.data = data;
    this.choose = choose;
    const columns: (ColumnView | false)[] = [
      { column: "bytes", title: "Size", number: true, hint: "Bytes, and their share of the whole" },
      { column: "count", title: "Allocations", number: true, hint: "Number of blocks" },
      { column: "average", title: "Average", number: true, hint: "Bytes per block" },
      { column: "allocator", title: "Allocator", number: false, hint: "The function that made the blocks" },
      data.head.split_threads && { column: "thread", title: "Thread ID", number: false, hint: "The allocating thread" },
      { column: "function", title: "Function", number: false, hint: "The innermost Python frame" },
      { column: "place", title: "Location", number: false, hint: "File and line" },
    ];
    this.columns = columns.filter((column) => column !== false);
    const pane = element("table-pane");
    pane.classList.toggle("with-threads", data.head.split_threads);
    this.scroll.tabIndex = 0;
    this.scroll.setAttribute("role", "table");
    this.scroll.setAttribute("aria-label", "Allocations by place");
    this.titles.setAttribute("role", "row");
    this.sizer.setAttribute("role", "rowgroup");
    this.scroll.append(this.titles, this.sizer);
    pane.append(this.summary, this.scroll);
    this.scroll.addEventListener("scroll", () => this.redraw());
    new ResizeObserver(() => this.redraw()).observe(this.scroll);
    this.scroll.addEventListener("keydown", (event) => this.key(event));
  }

  /** Other rows. `whole` is what shares are of. */
  show(rows: TableRow[], whole: { bytes: number; count: number }): void {
    this.all = rows;
    this.whole = whole;
    this.sort();
  }

  filter(matched: Uint8Array | null, matches: ((text: string) => boolean) | null): void {
    const { allocators, threads } = this.data.head;
    this.shown =
      matched === null || matches === null
        ? this.all
        : this.all.filter(
            (row) =>
              matched[row.location] === 1 ||
              matches(allocators[row.allocator] ?? "") ||
              (row.thread >= 0 && matches(threads[row.thread] ?? "")),
          );
    this.selected = -1;
    let bytes = 0;
    let count = 0;
    for (const row of this.shown) {
      bytes += row.bytes;
      count += row.count;
    }
    const of = this.shown.length === this.all.length ? "" : ` of ${countText(this.all.length)}`;
    this.summary.textContent =
      `${countText(this.shown.length)}${of} rows: ${bytesText(bytes)} ` +
      `(${shareText(bytes, this.whole.bytes)}) in ${blocksText(count)}${unreachableText(this.shown.length, MOST_ROWS)}`;
    this.sizer.style.height = `${Math.min(this.shown.length, MOST_ROWS) * ROW}px`;
    this.scroll.setAttribute("aria-rowcount", String(this.shown.length + 1));
    this.scroll.scrollTop = 0;
    this.redraw();
  }

  private sort(): void {
    sortRows(this.data, this.all, this.column, this.descending);
    this.drawTitles();
  }

  private drawTitles(): void {
    const titles = this.columns.map((view) => {
      const active = view.column === this.column;
      const arrow = active ? (this.descending ? " ↓" : " ↑") : "";
      const title = make("button", "", view.title + arrow);
      title.type = "button";
      title.title = view.hint;
      title.dataset["column"] = view.column;
      title.addEventListener("click", () => {
        this.descending = active ? !this.descending : view.number;
        this.column = view.column;
        const { shown, all } = this;
        this.sort();
        if (shown !== all) sortRows(this.data, shown, this.column, this.descending);
        this.selected = -1;
        this.scroll.scrollTop = 0;
        this.redraw();
        this.titles.querySelector<HTMLElement>(`[data-column=${view.column}]`)?.focus();
      });
      const cell = make("div", `cell ${view.column}${view.number ? " number" : ""}`, title);
      cell.setAttribute("role", "columnheader");
      if (active) cell.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
      return cell;
    });
    this.titles.replaceChildren(...titles);
  }

  redraw(): void {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.draw();
    });
  }

  private draw(): void {
    const first = Math.max(0, Math.floor(this.scroll.scrollTop / ROW) - 6);
    const count = Math.ceil(this.scroll.clientHeight / ROW) + 12;
    const rows = this.shown.slice(first, Math.min(first + count, MOST_ROWS));
    this.sizer.replaceChildren(...rows.map((row, index) => this.rowElement(row, first + index)));
  }

  private rowElement(row: TableRow, index: number): HTMLElement {
    const made = make("div", index === this.selected ? "row selected" : "row");
    made.setAttribute("role", "row");
    made.setAttribute("aria-rowindex", String(index + 2));
    made.style.top = `${index * ROW}px`;
    for (const { column, number } of this.columns) {
      const text = this.text(row, column);
      const cell = make("div", `cell ${column}${number ? " number" : ""}`, text);
      cell.setAttribute("role", "cell");
      if (column === "bytes") {
        cell.append(make("small", "", shareText(row.bytes, this.whole.bytes)));
        const bar = make("i", "bar");
        const share = this.whole.bytes > 0 ? row.bytes / this.whole.bytes : 0;
        // Of the cell without its padding.
        bar.style.width = `calc((100% - 28px) * ${share.toFixed(4)})`;
        cell.append(bar);
      } else if (column === "place" || column === "function") cell.title = text;
      made.append(cell);
    }
    made.addEventListener("click", () => this.select(index));
    return made;
  }

  private text(row: TableRow, column: Column): string {
    switch (column) {
      case "bytes":
        return bytesText(row.bytes);
      case "count":
        return countText(row.count);
      case "average":
        return row.count > 0 ? bytesText(row.bytes / row.count) : "";
      case "allocator":
        return this.data.head.allocators[row.allocator] ?? "";
      case "thread":
        return this.data.head.threads[row.thread] ?? "";
      case "function":
        return this.data.functionOf(row.location);
      case "place":
        return this.data.placeOf(row.location);
    }
  }

  private select(index: number): void {
    const row = this.shown[index];
    if (row === undefined) return;
    this.selected = index;
    const top = index * ROW;
    const room = this.scroll.clientHeight - this.titles.offsetHeight;
    if (top < this.scroll.scrollTop) this.scroll.scrollTop = top;
    else if (top + ROW > this.scroll.scrollTop + room) this.scroll.scrollTop = top + ROW - room;
    this.redraw();
    this.choose(row);
  }

  private key(event: KeyboardEvent): void {
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / ROW) - 2);
    const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    const step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.select(Math.min(Math.max(this.selected + step, 0), this.shown.length - 1));
  }
}
