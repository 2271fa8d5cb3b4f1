// Stacks turned around: what allocated first, then its callers. Branches of this tree are made when they are
// looked at, because all of them are many times the tree of the page, and most are narrower than a pixel.
//
// A node is a stretch of the list of stacks: those that begin with the frames that lead to it. Making its
// branches sorts the stretch by the next caller, so each of them is a stretch again.

import type { BaseTree } from "./data.ts";
import { heaviestWork, RUN } from "./sorting.ts";
import { heaviestFirst, type Nodes, type Own, type Unit } from "./nodes.ts";
import { inPieces, STEPS, type Work } from "./work.ts";

/** The branches of a node while they are made, in the order of their first stacks. */
interface Groups {
  locations: number[];
  /** The first stack of each. */
  leaves: number[];
  /** How many stacks each has. */
  sizes: number[];
  bytes: number[];
  counts: number[];
  /** Of the stacks that end in each. */
  ownBytes: number[];
}

/** What the making of branches writes meanwhile. */
interface Scratch {
  /** By location one more than the group; zero before and after. */
  groupAt: Int32Array;
  /** By stack of the stretch; -1 where it has ended. */
  groups: Int32Array;
  leaves: Int32Array;
  nexts: Int32Array;
}

/** What branches are made of. */
interface Stacks {
  /** By node of the page: its place; all are below `placesEnd`. */
  places: Int32Array;
  placesEnd: number;
  /** By place: its frames are left out. */
  hidden: Uint8Array | null;
  /** By node of the page: what its stack holds. */
  own: Own;
  /** By node of the page: the next frame outwards that is shown. */
  callers: Int32Array;
  /** Nodes of the page whose stacks hold anything. They ascend at first, and are moved. */
  leaves: Int32Array;
  /** By stack: the frame that comes after the last node that was made of it; zero when there is none. */
  nexts: Int32Array;
}

/** The nodes made so far, whatever their widths are made of. */
export class Branches {
  size = 1;
  parents = new Int32Array(FEW);
  locations = new Int32Array(FEW);
  /** The first of the node's stacks. */
  origins = new Int32Array(FEW);
  depths = new Int32Array(FEW);
  ownBytes = new Float64Array(FEW);
  bytes = new Float64Array(FEW);
  counts = new Float64Array(FEW);
  /** Branches of node `i` are `firsts[i] .. firsts[i] + amounts[i]`; not made yet where the first is zero. */
  firsts = new Int32Array(FEW);
  amounts = new Int32Array(FEW);
  /** Stacks of node `i` are `leaves[starts[i] .. ends[i]]`, nodes of the page. */
  starts = new Int32Array(FEW);
  ends = new Int32Array(FEW);
  readonly leaves: Int32Array;
  readonly places: Int32Array;
  readonly hidden: Uint8Array | null;
  readonly callers: Int32Array;
  readonly own: Own;
  private readonly nexts: Int32Array;
  private readonly placesEnd: number;
  private scratch: Scratch | null = null;

  constructor({ places, placesEnd, hidden, own, callers, leaves, nexts }: Stacks) {
    this.places = places;
    this.placesEnd = placesEnd;
    this.hidden = hidden;
    this.own = own;
    this.callers = callers;
    this.leaves = leaves;
    this.nexts = nexts;
    this.ends[0] = leaves.length;
  }

  isMade(node: number): boolean {
    return this.firsts[node] !== 0;
  }

  /** Makes the branches of a node, if nobody has. Work that is dropped leaves nothing behind. */
  *makeWork(node: number): Work<void> {
    const start = this.starts[node]!;
    const count = this.ends[node]! - start;
    if (this.isMade(node)) return;
    if (count === 1) {
      this.addOnly(node, start);
      return;
    }
    const scratch = this.scratchFor(count);
    const groups: Groups = { locations: [], leaves: [], sizes: [], bytes: [], counts: [], ownBytes: [] };
    yield* inPieces(count, (from, to) => this.group(groups, scratch, start, from, to));
    let place = count;
    for (const size of groups.sizes) place -= size;
    const places = groups.sizes.map((size) => [place, (place += size)][0]!);
    const ended = { place: 0 };
    yield* inPieces(count, (from, to) => this.scatter(places, ended, scratch, start, from, to));
    for (const location of groups.locations) scratch.groupAt[location] = 0;
    // Work that was begun for somebody else may have come first.
    if (this.isMade(node)) return;
    this.leaves.set(scratch.leaves.subarray(0, count), start);
    this.nexts.set(scratch.nexts.subarray(0, count), start);
    this.add(node, groups, start + ended.place);
  }

  /** Which branch each stack belongs to, and what they hold. */
  private group(groups: Groups, scratch: Scratch, start: number, from: number, to: number): void {
    const { leaves, nexts, callers, places } = this;
    const { bytes, counts } = this.own;
    const { groupAt } = scratch;
    for (let index = from; index < to; index++) {
      const next = nexts[start + index]!;
      if (next === 0) {
        scratch.groups[index] = -1;
        continue;
      }
      const leaf = leaves[start + index]!;
      const location = places[next]!;
      let group = groupAt[location]! - 1;
      if (group < 0) {
        group = groups.locations.length;
        groupAt[location] = group + 1;
        groups.locations.push(location);
        groups.leaves.push(leaf);
        groups.sizes.push(0);
        groups.bytes.push(0);
        groups.counts.push(0);
        groups.ownBytes.push(0);
      }
      scratch.groups[index] = group;
      groups.sizes[group]! += 1;
      groups.bytes[group]! += bytes[leaf]!;
      groups.counts[group]! += counts[leaf]!;
      if (callers[next] === 0) groups.ownBytes[group]! += bytes[leaf]!;
    }
  }

  /** Puts the stacks that have ended first, then those of each branch, each as they were. */
  private scatter(places: number[], ended: { place: number }, scratch: Scratch, start: number, from: number, to: number): void {
    const { leaves, nexts, callers } = this;
    for (let index = from; index < to; index++) {
      const group = scratch.groups[index]!;
      const place = group < 0 ? ended.place++ : places[group]!++;
      scratch.leaves[place] = leaves[start + index]!;
      scratch.nexts[place] = callers[nexts[start + index]!]!;
    }
  }

  /** Most branches that are looked at go on as one stack. */
  private addOnly(node: number, start: number): void {
    const next = this.nexts[start]!;
    const leaf = this.leaves[start]!;
    const groups: Groups = { locations: [], leaves: [], sizes: [], bytes: [], counts: [], ownBytes: [] };
    if (next !== 0) {
      const after = this.callers[next]!;
      const bytes = this.own.bytes[leaf]!;
      groups.locations.push(this.places[next]!);
      groups.leaves.push(leaf);
      groups.sizes.push(1);
      groups.bytes.push(bytes);
      groups.counts.push(this.own.counts[leaf]!);
      groups.ownBytes.push(after === 0 ? bytes : 0);
      this.nexts[start] = after;
    }
    this.add(node, groups, start);
  }

  private add(node: number, groups: Groups, start: number): void {
    const amount = groups.locations.length;
    const first = this.size;
    this.reserve(first + amount);
    const depth = this.depths[node]! + 1;
    for (let group = 0; group < amount; group++) {
      const branch = first + group;
      this.parents[branch] = node;
      this.locations[branch] = groups.locations[group]!;
      this.origins[branch] = groups.leaves[group]!;
      this.depths[branch] = depth;
      this.ownBytes[branch] = groups.ownBytes[group]!;
      this.bytes[branch] = groups.bytes[group]!;
      this.counts[branch] = groups.counts[group]!;
      this.starts[branch] = start;
      start += groups.sizes[group]!;
      this.ends[branch] = start;
    }
    this.size += amount;
    this.amounts[node] = amount;
    this.firsts[node] = first;
  }

  /** Little is made without a stop, so all of that can share one; much of it may be begun at a time. */
  private scratchFor(count: number): Scratch {
    const room = Math.max(count, FEW);
    if (count > STEPS) return newScratch(this.placesEnd, room);
    const { scratch } = this;
    if (scratch !== null && scratch.groups.length >= count) return scratch;
    return (this.scratch = newScratch(this.placesEnd, Math.min(room * 2, STEPS)));
  }

  private reserve(size: number): void {
    if (size <= this.parents.length) return;
    const capacity = Math.max(size, this.parents.length * 2);
    const integers = ["parents", "locations", "origins", "depths", "firsts", "amounts", "starts", "ends"] as const;
    for (const name of integers) this[name] = larger(this[name], new Int32Array(capacity));
    for (const name of ["ownBytes", "bytes", "counts"] as const) this[name] = larger(this[name], new Float64Array(capacity));
  }
}

/** Nodes and stacks there is room for at first. */
const FEW = 1024;

function larger<Numbers extends Int32Array | Float64Array>(from: Numbers, to: Numbers): Numbers {
  to.set(from);
  return to;
}

const newScratch = (placesEnd: number, room: number): Scratch => ({
  groupAt: new Int32Array(placesEnd),
  groups: new Int32Array(room),
  leaves: new Int32Array(room),
  nexts: new Int32Array(room),
});

/** The inverted tree in bytes or in blocks, which share its nodes and each have an order of them. */
export class InvertedView implements Nodes {
  readonly inverted = true;
  readonly branches: Branches;
  private readonly unit: Unit;
  /** By node: its branches in order, where there are several and they were asked for. */
  private readonly orders = new Map<number, Int32Array>();

  constructor(branches: Branches, unit: Unit) {
    this.branches = branches;
    this.unit = unit;
  }

  get size(): number {
    return this.branches.size;
  }
  get parents(): Int32Array {
    return this.branches.parents;
  }
  get locations(): Int32Array {
    return this.branches.locations;
  }
  get origins(): Int32Array {
    return this.branches.origins;
  }
  get depths(): Int32Array {
    return this.branches.depths;
  }
  get ownBytes(): Float64Array {
    return this.branches.ownBytes;
  }
  get bytes(): Float64Array {
    return this.branches.bytes;
  }
  get counts(): Float64Array {
    return this.branches.counts;
  }
  get weights(): Float64Array {
    return this.unit === "bytes" ? this.bytes : this.counts;
  }

  /** Steps that asking for the node's branches takes. */
  stepsTo(node: number): number {
    const { branches } = this;
    return branches.isMade(node) ? branches.amounts[node]! : branches.ends[node]! - branches.starts[node]!;
  }

  *childrenWork(node: number): Work<Int32Array> {
    const { branches, orders } = this;
    if (!branches.isMade(node)) yield* branches.makeWork(node);
    const amount = branches.amounts[node]!;
    const first = branches.firsts[node]!;
    if (amount <= 1) return amount === 0 ? NONE : Int32Array.of(first);
    const known = orders.get(node);
    if (known !== undefined) return known;
    const children = new Int32Array(amount);
    for (let index = 0; index < amount; index++) children[index] = first + index;
    const sorted = amount > RUN ? yield* heaviestWork(children, this.weights) : children.sort(heaviestFirst(this));
    orders.set(node, sorted);
    return sorted;
  }
}

const NONE = new Int32Array(0);

/** Finds the stacks; the rest is made when it is looked at. */
export function* invertedWork(tree: BaseTree, own: Own, hidden: Uint8Array | null, unit: Unit): Work<InvertedView> {
  const { parents, locations: places, size } = tree;
  // Of each node itself or the nearest of its callers that is shown.
  const shown = hidden === null || !hidden.includes(1) ? null : new Int32Array(size);
  const callers = shown === null ? parents : new Int32Array(size);
  const [leaves, nexts] = [new Int32Array(size), new Int32Array(size)];
  let [amount, placesEnd, bytes, counts, ownBytes] = [0, 1, 0, 0, 0];
  yield* inPieces(size, (from, to) => {
    for (let node = from; node < to; node++) {
      const place = places[node]!;
      if (place >= placesEnd) placesEnd = place + 1;
      if (shown !== null) {
        const caller = shown[parents[node]!]!;
        callers[node] = caller;
        shown[node] = hidden![place] === 1 ? caller : node;
      }
      const [itsBytes, itsCount] = [own.bytes[node]!, own.counts[node]!];
      if (!(itsBytes > 0 || itsCount > 0)) continue;
      const next = shown === null ? node : shown[node]!;
      leaves[amount] = node;
      nexts[amount] = next;
      amount += 1;
      bytes += itsBytes;
      counts += itsCount;
      if (next === 0) ownBytes += itsBytes;
    }
  });
  const branches = new Branches({
    places,
    placesEnd,
    hidden,
    own,
    callers,
    leaves: leaves.slice(0, amount),
    nexts: nexts.slice(0, amount),
  });
  branches.bytes[0] = bytes;
  branches.counts[0] = counts;
  branches.ownBytes[0] = ownBytes;
  return new InvertedView(branches, unit);
}
