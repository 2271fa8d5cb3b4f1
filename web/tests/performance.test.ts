// How long the page thinks when a range is chosen. Printed and not judged: machines differ.

import { expect, test } from "vitest";
import { type Lists, partsOf, type Temporal } from "../src/model/temporal.ts";
import { cellsAllocatedAndLeft, cellsAtPeak, makeView, ownOf, random, randomTree } from "./support.ts";

test("a range of 100,000 intervals, over 100,000 stacks with 300,000 lifetimes", () => {
  const next = random(77);
  const [stacks, intervals, records] = [100_000, 100_000, 300_000];
  const tree = randomTree(stacks, 500, next);
  const numbers = (size: number, below: number) => Int32Array.from({ length: size }, () => next(below));
  const floats = (size: number, below: number) => Float64Array.from({ length: size }, () => next(below));
  const from = numbers(records, intervals);
  const temporal: Temporal & Lists = {
    *listsWork() {
      return temporal;
    },
    parts: partsOf(Int32Array.of(intervals - 1), Float64Array.of(0), Float64Array.of(intervals)),
    seconds: Float64Array.from({ length: intervals - 1 }, (_, index) => index),
    resident: floats(intervals - 1, 1000),
    heap: floats(intervals - 1, 1000),
    peakBytes: floats(intervals, 1_000_000),
    keyNode: Int32Array.from({ length: stacks }, (_, node) => node),
    keyThread: new Int32Array(stacks),
    keyAllocator: new Int32Array(stacks),
    lifetimeKey: numbers(records, stacks),
    allocatedBefore: numbers(records, intervals),
    freedBefore: numbers(records, intervals * 2),
    lifetimeCount: floats(records, 10),
    lifetimeBytes: floats(records, 1000),
    atPeakKey: numbers(records, stacks),
    atPeakFrom: from,
    atPeakTo: from.map((first) => first + 1 + next(1000)),
    atPeakCount: floats(records, 10),
    atPeakBytes: floats(records, 1000),
  };
  const range = { first: 10_000, last: 80_000 };
  const times: string[] = [];
  for (const [name, cellsOf] of [["peak", cellsAtPeak], ["left", cellsAllocatedAndLeft]] as const) {
    const before = process.cpuUsage();
    const own = ownOf(stacks, cellsOf(temporal, [range]), -1);
    const counted = process.cpuUsage(before);
    const view = makeView(tree, own, { inverted: false, hidden: null, unit: "bytes" });
    const all = process.cpuUsage(before);
    times.push(`${name} ${counted.user / 1000} + tree ${(all.user - counted.user) / 1000} ms`);
    expect(view.bytes[0]).toBe(own.bytes.reduce((sum, bytes) => sum + bytes, 0));
  }
  console.log(`range, processor time: ${times.join(", ")}`);
});
