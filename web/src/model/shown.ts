// From what the reader wants to see to what is shown: amounts, tree, rows.

import type { Cells, MetricName, PageData } from "./data.ts";
import { rowsWork, type TableRow } from "./rows.ts";
import { ownWork } from "./sums.ts";
import { cellsAllocatedAndLeftWork, cellsAtPeakWork, type Range, rangesWithin } from "./temporal.ts";
import { reweighed, type View, viewWork } from "./view.ts";
import type { Work } from "./work.ts";

export interface Settings {
  metric: MetricName;
  unit: "bytes" | "blocks";
  inverted: boolean;
  /** Flags of the frames that are left out, as in `frames.ts`. */
  hide: number;
  /** -1: all. */
  thread: number;
  /** Seconds from and to; null for the whole run. */
  range: [number, number] | null;
}

export interface Shown {
  settings: Settings;
  cells: Cells;
  /** Of the locations: its frames are left out. */
  hidden: Uint8Array | null;
  view: View;
  rows: TableRow[];
}

/** The chosen intervals, by process; null for the whole run. */
export function intervalsOf(data: PageData, range: Settings["range"]): Range[] | null {
  return range === null || data.temporal === null ? null : rangesWithin(data.temporal, range[0], range[1]);
}

function* cellsWork(data: PageData, { metric, range }: Settings): Work<Cells> {
  const ranges = intervalsOf(data, range);
  if (ranges === null || data.temporal === null) return data.cells[metric];
  if (metric === "live") return yield* cellsAllocatedAndLeftWork(data.temporal, ranges);
  return yield* cellsAtPeakWork(data.temporal, ranges);
}

/** `flags` are those of the locations; what `before` has already is not made again. */
export function* shownWork(data: PageData, flags: Uint8Array, settings: Settings, before: Shown | null): Work<Shown> {
  const { inverted, unit, thread, hide } = settings;
  const old = before?.settings;
  const same = old?.metric === settings.metric && old.range === settings.range && old.thread === thread;
  if (before !== null && same && old.inverted === inverted && old.hide === hide) {
    return { ...before, settings, view: reweighed(before.view, unit) };
  }
  const cells = before !== null && same ? before.cells : yield* cellsWork(data, settings);
  const own = yield* ownWork(data.tree.size, cells, thread);
  const hidden = hide === 0 ? null : flags.map((flag) => ((flag & hide) !== 0 ? 1 : 0));
  const view = yield* viewWork(data.tree, data.locations.size, own, { inverted, hidden, unit });
  const rows = before !== null && same ? before.rows : yield* rowsWork(data, cells, thread);
  return { settings, cells, hidden, view, rows };
}
