// What a page holds, ready for use.

import type { Block } from "./block.ts";
import { readTemporalWork, type Temporal } from "./temporal.ts";
import type { Work } from "./work.ts";

export type MetricName = "peak" | "live" | "allocated" | "temporary";
export const METRIC_NAMES: MetricName[] = ["peak", "live", "allocated", "temporary"];

export interface Metric {
  name: MetricName;
  title: string;
  bytes: number;
  count: number;
  note: string | null;
}

interface SourceRun {
  file: string;
  /** The file was changed after the recording. */
  changed: boolean;
  /** Number of the first line. */
  first: number;
  lines: string[];
}

/** The head as `page.rs` writes it. */
interface Head {
  schema_version: number;
  report: "flamegraph" | "table";
  command: string;
  metric: MetricName;
  inverted: boolean;
  split_threads: boolean;
  state: { word: string; text: string };
  metrics: Metric[];
  facts: [string, [string, string][]][];
  histogram: [number | null, number][];
  notes: string[];
  threads: string[];
  allocators: string[];
  functions: string[];
  files: string[];
  modules: (string | null)[];
  sources: SourceRun[];
  /** `microseconds` is how long the run took. */
  time: { start_unix_ms: number; microseconds: number; limit_bytes: number; samples: number };
  temporal: boolean;
}

/** What nodes have of one metric, one entry per node, thread and allocator. */
export interface Cells {
  node: Int32Array;
  thread: Int32Array;
  allocator: Int32Array;
  bytes: Float64Array;
  counts: Float64Array;
}

export interface Locations {
  size: number;
  functions: Int32Array;
  files: Int32Array;
  lines: Int32Array;
  /** Spans of location `i` are `firstSpan[i] .. firstSpan[i + 1]`. */
  firstSpan: Int32Array;
  spanLines: Int32Array;
  spanColumn: Int32Array;
  spanEnd: Int32Array;
}

/** The call tree; node 0 is the root, and a parent has a smaller index than its children. */
export interface BaseTree {
  size: number;
  parents: Int32Array;
  locations: Int32Array;
  /** One more than the number of the node's span within its location, zero without one. */
  spans: Int32Array;
  moreNodes: Int32Array;
  moreSpans: Int32Array;
}

export interface Samples {
  seconds: Float64Array;
  resident: Float64Array;
  heap: Float64Array;
}

export interface PageData {
  head: Head;
  locations: Locations;
  tree: BaseTree;
  /** Of the whole run. Read when they are first asked for. */
  cellsWork(metric: MetricName): Work<Cells>;
  /** Of the entries, which are the same in all metrics. */
  threadsOfEntries: Int32Array;
  samples: Samples;
  temporal: Temporal | null;
  functionOf(location: number): string;
  /** `file:line`, the file alone, or nothing. */
  placeOf(location: number): string;
  fileOf(location: number): string;
  source(file: string, line: number): { text: string; changed: boolean } | null;
}

export function* readDataWork(block: Block): Work<PageData> {
  const head = block.head as Head;
  if (head.schema_version !== 1) throw new Error("the page and its data are of different versions");
  const integers = (name: string) => block.integersWork(name);
  const functions = yield* integers("location.function");
  const counts = yield* integers("location.spans");
  const firstSpan = new Int32Array(counts.length + 1);
  for (let index = 0; index < counts.length; index++) firstSpan[index + 1] = firstSpan[index]! + counts[index]!;
  const locations: Locations = {
    size: functions.length,
    functions,
    files: yield* integers("location.file"),
    lines: yield* integers("location.line"),
    firstSpan,
    spanLines: yield* integers("span.lines"),
    spanColumn: yield* integers("span.column"),
    spanEnd: yield* integers("span.end_column"),
  };
  const parents = yield* integers("node.up");
  for (let node = 0; node < parents.length; node++) parents[node] = node - parents[node]!;
  const tree: BaseTree = {
    size: parents.length,
    parents,
    locations: yield* integers("node.location"),
    spans: yield* integers("node.span"),
    moreNodes: yield* integers("more.node"),
    moreSpans: yield* integers("more.span"),
  };
  const node = yield* integers("entry.node");
  const thread = yield* integers("entry.thread");
  const allocator = yield* integers("entry.allocator");
  const cells = new Map<MetricName, Cells>();
  const sources = new Map<string, SourceRun[]>();
  for (const run of head.sources) {
    const runs = sources.get(run.file);
    if (runs === undefined) sources.set(run.file, [run]);
    else runs.push(run);
  }
  const fileOf = (location: number) => head.files[locations.files[location]!] ?? "";
  return {
    head,
    locations,
    tree,
    threadsOfEntries: thread,
    *cellsWork(metric) {
      const known = cells.get(metric);
      if (known !== undefined) return known;
      const [bytes, counts] = [yield* block.floatsWork(`${metric}.bytes`), yield* block.floatsWork(`${metric}.count`)];
      const made = { node, thread, allocator, bytes, counts };
      cells.set(metric, made);
      return made;
    },
    samples: {
      seconds: (yield* block.floatsWork("sample.microseconds")).map((microseconds) => microseconds / 1e6),
      resident: yield* block.floatsWork("sample.resident"),
      heap: yield* block.floatsWork("sample.heap"),
    },
    temporal: head.temporal ? yield* readTemporalWork(block) : null,
    functionOf: (location) => head.functions[functions[location]!] ?? "",
    fileOf,
    placeOf(location) {
      const line = locations.lines[location]!;
      const file = fileOf(location);
      return line > 0 && file !== "" ? `${file}:${line}` : file;
    },
    source(file, line) {
      for (const run of sources.get(file) ?? []) {
        const text = run.lines[line - run.first];
        if (text !== undefined) return { text, changed: run.changed };
      }
      return null;
    },
  };
}
