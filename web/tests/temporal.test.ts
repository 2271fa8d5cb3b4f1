import { expect, test } from "vitest";
import { endsOf, type Lists, partsOf, peakInterval, rangesWithin, type Temporal, wholeRanges } from "../src/model/temporal.ts";
import { cellsAllocatedAndLeft, cellsAtPeak, random } from "./support.ts";

interface Block {
  key: number;
  bytes: number;
  born: number;
  died: number | null;
}

/** A heap in which blocks come and go at instants; `perInterval` instants are an interval. */
function history(seed: number, intervals: number, perInterval: number) {
  const next = random(seed);
  const keys = 6;
  const instants = intervals * perInterval;
  const blocks: Block[] = [];
  for (let instant = 0; instant < instants; instant++) {
    const block: Block = { key: next(keys), bytes: 1 + next(100), born: instant, died: null };
    if (next(5) > 0) block.died = Math.min(instant + 1 + next(instants), instants * 2);
    if (block.died !== null && block.died >= instants) block.died = null;
    blocks.push(block);
  }
  const held = (instant: number) =>
    blocks.filter((block) => block.born <= instant && (block.died === null || block.died > instant));
  const heap = (instant: number) => held(instant).reduce((sum, block) => sum + block.bytes, 0);
  const peaks = Array.from({ length: intervals }, (_, interval) => {
    let best = interval * perInterval;
    for (let step = 0; step < perInterval; step++) {
      const instant = interval * perInterval + step;
      if (heap(instant) >= heap(best)) best = instant;
    }
    return best;
  });
  const at = (key: number, interval: number) => held(peaks[interval]!).filter((block) => block.key === key);
  const temporal: Temporal & Lists = {
    *listsWork() {
      return temporal;
    },
    parts: partsOf(Int32Array.of(intervals - 1), Float64Array.of(0), Float64Array.of(intervals)),
    seconds: Float64Array.from({ length: intervals - 1 }, (_, index) => index + 1),
    resident: new Float64Array(intervals - 1),
    heap: new Float64Array(intervals - 1),
    peakBytes: Float64Array.from(peaks, heap),
    keyNode: Int32Array.from({ length: keys }, (_, key) => key),
    keyThread: new Int32Array(keys),
    keyAllocator: new Int32Array(keys),
    lifetimeKey: new Int32Array(0),
    allocatedBefore: new Int32Array(0),
    freedBefore: new Int32Array(0),
    lifetimeCount: new Float64Array(0),
    lifetimeBytes: new Float64Array(0),
    atPeakKey: new Int32Array(0),
    atPeakFrom: new Int32Array(0),
    atPeakTo: new Int32Array(0),
    atPeakCount: new Float64Array(0),
    atPeakBytes: new Float64Array(0),
  };
  const intervalOf = (instant: number) => Math.floor(instant / perInterval);
  const lives = blocks.filter((block) => block.died === null || intervalOf(block.died) !== intervalOf(block.born));
  temporal.lifetimeKey = Int32Array.from(lives, (block) => block.key);
  temporal.allocatedBefore = Int32Array.from(lives, (block) => intervalOf(block.born));
  temporal.freedBefore = Int32Array.from(lives, (block) => (block.died === null ? 0 : intervalOf(block.died) + 1));
  temporal.lifetimeCount = Float64Array.from(lives, () => 1);
  temporal.lifetimeBytes = Float64Array.from(lives, (block) => block.bytes);
  const runs: { key: number; from: number; to: number; count: number; bytes: number }[] = [];
  for (let key = 0; key < keys; key++) {
    for (let interval = 0; interval < intervals; interval++) {
      const there = at(key, interval);
      const bytes = there.reduce((sum, block) => sum + block.bytes, 0);
      const last = runs.at(-1);
      if (last?.key === key && last.to === interval && last.bytes === bytes && last.count === there.length) last.to += 1;
      else if (there.length > 0) runs.push({ key, from: interval, to: interval + 1, count: there.length, bytes });
    }
  }
  temporal.atPeakKey = Int32Array.from(runs, (run) => run.key);
  temporal.atPeakFrom = Int32Array.from(runs, (run) => run.from);
  temporal.atPeakTo = Int32Array.from(runs, (run) => run.to);
  temporal.atPeakCount = Float64Array.from(runs, (run) => run.count);
  temporal.atPeakBytes = Float64Array.from(runs, (run) => run.bytes);
  return { temporal, blocks, held, heap, keys, instants };
}

test.each([1, 2, 3, 4])("every range is what replaying the heap says, history %i", (seed) => {
  const perInterval = 5;
  const intervals = 9;
  const { temporal, blocks, held, heap, keys } = history(seed * 31, intervals, perInterval);
  for (let first = 0; first < intervals; first++) {
    for (let last = first; last < intervals; last++) {
      const [from, end] = [first * perInterval, (last + 1) * perInterval];
      let best = from;
      for (let instant = from; instant < end; instant++) if (heap(instant) >= heap(best)) best = instant;
      expect(temporal.peakBytes[peakInterval(temporal, { first, last })]).toBe(heap(best));
      const atPeak = cellsAtPeak(temporal, [{ first, last }]);
      const left = cellsAllocatedAndLeft(temporal, [{ first, last }]);
      for (let key = 0; key < keys; key++) {
        const there = held(best).filter((block) => block.key === key);
        expect(atPeak.bytes[key]).toBe(there.reduce((sum, block) => sum + block.bytes, 0));
        expect(atPeak.counts[key]).toBe(there.length);
        const stayed = blocks.filter(
          (block) => block.key === key && block.born >= from && block.born < end && (block.died === null || block.died >= end),
        );
        expect(left.bytes[key]).toBe(stayed.reduce((sum, block) => sum + block.bytes, 0));
        expect(left.counts[key]).toBe(stayed.length);
      }
    }
  }
});

/** Two processes in one list, the second one `later` seconds after the first, with the same keys. */
function together(one: Temporal & Lists, other: Temporal & Lists, later: number): Temporal {
  const both = <A extends Int32Array | Float64Array>(first: A, second: ArrayLike<number>): A => {
    const list = new (first.constructor as new (size: number) => A)(first.length + second.length);
    list.set(first);
    list.set(second, first.length);
    return list;
  };
  const moved = (numbers: Int32Array | Float64Array, by: number) => Array.from(numbers, (number) => number + by);
  const intervals = one.peakBytes.length;
  const counts = Int32Array.of(one.seconds.length, other.seconds.length);
  const ends = [one.parts[0]!.end, other.parts[0]!.end + later];
  const group: Temporal & Lists = {
    *listsWork() {
      return group;
    },
    parts: partsOf(counts, Float64Array.of(0, later), Float64Array.from(ends)),
    seconds: both(one.seconds, moved(other.seconds, later)),
    resident: both(one.resident, other.resident),
    heap: both(one.heap, other.heap),
    peakBytes: both(one.peakBytes, other.peakBytes),
    keyNode: one.keyNode,
    keyThread: one.keyThread,
    keyAllocator: one.keyAllocator,
    lifetimeKey: both(one.lifetimeKey, other.lifetimeKey),
    allocatedBefore: both(one.allocatedBefore, moved(other.allocatedBefore, intervals)),
    freedBefore: both(one.freedBefore, Array.from(other.freedBefore, (freed) => (freed === 0 ? 0 : freed + intervals))),
    lifetimeCount: both(one.lifetimeCount, other.lifetimeCount),
    lifetimeBytes: both(one.lifetimeBytes, other.lifetimeBytes),
    atPeakKey: both(one.atPeakKey, other.atPeakKey),
    atPeakFrom: both(one.atPeakFrom, moved(other.atPeakFrom, intervals)),
    atPeakTo: both(one.atPeakTo, moved(other.atPeakTo, intervals)),
    atPeakCount: both(one.atPeakCount, other.atPeakCount),
    atPeakBytes: both(one.atPeakBytes, other.atPeakBytes),
  };
  return group;
}

test.each([5, 6, 7])("several processes are the sum of what each is by itself, histories %i", (seed) => {
  const [one, other] = [history(seed * 31, 9, 5).temporal, history(seed * 37, 4, 5).temporal];
  const later = 2.5;
  const group = together(one, other, later);
  for (let from = 0; from < 9; from += 0.5) {
    for (let to = from; to < 9; to += 0.5) {
      const ranges = rangesWithin(group, from, to);
      // The second one is there from 2.5 s to 6.5 s.
      const there = to >= later && from < later + 4;
      expect(ranges[1]!.last >= ranges[1]!.first).toBe(there);
      for (const cells of [cellsAtPeak, cellsAllocatedAndLeft]) {
        const sum = cells(group, ranges);
        const first = cells(one, rangesWithin(one, from, to));
        const second = there ? cells(other, rangesWithin(other, from - later, to - later)) : null;
        first.bytes.forEach((bytes, key) => {
          expect(sum.bytes[key]).toBe(bytes + (second?.bytes[key] ?? 0));
          expect(sum.counts[key]).toBe(first.counts[key]! + (second?.counts[key] ?? 0));
        });
      }
    }
  }
  expect(endsOf(group, wholeRanges(group))).toEqual([0, 9]);
  expect(endsOf(group, rangesWithin(group, 3.6, 3.7))).toEqual([3, 4.5]);
});
