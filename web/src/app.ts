// What the page shows at the moment, and how a change of it goes through model and views.
//
// A change is wanted first and shown when it is computed. For most pages that is at once; a large tree
// takes longer, and meanwhile the page shows what it did and takes further wishes, the last of which counts.

import { type Address, readAddress, writeAddress } from "./address.ts";
import { Controls, HIDDEN_AT_FIRST, type ViewName } from "./controls.ts";
import { METRIC_NAMES, type MetricName, type PageData } from "./model/data.ts";
import { type Figures, figuresWork } from "./model/figures.ts";
import { flagsOfLocations } from "./model/frames.ts";
import { MOST_INVERTED_NODES } from "./model/inverted.ts";
import { type Membership, membersWork } from "./model/members.ts";
import type { TableRow } from "./model/rows.ts";
import { found, matchedLocations, matcherOf } from "./model/search.ts";
import { type Settings, type Shown, shownWork } from "./model/shown.ts";
import { addressOf, nodeAtPath, pathOf, pathOfAddress, viewWork } from "./model/view.ts";
import { finish, type Work } from "./model/work.ts";
import { type Cancel, inSlices } from "./pace.ts";
import { blocksText, bytesText, countText, cutText, shareText } from "./text.ts";
import { Timeline } from "./timeline.ts";
import { type Selection, showDetails } from "./views/details.ts";
import { button, element, make } from "./views/dom.ts";
import { FlameGraph, type GraphState } from "./views/graph.ts";
import { Table } from "./views/table.ts";
import { startTheme, type Theme } from "./views/theme.ts";
import { hideTooltip, showTooltip } from "./views/tooltip.ts";

export class App {
  readonly graph: FlameGraph;
  readonly state: GraphState;
  private readonly theme: Theme;
  private readonly table: Table;
  private readonly timeline: Timeline;
  private readonly controls: Controls;
  private readonly flags: Uint8Array;
  private readonly start: Address;
  private view: ViewName;
  private wanted: Settings;
  private shown: Shown;
  /** Ends the computation of what is wanted; null when that is shown. */
  private cancelWork: Cancel | null = null;
  private cancelFigures: Cancel | null = null;
  /** The address to zoom to in what is wanted; null for where the zoom is now. */
  private wantedZoom: string | null = null;
  /** Whoever waits for the page to open; null when it has. */
  private opening: { done: () => void; failed: (error: unknown) => void } | null = null;
  private query = "";
  private row: TableRow | null = null;
  private readonly data: PageData;
  private readonly failed: (error: unknown) => void;

  /** `failed` is told why something that was asked for later cannot be shown. */
  constructor(data: PageData, failed: (error: unknown) => void) {
    this.data = data;
    this.failed = failed;
    const { head } = data;
    this.view = head.report === "table" ? "table" : "graph";
    this.start = { metric: head.metric, inverted: head.inverted, view: this.view, zoom: "0", range: null };
    const { metric, inverted, range } = this.start;
    this.wanted = { metric, inverted, range, unit: "bytes", hide: HIDDEN_AT_FIRST, thread: -1 };
    this.flags = flagsOfLocations(data);
    // Until the address is read, which decides what is shown first.
    const nothing = { bytes: new Float64Array(1), counts: new Float64Array(1) };
    const root = { ...data.tree, size: 1, parents: new Int32Array(1), locations: new Int32Array(1) };
    const view = finish(viewWork(root, 1, nothing, { inverted: false, hidden: null, unit: "bytes" }));
    this.shown = { settings: this.wanted, cells: data.cells[metric], hidden: null, view, rows: [] };
    this.state = { view, zoom: 0, selected: -1, flames: false, matched: null, rootLabel: "" };
    this.theme = startTheme(() => this.repaint());
    this.graph = new FlameGraph(data, this.theme, this.state, {
      hover: (node, event) => this.hover(node, event),
      click: (node) => this.click(node),
    });
    this.table = new Table(data, (row) => this.selectRow(row));
    this.timeline = new Timeline(data, this.theme, (range) => this.setRange(range));
    this.controls = new Controls(data, {
      change: (part) => this.change(part),
      toggleInverted: () => this.toggleInverted(),
      setMetric: (metric) => this.setMetric(metric),
      setView: (view) => this.setView(view),
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
    const { data, wanted, shown } = this;
    this.cancelWork?.();
    this.cancelWork = null;
    this.showControls();
    // The first one is of nothing.
    const before = this.opening === null ? shown : null;
    this.cancelWork = inSlices(
      shownWork(data, this.flags, wanted, before),
      (next) => this.take(next),
      (error) => (this.opening === null ? this.giveUp(error) : this.opening.failed(error)),
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

  private take(shown: Shown): void {
    const { data, state, opening } = this;
    this.cancelWork = null;
    this.opening = null;
    const path =
      this.wantedZoom === null
        ? pathOf(state.view, state.zoom)
        : pathOfAddress(data.tree, shown.hidden, this.wantedZoom);
    this.wantedZoom = null;
    this.shown = shown;
    const { view, rows, settings } = shown;
    state.view = view;
    state.zoom = nodeAtPath(view, path);
    state.selected = state.zoom === 0 ? -1 : state.zoom;
    state.rootLabel = `all  ${bytesText(view.bytes[0]!)}  ${this.words(settings).toLowerCase()}`;
    this.table.show(rows, { bytes: view.bytes[0]!, count: view.counts[0]! });
    this.row = null;
    this.search(this.query);
    this.zoomChanged();
    const { cut } = view;
    element("cut").hidden = cut === null;
    element("cut").textContent = cut === null ? "" : cutText(cut, view.bytes[0]!, MOST_INVERTED_NODES);
    const { metric } = settings;
    const empty = element("empty");
    empty.hidden = view.weights[0]! > 0;
    empty.textContent = `Nothing was ${metric === "allocated" || metric === "temporary" ? "allocated that counts here" : "held"}: ${this.words(settings).toLowerCase()}.`;
    this.showBusy();
    if (opening === null) this.remember("replace");
    else opening.done();
  }

  private zoomChanged(): void {
    this.state.zoom = this.state.view.weights[this.state.zoom]! > 0 ? this.state.zoom : 0;
    hideTooltip();
    this.graph.changed();
    this.graph.showZoom();
    this.showPath();
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

  setView(view: ViewName): void {
    if (view === "graph" && this.data.head.report === "table") return;
    this.view = view;
    this.showControls();
    this.showMatched();
    this.showSelection();
    this.graph.changed();
    this.table.redraw();
    this.remember();
  }

  toggleView(): void {
    this.setView(this.view === "graph" ? "table" : "graph");
  }

  private setRange(range: Settings["range"]): void {
    const { metric } = this.wanted;
    const other = this.start.metric === "live" ? "live" : "peak";
    this.change({ range, metric: this.controls.canShow(metric, range) ? metric : other });
  }

  search(query: string): void {
    this.query = query;
    const input = element<HTMLInputElement>("search");
    if (input.value !== query) input.value = query;
    input.classList.remove("wrong");
    this.state.matched = null;
    let matches = null;
    if (query !== "") {
      try {
        matches = matcherOf(query);
        this.state.matched = matchedLocations(this.data, matches);
      } catch {
        // An unfinished expression; the user is still typing.
        matches = null;
        input.classList.add("wrong");
      }
    }
    this.table.filter(this.state.matched, matches);
    this.showMatched();
    this.graph.redraw();
  }

  private repaint(): void {
    this.graph.changed(true);
    this.timeline.draw();
  }

  // ------------------------------------------------------------ address

  private address(): Address {
    const { metric, inverted, range } = this.wanted;
    const { state, view } = this;
    return { metric, inverted, view, range, zoom: this.wantedZoom ?? addressOf(state.view, state.zoom) };
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
    this.view = this.data.head.report === "table" ? "table" : address.view;
    this.wanted = { ...this.wanted, range, metric, inverted: address.inverted };
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
    this.controls.show(this.wanted, this.view, this.state.flames);
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
    const output = element("matched");
    if (matched === null || this.view === "table") {
      output.textContent = "";
      return;
    }
    const sum = found(view, matched, zoom);
    const amount = this.shown.settings.unit === "bytes" ? bytesText(sum.bytes) : blocksText(sum.blocks);
    const frames = `${countText(sum.frames)} ${sum.frames === 1 ? "frame" : "frames"}`;
    output.textContent = `${shareText(sum.weight, view.weights[zoom]!)} matched: ${amount} in ${frames}`;
    output.title = output.textContent;
  }

  private showPath(): void {
    const { view, zoom } = this.state;
    const list = element("path");
    list.replaceChildren();
    const nodes: number[] = [];
    for (let node = zoom; node !== 0; node = view.parents[node]!) nodes.push(node);
    nodes.push(0);
    nodes.reverse();
    list.hidden = nodes.length === 1;
    const most = 8;
    nodes.forEach((node, index) => {
      const skipped = nodes.length - most;
      if (skipped > 0 && index > 1 && index < skipped + 2) {
        if (index === 2) list.append(make("li", "more", `… ${countText(skipped)} more`));
        return;
      }
      const name = node === 0 ? "all" : this.data.functionOf(view.locations[node]!);
      const crumb = button(name, "quiet", () => this.zoomTo(node));
      if (node !== 0) crumb.title = this.data.placeOf(view.locations[node]!);
      if (node === zoom) crumb.setAttribute("aria-current", "true");
      list.append(make("li", "", crumb));
    });
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
    this.cancelFigures?.();
    this.cancelFigures = null;
    this.showDetail(this.current());
    const row = this.view === "table" ? this.row : null;
    if (row === null) this.showNode(this.current());
    else this.showRow(row);
  }

  private showRow(row: TableRow): void {
    const { data } = this;
    const { view, settings } = this.shown;
    const nodes: number[] = [];
    data.tree.locations.forEach((location, at) => {
      if (at > 0 && location === row.location) nodes.push(at);
    });
    const selection: Selection = {
      whole: { bytes: view.bytes[0]!, count: view.counts[0]! },
      metric: settings.metric,
      wholeRun: settings.range === null,
      location: row.location,
      title: data.functionOf(row.location),
      bytes: row.bytes,
      ownBytes: null,
      count: row.count,
      nodes,
      figures: null,
    };
    const find = (query: string) => {
      this.setView("graph");
      this.search(query);
    };
    showDetails(element("details"), data, selection, { zoom: null, find: data.head.report === "table" ? null : find });
  }

  private showNode(node: number): void {
    const { data } = this;
    const { view, settings } = this.shown;
    const show = ({ members, figures }: { members: Membership; figures: Figures }) => {
      const selection: Selection = {
        whole: { bytes: view.bytes[0]!, count: view.counts[0]! },
        metric: settings.metric,
        wholeRun: settings.range === null,
        location: node === 0 ? undefined : view.locations[node]!,
        title: node === 0 ? this.words(settings) : data.functionOf(view.locations[node]!),
        bytes: view.bytes[node]!,
        ownBytes: node === 0 ? null : view.ownBytes[node]!,
        count: view.counts[node]!,
        nodes: members.at,
        figures,
      };
      const find = node === 0 || data.head.report === "table" ? null : (query: string) => this.search(query);
      const zoom = node === this.state.zoom ? null : () => this.zoomTo(node);
      showDetails(element("details"), data, selection, { zoom, find });
    };
    this.cancelFigures = inSlices(this.nodeWork(node), show, this.failed);
  }

  private *nodeWork(node: number): Work<{ members: Membership; figures: Figures }> {
    const { cells, hidden, view, settings } = this.shown;
    const members = yield* membersWork(view, this.data.tree, hidden, node);
    return { members, figures: yield* figuresWork(this.data, cells, settings.thread, members.below) };
  }
}
