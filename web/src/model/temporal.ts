// Memory over time in parts: what was allocated between two boundaries and is still there, and what
// was there at the peak between them.
//
// Boundary `i` of a process separates its interval `i` from interval `i + 1`, so it has one interval
// more than boundaries. Those of several processes follow each other in the lists; each process has
// boundaries of its own, and is shown at its own peak.

import type { Block } from "./block.ts";
import type { Cells } from "./data.ts";
import { lowerBound, upperBound } from "./bounds.ts";
import { inPieces, type Work } from "./work.ts";

/** A process: where its boundaries and intervals are in the lists, and when it was there. */
export interface Part {
  firstBoundary: number;
  boundaries: number;
  firstInterval: number;
  /** Seconds since the start of tracking of the first process. */
  start: number;
  end: number;
}

export interface Temporal {
  parts: Part[];
  /** Of the boundaries, seconds since the start of tracking. */
  seconds: Float64Array;
  resident: Float64Array;
  heap: Float64Array;
  /** Of the intervals. */
  peakBytes: Float64Array;
  /** Read when a range is first chosen. */
  listsWork(): Work<Lists>;
}

/** What was where when. */
export interface Lists {
  keyNode: Int32Array;
  keyThread: Int32Array;
  keyAllocator: Int32Array;
  lifetimeKey: Int32Array;
  allocatedBefore: Int32Array;
  /** One more than the boundary before which the blocks were freed; zero: never. */
  freedBefore: Int32Array;
  lifetimeCount: Float64Array;
  lifetimeBytes: Float64Array;
  atPeakKey: Int32Array;
  atPeakFrom: Int32Array;
  /** The first interval that is not meant any more. */
  atPeakTo: Int32Array;
  atPeakCount: Float64Array;
  atPeakBytes: Float64Array;
}

/** Intervals `first ..= last` of a process; none when the last comes before the first. */
export interface Range {
  first: number;
  last: number;
}

export function* readTemporalWork(block: Block): Work<Temporal> {
  function* secondsWork(name: string): Work<Float64Array> {
    return (yield* block.floatsWork(name)).map((microseconds) => microseconds / 1e6);
  }
  const boundaries = yield* block.integersWork("process.boundaries");
  let lists: Lists | null = null;
  return {
    parts: partsOf(boundaries, yield* secondsWork("process.start"), yield* secondsWork("process.end")),
    seconds: yield* secondsWork("boundary.microseconds"),
    resident: yield* block.floatsWork("boundary.resident"),
    heap: yield* block.floatsWork("boundary.heap"),
    peakBytes: yield* block.floatsWork("interval.peak"),
    *listsWork() {
      lists ??= yield* readListsWork(block);
      return lists;
    },
  };
}

function* readListsWork(block: Block): Work<Lists> {
  const integers = (name: string) => block.integersWork(name);
  const from = yield* integers("at_peak.from");
  const to = yield* integers("at_peak.length");
  yield* inPieces(to.length, (first, end) => {
    for (let index = first; index < end; index++) to[index]! += from[index]!;
  });
  return {
    keyNode: yield* integers("key.node"),
    keyThread: yield* integers("key.thread"),
    keyAllocator: yield* integers("key.allocator"),
    lifetimeKey: yield* integers("lifetime.key"),
    allocatedBefore: yield* integers("lifetime.allocated_before"),
    freedBefore: yield* integers("lifetime.freed_before"),
    lifetimeCount: yield* block.floatsWork("lifetime.count"),
    lifetimeBytes: yield* block.floatsWork("lifetime.bytes"),
    atPeakKey: yield* integers("at_peak.key"),
    atPeakFrom: from,
    atPeakTo: to,
    atPeakCount: yield* block.floatsWork("at_peak.count"),
    atPeakBytes: yield* block.floatsWork("at_peak.bytes"),
  };
}

export function partsOf(boundaries: Int32Array, starts: Float64Array, ends: Float64Array): Part[] {
  const parts: Part[] = [];
  let firstBoundary = 0;
  boundaries.forEach((count, index) => {
    const [start, end] = [starts[index]!, ends[index]!];
    parts.push({ firstBoundary, boundaries: count, firstInterval: firstBoundary + index, start, end });
    firstBoundary += count;
  });
  return parts;
}

/** All intervals, by process. */
export function wholeRanges(temporal: Temporal): Range[] {
  return temporal.parts.map(({ firstInterval, boundaries }) => ({ first: firstInterval, last: firstInterval + boundaries }));
}

/** The intervals that a stretch of time touches, by process; of those that were not there then, none. */
export function rangesWithin(temporal: Temporal, from: number, to: number): Range[] {
  const alone = temporal.parts.length === 1;
  return temporal.parts.map(({ firstBoundary, boundaries, firstInterval, start, end }) => {
    // One alone is shown whatever was chosen.
    if (!alone && (to < start || from >= end)) return { first: firstInterval, last: firstInterval - 1 };
    const times = temporal.seconds.subarray(firstBoundary, firstBoundary + boundaries);
    const first = upperBound(times, from);
    return { first: firstInterval + first, last: firstInterval + Math.max(first, lowerBound(times, to)) };
  });
}

/** From when to when the intervals are, by the boundaries; null for none. */
export function endsOf(temporal: Temporal, ranges: Range[]): [number, number] | null {
  let ends: [number, number] | null = null;
  temporal.parts.forEach(({ firstBoundary, boundaries, firstInterval, start, end }, index) => {
    const { first, last } = ranges[index]!;
    if (last < first) return;
    const before = first - firstInterval - 1;
    const after = last - firstInterval;
    const from = before < 0 ? start : temporal.seconds[firstBoundary + before]!;
    const to = after < boundaries ? temporal.seconds[firstBoundary + after]! : end;
    ends = ends === null ? [from, to] : [Math.min(ends[0], from), Math.max(ends[1], to)];
  });
  return ends;
}

/** The interval of the range with the largest peak, the last one among equals. */
export function peakInterval(temporal: Temporal, range: Range): number {
  let best = range.first;
  for (let interval = range.first; interval <= range.last; interval++) {
    if (temporal.peakBytes[interval]! >= temporal.peakBytes[best]!) best = interval;
  }
  return best;
}

/** What each process held at its peak inside its range. */
export function* cellsAtPeakWork(temporal: Temporal, ranges: Range[]): Work<Cells> {
  // Of each interval the one of its process that is shown; none is before the first.
  const shown = new Int32Array(temporal.peakBytes.length);
  wholeRanges(temporal).forEach(({ first, last }, index) => {
    const range = ranges[index]!;
    shown.fill(range.last < range.first ? -1 : peakInterval(temporal, range), first, last + 1);
  });
  const lists = yield* temporal.listsWork();
  const cells = emptyCells(lists);
  const { atPeakKey, atPeakFrom, atPeakTo, atPeakCount, atPeakBytes } = lists;
  yield* inPieces(atPeakKey.length, (from, to) => {
    for (let index = from; index < to; index++) {
      const interval = shown[atPeakFrom[index]!]!;
      if (atPeakFrom[index]! > interval || interval >= atPeakTo[index]!) continue;
      cells.bytes[atPeakKey[index]!]! += atPeakBytes[index]!;
      cells.counts[atPeakKey[index]!]! += atPeakCount[index]!;
    }
  });
  return cells;
}

/** What was allocated inside the range of its process and is still there at the range's end. */
export function* cellsAllocatedAndLeftWork(temporal: Temporal, ranges: Range[]): Work<Cells> {
  const size = temporal.peakBytes.length;
  const [firsts, lasts] = [new Int32Array(size), new Int32Array(size)];
  wholeRanges(temporal).forEach((whole, index) => {
    firsts.fill(ranges[index]!.first, whole.first, whole.last + 1);
    lasts.fill(ranges[index]!.last, whole.first, whole.last + 1);
  });
  const lists = yield* temporal.listsWork();
  const cells = emptyCells(lists);
  const { lifetimeKey, allocatedBefore, freedBefore, lifetimeCount, lifetimeBytes } = lists;
  yield* inPieces(lifetimeKey.length, (from, to) => {
    for (let index = from; index < to; index++) {
      const allocated = allocatedBefore[index]!;
      const freed = freedBefore[index]!;
      const last = lasts[allocated]!;
      if (allocated < firsts[allocated]! || allocated > last || (freed !== 0 && freed - 1 <= last)) continue;
      cells.bytes[lifetimeKey[index]!]! += lifetimeBytes[index]!;
      cells.counts[lifetimeKey[index]!]! += lifetimeCount[index]!;
    }
  });
  return cells;
}

function emptyCells({ keyNode, keyThread, keyAllocator }: Lists): Cells {
  const size = keyNode.length;
  return {
    node: keyNode,
    thread: keyThread,
    allocator: keyAllocator,
    bytes: new Float64Array(size),
    counts: new Float64Array(size),
  };
}
