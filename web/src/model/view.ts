// The tree that is shown, made from the tree of the page: frames left out, or turned around.
//
// All arrays are indexed by node; a parent has a smaller index than its children, so sums go through
// them backwards and depths forwards, without recursion however deep the stacks are.

import type { BaseTree } from "./data.ts";
import { invertedWork, MOST_INVERTED_NODES } from "./inverted.ts";
import { PairTable } from "./pairs.ts";
import { sortWork } from "./sorting.ts";
import { childrenWork, depthsWork, sumsWork } from "./sums.ts";
import { inPieces, type Work } from "./work.ts";

/** Nodes and their places, without amounts. */
export interface Topology {
  parents: Int32Array;
  locations: Int32Array;
  /** A node of the page that stands for the node: itself, or a leaf whose way leads here. */
  origins: Int32Array;
}

export interface Own {
  bytes: Float64Array;
  counts: Float64Array;
}

/** Stacks that do not go on to their end, because the tree would have become too large. */
export interface Cut {
  stacks: number;
  bytes: number;
  count: number;
}

export interface View extends Topology {
  size: number;
  inverted: boolean;
  depths: Int32Array;
  ownBytes: Float64Array;
  bytes: Float64Array;
  counts: Float64Array;
  /** What widths are made of: `bytes` or `counts`. */
  weights: Float64Array;
  firstChild: Int32Array;
  /** Use `childrenOf`, which sorts. */
  children: Int32Array;
  sorted: Uint8Array;
  /** Some of the smallest stacks end early, because the tree would be too large. */
  cut: Cut | null;
}

export interface ViewOptions {
  inverted: boolean;
  /** Of the locations: leave its frames out. */
  hidden: Uint8Array | null;
  unit: "bytes" | "blocks";
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
export function* viewWork(
  tree: BaseTree,
  own: Own,
  options: ViewOptions,
  most = MOST_INVERTED_NODES,
): Work<View> {
  let topology: Topology;
  let bytes: Float64Array;
  let counts: Float64Array;
  let cut: Cut | null = null;
  if (options.inverted) {
    const turned = yield* invertedWork(tree, options.hidden, own, most);
    topology = turned;
    ({ bytes, counts } = turned.own);
    cut = turned.cut;
  } else {
    const straight = yield* topDownWork(tree, options.hidden);
    topology = straight;
    const { shown } = straight;
    if (shown === null) {
      bytes = own.bytes.slice();
      counts = own.counts.slice();
    } else {
      bytes = new Float64Array(straight.parents.length);
      counts = new Float64Array(straight.parents.length);
      yield* inPieces(tree.size, (from, to) => {
        for (let node = from; node < to; node++) {
          bytes[shown[node]!]! += own.bytes[node]!;
          counts[shown[node]!]! += own.counts[node]!;
        }
      });
    }
  }
  const { parents } = topology;
  const size = parents.length;
  const ownBytes = bytes.slice();
  yield* sumsWork(parents, bytes, counts);
  const view: View = {
    parents,
    locations: topology.locations,
    origins: topology.origins,
    size,
    inverted: options.inverted,
    depths: yield* depthsWork(parents),
    ownBytes,
    bytes,
    counts,
    weights: options.unit === "bytes" ? bytes : counts,
    ...(yield* childrenWork(parents)),
    sorted: new Uint8Array(size),
    cut,
  };
  yield* sortManyWork(view);
  return view;
}

/** The same tree with other widths: its children have another order. */
export function* reweighedWork(view: View, unit: "bytes" | "blocks"): Work<View> {
  const weights = unit === "bytes" ? view.bytes : view.counts;
  // Of its own: the other one is still shown, in its order.
  const other = { ...view, weights, children: view.children.slice(), sorted: new Uint8Array(view.size) };
  yield* sortManyWork(other);
  return other;
}

/** Of more children than these nodes have them sorted when they are made. */
const MANY_CHILDREN = 4096;

/** Sorts children where there are too many to do so when they are first looked at. */
function* sortManyWork(view: View): Work<void> {
  const { firstChild } = view;
  const crowded: number[] = [];
  yield* inPieces(view.size, (from, to) => {
    for (let node = from; node < to; node++) {
      if (firstChild[node + 1]! - firstChild[node]! > MANY_CHILDREN) crowded.push(node);
    }
  });
  for (const node of crowded) {
    const list = view.children.subarray(firstChild[node], firstChild[node + 1]);
    list.set(yield* sortWork(list, heaviestFirst(view)));
    view.sorted[node] = 1;
  }
}

const heaviestFirst = ({ weights }: View) => (left: number, right: number) =>
  weights[right]! - weights[left]! || left - right;

/** The children of a node, the heaviest first. Sorted when first asked for: most never are. */
export function childrenOf(view: View, node: number): Int32Array {
  const list = view.children.subarray(view.firstChild[node], view.firstChild[node + 1]);
  if (view.sorted[node] === 0) {
    view.sorted[node] = 1;
    if (list.length > 1) list.sort(heaviestFirst(view));
  }
  return list;
}

/** Locations from below the root to the node. */
export function pathOf(view: View, node: number): number[] {
  const path: number[] = [];
  for (let at = node; at !== 0; at = view.parents[at]!) path.push(view.locations[at]!);
  return path.reverse();
}

/** The node that such a path leads to, as far as it does; frames that are not there are skipped. */
export function nodeAtPath(view: View, path: number[]): number {
  let at = 0;
  for (const location of path) {
    for (const child of childrenOf(view, at)) {
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
