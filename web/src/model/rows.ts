// The rows of the table: what each place allocated, by function of the allocator and by thread.

import type { Cells, PageData } from "./data.ts";
import { inPieces, type Work } from "./work.ts";

export interface TableRow {
  location: number;
  allocator: number;
  /** -1 where threads are together. */
  thread: number;
  bytes: number;
  count: number;
}

/** The place of cells that belong to the root: allocations without a Python frame have a node of their own. */
export function* rowsWork(data: PageData, cells: Cells, thread: number): Work<TableRow[]> {
  const rows = new Map<number, TableRow>();
  const { size } = data.locations;
  const allocators = Math.max(data.head.allocators.length, 1);
  const split = data.head.split_threads;
  yield* inPieces(cells.node.length, (from, to) => {
    for (let index = from; index < to; index++) {
      const bytes = cells.bytes[index]!;
      const count = cells.counts[index]!;
      if ((bytes === 0 && count === 0) || (thread >= 0 && cells.thread[index] !== thread)) continue;
      const location = data.tree.locations[cells.node[index]!]!;
      const allocator = cells.allocator[index]!;
      const of = split ? cells.thread[index]! : -1;
      const key = ((of + 1) * allocators + allocator) * size + location;
      const row = rows.get(key);
      if (row === undefined) rows.set(key, { location, allocator, thread: of, bytes, count });
      else {
        row.bytes += bytes;
        row.count += count;
      }
    }
  });
  return Array.from(rows.values());
}

export type Column = "bytes" | "count" | "average" | "allocator" | "thread" | "function" | "place";

/** Sorts in place; equals by size, then by place, so that the order is always the same. */
export function sortRows(data: PageData, rows: TableRow[], column: Column, descending: boolean): void {
  const text = (of: (row: TableRow) => string) => {
    const texts = new Map(rows.map((row) => [row, of(row)]));
    return (left: TableRow, right: TableRow) => compare(texts.get(left) ?? "", texts.get(right) ?? "");
  };
  const number = (of: (row: TableRow) => number) => (left: TableRow, right: TableRow) => of(left) - of(right);
  const orders: Record<Column, () => (left: TableRow, right: TableRow) => number> = {
    bytes: () => number((row) => row.bytes),
    count: () => number((row) => row.count),
    average: () => number((row) => row.bytes / Math.max(row.count, 1)),
    allocator: () => text((row) => data.head.allocators[row.allocator] ?? ""),
    thread: () => number((row) => row.thread),
    function: () => text((row) => data.functionOf(row.location)),
    place: () => {
      const files = text((row) => data.fileOf(row.location));
      const lines = number((row) => data.locations.lines[row.location]!);
      return (left, right) => files(left, right) || lines(left, right);
    },
  };
  const order = orders[column]();
  const sign = descending ? -1 : 1;
  rows.sort(
    (left, right) => sign * order(left, right) || right.bytes - left.bytes || left.location - right.location,
  );
}

const compare = (left: string, right: string): number => (left < right ? -1 : left > right ? 1 : 0);
