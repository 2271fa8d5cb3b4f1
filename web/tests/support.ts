// Pages made of numbers, and naive models to compare with.

import type { BaseTree, Cells, PageData } from "../src/model/data.ts";
import { blockOf } from "../src/model/block.ts";
import { readDataWork } from "../src/model/data.ts";
import { flagsWork } from "../src/model/frames.ts";
import { orderWork } from "../src/model/listing.ts";
import { membersWork, spansWork } from "../src/model/members.ts";
import { rowsWork } from "../src/model/rows.ts";
import { foundWork, matchedWork } from "../src/model/search.ts";
import { ownWork } from "../src/model/sums.ts";
import { cellsAllocatedAndLeftWork, cellsAtPeakWork } from "../src/model/temporal.ts";
import { boxesWork } from "../src/model/boxes.ts";
import { childrenOf, nodeAtPathWork, type View, viewWork } from "../src/model/view.ts";
import { finish, type Work } from "../src/model/work.ts";

export const finished =
  <Arguments extends unknown[], Result>(work: (...arguments_: Arguments) => Work<Result>) =>
  (...arguments_: Arguments): Result =>
    finish(work(...arguments_));

/** Of the peak. */
export const cellsOf = (data: PageData): Cells => finish(data.cellsWork("peak"));
export const readData = finished(readDataWork);
export const ownOf = finished(ownWork);
export const makeView = finished(viewWork);
export const nodeAtPath = finished(nodeAtPathWork);
export const boxesOf = finished(boxesWork);
export const membersOf = finished(membersWork);
export const spansOf = finished(spansWork);
export const rowsOf = finished(rowsWork);
export const orderOf = finished(orderWork);
export const matchedLocations = finished(matchedWork);
export const found = finished(foundWork);
export const flagsOfLocations = finished(flagsWork);
export const cellsAtPeak = finished(cellsAtPeakWork);
export const cellsAllocatedAndLeft = finished(cellsAllocatedAndLeftWork);

/** The same view after somebody has looked at all of its nodes, so that all are made. */
export function looked(view: View): View {
  for (let node = 0; node < view.size; node++) childrenOf(view, node);
  return view;
}

/** Writes what `parseBlock` reads; the other half of the tests is the page that Rust writes. */
export function encodeBlock(head: object, columns: [string, "plain" | "delta", number[]][]): Uint8Array {
  const bytes: number[] = [];
  const push = (value: bigint) => {
    for (; value >= 0x80n; value >>= 7n) bytes.push(Number(value & 0x7fn) | 0x80);
    bytes.push(Number(value));
  };
  for (const [, encoding, values] of columns) {
    let previous = 0n;
    for (const value of values.map((number) => BigInt(number))) {
      if (encoding === "plain") push(value);
      else {
        const difference = value - previous;
        push(difference >= 0n ? difference * 2n : -difference * 2n - 1n);
        previous = value;
      }
    }
  }
  const listed = columns.map(([name, encoding, values]) => [name, encoding, values.length]);
  const text = new TextEncoder().encode(JSON.stringify({ ...head, columns: listed }));
  const block = new Uint8Array(4 + text.length + bytes.length);
  new DataView(block.buffer).setUint32(0, text.length, true);
  block.set(text, 4);
  block.set(bytes, 4 + text.length);
  return block;
}

/** xorshift, so that every run tests the same. */
export function random(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

export function treeOf(parents: number[], locations: number[]): BaseTree {
  return {
    size: parents.length,
    parents: Int32Array.from(parents),
    locations: Int32Array.from(locations),
    spans: new Int32Array(parents.length),
    moreNodes: new Int32Array(0),
    moreSpans: new Int32Array(0),
  };
}

/** A tree whose siblings have different locations, as all trees of pages. */
export function randomTree(size: number, locations: number, next: (below: number) => number): BaseTree {
  const parents = [0];
  const places = [0];
  const taken = new Set<string>();
  while (parents.length < size) {
    const parent = next(4) === 0 ? next(parents.length) : parents.length - 1 - next(Math.min(parents.length, 8));
    const location = next(locations);
    if (taken.has(`${parent} ${location}`)) continue;
    taken.add(`${parent} ${location}`);
    parents.push(parent);
    places.push(location);
  }
  return treeOf(parents, places);
}

export function randomCells(tree: BaseTree, count: number, next: (below: number) => number): Cells {
  const numbers = (below: number) => Array.from({ length: count }, () => next(below));
  return {
    node: Int32Array.from(numbers(tree.size)),
    thread: Int32Array.from(numbers(3)),
    allocator: Int32Array.from(numbers(2)),
    bytes: Float64Array.from(numbers(1000)),
    counts: Float64Array.from(numbers(5)),
  };
}

/** A stack from the outermost frame to the innermost. */
export function stackOf(tree: BaseTree, node: number): number[] {
  const stack: number[] = [];
  for (let at = node; at !== 0; at = tree.parents[at]!) stack.push(tree.locations[at]!);
  return stack.reverse();
}

interface Example {
  head?: object;
  files?: string[];
  functions?: string[];
  modules?: (string | null)[];
}

/** A small page: `a` calls `b` twice, in lines 1 and 2, and `c`; a thread each; two allocators. */
export function example(more: Example = {}): PageData {
  const head = {
    schema_version: 1,
    report: "flamegraph",
    command: "python a.py",
    metric: "peak",
    inverted: false,
    split_threads: true,
    state: { word: "finished", text: "finished" },
    metrics: ["peak", "live", "allocated", "temporary"].map((name) => ({ name, title: name, bytes: 0, count: 0, note: null })),
    facts: [],
    histogram: [],
    notes: [],
    threads: ["0x1 (main)", "0x2"],
    allocators: ["malloc", "mmap"],
    functions: more.functions ?? ["a", "b", "c"],
    files: more.files ?? ["/x/a.py", ""],
    modules: more.modules ?? ["a", null],
    sources: [{ file: "/x/a.py", changed: false, first: 1, lines: ["b(é, b())", "b(", "  1)"] }],
    time: { start_unix_ms: 1000, microseconds: 2e6, limit_bytes: 0, samples: 2 },
    temporal: false,
    ...more.head,
  };
  const zeros = [0, 0, 0, 0];
  return readData(
    blockOf(
      encodeBlock(head, [
        ["location.function", "plain", [0, 1, 1, 2]],
        ["location.file", "plain", [0, 0, 0, 1]],
        ["location.line", "delta", [1, 1, 2, 0]],
        ["location.spans", "plain", [2, 0, 1, 0]],
        ["span.lines", "plain", [0, 0, 1]],
        ["span.column", "plain", [0, 6, 2]],
        ["span.end_column", "plain", [10, 9, 3]],
        ["node.up", "plain", [0, 1, 1, 2, 3]],
        ["node.location", "delta", [0, 0, 1, 2, 3]],
        ["node.span", "plain", [0, 2, 0, 1, 0]],
        ["more.node", "delta", [1]],
        ["more.span", "plain", [1]],
        ["entry.node", "delta", [2, 3, 3, 4]],
        ["entry.thread", "plain", [0, 0, 1, 1]],
        ["entry.allocator", "plain", [0, 0, 1, 1]],
        ["peak.bytes", "plain", [100, 200, 50, 2 ** 40]],
        ["peak.count", "plain", [1, 2, 1, 1]],
        ...["live", "allocated", "temporary"].flatMap((name): [string, "plain", number[]][] => [
          [`${name}.bytes`, "plain", zeros],
          [`${name}.count`, "plain", zeros],
        ]),
        ["sample.microseconds", "delta", [0, 1_500_000]],
        ["sample.resident", "delta", [10, 20]],
        ["sample.heap", "delta", [1, 2]],
      ]),
    ),
  );
}
