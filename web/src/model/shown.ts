// From what the reader wants to see to what is shown: amounts, tree, table.

import type { Cells, MetricName, PageData } from "./data.ts";
import { type Listing, listingWork, type Order } from "./listing.ts";
import { type Search, searchWork } from "./search.ts";
import { ownWork } from "./sums.ts";
import { cellsAllocatedAndLeftWork, cellsAtPeakWork, type Range, rangesWithin } from "./temporal.ts";
import { reweighedWork, type View, viewWork } from "./view.ts";
import type { Work } from "./work.ts";

export type PaneName = "graph" | "table";

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
  pane: PaneName;
  /** As in `search.ts`; nothing for no search. */
  query: string;
  /** Of the table. */
  order: Order;
}

export interface Shown {
  settings: Settings;
  cells: Cells;
  /** Of the locations: its frames are left out. */
  hidden: Uint8Array | null;
  view: View;
  search: Search | null;
  /** Made when it is first looked at; later without need to be up to date with search and order. */
  listing: Listing | null;
}

/** The chosen intervals, by process; null for the whole run. */
export function intervalsOf(data: PageData, range: Settings["range"]): Range[] | null {
  return range === null || data.temporal === null ? null : rangesWithin(data.temporal, range[0], range[1]);
}

function* cellsWork(data: PageData, { metric, range }: Settings): Work<Cells> {
  const ranges = intervalsOf(data, range);
  if (ranges === null || data.temporal === null) return yield* data.cellsWork(metric);
  if (metric === "live") return yield* cellsAllocatedAndLeftWork(data.temporal, ranges);
  return yield* cellsAtPeakWork(data.temporal, ranges);
}

/** `flags` are those of the locations; what `before` has already is not made again. */
export function* shownWork(data: PageData, flags: Uint8Array, settings: Settings, before: Shown | null): Work<Shown> {
  const { inverted, unit, thread, hide, query, order } = settings;
  const old = before?.settings;
  /** What `before` has, if it is of the same cells; then also of the same thread; then also the same way around. */
  const ofCells = old?.metric === settings.metric && old.range === settings.range ? before : null;
  const ofThread = old?.thread === thread ? ofCells : null;
  const ofTree = old?.inverted === inverted && old.hide === hide ? ofThread : null;
  const search = before !== null && old?.query === query ? before.search : yield* searchWork(data, query);
  const cells = ofCells?.cells ?? (yield* cellsWork(data, settings));
  const hidden = ofTree !== null ? ofTree.hidden : hide === 0 ? null : flags.map((flag) => ((flag & hide) !== 0 ? 1 : 0));
  let view: View;
  if (ofTree !== null) view = old?.unit === unit ? ofTree.view : yield* reweighedWork(ofTree.view, unit);
  else {
    const own = yield* ownWork(data.tree.size, cells, thread);
    view = yield* viewWork(data.tree, own, { inverted, hidden, unit });
  }
  let listing = ofThread?.listing ?? null;
  if (settings.pane === "table") listing = yield* listingWork(data, cells, thread, order, search, listing);
  return { settings, cells, hidden, view, search, listing };
}
