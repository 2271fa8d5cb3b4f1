// The table as it is shown: its rows in an order, and those of them that a search found.

import type { Cells, PageData } from "./data.ts";
import { type Rows, rowsWork } from "./rows.ts";
import type { Search } from "./search.ts";
import { ranksWork, sortWork } from "./sorting.ts";
import { inPieces, type Work } from "./work.ts";

export type Column = "bytes" | "count" | "average" | "allocator" | "thread" | "function" | "place";

export interface Order {
  column: Column;
  descending: boolean;
}

export interface Listing {
  rows: Rows;
  order: Order;
  search: Search | null;
  /** All rows in order. */
  sorted: Int32Array;
  /** Those that were searched for, in order, and their sums. */
  found: Int32Array;
  bytes: number;
  count: number;
}

/** What `before`, of the same cells and thread, has already is not made again. */
export function* listingWork(
  data: PageData,
  cells: Cells,
  thread: number,
  order: Order,
  search: Search | null,
  before: Listing | null,
): Work<Listing> {
  const rows = before?.rows ?? (yield* rowsWork(data, cells, thread));
  const ordered = before !== null && before.order.column === order.column && before.order.descending === order.descending;
  if (ordered && before.search === search) return before;
  const sorted = ordered ? before.sorted : yield* orderWork(data, rows, order);
  return { rows, order, search, sorted, ...(yield* foundWork(data, rows, sorted, search)) };
}

/** Rows in an order; equals by size, then by place, so that the order is always the same. */
export function* orderWork(data: PageData, rows: Rows, { column, descending }: Order): Work<Int32Array> {
  const keys = yield* keysWork(data, rows, column);
  const { bytes, locations } = rows;
  const sign = descending ? -1 : 1;
  const compare = (left: number, right: number) =>
    sign * (keys[left]! - keys[right]!) || bytes[right]! - bytes[left]! || locations[left]! - locations[right]!;
  return yield* sortWork(Int32Array.from(keys, (_, row) => row), compare);
}

/** Numbers that are in the order of a column. */
function* keysWork(data: PageData, rows: Rows, column: Column): Work<Float64Array> {
  const { head, locations } = data;
  if (column === "bytes") return rows.bytes;
  if (column === "count") return rows.counts;
  const functions = column === "function" ? yield* ranksWork(head.functions) : null;
  const files = column === "place" ? yield* ranksWork(head.files) : null;
  const allocators = column === "allocator" ? yield* ranksWork(head.allocators) : null;
  const keyOf = (row: number): number => {
    const location = rows.locations[row]!;
    if (functions !== null) return functions[locations.functions[location]!] ?? -1;
    // Lines have 32 bits, and both together are exact.
    if (files !== null) return (files[locations.files[location]!] ?? -1) * 2 ** 32 + locations.lines[location]!;
    if (allocators !== null) return allocators[rows.allocators[row]!] ?? -1;
    if (column === "thread") return rows.threads[row]!;
    return rows.bytes[row]! / Math.max(rows.counts[row]!, 1);
  };
  const keys = new Float64Array(rows.size);
  yield* inPieces(rows.size, (from, to) => {
    for (let row = from; row < to; row++) keys[row] = keyOf(row);
  });
  return keys;
}

function* foundWork(
  { head }: PageData,
  rows: Rows,
  sorted: Int32Array,
  search: Search | null,
): Work<Pick<Listing, "found" | "bytes" | "count">> {
  const matching = (texts: readonly string[]) => texts.map((text) => search === null || search.matches(text));
  const [allocators, threads] = [matching(head.allocators), matching(head.threads)];
  const found = search === null ? sorted : new Int32Array(sorted.length);
  let [size, bytes, count] = [0, 0, 0];
  yield* inPieces(sorted.length, (from, to) => {
    for (let index = from; index < to; index++) {
      const row = sorted[index]!;
      if (search !== null) {
        const { matched } = search;
        const hit =
          matched[rows.locations[row]!] === 1 || allocators[rows.allocators[row]!] || threads[rows.threads[row]!];
        if (hit !== true) continue;
        found[size] = row;
      }
      size += 1;
      bytes += rows.bytes[row]!;
      count += rows.counts[row]!;
    }
  });
  return { found: found.subarray(0, size), bytes, count };
}
