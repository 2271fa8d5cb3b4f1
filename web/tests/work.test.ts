import { expect, test } from "vitest";
import { inPieces, STEPS, type Work } from "../src/model/work.ts";
import { inSlices, paced } from "../src/pace.ts";
import { cellsOf, example, finished, flagsOfLocations, looked, ownOf, random, treeOf } from "./support.ts";
import { IRRELEVANT } from "../src/model/frames.ts";
import { type Settings, shownWork } from "../src/model/shown.ts";
import { childrenOf, childrenWork, viewWork } from "../src/model/view.ts";

function* counting(steps: number, log: number[]): Work<string> {
  for (let step = 0; step < steps; step++) {
    log.push(step);
    // Longer than a slice, whatever the machine.
    for (const end = performance.now() + 11; performance.now() < end; );
    yield;
  }
  return "done";
}

const never = (what: string) => () => {
  throw new Error(`${what} was called`);
};

test.each([0, 1, STEPS, STEPS + 1, 3 * STEPS])("pieces of %i are all of it, once", (count) => {
  const ends: number[] = [0];
  let stops = 0;
  for (const _ of inPieces(count, (from, to) => {
    expect(from).toBe(ends[ends.length - 1]);
    ends.push(to);
  })) stops += 1;
  expect(ends[ends.length - 1]).toBe(count);
  expect(stops).toBe(Math.max(Math.ceil(count / STEPS) - 1, 0));
});

test("little work is done when the call returns", () => {
  const results: number[] = [];
  function* little(): Work<number> {
    yield* inPieces(10, () => {});
    return 7;
  }
  expect(inSlices(little(), (result) => results.push(result), never("failed"))).toBeNull();
  expect(results).toEqual([7]);
});

test("much work lets others run in between", async () => {
  const log: number[] = [];
  const work = paced(counting(3, log));
  expect(log).toEqual([0]);
  expect(await work).toBe("done");
  expect(log).toEqual([0, 1, 2]);
});

test("work that is cancelled goes no further, and nobody hears of it", async () => {
  const log: number[] = [];
  const cancel = inSlices(counting(3, log), never("done"), never("failed"));
  cancel?.();
  // Work that began later has ended.
  expect(await paced(counting(3, []))).toBe("done");
  expect(log).toEqual([0]);
});

test("what fails is told, at once or later", async () => {
  function* failing(after: number): Work<void> {
    yield* counting(after, []);
    throw new Error("no memory");
  }
  for (const after of [0, 2]) await expect(paced(failing(after))).rejects.toThrow("no memory");
});

test("a large tree is made in pieces, and is the whole of it", () => {
  const next = random(99);
  const size = 3 * STEPS;
  // Every node calls up to four others.
  const parents = Array.from({ length: size }, (_, node) => Math.max(node - 1, 0) >> 2);
  const tree = treeOf(parents, Array.from(parents, () => next(300)));
  const own = { bytes: Float64Array.from(parents, () => next(1000)), counts: Float64Array.from(parents, () => 1) };
  const sum = own.bytes.reduce((all, one) => all + one, 0);
  for (const [inverted, least] of [[false, 8], [true, 2 + 4]] as const) {
    let stops = 0;
    const stopped = <Result>(work: Work<Result>): Result => {
      for (;;) {
        const step = work.next();
        if (step.done === true) return step.value;
        stops += 1;
      }
    };
    const view = stopped(viewWork(tree, own, { inverted, hidden: null, unit: "bytes" }));
    stopped(childrenWork(view, 0));
    expect(stops).toBeGreaterThanOrEqual(least);
    looked(view);
    const ownBytes = view.ownBytes.subarray(0, view.size);
    expect([view.bytes[0], ownBytes.reduce((all, one) => all + one, 0), view.counts[0]]).toEqual([sum, sum, size]);
  }
});

test("what is shown already is not made again", () => {
  const data = example();
  const shownOf = finished(shownWork);
  const settings: Settings = {
    metric: "peak",
    unit: "bytes",
    inverted: false,
    hide: IRRELEVANT,
    thread: -1,
    range: null,
    pane: "table",
    query: "",
    order: { column: "bytes", descending: true },
  };
  const flags = flagsOfLocations(data);
  const first = shownOf(data, flags, settings, null);
  const blocks = shownOf(data, flags, { ...settings, unit: "blocks" }, first);
  expect(blocks.view.bytes).toBe(first.view.bytes);
  expect(blocks).toEqual({ ...shownOf(data, flags, { ...settings, unit: "blocks" }, null), view: blocks.view });
  expect(Array.from(childrenOf(blocks.view, 0))).toEqual(Array.from(childrenOf(shownOf(data, flags, { ...settings, unit: "blocks" }, null).view, 0)));
  const inverted = shownOf(data, flags, { ...settings, inverted: true }, blocks);
  expect(inverted.listing).toBe(first.listing);
  expect(inverted).toEqual(shownOf(data, flags, { ...settings, inverted: true }, null));
  const thread = shownOf(data, flags, { ...settings, thread: 1 }, inverted);
  expect(thread).toEqual(shownOf(data, flags, { ...settings, thread: 1 }, null));
  expect(thread.view.bytes[0]).toBe(ownOf(data.tree.size, cellsOf(data), 1).bytes.reduce((sum, bytes) => sum + bytes, 0));
});
