// The tree that is shown, made from the tree of the page: frames left out, or turned around.
//
// All arrays are indexed by node; a parent has a smaller index than its children, so sums go through
// them backwards and depths forwards, without recursion however deep the stacks are.

import type { BaseTree } from "./data.ts";
import { InvertedView, invertedWork } from "./inverted.ts";
import { heaviestFirst, type Nodes, type Own, type Topology, type Unit } from "./nodes.ts";
import { PairTable } from "./pairs.ts";
import { heaviestWork, RUN } from "./sorting.ts";
import { childrenWork as childListsWork, depthsWork, sumsWork } from "./sums.ts";
import { finish, inPieces, STEPS, type Work } from "./work.ts";

/** The tree as the program called. */
export interface UprightView extends Nodes {
  inverted: false;
  /** Of the nodes of the page. */
  own: Own;
  /** How many stacks of the page end in a node and hold anything; null where nodes are those of the page. */
  stacks: Int32Array | null;
  firstChild: Int32Array;
  /** Use `childrenOf`, which sorts. */
  children: Int32Array;
  sorted: Uint8Array;
}

export type View = UprightView | InvertedView;

export interface ViewOptions {
  inverted: boolean;
  /** Of the locations: leave its frames out. */
  hidden: Uint8Array | null;
  unit: Unit;
}

/** Which shown node each node of the page is part of; a hidden frame is part of its caller. */
function* topDownWork(tree: BaseTree, hidden: Uint8Array | null): Work<Topology & { shown: Int32Array | null }> {
  if (hidden === null || !hidden.includes(1)) {
    const origins = new Int32Array(tree.size);
    yield* inPieces(tree.size, (from, to) => {
      for (let node = from; node < to; node++) origins[node] = node;
    });
    return { parents: tree.parents, locations: tree.locations, origins, shown: null };
  }
  const shown = new Int32Array(tree.size);
  const parents = new Int32Array(tree.size);
  const places = new Int32Array(tree.size);
  const origins = new Int32Array(tree.size);
  const table = new PairTable(parents, places);
  let size = 1;
  yield* inPieces(tree.size, (from, to) => {
    for (let node = Math.max(from, 1); node < to; node++) {
      const parent = shown[tree.parents[node]!]!;
      const location = tree.locations[node]!;
      if (hidden[location] === 1) {
        shown[node] = parent;
        continue;
      }
      const known = table.lookUp(parent, location, size);
      if (known >= 0) {
        shown[node] = known;
        continue;
      }
      parents[size] = parent;
      places[size] = location;
      origins[size] = node;
      shown[node] = size;
      size += 1;
    }
  });
  const cut = <T extends Int32Array>(array: T) => array.slice(0, size);
  return { parents: cut(parents), locations: cut(places), origins: cut(origins), shown };
}

/** The tree to show. */
export function* viewWork(tree: BaseTree, own: Own, { inverted, hidden, unit }: ViewOptions): Work<View> {
  if (inverted) return yield* invertedWork(tree, own, hidden, unit);
  const { parents, locations, origins, shown } = yield* topDownWork(tree, hidden);
  const size = parents.length;
  let [bytes, counts] = [own.bytes, own.counts];
  let ownBytes = bytes;
  const stacks = shown === null ? null : new Int32Array(size);
  if (shown === null) [bytes, counts] = [bytes.slice(), counts.slice()];
  else {
    const [sums, amounts] = [new Float64Array(size), new Float64Array(size)];
    yield* inPieces(tree.size, (from, to) => {
      for (let node = from; node < to; node++) {
        sums[shown[node]!]! += own.bytes[node]!;
        amounts[shown[node]!]! += own.counts[node]!;
        if (own.counts[node]! > 0) stacks![shown[node]!]! += 1;
      }
    });
    [bytes, counts, ownBytes] = [sums, amounts, sums.slice()];
  }
  yield* sumsWork(parents, bytes, counts);
  const view: UprightView = {
    parents,
    locations,
    origins,
    size,
    inverted: false,
    depths: yield* depthsWork(parents),
    own,
    stacks,
    ownBytes,
    bytes,
    counts,
    weights: unit === "bytes" ? bytes : counts,
    ...(yield* childListsWork(parents)),
    sorted: new Uint8Array(size),
  };
  yield* sortManyWork(view);
  return view;
}

/** The same tree with other widths: its children have another order. */
export function* reweighedWork(view: View, unit: Unit): Work<View> {
  if (view.inverted) return new InvertedView(view.branches, unit);
  const weights = unit === "bytes" ? view.bytes : view.counts;
  // Of its own: the other one is still shown, in its order.
  const other = { ...view, weights, children: view.children.slice(), sorted: new Uint8Array(view.size) };
  yield* sortManyWork(other);
  return other;
}

/** Sorts children where there are too many to do so when they are first looked at. */
function* sortManyWork(view: UprightView): Work<void> {
  const { firstChild } = view;
  const crowded: number[] = [];
  yield* inPieces(view.size, (from, to) => {
    for (let node = from; node < to; node++) {
      if (firstChild[node + 1]! - firstChild[node]! > RUN) crowded.push(node);
    }
  });
  for (const node of crowded) {
    const list = view.children.subarray(firstChild[node], firstChild[node + 1]);
    list.set(yield* heaviestWork(list, view.weights));
    view.sorted[node] = 1;
  }
}

/** The children of a node, the heaviest first. Made or sorted when first asked for: most never are. */
export function* childrenWork(view: View, node: number): Work<Int32Array> {
  if (view.inverted) return yield* view.childrenWork(node);
  const list = view.children.subarray(view.firstChild[node], view.firstChild[node + 1]);
  if (view.sorted[node] === 0) {
    view.sorted[node] = 1;
    if (list.length > 1) list.sort(heaviestFirst(view));
  }
  return list;
}

/** The same, now. */
export const childrenOf = (view: View, node: number): Int32Array => finish(childrenWork(view, node));

/** Steps that asking for the children of a node takes, so that those who ask for many can stop in between. */
export const stepsTo = (view: View, node: number): number =>
  1 + (view.inverted ? view.stepsTo(node) : view.firstChild[node + 1]! - view.firstChild[node]!);

/** Locations from below the root to the node. */
export function pathOf(view: View, node: number): number[] {
  const path: number[] = [];
  for (let at = node; at !== 0; at = view.parents[at]!) path.push(view.locations[at]!);
  return path.reverse();
}

/** The node that such a path leads to, as far as it does; frames that are not there are skipped. */
export function* nodeAtPathWork(view: View, path: number[]): Work<number> {
  let [at, steps] = [0, 0];
  for (const location of path) {
    steps += stepsTo(view, at);
    if (steps > STEPS) {
      steps = 0;
      yield;
    }
    for (const child of yield* childrenWork(view, at)) {
      if (view.weights[child]! > 0 && view.locations[child] === location) {
        at = child;
        break;
      }
    }
  }
  return at;
}

/** The name of a node in addresses: the same as long as the page is. */
export function addressOf(view: View, node: number): string {
  return view.inverted ? `${view.origins[node]}~${view.depths[node]}` : `${view.origins[node]}`;
}

/** The path of such a name. */
export function pathOfAddress(tree: BaseTree, hidden: Uint8Array | null, address: string): number[] {
  const match = /^(\d+)(?:~(\d+))?$/.exec(address);
  const origin = Number(match?.[1] ?? 0);
  if (match === null || origin >= tree.size) return [];
  const upwards: number[] = [];
  for (let node = origin; node !== 0; node = tree.parents[node]!) {
    const location = tree.locations[node]!;
    if (hidden === null || hidden[location] !== 1) upwards.push(location);
  }
  return match[2] === undefined ? upwards.reverse() : upwards.slice(0, Number(match[2]));
}
