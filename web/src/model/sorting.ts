// Sorting that comes up for air.

import { inPieces, STEPS, type Work } from "./work.ts";

/** What is sorted at once, by the browser: about `STEPS` comparisons. */
export const RUN = 4096;

/** A sorted copy; equals stay in their order. */
export function* sortWork(items: Int32Array, compare: (left: number, right: number) => number): Work<Int32Array> {
  const { length } = items;
  let sorted = items.slice();
  for (let start = 0; start < length; start += RUN) {
    if (start > 0) yield;
    sorted.subarray(start, start + RUN).sort(compare);
  }
  if (length <= RUN) return sorted;
  let merged = new Int32Array(length);
  let steps = 0;
  for (let width = RUN; width < length; width *= 2) {
    for (let start = 0; start < length; start += 2 * width) {
      const middle = Math.min(start + width, length);
      const end = Math.min(start + 2 * width, length);
      let [left, right, at] = [start, middle, start];
      while (at < end) {
        const stop = Math.min(end, at + STEPS - steps);
        steps += stop - at;
        for (; at < stop; at++) {
          const takeLeft = left < middle && (right >= end || compare(sorted[left]!, sorted[right]!) <= 0);
          merged[at] = takeLeft ? sorted[left++]! : sorted[right++]!;
        }
        if (steps < STEPS) continue;
        steps = 0;
        yield;
      }
    }
    [sorted, merged] = [merged, sorted];
  }
  return sorted;
}

/** Values of 16 bits. */
const VALUES = 1 << 16;

/** The quarters of a number of 64 bits, from its lowest bits on, in this machine's memory. */
const QUARTERS = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1 ? [0, 1, 2, 3] : [3, 2, 1, 0];

/**
 * A copy sorted by weights, none of which is negative: the heaviest first, equals in their order. Without
 * comparisons, which is several times as fast for many items.
 */
export function* heaviestWork(items: Int32Array, weights: Float64Array): Work<Int32Array> {
  const { length } = items;
  const keys = new Float64Array(length);
  let sorted = new Int32Array(length);
  yield* inPieces(length, (from, to) => {
    for (let index = from; index < to; index++) {
      keys[index] = weights[items[index]!]!;
      sorted[index] = index;
    }
  });
  // Bits of numbers that are not negative order as the numbers do.
  const quarters = new Uint16Array(keys.buffer);
  let other = new Int32Array(length);
  for (const quarter of QUARTERS) {
    const places = new Int32Array(VALUES + 1);
    yield* inPieces(length, (from, to) => {
      for (let index = from; index < to; index++) places[VALUES - quarters[4 * index + quarter]!]! += 1;
    });
    // Of small whole numbers the lower bits are all the same.
    if (length === 0 || places[VALUES - quarters[quarter]!] === length) continue;
    for (let value = 0; value < VALUES; value++) places[value + 1]! += places[value]!;
    yield* inPieces(length, (from, to) => {
      for (let at = from; at < to; at++) {
        const index = sorted[at]!;
        const place = VALUES - 1 - quarters[4 * index + quarter]!;
        other[places[place]!] = index;
        places[place]! += 1;
      }
    });
    [sorted, other] = [other, sorted];
  }
  yield* inPieces(length, (from, to) => {
    for (let index = from; index < to; index++) sorted[index] = items[sorted[index]!]!;
  });
  return sorted;
}

const ranks = new WeakMap<readonly string[], Int32Array>();

/** For each text its place among all, sorted; equal ones have the same. Kept as long as the list is. */
export function* ranksWork(texts: readonly string[]): Work<Int32Array> {
  const known = ranks.get(texts);
  if (known !== undefined) return known;
  const compare = (left: number, right: number) => {
    const [one, other] = [texts[left]!, texts[right]!];
    return one < other ? -1 : one > other ? 1 : 0;
  };
  const sorted = yield* sortWork(Int32Array.from(texts, (_, index) => index), compare);
  const made = new Int32Array(texts.length);
  let rank = 0;
  for (let index = 0; index < sorted.length; index++) {
    if (index > 0 && compare(sorted[index - 1]!, sorted[index]!) !== 0) rank += 1;
    made[sorted[index]!] = rank;
  }
  ranks.set(texts, made);
  return made;
}
