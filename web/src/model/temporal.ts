// Memory over time in parts: what was allocated between two boundaries and is still there, and what
// was there at the peak between them.
//
// Boundary `i` separates interval `i` from interval `i + 1`, so there is one interval more than
// there are boundaries.

import type { Block } from "./block.ts";
import type { Cells } from "./data.ts";

export interface Temporal {
  /** Of the boundaries, seconds since the start of tracking. */
  seconds: Float64Array;
  resident: Float64Array;
  heap: Float64Array;
  /** Of the intervals. */
  peakBytes: Float64Array;
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

/** Intervals `first ..= last`. */
export interface Range {
  first: number;
  last: number;
}

export function readTemporal(block: Block): Temporal {
  const integers = (name: string) => new Int32Array(block.column(name));
  const from = integers("at_peak.from");
  const length = block.column("at_peak.length");
  return {
    seconds: block.column("boundary.microseconds").map((microseconds) => microseconds / 1e6),
    resident: block.column("boundary.resident"),
    heap: block.column("boundary.heap"),
    peakBytes: block.column("interval.peak"),
    keyNode: integers("key.node"),
    keyThread: integers("key.thread"),
    keyAllocator: integers("key.allocator"),
    lifetimeKey: integers("lifetime.key"),
    allocatedBefore: integers("lifetime.allocated_before"),
    freedBefore: integers("lifetime.freed_before"),
    lifetimeCount: block.column("lifetime.count"),
    lifetimeBytes: block.column("lifetime.bytes"),
    atPeakKey: integers("at_peak.key"),
    atPeakFrom: from,
    atPeakTo: from.map((first, index) => first + length[index]!),
    atPeakCount: block.column("at_peak.count"),
    atPeakBytes: block.column("at_peak.bytes"),
  };
}

/** The interval of the range with the largest peak, the last one among equals. */
export function peakInterval(temporal: Temporal, range: Range): number {
  let best = range.first;
  for (let interval = range.first; interval <= range.last; interval++) {
    if (temporal.peakBytes[interval]! >= temporal.peakBytes[best]!) best = interval;
  }
  return best;
}

/** What was there at the peak inside the range. */
export function cellsAtPeak(temporal: Temporal, range: Range): Cells {
  const interval = peakInterval(temporal, range);
  const cells = emptyCells(temporal);
  const { atPeakKey, atPeakFrom, atPeakTo, atPeakCount, atPeakBytes } = temporal;
  for (let index = 0; index < atPeakKey.length; index++) {
    if (atPeakFrom[index]! > interval || interval >= atPeakTo[index]!) continue;
    cells.bytes[atPeakKey[index]!]! += atPeakBytes[index]!;
    cells.counts[atPeakKey[index]!]! += atPeakCount[index]!;
  }
  return cells;
}

/** What was allocated inside the range and is still there at its end. */
export function cellsAllocatedAndLeft(temporal: Temporal, range: Range): Cells {
  const cells = emptyCells(temporal);
  const { lifetimeKey, allocatedBefore, freedBefore, lifetimeCount, lifetimeBytes } = temporal;
  for (let index = 0; index < lifetimeKey.length; index++) {
    const allocated = allocatedBefore[index]!;
    const freed = freedBefore[index]!;
    if (allocated < range.first || allocated > range.last || (freed !== 0 && freed - 1 <= range.last)) continue;
    cells.bytes[lifetimeKey[index]!]! += lifetimeBytes[index]!;
    cells.counts[lifetimeKey[index]!]! += lifetimeCount[index]!;
  }
  return cells;
}

function emptyCells(temporal: Temporal): Cells {
  const size = temporal.keyNode.length;
  return {
    node: temporal.keyNode,
    thread: temporal.keyThread,
    allocator: temporal.keyAllocator,
    bytes: new Float64Array(size),
    counts: new Float64Array(size),
  };
}
