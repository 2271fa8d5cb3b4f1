// Nothing that a large page computes is done in one piece: how often the work stops is counted, whatever the
// time it takes. And what is made in pieces is what a naive model says.

import { beforeAll, expect, test } from "vitest";
import { boxesWork } from "../src/model/boxes.ts";
import type { Cells, PageData } from "../src/model/data.ts";
import { figuresWork } from "../src/model/figures.ts";
import { flagsWork } from "../src/model/frames.ts";
import { type Column, type Listing, listingWork, type Order } from "../src/model/listing.ts";
import { membersWork, nodesAtWork, spansWork } from "../src/model/members.ts";
import { type Rows, rowsWork } from "../src/model/rows.ts";
import { foundWork, matcherOf, type Search, searchWork } from "../src/model/search.ts";
import { type Settings, type Shown, shownWork } from "../src/model/shown.ts";
import { heaviestWork, RUN, ranksWork, sortWork } from "../src/model/sorting.ts";
import { childrenOf, reweighedWork, type View } from "../src/model/view.ts";
import { finish, STEPS, TEXT_STEPS, type Work } from "../src/model/work.ts";
import { cellsOf, example, makeView, ownOf, random, treeOf } from "./support.ts";

const SIZE = 3 * STEPS;
/** Stops of a loop over so many nodes. */
const PASS = 2;
/** Stops of a loop that looks at a text for each. */
const TEXT_PASS = SIZE / TEXT_STEPS - 1;
/** Stops while so many are sorted: between runs, and while those are merged. */
const SORT = SIZE / RUN - 1 + Math.floor((Math.ceil(Math.log2(SIZE / RUN)) * SIZE) / STEPS);

const WHOLE: Settings = {
  metric: "peak",
  unit: "bytes",
  inverted: false,
  hide: 0,
  thread: -1,
  range: null,
  pane: "graph",
  query: "",
  order: { column: "bytes", descending: true },
};

/** Stops while so many are sorted by weight: by parts of it, of which small numbers have few, each counted and moved. */
const HEAVIEST = 2 * PASS + 4 * PASS + 2 * PASS;

/** Every node has a place of its own, and up to four children. */
function large(): PageData {
  const next = random(17);
  const numbers = Int32Array.from({ length: SIZE }, (_, index) => index);
  const parents = Array.from(numbers, (node) => Math.max(node - 1, 0) >> 2);
  const tree = treeOf(parents, Array.from(numbers));
  const cells = (): Cells => ({
    node: numbers,
    thread: numbers.map((node) => node % 2),
    allocator: numbers.map((node) => node % 2),
    bytes: Float64Array.from(numbers, () => next(1000) + 1),
    counts: Float64Array.from(numbers, () => next(5) + 1),
  });
  const small = example();
  const functions = Array.from(numbers, () => `function_${next(SIZE)}`);
  const locations = { ...small.locations, size: SIZE, functions: numbers, files: numbers.map((at) => at % 2), lines: numbers };
  const all = { peak: cells(), live: cells(), allocated: cells(), temporary: cells() };
  return {
    ...small,
    head: { ...small.head, functions },
    tree,
    locations,
    *cellsWork(metric) {
      return all[metric];
    },
    functionOf: (location) => functions[location] ?? "",
    fileOf: () => "",
    placeOf: (location) => `/x/a.py:${location}`,
  };
}

let data: PageData;
let view: View;
const flags = new Uint8Array(SIZE);

beforeAll(() => {
  data = large();
  view = makeView(data.tree, ownOf(SIZE, cellsOf(data), -1), { inverted: false, hidden: null, unit: "bytes" });
});

/** How often a work stops, and what comes of it. */
function counted<Result>(work: Work<Result>): { stops: number; result: Result } {
  for (let stops = 0; ; stops++) {
    const next = work.next();
    if (next.done === true) return { stops, result: next.value };
  }
}
const stopsOf = (work: Work<unknown>): number => counted(work).stops;
const listed = (order: Order, search: Search | null = null, before: Listing | null = null) =>
  counted(listingWork(data, cellsOf(data), -1, order, search, before));

test("details of a frame or a row", () => {
  const { stops, result } = counted(membersWork(view, data.tree, null, 1));
  expect(stops).toBe(PASS);
  expect(stopsOf(figuresWork(data, cellsOf(data), -1, result.below, true))).toBe(5 * PASS);
  expect(stopsOf(figuresWork(data, cellsOf(data), 1, null, true))).toBe(5 * PASS);
  expect(stopsOf(figuresWork(data, cellsOf(data), -1, null, true))).toBe(PASS);
  expect(stopsOf(spansWork(data.tree, result.at))).toBe(PASS);
  expect(stopsOf(nodesAtWork(data.tree, 5))).toBe(PASS);
});

test("a search, in places and in the tree", () => {
  const { stops, result } = counted(searchWork(data, "function_7"));
  expect(stops).toBe(TEXT_PASS);
  expect(stopsOf(foundWork(view, result!.matched, 0))).toBe(PASS);
  expect(stopsOf(flagsWork(data))).toBe(TEXT_PASS);
  expect(counted(searchWork(data, "/(/"))).toEqual({ stops: 0, result: null });
});

test("what is looked at of an inverted tree", () => {
  const inverted = makeView(data.tree, ownOf(SIZE, cellsOf(data), -1), { inverted: true, hidden: null, unit: "bytes" });
  // Every stack is a branch of its own: they are found, moved and sorted.
  expect(stopsOf(boxesWork(inverted, 0, 1000))).toBeGreaterThanOrEqual(2 * PASS + HEAVIEST);
  expect(stopsOf(boxesWork(inverted, 0, 1000))).toBeLessThan(PASS);
  const matched = new Uint8Array(SIZE).fill(1);
  const { stops, result } = counted(foundWork(inverted, matched, 0));
  expect(stops).toBe(2 * PASS);
  expect(result.bytes).toBe(inverted.bytes[0]! - inverted.ownBytes[0]!);
});

test("rows, their order, and a filter of them", () => {
  const order: Order = { column: "bytes", descending: true };
  const { stops, result: all } = listed(order);
  expect(all.rows.size).toBe(SIZE);
  expect(stops).toBe(PASS + SORT + PASS);
  // Keys, and ranks of the functions when they are first needed.
  const byFunction = listed({ column: "function", descending: false }, null, all);
  expect(byFunction.result.rows).toBe(all.rows);
  expect(byFunction.stops).toBe(SORT + PASS + SORT + PASS);
  expect(listed({ column: "function", descending: true }, null, all).stops).toBe(PASS + SORT + PASS);
  const search = finish(searchWork(data, "function_7"));
  const filtered = listed(order, search, all);
  expect(filtered.stops).toBe(PASS);
  expect(filtered.result.sorted).toBe(all.sorted);
  expect(filtered.result.found.length).toBeGreaterThan(0);
  expect(filtered.result.found.length).toBeLessThan(SIZE);
  expect(listed(order, search, filtered.result).result).toBe(filtered.result);
});

test("another thread, another unit, another pane", () => {
  const first = finish(shownWork(data, flags, WHOLE, null));
  const stopsTo = (part: Partial<Settings>, before: Shown = first) => stopsOf(shownWork(data, flags, { ...WHOLE, ...part }, before));
  // Own amounts, numbers of nodes, sums, depths, twice the children, and the crowded among them.
  expect(stopsTo({ thread: 1 })).toBe(7 * PASS);
  expect(stopsTo({ metric: "live" })).toBe(7 * PASS);
  expect(stopsTo({ unit: "blocks" })).toBe(PASS);
  expect(stopsTo({ pane: "table" })).toBe(PASS + SORT + PASS);
  expect(stopsTo({ query: "function" })).toBe(TEXT_PASS);
  // Own amounts, and which stacks there are.
  expect(stopsTo({ inverted: true })).toBe(2 * PASS);
  const inverted = finish(shownWork(data, flags, { ...WHOLE, inverted: true }, first));
  expect(stopsTo({ inverted: true, unit: "blocks" }, inverted)).toBe(0);
  expect(stopsTo({ inverted: false }, inverted)).toBe(7 * PASS);
});

test("children of a crowded node are sorted in pieces, each unit for itself", () => {
  const crowd = treeOf(new Array<number>(SIZE + 1).fill(0), Array.from({ length: SIZE + 1 }, (_, node) => node));
  const next = random(5);
  const amounts = () => Float64Array.from({ length: SIZE + 1 }, () => next(1000));
  const bytes = makeView(crowd, { bytes: amounts(), counts: amounts() }, { inverted: false, hidden: null, unit: "bytes" });
  expect(!bytes.inverted && bytes.sorted[0]).toBe(1);
  const { stops, result: blocks } = counted(reweighedWork(bytes, "blocks"));
  expect(stops).toBeGreaterThanOrEqual(PASS + HEAVIEST);
  for (const one of [bytes, blocks]) {
    const weights = Array.from(childrenOf(one, 0), (child) => one.weights[child]!);
    expect(weights).toEqual([...weights].sort((left, right) => right - left));
  }
});

test.each([0, 1, RUN - 1, RUN, RUN + 1, 5 * RUN + 3])("%i numbers sort as the browser would", (size) => {
  const next = random(size + 1);
  const keys = Int32Array.from({ length: size }, () => next(100));
  const items = Int32Array.from({ length: size }, (_, index) => index);
  const compare = (left: number, right: number) => keys[left]! - keys[right]!;
  const { stops, result } = counted(sortWork(items, compare));
  expect(Array.from(result)).toEqual(Array.from(items).sort(compare));
  expect(stops).toBeGreaterThanOrEqual(Math.max(Math.ceil(size / RUN) - 1, 0));
  expect(items.every((item, index) => item === index)).toBe(true);
});

test.each([0, 1, 5, 3 * RUN])("%i items sort by weight as the browser would", (size) => {
  const next = random(size + 3);
  for (const below of [1, 3, 1000, 2 ** 30, 2 ** 53]) {
    const weights = Float64Array.from({ length: 2 * size }, () => Math.floor(next(2 ** 30) / 2 ** 30 * below) + (below === 3 ? 0.5 : 0));
    const items = Int32Array.from({ length: size }, (_, index) => 2 * index);
    const sorted = Array.from(items).sort((left, right) => weights[right]! - weights[left]! || left - right);
    expect(Array.from(finish(heaviestWork(items, weights)))).toEqual(sorted);
    expect(items[size - 1] ?? -2).toBe(2 * size - 2);
  }
});

test("ranks of texts: equals have the same", () => {
  const texts = ["b", "a", "b", "", "c"];
  const ranks = finish(ranksWork(texts));
  expect(Array.from(ranks)).toEqual([2, 1, 2, 0, 3]);
  expect(finish(ranksWork(texts))).toBe(ranks);
});

test("rows and their orders are those of a naive model", () => {
  const next = random(23);
  const few = example();
  const count = 500;
  const numbers = (below: number) => Int32Array.from({ length: count }, () => next(below));
  const cells: Cells = {
    node: numbers(5),
    thread: numbers(2),
    allocator: numbers(2),
    bytes: Float64Array.from(numbers(3)),
    counts: Float64Array.from(numbers(2)),
  };
  interface Row {
    location: number;
    allocator: number;
    thread: number;
    bytes: number;
    count: number;
  }
  const model = new Map<string, Row>();
  cells.node.forEach((node, index) => {
    const [bytes, count] = [cells.bytes[index]!, cells.counts[index]!];
    if (bytes === 0 && count === 0) return;
    const [location, allocator, thread] = [few.tree.locations[node]!, cells.allocator[index]!, cells.thread[index]!];
    const row = model.get(`${location} ${allocator} ${thread}`) ?? { location, allocator, thread, bytes: 0, count: 0 };
    row.bytes += bytes;
    row.count += count;
    model.set(`${location} ${allocator} ${thread}`, row);
  });
  const rows = finish(rowsWork(few, cells, -1));
  const rowAt = ({ locations, allocators, threads, bytes, counts }: Rows, at: number): Row => ({
    location: locations[at]!,
    allocator: allocators[at]!,
    thread: threads[at]!,
    bytes: bytes[at]!,
    count: counts[at]!,
  });
  expect(Array.from({ length: rows.size }, (_, at) => rowAt(rows, at))).toEqual(Array.from(model.values()));
  const keys: Record<Column, (row: Row) => string | number> = {
    bytes: (row) => row.bytes,
    count: (row) => row.count,
    average: (row) => row.bytes / Math.max(row.count, 1),
    allocator: (row) => few.head.allocators[row.allocator]!,
    thread: (row) => row.thread,
    function: (row) => few.functionOf(row.location),
    place: (row) => `${few.fileOf(row.location)} ${few.locations.lines[row.location]}`,
  };
  const matches = matcherOf("mmap");
  const matched = new Uint8Array(few.locations.size);
  for (const column of Object.keys(keys) as Column[]) {
    for (const descending of [false, true]) {
      const listing = finish(listingWork(few, cells, -1, { column, descending }, null, null));
      const found = Array.from(listing.found, (at) => rowAt(listing.rows, at));
      const compare = (left: Row, right: Row) => {
        const [one, other] = [keys[column](left), keys[column](right)];
        const order = one < other ? -1 : one > other ? 1 : 0;
        return (descending ? -order : order) || right.bytes - left.bytes || left.location - right.location;
      };
      expect(found).toEqual(Array.from(model.values()).sort(compare));
      const filtered = finish(listingWork(few, cells, -1, { column, descending }, { matches, matched }, listing));
      const kept = found.filter((row) => few.head.allocators[row.allocator] === "mmap");
      expect(Array.from(filtered.found, (at) => rowAt(filtered.rows, at))).toEqual(kept);
      const sum = (of: (row: Row) => number) => kept.reduce((all, row) => all + of(row), 0);
      expect([filtered.bytes, filtered.count]).toEqual([sum((row) => row.bytes), sum((row) => row.count)]);
    }
  }
});
