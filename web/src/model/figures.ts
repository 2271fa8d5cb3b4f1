// Sums of some nodes of the page, for the details of a frame.

import { type Cells, METRIC_NAMES, type MetricName, type PageData } from "./data.ts";
import { inPieces, type Work } from "./work.ts";

export interface Figures {
  /** Of the whole run, in the thread that is shown. */
  metrics: Record<MetricName, { bytes: number; count: number }>;
  /** Bytes by allocator, in the thread that is shown, and by thread, of all threads. */
  allocators: Float64Array;
  threads: Float64Array;
}

/** Of the nodes that are `below`; `thread` -1 means all. */
export function* figuresWork(data: PageData, cells: Cells, thread: number, below: Uint8Array): Work<Figures> {
  const none = () => ({ bytes: 0, count: 0 });
  const metrics = { peak: none(), live: none(), allocated: none(), temporary: none() };
  for (const name of METRIC_NAMES) {
    const [of, sum] = [data.cells[name], metrics[name]];
    yield* inPieces(of.node.length, (from, to) => {
      for (let index = from; index < to; index++) {
        if (below[of.node[index]!] !== 1 || (thread >= 0 && of.thread[index] !== thread)) continue;
        sum.bytes += of.bytes[index]!;
        sum.count += of.counts[index]!;
      }
    });
  }
  const allocators = new Float64Array(data.head.allocators.length);
  const threads = new Float64Array(data.head.threads.length);
  yield* inPieces(cells.node.length, (from, to) => {
    for (let index = from; index < to; index++) {
      if (below[cells.node[index]!] !== 1) continue;
      const of = cells.thread[index]!;
      threads[of]! += cells.bytes[index]!;
      if (thread < 0 || of === thread) allocators[cells.allocator[index]!]! += cells.bytes[index]!;
    }
  });
  return { metrics, allocators, threads };
}
