// The table: only the rows that can be seen exist, so that a million of them scroll.

import type { PageData } from "../model/data.ts";
import type { Column, Listing, Order } from "../model/listing.ts";
import { blocksText, bytesText, countText, shareText, unreachableText } from "../text.ts";
import { element, make } from "./dom.ts";

const ROW = 30;
/** Browsers cut elements that are higher; beyond, only the first rows can be reached by scrolling. */
const MOST_ROWS = 500_000;

export interface TableRow {
  location: number;
  allocator: number;
  /** -1 where threads are together. */
  thread: number;
  bytes: number;
  count: number;
}

export interface TableActions {
  choose(row: TableRow): void;
  sort(order: Order): void;
}

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
  private listing: Listing | null = null;
  private whole = { bytes: 0, count: 0 };
  private selected = -1;
  private drawing = false;
  private readonly data: PageData;
  private readonly on: TableActions;

  constructor(data: PageData, on: TableActions) {
    this.data = data;
    this.on = on;
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

  /** Other rows, or in another order. `whole` is what shares are of. */
  show(listing: Listing, whole: { bytes: number; count: number }): void {
    this.listing = listing;
    this.whole = whole;
    this.selected = -1;
    const { rows, found } = listing;
    const of = found.length === rows.size ? "" : ` of ${countText(rows.size)}`;
    this.summary.textContent =
      `${countText(found.length)}${of} rows: ${bytesText(listing.bytes)} ` +
      `(${shareText(listing.bytes, whole.bytes)}) in ${blocksText(listing.count)}${unreachableText(found.length, MOST_ROWS)}`;
    this.sizer.style.height = `${Math.min(found.length, MOST_ROWS) * ROW}px`;
    this.scroll.setAttribute("aria-rowcount", String(found.length + 1));
    this.scroll.scrollTop = 0;
    this.drawTitles(listing.order);
    this.redraw();
  }

  private drawTitles({ column, descending }: Order): void {
    const focused = document.activeElement;
    const again = focused instanceof HTMLElement && this.titles.contains(focused) ? focused.dataset["column"] : undefined;
    const titles = this.columns.map((view) => {
      const active = view.column === column;
      const arrow = active ? (descending ? " ↓" : " ↑") : "";
      const title = make("button", "", view.title + arrow);
      title.type = "button";
      title.title = view.hint;
      title.dataset["column"] = view.column;
      title.addEventListener("click", () => {
        this.on.sort({ column: view.column, descending: active ? !descending : view.number });
      });
      const cell = make("div", `cell ${view.column}${view.number ? " number" : ""}`, title);
      cell.setAttribute("role", "columnheader");
      if (active) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      return cell;
    });
    this.titles.replaceChildren(...titles);
    if (again !== undefined) this.titles.querySelector<HTMLElement>(`[data-column=${again}]`)?.focus();
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
    const last = Math.min(first + count, MOST_ROWS, this.listing?.found.length ?? 0);
    const rows: HTMLElement[] = [];
    for (let index = first; index < last; index++) {
      const row = this.rowAt(index);
      if (row !== undefined) rows.push(this.rowElement(row, index));
    }
    this.sizer.replaceChildren(...rows);
  }

  private rowAt(index: number): TableRow | undefined {
    const at = this.listing?.found[index];
    if (this.listing === null || at === undefined) return undefined;
    const { locations, allocators, threads, bytes, counts } = this.listing.rows;
    return {
      location: locations[at]!,
      allocator: allocators[at]!,
      thread: threads[at]!,
      bytes: bytes[at]!,
      count: counts[at]!,
    };
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
    const row = this.rowAt(index);
    if (row === undefined) return;
    this.selected = index;
    const top = index * ROW;
    const room = this.scroll.clientHeight - this.titles.offsetHeight;
    if (top < this.scroll.scrollTop) this.scroll.scrollTop = top;
    else if (top + ROW > this.scroll.scrollTop + room) this.scroll.scrollTop = top + ROW - room;
    this.redraw();
    this.on.choose(row);
  }

  private key(event: KeyboardEvent): void {
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / ROW) - 2);
    const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    const step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.select(Math.min(Math.max(this.selected + step, 0), (this.listing?.found.length ?? 0) - 1));
  }
}
