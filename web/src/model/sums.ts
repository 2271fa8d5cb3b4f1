// Loops over trees whose parents come before their children.

import type { Cells } from "./data.ts";
import type { Own } from "./nodes.ts";
import { inPieces, type Work } from "./work.ts";

/** Sums of what each node itself has; `thread` -1 means all. */
export function* ownWork(size: number, cells: Cells, thread: number): Work<Own> {
  const own = { bytes: new Float64Array(size), counts: new Float64Array(size) };
  yield* inPieces(cells.node.length, (from, to) => {
    for (let index = from; index < to; index++) {
      if (thread >= 0 && cells.thread[index] !== thread) continue;
      own.bytes[cells.node[index]!]! += cells.bytes[index]!;
      own.counts[cells.node[index]!]! += cells.counts[index]!;
    }
  });
  return own;
}

/** Adds to every node what its children have. */
export function* sumsWork(parents: Int32Array, bytes: Float64Array, counts: Float64Array): Work<void> {
  const last = parents.length - 1;
  yield* inPieces(last, (from, to) => {
    for (let node = last - from; node > last - to; node--) {
      bytes[parents[node]!]! += bytes[node]!;
      counts[parents[node]!]! += counts[node]!;
    }
  });
}

export function* depthsWork(parents: Int32Array): Work<Int32Array> {
  const depths = new Int32Array(parents.length);
  yield* inPieces(parents.length, (from, to) => {
    for (let node = Math.max(from, 1); node < to; node++) depths[node] = depths[parents[node]!]! + 1;
  });
  return depths;
}

/** Children of node `i` are `children[firstChild[i] .. firstChild[i + 1]]`. */
export function* childrenWork(parents: Int32Array): Work<{ firstChild: Int32Array; children: Int32Array }> {
  const size = parents.length;
  const firstChild = new Int32Array(size + 1);
  yield* inPieces(size, (from, to) => {
    for (let node = Math.max(from, 1); node < to; node++) firstChild[parents[node]! + 1]! += 1;
  });
  for (let node = 0; node < size; node++) firstChild[node + 1]! += firstChild[node]!;
  const children = new Int32Array(Math.max(size - 1, 0));
  const next = firstChild.slice();
  yield* inPieces(size, (from, to) => {
    for (let node = Math.max(from, 1); node < to; node++) {
      const parent = parents[node]!;
      children[next[parent]!] = node;
      next[parent]! += 1;
    }
  });
  return { firstChild, children };
}
