// What a shown node is made of.

import type { BaseTree } from "./data.ts";
import { pathOf, type View } from "./view.ts";
import { inPieces, type Work } from "./work.ts";

/** Flags of the nodes of the page: the shown node stands for them, and their own amounts are in its sum. */
export interface Membership {
  at: Uint8Array;
  below: Uint8Array;
}

export function* membersWork(view: View, tree: BaseTree, hidden: Uint8Array | null, node: number): Work<Membership> {
  const path = pathOf(view, node);
  const at = new Uint8Array(tree.size);
  const below = new Uint8Array(tree.size);
  const isHidden = (base: number) => hidden !== null && hidden[tree.locations[base]!] === 1;
  if (path.length === 0) {
    below.fill(1);
    return { at, below };
  }
  if (view.inverted) {
    yield* inPieces(tree.size, (from, to) => {
      for (let leaf = Math.max(from, 1); leaf < to; leaf++) {
        let base = leaf;
        let last = 0;
        let step = 0;
        for (; base !== 0 && step < path.length; base = tree.parents[base]!) {
          if (isHidden(base)) continue;
          if (tree.locations[base] !== path[step]) break;
          last = base;
          step += 1;
        }
        if (step < path.length) continue;
        below[leaf] = 1;
        at[last] = 1;
      }
    });
    return { at, below };
  }
  // How far each node's stack agrees with the path: -1 not at all.
  const agrees = new Int32Array(tree.size).fill(-1);
  agrees[0] = 0;
  yield* inPieces(tree.size, (from, to) => {
    for (let base = Math.max(from, 1); base < to; base++) {
      const parent = tree.parents[base]!;
      if (below[parent] === 1) {
        below[base] = 1;
        continue;
      }
      const reached = agrees[parent]!;
      if (reached < 0) continue;
      if (isHidden(base)) agrees[base] = reached;
      else if (tree.locations[base] === path[reached]) {
        agrees[base] = reached + 1;
        if (reached + 1 === path.length) {
          below[base] = 1;
          at[base] = 1;
        }
      }
    }
  });
  return { at, below };
}

/** The nodes of the page that are at a location, as flags. */
export function* nodesAtWork(tree: BaseTree, location: number): Work<Uint8Array> {
  const at = new Uint8Array(tree.size);
  yield* inPieces(tree.size, (from, to) => {
    for (let node = Math.max(from, 1); node < to; node++) if (tree.locations[node] === location) at[node] = 1;
  });
  return at;
}

/** The spans, numbered from one within their location, that nodes of one location allocate from. */
export function* spansWork(tree: BaseTree, at: Uint8Array): Work<Set<number>> {
  const spans = new Set<number>();
  yield* inPieces(tree.size, (from, to) => {
    for (let node = from; node < to; node++) if (at[node] === 1 && tree.spans[node]! > 0) spans.add(tree.spans[node]!);
  });
  const { moreNodes, moreSpans } = tree;
  yield* inPieces(moreNodes.length, (from, to) => {
    for (let index = from; index < to; index++) if (at[moreNodes[index]!] === 1) spans.add(moreSpans[index]!);
  });
  return spans;
}
