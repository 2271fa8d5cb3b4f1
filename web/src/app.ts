// What the page shows at the moment, and how a change of it goes through model and views.
//
// A change is wanted first and shown when it is computed. For most pages that is at once; a large tree
// takes longer, and meanwhile the page shows what it did and takes further wishes, the last of which counts.

import { type Address, readAddress, writeAddress } from "./address.ts";
import { Controls, HIDDEN_AT_FIRST } from "./controls.ts";
import { Inspector } from "./inspector.ts";
import { type Cells, METRIC_NAMES, type MetricName, type PageData } from "./model/data.ts";
import { type Found, foundWork } from "./model/search.ts";
import { type PaneName, type Settings, type Shown, shownWork } from "./model/shown.ts";
import { addressOf, nodeAtPathWork, pathOf, pathOfAddress, viewWork } from "./model/view.ts";
import { finish, type Work } from "./model/work.ts";
import { type Cancel, inSlices, OPENING_SLICE_MS, Pending } from "./pace.ts";
import { blocksText, bytesText, countText, shareText } from "./text.ts";
import { Timeline } from "./timeline.ts";
import { element } from "./views/dom.ts";
import { FlameGraph, type GraphState } from "./views/graph.ts";
import { showPath } from "./views/path.ts";
import { Table, type TableRow } from "./views/table.ts";
import { startTheme, type Theme } from "./views/theme.ts";
import { hideTooltip, showTooltip } from "./views/tooltip.ts";

export class App {
  readonly graph: FlameGraph;
  readonly state: GraphState;
  private readonly theme: Theme;
  private readonly table: Table;
  private readonly timeline: Timeline;
  private readonly controls: Controls;
  private readonly inspector: Inspector;
  private readonly matching: Pending;
  private readonly flags: Uint8Array;
  private readonly start: Address;
  private wanted: Settings;
  private shown: Shown;
  /** Ends the computation of what is wanted; null when that is shown. */
  private cancelWork: Cancel | null = null;
  /** The address to zoom to in what is wanted; null for where the zoom is now. */
  private wantedZoom: string | null = null;
  /** Whoever waits for the page to open; null when it has. */
  private opening: { done: () => void; failed: (error: unknown) => void } | null = null;
  private row: TableRow | null = null;
  private readonly data: PageData;
  private readonly failed: (error: unknown) => void;

  /**
   * `flags` are those of the locations; `failed` is told why something that was asked for later cannot be
   * shown.
   */
  constructor(data: PageData, flags: Uint8Array, failed: (error: unknown) => void) {
    this.data = data;
    this.failed = failed;
    const { head } = data;
    const pane = head.report === "table" ? "table" : "graph";
    const { metric, inverted } = head;
    this.start = { metric, inverted, view: pane, zoom: "0", range: null };
    const order = { column: "bytes", descending: true } as const;
    this.wanted = { metric, inverted, range: null, unit: "bytes", hide: HIDDEN_AT_FIRST, thread: -1, pane, query: "", order };
    this.flags = flags;
    // Until the address is read, which decides what is shown first.
    const nothing = { bytes: new Float64Array(1), counts: new Float64Array(1) };
    const root = { ...data.tree, size: 1, parents: new Int32Array(1), locations: new Int32Array(1) };
    const view = finish(viewWork(root, nothing, { inverted: false, hidden: null, unit: "bytes" }));
    this.shown = { settings: this.wanted, cells: nothingOf(data), hidden: null, view, search: null, listing: null };
    this.state = { view, zoom: 0, selected: -1, flames: false, matched: null, rootLabel: "" };
    this.theme = startTheme(() => this.repaint());
    this.graph = new FlameGraph(data, this.theme, this.state, {
      hover: (node, event) => this.hover(node, event),
      click: (node) => this.click(node),
      failed,
    });
    this.table = new Table(data, { choose: (row) => this.selectRow(row), sort: (order) => this.change({ order }) });
    this.inspector = new Inspector(data, failed);
    this.matching = new Pending(element("matched"), failed);
    this.timeline = new Timeline(data, this.theme, (range) => this.setRange(range));
    this.controls = new Controls(data, {
      change: (part) => this.change(part),
      toggleInverted: () => this.toggleInverted(),
      setMetric: (metric) => this.setMetric(metric),
      setPane: (pane) => this.setPane(pane),
      setFlames: (flames) => this.setFlames(flames),
      search: (query) => this.search(query),
      reset: () => this.reset(),
    });
    element("stop").addEventListener("click", () => this.stop());
  }

  /** Shows what the address says. */
  open(): Promise<void> {
    return new Promise((done, failed) => {
      this.opening = { done, failed };
      this.readAddress();
    });
  }

  // ------------------------------------------------------------ changes

  /** The zoom stays where it is, by the names of its frames, or goes to the address `zoom`. */
  private change(part: Partial<Settings>, zoom: string | null = this.wantedZoom): void {
    this.wanted = { ...this.wanted, ...part };
    this.wantedZoom = zoom;
    // Before what is computed at once corrects it: it is a step of its own for Back.
    this.remember();
    this.compute();
  }

  private compute(): void {
    const { wanted, shown } = this;
    this.cancelWork?.();
    this.cancelWork = null;
    this.showControls();
    // The first one is of nothing.
    const before = this.opening === null ? shown : null;
    this.cancelWork = inSlices(
      this.changeWork(wanted, before),
      (change) => this.take(change),
      (error) => (this.opening === null ? this.giveUp(error) : this.opening.failed(error)),
      this.opening === null ? undefined : OPENING_SLICE_MS,
    );
    this.showBusy();
  }

  /** Back from what is wanted to what is shown. */
  stop(): void {
    if (this.cancelWork === null || this.opening !== null) return;
    this.cancelWork();
    this.cancelWork = null;
    this.wanted = this.shown.settings;
    this.wantedZoom = null;
    this.showControls();
    this.showBusy();
    this.remember("replace");
  }

  /** Memory may not suffice for a tree that was asked for. */
  private giveUp(error: unknown): void {
    this.cancelWork ??= () => {};
    this.stop();
    this.failed(error);
  }

  get busy(): boolean {
    return this.cancelWork !== null;
  }

  /** What is wanted, and where in it the zoom will be. */
  private *changeWork(wanted: Settings, before: Shown | null): Work<Change> {
    const next = yield* shownWork(this.data, this.flags, wanted, before);
    // The zoom may be moved meanwhile.
    for (;;) {
      const { wantedZoom } = this;
      const { view, zoom: from } = this.state;
      if (next.view === view && wantedZoom === null) return { next, zoom: null };
      const path = wantedZoom === null ? pathOf(view, from) : pathOfAddress(this.data.tree, next.hidden, wantedZoom);
      const at = yield* nodeAtPathWork(next.view, path);
      const zoom = next.view.weights[at]! > 0 ? at : 0;
      yield* this.graph.prepareWork(next.view, zoom);
      if (this.state.zoom === from && this.wantedZoom === wantedZoom) return { next, zoom };
    }
  }

  private take({ next, zoom }: Change): void {
    const { shown: before, opening } = this;
    this.cancelWork = null;
    this.opening = null;
    this.shown = next;
    const { settings, search, listing } = next;
    const pane = opening !== null || before.settings.pane !== settings.pane;
    if (pane) this.controls.showPane(settings.pane);
    this.state.matched = search?.matched ?? null;
    if (listing !== null && listing !== before.listing) {
      this.table.show(listing, { bytes: next.view.bytes[0]!, count: next.view.counts[0]! });
    }
    if (zoom !== null) this.takeTree(next, zoom);
    if (zoom !== null || pane) this.zoomChanged();
    else if (search !== before.search) {
      this.showMatched();
      this.graph.redraw();
    }
    this.showBusy();
    if (opening === null) this.remember("replace");
    else opening.done();
  }

  /** The tree is another one, or another of its frames is to be zoomed to. */
  private takeTree({ view, settings }: Shown, zoom: number): void {
    const { state } = this;
    this.wantedZoom = null;
    state.view = view;
    state.zoom = zoom;
    state.selected = state.zoom === 0 ? -1 : state.zoom;
    state.rootLabel = `all  ${bytesText(view.bytes[0]!)}  ${this.words(settings).toLowerCase()}`;
    this.row = null;
    const { metric } = settings;
    const empty = element("empty");
    empty.hidden = view.weights[0]! > 0;
    empty.textContent = `Nothing was ${metric === "allocated" || metric === "temporary" ? "allocated that counts here" : "held"}: ${this.words(settings).toLowerCase()}.`;
  }

  private zoomChanged(): void {
    this.state.zoom = this.state.view.weights[this.state.zoom]! > 0 ? this.state.zoom : 0;
    hideTooltip();
    this.graph.changed();
    showPath(this.data, this.state.view, this.state.zoom, (node) => this.zoomTo(node));
    this.showMatched();
    this.showSelection();
    element("reset").hidden = this.state.zoom === 0;
  }

  zoomTo(node: number): void {
    this.state.zoom = node;
    // What is still computed is to show this frame too, unless it goes the other way around.
    if (this.wanted.inverted === this.state.view.inverted) this.wantedZoom = null;
    this.zoomChanged();
    this.remember();
  }

  reset(): void {
    this.state.selected = -1;
    this.zoomTo(0);
  }

  select(node: number): void {
    this.state.selected = node;
    hideTooltip();
    this.graph.showNode(node);
    this.graph.redraw();
    this.showSelection();
  }

  setMetric(metric: MetricName): void {
    if (this.controls.canShow(metric, this.wanted.range)) this.change({ metric });
  }

  nextMetric(): void {
    const others = METRIC_NAMES.filter((name) => this.controls.canShow(name, this.wanted.range));
    const next = others[(others.indexOf(this.wanted.metric) + 1) % others.length];
    if (next !== undefined) this.setMetric(next);
  }

  toggleInverted(): void {
    this.change({ inverted: !this.wanted.inverted }, "0");
  }

  toggleUnit(): void {
    this.change({ unit: this.wanted.unit === "bytes" ? "blocks" : "bytes" });
  }

  setFlames(flames: boolean): void {
    this.state.flames = flames;
    this.showControls();
    this.zoomChanged();
  }

  setPane(pane: PaneName): void {
    if (pane !== "graph" || this.data.head.report !== "table") this.change({ pane });
  }

  togglePane(): void {
    this.setPane(this.wanted.pane === "graph" ? "table" : "graph");
  }

  private setRange(range: Settings["range"]): void {
    const { metric } = this.wanted;
    const other = this.start.metric === "live" ? "live" : "peak";
    this.change({ range, metric: this.controls.canShow(metric, range) ? metric : other });
  }

  search(query: string): void {
    this.change({ query });
  }

  private repaint(): void {
    this.graph.recolor();
    this.timeline.draw();
  }

  // ------------------------------------------------------------ address

  private address(): Address {
    const { metric, inverted, range, pane } = this.wanted;
    const { view, zoom } = this.state;
    return { metric, inverted, view: pane, range, zoom: this.wantedZoom ?? addressOf(view, zoom) };
  }

  private remember(how: "push" | "replace" = "push"): void {
    const hash = writeAddress(this.address(), this.start);
    if (location.hash === hash || (hash === "#" && location.hash === "")) return;
    try {
      if (how === "push") history.pushState(null, "", hash);
      else history.replaceState(null, "", hash);
    } catch {
      // Some viewers of files forbid a history; the page works without.
    }
  }

  readAddress(): void {
    const address = readAddress(location.hash, this.start);
    const range = this.data.temporal === null ? null : address.range;
    const metric = this.controls.canShow(address.metric, range) ? address.metric : this.start.metric;
    const pane = this.data.head.report === "table" ? "table" : address.view;
    this.wanted = { ...this.wanted, range: sameRange(range, this.wanted.range), metric, inverted: address.inverted, pane };
    this.wantedZoom = address.zoom;
    this.compute();
  }

  // ------------------------------------------------------------ words and marks

  private words({ range, metric }: Settings): string {
    if (range !== null) {
      return metric === "live" ? "Allocated in the range, still there at its end" : "At the peak in the range";
    }
    return this.data.head.metrics.find(({ name }) => name === metric)?.title ?? "";
  }

  private showControls(): void {
    this.controls.show(this.wanted, this.state.flames);
    this.timeline.show(this.wanted);
  }

  private showBusy(): void {
    document.documentElement.toggleAttribute("data-busy", this.busy);
    element("busy").hidden = !this.busy;
    element("stop").hidden = this.opening !== null;
    element("work").textContent = this.busy ? "Working …" : "";
    element("main").setAttribute("aria-busy", String(this.busy));
  }

  private showMatched(): void {
    const { view, matched, zoom } = this.state;
    if (matched === null || this.shown.settings.pane === "table") {
      this.matching.stop();
      element("matched").textContent = "";
      return;
    }
    this.matching.start(foundWork(view, matched, zoom), (sum) => this.tellMatched(sum, view.weights[zoom]!));
  }

  private tellMatched(sum: Found, weight: number): void {
    const amount = this.shown.settings.unit === "bytes" ? bytesText(sum.bytes) : blocksText(sum.blocks);
    const stacks = `${countText(sum.stacks)} stack${sum.stacks === 1 ? "" : "s"}`;
    const output = element("matched");
    output.textContent = `${shareText(sum.weight, weight)} matched: ${amount} in ${stacks}`;
    output.title = output.textContent;
  }

  // ------------------------------------------------------------ selection

  private hover(node: number | undefined, event: MouseEvent): void {
    if (node === undefined) hideTooltip();
    else {
      const { thread } = this.shown.settings;
      const name = thread >= 0 ? (this.data.head.threads[thread] ?? "") : "";
      showTooltip(this.data, this.state.view, this.state.zoom, node, name, event);
    }
    this.showDetail(node ?? this.current());
  }

  private click(node: number): void {
    this.state.selected = node;
    this.zoomTo(node);
  }

  private current(): number {
    return this.state.selected >= 0 ? this.state.selected : this.state.zoom;
  }

  private showDetail(node: number): void {
    const { view } = this.state;
    const place = node === 0 ? "" : this.data.placeOf(view.locations[node]!);
    const name = node === 0 ? "all" : this.data.functionOf(view.locations[node]!);
    const share = shareText(view.weights[node]!, view.weights[0]!);
    const amount = `${bytesText(view.bytes[node]!)} (${share}), ${blocksText(view.counts[node]!)}`;
    element("detail").textContent = `${name}  ${place}  ${amount}`;
  }

  private selectRow(row: TableRow): void {
    this.row = row;
    this.showSelection();
  }

  private showSelection(): void {
    const { data, inspector, shown, row } = this;
    const node = this.current();
    this.showDetail(node);
    const hasGraph = data.head.report !== "table";
    if (row !== null && shown.settings.pane === "table") {
      const find = (query: string) => this.change({ pane: "graph", query });
      inspector.showRow(shown, row, { zoom: null, find: hasGraph ? find : null });
      return;
    }
    inspector.showNode(shown, node, this.words(shown.settings), {
      zoom: node === this.state.zoom ? null : () => this.zoomTo(node),
      find: node !== 0 && hasGraph ? (query) => this.search(query) : null,
    });
  }
}

const nothingOf = ({ threadsOfEntries }: PageData): Cells => {
  const [none, amounts] = [threadsOfEntries.subarray(0, 0), new Float64Array(0)];
  return { node: none, thread: none, allocator: none, bytes: amounts, counts: amounts };
};

interface Change {
  next: Shown;
  /** Null for where it is, in the tree that is shown already. */
  zoom: number | null;
}

/** Ranges are the same by what they are; what is kept of them is known by which it is. */
const sameRange = (range: Settings["range"], known: Settings["range"]): Settings["range"] =>
  range !== null && known !== null && range[0] === known[0] && range[1] === known[1] ? known : range;
