// The rows of the table: what each place allocated, by function of the allocator and by thread.

import type { Cells, PageData } from "./data.ts";
import { PairTable } from "./pairs.ts";
import { inPieces, type Work } from "./work.ts";

/** Columns, indexed by row. */
export interface Rows {
  size: number;
  locations: Int32Array;
  allocators: Int32Array;
  /** -1 where threads are together. */
  threads: Int32Array;
  bytes: Float64Array;
  counts: Float64Array;
}

/** The place of cells that belong to the root: allocations without a Python frame have a node of their own. */
export function* rowsWork(data: PageData, cells: Cells, thread: number): Work<Rows> {
  const allocators = Math.max(data.head.allocators.length, 1);
  const split = data.head.split_threads;
  const groups = (split ? data.head.threads.length + 1 : 1) * allocators;
  // Numbers of pairs are above zero, so the first row is none until the end.
  const most = cells.node.length + 1;
  const rows = {
    locations: new Int32Array(most),
    allocators: new Int32Array(most),
    threads: new Int32Array(most),
    bytes: new Float64Array(most),
    counts: new Float64Array(most),
  };
  const groupsOfRows = new Int32Array(most);
  const table = new PairTable(groupsOfRows, rows.locations, groups);
  let next = 1;
  yield* inPieces(cells.node.length, (from, to) => {
    for (let index = from; index < to; index++) {
      const bytes = cells.bytes[index]!;
      const count = cells.counts[index]!;
      if ((bytes === 0 && count === 0) || (thread >= 0 && cells.thread[index] !== thread)) continue;
      const location = data.tree.locations[cells.node[index]!]!;
      const allocator = cells.allocator[index]!;
      const of = split ? cells.thread[index]! : -1;
      const group = (of + 1) * allocators + allocator;
      let row = table.lookUp(group, location, next);
      if (row < 0) {
        row = next;
        next += 1;
        groupsOfRows[row] = group;
        rows.locations[row] = location;
        rows.allocators[row] = allocator;
        rows.threads[row] = of;
      }
      rows.bytes[row]! += bytes;
      rows.counts[row]! += count;
    }
  });
  return {
    size: next - 1,
    locations: rows.locations.slice(1, next),
    allocators: rows.allocators.slice(1, next),
    threads: rows.threads.slice(1, next),
    bytes: rows.bytes.slice(1, next),
    counts: rows.counts.slice(1, next),
  };
}
