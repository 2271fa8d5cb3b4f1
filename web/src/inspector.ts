// The pane of details: what is known of the selected frame or row, as soon as it is worked out.

import type { PageData } from "./model/data.ts";
import { type Figures, figuresWork } from "./model/figures.ts";
import { membersWork, nodesAtWork, spansWork } from "./model/members.ts";
import type { Shown } from "./model/shown.ts";
import type { Work } from "./model/work.ts";
import { Pending } from "./pace.ts";
import { type DetailActions, type Selection, showDetails } from "./views/details.ts";
import { element } from "./views/dom.ts";
import type { TableRow } from "./views/table.ts";

export class Inspector {
  private readonly data: PageData;
  private readonly pane = element("details");
  private readonly pending: Pending;

  constructor(data: PageData, failed: (error: unknown) => void) {
    this.data = data;
    this.pending = new Pending(this.pane, failed);
  }

  /** `title` is that of the whole. */
  showNode(shown: Shown, node: number, title: string, actions: DetailActions): void {
    const { data } = this;
    const { view } = shown;
    this.pending.start(this.nodeWork(shown, node), ({ spans, figures }) => {
      const selection: Selection = {
        ...this.wholeOf(shown),
        location: node === 0 ? undefined : view.locations[node]!,
        title: node === 0 ? title : data.functionOf(view.locations[node]!),
        bytes: view.bytes[node]!,
        ownBytes: node === 0 ? null : view.ownBytes[node]!,
        count: view.counts[node]!,
        spans,
        figures,
      };
      showDetails(this.pane, data, selection, actions);
    });
  }

  showRow(shown: Shown, row: TableRow, actions: DetailActions): void {
    const { data } = this;
    this.pending.start(this.rowWork(row), (spans) => {
      const selection: Selection = {
        ...this.wholeOf(shown),
        location: row.location,
        title: data.functionOf(row.location),
        bytes: row.bytes,
        ownBytes: null,
        count: row.count,
        spans,
        figures: null,
      };
      showDetails(this.pane, data, selection, actions);
    });
  }

  private wholeOf({ view, settings }: Shown): Pick<Selection, "whole" | "metric"> {
    const whole = { bytes: view.bytes[0]!, count: view.counts[0]! };
    return { whole, metric: settings.metric };
  }

  private *nodeWork(shown: Shown, node: number): Work<{ spans: Set<number>; figures: Figures }> {
    const { cells, hidden, view, settings } = shown;
    const { tree } = this.data;
    const wholeRun = settings.range === null;
    if (node === 0) {
      return { spans: new Set(), figures: yield* figuresWork(this.data, cells, settings.thread, null, wholeRun) };
    }
    const { at, below } = yield* membersWork(view, tree, hidden, node);
    const figures = yield* figuresWork(this.data, cells, settings.thread, below, wholeRun);
    return { spans: yield* spansWork(tree, at), figures };
  }

  private *rowWork(row: TableRow): Work<Set<number>> {
    const { tree } = this.data;
    return yield* spansWork(tree, yield* nodesAtWork(tree, row.location));
  }
}
