// The tree that is shown, made from the tree of the page: frames left out, or turned around.
//
// All arrays are indexed by node; a parent has a smaller index than its children, so sums go through
// them backwards and depths forwards, without recursion however deep the stacks are.

import type { BaseTree, Cells } from "./data.ts";

/** Nodes and their places, without amounts. */
interface Topology {
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

/** Sums of what each node itself has; `thread` -1 means all. */
export function ownOf(size: number, cells: Cells, thread: number): Own {
  const own = { bytes: new Float64Array(size), counts: new Float64Array(size) };
  for (let index = 0; index < cells.node.length; index++) {
    if (thread >= 0 && cells.thread[index] !== thread) continue;
    own.bytes[cells.node[index]!]! += cells.bytes[index]!;
    own.counts[cells.node[index]!]! += cells.counts[index]!;
  }
  return own;
}

/** Numbers for pairs (parent, location), in open addressing. */
class PairTable {
  private readonly keys: Float64Array;
  private readonly values: Int32Array;
  private readonly mask: number;

  /** For at most `most` pairs. */
  constructor(most: number) {
    let capacity = 1024;
    while (capacity < most * 2) capacity *= 2;
    this.mask = capacity - 1;
    this.keys = new Float64Array(capacity).fill(-1);
    this.values = new Int32Array(capacity);
  }

  /** The number of the pair, or -1 after noting `fresh` as its number, if that is one. */
  lookUp(parent: number, location: number, locations: number, fresh: number): number {
    const key = parent * locations + location;
    let slot = mix(parent, location) & this.mask;
    for (let found = this.keys[slot]!; found !== -1; found = this.keys[slot]!) {
      if (found === key) return this.values[slot]!;
      slot = (slot + 1) & this.mask;
    }
    if (fresh >= 0) {
      this.keys[slot] = key;
      this.values[slot] = fresh;
    }
    return -1;
  }
}

function mix(parent: number, location: number): number {
  let hash = Math.imul(parent, 0x9e3779b1) ^ Math.imul(location + 0x7f4a7c15, 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 15), 0xc2b2ae35);
  return (hash ^ (hash >>> 13)) >>> 0;
}

/** Which shown node each node of the page is part of; a hidden frame is part of its caller. */
function topDown(tree: BaseTree, hidden: Uint8Array | null, locations: number): Topology & { shown: Int32Array | null } {
  if (hidden === null || !hidden.includes(1)) {
    const origins = new Int32Array(tree.size);
    for (let node = 0; node < tree.size; node++) origins[node] = node;
    return { parents: tree.parents, locations: tree.locations, origins, shown: null };
  }
  const shown = new Int32Array(tree.size);
  const parents = new Int32Array(tree.size);
  const places = new Int32Array(tree.size);
  const origins = new Int32Array(tree.size);
  const table = new PairTable(tree.size);
  let size = 1;
  for (let node = 1; node < tree.size; node++) {
    const parent = shown[tree.parents[node]!]!;
    const location = tree.locations[node]!;
    if (hidden[location] === 1) {
      shown[node] = parent;
      continue;
    }
    const known = table.lookUp(parent, location, locations, size);
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
  const cut = <T extends Int32Array>(array: T) => array.slice(0, size);
  return { parents: cut(parents), locations: cut(places), origins: cut(origins), shown };
}

/** No tree of more nodes is made; what is left out is too small to be seen. */
export const MOST_INVERTED_NODES = 2_000_000;

function inverted(
  tree: BaseTree,
  hidden: Uint8Array | null,
  own: Own,
  locations: number,
  most: number,
): Topology & { own: Own; cut: Cut | null } {
  const leaves: number[] = [];
  for (let node = 0; node < tree.size; node++) {
    if (own.bytes[node]! > 0 || own.counts[node]! > 0) leaves.push(node);
  }
  // The largest first, so that what does not fit is small.
  leaves.sort((left, right) => own.bytes[right]! - own.bytes[left]! || left - right);
  // No tree has more nodes than its stacks have frames.
  const depths = depthsOf(tree.parents);
  let frames = 1;
  for (const leaf of leaves) frames += depths[leaf]!;
  const capacity = Math.min(frames, most);
  const parents = new Int32Array(capacity);
  const places = new Int32Array(capacity);
  const origins = new Int32Array(capacity);
  const bytes = new Float64Array(capacity);
  const counts = new Float64Array(capacity);
  const table = new PairTable(capacity);
  let size = 1;
  const cut = { stacks: 0, bytes: 0, count: 0 };
  for (const leaf of leaves) {
    let at = 0;
    for (let node = leaf; node !== 0; node = tree.parents[node]!) {
      const location = tree.locations[node]!;
      if (hidden !== null && hidden[location] === 1) continue;
      const full = size >= most;
      const known = table.lookUp(at, location, locations, full ? -1 : size);
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
      parents[size] = at;
      places[size] = location;
      origins[size] = leaf;
      at = size;
      size += 1;
    }
    bytes[at]! += own.bytes[leaf]!;
    counts[at]! += own.counts[leaf]!;
  }
  return {
    parents: parents.slice(0, size),
    locations: places.slice(0, size),
    origins: origins.slice(0, size),
    own: { bytes: bytes.slice(0, size), counts: counts.slice(0, size) },
    cut: cut.stacks > 0 ? cut : null,
  };
}

function depthsOf(parents: Int32Array): Int32Array {
  const depths = new Int32Array(parents.length);
  for (let node = 1; node < parents.length; node++) depths[node] = depths[parents[node]!]! + 1;
  return depths;
}

/** The tree to show. */
export function makeView(
  tree: BaseTree,
  locations: number,
  own: Own,
  options: ViewOptions,
  most = MOST_INVERTED_NODES,
): View {
  let topology: Topology;
  let bytes: Float64Array;
  let counts: Float64Array;
  let cut: Cut | null = null;
  if (options.inverted) {
    const turned = inverted(tree, options.hidden, own, locations, most);
    topology = turned;
    ({ bytes, counts } = turned.own);
    cut = turned.cut;
  } else {
    const straight = topDown(tree, options.hidden, locations);
    topology = straight;
    if (straight.shown === null) {
      bytes = own.bytes.slice();
      counts = own.counts.slice();
    } else {
      bytes = new Float64Array(straight.parents.length);
      counts = new Float64Array(straight.parents.length);
      for (let node = 0; node < tree.size; node++) {
        bytes[straight.shown[node]!]! += own.bytes[node]!;
        counts[straight.shown[node]!]! += own.counts[node]!;
      }
    }
  }
  const { parents } = topology;
  const size = parents.length;
  const ownBytes = bytes.slice();
  for (let node = size - 1; node > 0; node--) {
    bytes[parents[node]!]! += bytes[node]!;
    counts[parents[node]!]! += counts[node]!;
  }
  const depths = depthsOf(parents);
  const firstChild = new Int32Array(size + 1);
  for (let node = 1; node < size; node++) firstChild[parents[node]! + 1]! += 1;
  for (let node = 0; node < size; node++) firstChild[node + 1]! += firstChild[node]!;
  const children = new Int32Array(Math.max(size - 1, 0));
  const next = firstChild.slice();
  for (let node = 1; node < size; node++) children[next[parents[node]!]!++] = node;
  return {
    parents,
    locations: topology.locations,
    origins: topology.origins,
    size,
    inverted: options.inverted,
    depths,
    ownBytes,
    bytes,
    counts,
    weights: options.unit === "bytes" ? bytes : counts,
    firstChild,
    children,
    sorted: new Uint8Array(size),
    cut,
  };
}

/** The children of a node, the heaviest first. Sorted when first asked for: most never are. */
export function childrenOf(view: View, node: number): Int32Array {
  const list = view.children.subarray(view.firstChild[node], view.firstChild[node + 1]);
  if (view.sorted[node] === 0) {
    view.sorted[node] = 1;
    const { weights } = view;
    if (list.length > 1) list.sort((left, right) => weights[right]! - weights[left]! || left - right);
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

/** Nodes of the page that a shown node stands for, and those whose own amounts are in its sum. */
export interface Membership {
  at: number[];
  below: Uint8Array;
}

export function membersOf(view: View, tree: BaseTree, hidden: Uint8Array | null, node: number): Membership {
  const path = pathOf(view, node);
  const at: number[] = [];
  const below = new Uint8Array(tree.size);
  const isHidden = (base: number) => hidden !== null && hidden[tree.locations[base]!] === 1;
  if (path.length === 0) {
    below.fill(1);
    return { at, below };
  }
  if (view.inverted) {
    for (let leaf = 1; leaf < tree.size; leaf++) {
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
      at.push(last);
    }
    return { at, below };
  }
  // How far each node's stack agrees with the path: -1 not at all.
  const agrees = new Int32Array(tree.size).fill(-1);
  agrees[0] = 0;
  for (let base = 1; base < tree.size; base++) {
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
        at.push(base);
      }
    }
  }
  return { at, below };
}
