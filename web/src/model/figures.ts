// Sums of some nodes of the page, for the details of a frame.

import { type Cells, METRIC_NAMES, type MetricName, type PageData } from "./data.ts";
import { inPieces, type Work } from "./work.ts";

export type MetricSums = Record<MetricName, { bytes: number; count: number }>;

export interface Figures {
  /** Of the whole run, in the thread that is shown; null where a range of it is shown. */
  metrics: MetricSums | null;
  /** Bytes by allocator, in the thread that is shown, and by thread, of all threads. */
  allocators: Float64Array;
  threads: Float64Array;
}

/** Of the nodes that are `below`, or of all; `thread` -1 means all. */
export function* figuresWork(
  data: PageData,
  cells: Cells,
  thread: number,
  below: Uint8Array | null,
  wholeRun: boolean,
): Work<Figures> {
  const metrics = wholeRun ? yield* metricSumsWork(data, thread, below) : null;
  const allocators = new Float64Array(data.head.allocators.length);
  const threads = new Float64Array(data.head.threads.length);
  yield* inPieces(cells.node.length, (from, to) => {
    for (let index = from; index < to; index++) {
      if (below !== null && below[cells.node[index]!] !== 1) continue;
      const of = cells.thread[index]!;
      threads[of]! += cells.bytes[index]!;
      if (thread < 0 || of === thread) allocators[cells.allocator[index]!]! += cells.bytes[index]!;
    }
  });
  return { metrics, allocators, threads };
}

function* metricSumsWork(data: PageData, thread: number, below: Uint8Array | null): Work<MetricSums> {
  const none = () => ({ bytes: 0, count: 0 });
  const metrics = { peak: none(), live: none(), allocated: none(), temporary: none() };
  if (below === null && thread < 0) {
    // Known without reading what they are made of.
    for (const { name, bytes, count } of data.head.metrics) metrics[name] = { bytes, count };
    return metrics;
  }
  for (const name of METRIC_NAMES) {
    const [of, sum] = [yield* data.cellsWork(name), metrics[name]];
    yield* inPieces(of.node.length, (from, to) => {
      for (let index = from; index < to; index++) {
        if ((below !== null && below[of.node[index]!] !== 1) || (thread >= 0 && of.thread[index] !== thread)) continue;
        sum.bytes += of.bytes[index]!;
        sum.count += of.counts[index]!;
      }
    });
  }
  return metrics;
}
