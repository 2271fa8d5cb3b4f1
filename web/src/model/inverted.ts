// The trie of reversed stacks: what allocated first, then its callers.

import type { BaseTree } from "./data.ts";
import { PairTable } from "./pairs.ts";
import { depthsWork } from "./sums.ts";
import type { Cut, Own, Topology } from "./view.ts";
import { inPieces, STEPS, type Work } from "./work.ts";

/** No tree of more nodes is made; what is left out is too small to be seen. */
export const MOST_INVERTED_NODES = 2_000_000;

export function* invertedWork(
  tree: BaseTree,
  hidden: Uint8Array | null,
  own: Own,
  most: number,
): Work<Topology & { own: Own; cut: Cut | null }> {
  // No tree has more nodes than its stacks have frames.
  const depths = yield* depthsWork(tree.parents);
  const stacks = new Int32Array(tree.size);
  let leaves: Int32Array = stacks.subarray(0, 0);
  let frames = 1;
  yield* inPieces(tree.size, (from, to) => {
    let count = leaves.length;
    for (let node = from; node < to; node++) {
      if (!(own.bytes[node]! > 0 || own.counts[node]! > 0)) continue;
      stacks[count] = node;
      count += 1;
      frames += depths[node]!;
    }
    leaves = stacks.subarray(0, count);
  });
  // The largest first, so that what does not fit is small.
  if (frames > most) leaves = yield* largestFirst(leaves, own.bytes);
  const capacity = Math.min(frames, most);
  const parents = new Int32Array(capacity);
  const places = new Int32Array(capacity);
  const origins = new Int32Array(capacity);
  const bytes = new Float64Array(capacity);
  const counts = new Float64Array(capacity);
  const table = new PairTable(parents, places);
  let size = 1;
  const cut = { stacks: 0, bytes: 0, count: 0 };
  /** Puts stacks in from the one numbered `index` on, and gives the number of the next one. */
  const add = (index: number): number => {
    // What the loop reads and counts is its own: shared with the generator, it would be in memory.
    const { parents: callers, locations } = tree;
    let [steps, next] = [0, size];
    for (; index < leaves.length && steps < STEPS; index++) {
      const leaf = leaves[index]!;
      let at = 0;
      for (let node = leaf; node !== 0; node = callers[node]!) {
        steps += 1;
        const location = locations[node]!;
        if (hidden !== null && hidden[location] === 1) continue;
        const full = next >= most;
        const known = table.lookUp(at, location, full ? -1 : next);
        if (known >= 0) {
          at = known;
          continue;
        }
        if (full) {
          cut.stacks += 1;
          cut.bytes += own.bytes[leaf]!;
          cut.count += own.counts[leaf]!;
          break;
        }
        parents[next] = at;
        places[next] = location;
        origins[next] = leaf;
        at = next;
        next += 1;
      }
      bytes[at]! += own.bytes[leaf]!;
      counts[at]! += own.counts[leaf]!;
    }
    size = next;
    return index;
  };
  for (let index = add(0); index < leaves.length; index = add(index)) yield;
  return {
    parents: cutTo(parents, size),
    locations: cutTo(places, size),
    origins: cutTo(origins, size),
    own: { bytes: cutTo(bytes, size), counts: cutTo(counts, size) },
    cut: cut.stacks > 0 ? cut : null,
  };
}

/** The part of an array that is used; a copy of it where that saves much memory. */
const cutTo = <T extends Int32Array | Float64Array>(array: T, size: number): T =>
  (size * 2 > array.length ? array.subarray(0, size) : array.slice(0, size)) as T;

/** Bits of an amount, from its sign on, that decide which of two is larger: they agree to 0.4 %. */
const BITS = 20;

/** Nodes by their amounts, the larger first; those of nearly the same as they were. */
export function* largestFirst(nodes: Int32Array, amounts: Float64Array): Work<Int32Array> {
  // The upper bits of a number that is not negative order as the number does: sorting is counting.
  const amount = new Float64Array(1);
  const words = new Uint32Array(amount.buffer);
  const upper = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1 ? 1 : 0;
  const last = (1 << BITS) - 1;
  const rankOf = (node: number) => {
    amount[0] = amounts[node]!;
    return last - (words[upper]! >>> (32 - BITS));
  };
  const starts = new Int32Array(last + 2);
  yield* inPieces(nodes.length, (from, to) => {
    for (let index = from; index < to; index++) starts[rankOf(nodes[index]!) + 1]! += 1;
  });
  for (let rank = 0; rank <= last; rank++) starts[rank + 1]! += starts[rank]!;
  const sorted = new Int32Array(nodes.length);
  yield* inPieces(nodes.length, (from, to) => {
    for (let index = from; index < to; index++) {
      const node = nodes[index]!;
      const rank = rankOf(node);
      sorted[starts[rank]!] = node;
      starts[rank]! += 1;
    }
  });
  return sorted;
}
