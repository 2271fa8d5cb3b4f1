// Sorting that comes up for air.

import { STEPS, type Work } from "./work.ts";

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
