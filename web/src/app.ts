// What the page shows at the moment, and how a change of it goes through model and views.

import { type Address, readAddress, writeAddress } from "./address.ts";
import { type Cells, METRIC_NAMES, type MetricName, type PageData } from "./model/data.ts";
import { flagsOfLocations, IMPORT_SYSTEM, IRRELEVANT } from "./model/frames.ts";
import { rowsOf, type TableRow } from "./model/rows.ts";
import { found, matchedLocations, matcherOf } from "./model/search.ts";
import { cellsAllocatedAndLeft, cellsAtPeak, endsOf, peakInterval, type Range, rangesWithin, wholeRanges } from "./model/temporal.ts";
import {
  addressOf,
  makeView,
  MOST_INVERTED_NODES,
  membersOf,
  nodeAtPath,
  ownOf,
  pathOf,
  pathOfAddress,
  type View,
} from "./model/view.ts";
import { blocksText, bytesText, countText, cutText, shareText } from "./text.ts";
import { curveOf, type Series, TimeChart } from "./views/chart.ts";
import { type Selection, showDetails } from "./views/details.ts";
import { button, element, make, pressed } from "./views/dom.ts";
import { FlameGraph, type GraphState } from "./views/graph.ts";
import { Table } from "./views/table.ts";
import { startTheme, type Theme } from "./views/theme.ts";
import { hideTooltip, showTooltip } from "./views/tooltip.ts";

export type ViewName = "graph" | "table";

export class App {
  readonly graph: FlameGraph;
  readonly state: GraphState;
  private readonly theme: Theme;
  private readonly table: Table;
  private readonly chart: TimeChart | null;
  private readonly flags: Uint8Array;
  private readonly start: Address;
  private metric: MetricName;
  private unit: "bytes" | "blocks" = "bytes";
  private inverted: boolean;
  private view: ViewName;
  private thread = -1;
  private range: [number, number] | null = null;
  private query = "";
  private cells: Cells;
  private hidden: Uint8Array | null = null;
  private row: TableRow | null = null;
  private readonly data: PageData;

  constructor(data: PageData) {
    this.data = data;
    const { head } = data;
    this.start = {
      metric: head.metric,
      inverted: head.inverted,
      view: head.report === "table" ? "table" : "graph",
      zoom: "0",
      range: null,
    };
    this.metric = head.metric;
    this.inverted = head.inverted;
    this.view = this.start.view;
    this.flags = flagsOfLocations(data);
    this.readHidden();
    this.cells = data.cells[this.metric];
    const none = { bytes: new Float64Array(1), counts: new Float64Array(1) };
    const nothing = { ...data.tree, size: 1, parents: new Int32Array(1) };
    const view = makeView(nothing, 1, none, { inverted: false, hidden: null, unit: "bytes" });
    // Until the address is read, which decides what is shown first.
    this.state = { view, zoom: 0, selected: -1, flames: false, matched: null, rootLabel: "" };
    this.theme = startTheme(() => this.repaint());
    this.graph = new FlameGraph(data, this.theme, this.state, {
      hover: (node, event) => this.hover(node, event),
      click: (node) => this.click(node),
    });
    this.table = new Table(data, (row) => this.selectRow(row));
    this.chart = this.startChart();
    this.fillTiles();
    this.fillTools();
    this.readAddress();
  }

  // ------------------------------------------------------------ changes

  /** Anything may have changed: amounts, tree, views. */
  private recompute(path: number[]): void {
    const { data, state } = this;
    const ranges = this.intervals();
    if (ranges === null || data.temporal === null) this.cells = data.cells[this.metric];
    else if (this.metric === "live") this.cells = cellsAllocatedAndLeft(data.temporal, ranges);
    else this.cells = cellsAtPeak(data.temporal, ranges);
    state.view = this.makeView();
    state.zoom = nodeAtPath(state.view, path);
    state.selected = state.zoom === 0 ? -1 : state.zoom;
    state.rootLabel = `all  ${bytesText(state.view.bytes[0]!)}  ${this.words().toLowerCase()}`;
    const rows = rowsOf(data, this.cells, this.thread);
    this.table.show(rows, { bytes: state.view.bytes[0]!, count: state.view.counts[0]! });
    this.row = null;
    this.showTiles();
    this.showTools();
    this.search(this.query);
    this.zoomChanged();
    const { cut } = state.view;
    element("cut").hidden = cut === null;
    element("cut").textContent = cut === null ? "" : cutText(cut, state.view.bytes[0]!, MOST_INVERTED_NODES);
    const empty = element("empty");
    empty.hidden = state.view.weights[0]! > 0;
    empty.textContent = `Nothing was ${this.metric === "allocated" || this.metric === "temporary" ? "allocated that counts here" : "held"}: ${this.words().toLowerCase()}.`;
  }

  private readHidden(): void {
    const wanted =
      (element<HTMLInputElement>("hide-irrelevant").checked ? IRRELEVANT : 0) |
      (element<HTMLInputElement>("hide-imports").checked ? IMPORT_SYSTEM : 0);
    this.hidden = wanted === 0 ? null : this.flags.map((flags) => ((flags & wanted) !== 0 ? 1 : 0));
  }

  private makeView(): View {
    const { data } = this;
    const own = ownOf(data.tree.size, this.cells, this.thread);
    return makeView(data.tree, data.locations.size, own, {
      inverted: this.inverted,
      hidden: this.hidden,
      unit: this.unit,
    });
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
    if (!this.canShow(metric)) return;
    this.metric = metric;
    this.recompute(pathOf(this.state.view, this.state.zoom));
    this.remember();
  }

  nextMetric(): void {
    const others = METRIC_NAMES.filter((name) => this.canShow(name));
    const next = others[(others.indexOf(this.metric) + 1) % others.length];
    if (next !== undefined) this.setMetric(next);
  }

  toggleInverted(): void {
    this.inverted = !this.inverted;
    this.recompute([]);
    this.remember();
  }

  toggleUnit(): void {
    this.setUnit(this.unit === "bytes" ? "blocks" : "bytes");
  }

  private setUnit(unit: "bytes" | "blocks"): void {
    this.unit = unit;
    this.recompute(pathOf(this.state.view, this.state.zoom));
  }

  setFlames(flames: boolean): void {
    this.state.flames = flames;
    this.showTools();
    this.zoomChanged();
  }

  setView(view: ViewName): void {
    if (view === "graph" && this.data.head.report === "table") return;
    this.view = view;
    this.showTools();
    this.showSelection();
    this.graph.changed();
    this.table.redraw();
    this.remember();
  }

  toggleView(): void {
    this.setView(this.view === "graph" ? "table" : "graph");
  }

  private setRange(range: [number, number] | null): void {
    this.range = range;
    if (!this.canShow(this.metric)) this.metric = this.start.metric === "live" ? "live" : "peak";
    this.recompute(pathOf(this.state.view, this.state.zoom));
    this.remember();
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
    this.chart?.draw();
  }

  // ------------------------------------------------------------ address

  private address(): Address {
    const { metric, inverted, view, range, state } = this;
    return { metric, inverted, view, range, zoom: addressOf(state.view, state.zoom) };
  }

  private remember(): void {
    const hash = writeAddress(this.address(), this.start);
    if (location.hash === hash || (hash === "#" && location.hash === "")) return;
    try {
      history.pushState(null, "", hash);
    } catch {
      // Some viewers of files forbid a history; the page works without.
    }
  }

  readAddress(): void {
    const address = readAddress(location.hash, this.start);
    this.range = this.data.temporal === null ? null : address.range;
    this.metric = this.canShow(address.metric) ? address.metric : this.start.metric;
    this.inverted = address.inverted;
    this.view = this.data.head.report === "table" ? "table" : address.view;
    this.recompute(pathOfAddress(this.data.tree, this.hidden, address.zoom));
  }

  // ------------------------------------------------------------ time

  private startChart(): TimeChart | null {
    const { temporal, samples, head } = this.data;
    // The boundaries of several processes are not one curve; their sum is in the samples.
    const alone = temporal !== null && temporal.parts.length === 1;
    const measured = alone && temporal.seconds.length > 1 ? temporal : samples;
    if (measured.seconds.length < 2) return null;
    const end = head.time.microseconds / 1e6;
    const curve =
      measured === temporal
        ? curveOf(temporal.seconds, temporal.heap, temporal.peakBytes, end)
        : { seconds: samples.seconds, bytes: samples.heap };
    const { seconds, resident, heap } = measured;
    const series: Series = { seconds, resident, heap, limitBytes: head.time.limit_bytes, end, curve };
    element("memory").hidden = false;
    element("memory").classList.toggle("temporal", temporal !== null);
    const chart = new TimeChart(series, this.theme, temporal === null ? null : (range) => this.setRange(range));
    if (temporal !== null) {
      element("range").hidden = false;
      element("range-reset").addEventListener("click", () => this.setRange(null));
      const inputs = [element<HTMLInputElement>("range-from"), element<HTMLInputElement>("range-to")] as const;
      for (const input of inputs) {
        input.addEventListener("change", () => {
          const [from, to] = inputs.map((one) => Math.min(Math.max(Number(one.value), 0), chart.duration));
          this.setRange([Math.min(from!, to!), Math.max(from!, to!)]);
        });
      }
    }
    return chart;
  }

  /** The chosen intervals, by process; null for the whole run. */
  private intervals(): Range[] | null {
    const { temporal } = this.data;
    if (this.range === null || temporal === null) return null;
    return rangesWithin(temporal, this.range[0], this.range[1]);
  }

  private showChart(): void {
    const { chart } = this;
    const { temporal, samples, head } = this.data;
    if (chart === null) return;
    chart.range = null;
    if (temporal !== null) {
      const chosen = this.intervals();
      const ranges = chosen ?? wholeRanges(temporal);
      // Whole intervals are shown, so they are what is marked.
      chart.range = chosen === null ? null : (endsOf(temporal, ranges) ?? this.range);
      chart.mark = null;
      // Several processes have their peaks at several moments.
      if (ranges.length === 1) {
        const interval = peakInterval(temporal, ranges[0]!);
        const before = temporal.seconds[interval - 1] ?? 0;
        const seconds = (before + (temporal.seconds[interval] ?? chart.duration)) / 2;
        chart.mark = { seconds, bytes: temporal.peakBytes[interval]! };
      }
      const [from, to] = this.range ?? [0, chart.duration];
      element<HTMLInputElement>("range-from").value = from.toFixed(3);
      element<HTMLInputElement>("range-to").value = to.toFixed(3);
      element<HTMLButtonElement>("range-reset").disabled = this.range === null;
    } else {
      let largest = 0;
      samples.heap.forEach((bytes, index) => {
        if (bytes > samples.heap[largest]!) largest = index;
      });
      const peak = head.metrics.find((metric) => metric.name === "peak");
      chart.mark = { seconds: samples.seconds[largest]!, bytes: Math.max(peak?.bytes ?? 0, samples.heap[largest]!) };
    }
    chart.draw();
  }

  // ------------------------------------------------------------ words and marks

  private canShow(metric: MetricName): boolean {
    if (this.range !== null) return metric === "peak" || metric === "live";
    const cells = this.data.cells[metric];
    return cells.counts.some((count) => count > 0) || cells.bytes.some((bytes) => bytes > 0);
  }

  private words(): string {
    if (this.range !== null) {
      return this.metric === "live" ? "Allocated in the range, still there at its end" : "At the peak in the range";
    }
    return this.data.head.metrics.find((metric) => metric.name === this.metric)?.title ?? "";
  }

  private fillTiles(): void {
    const tiles = this.data.head.metrics.map((metric) => {
      const tile = button("", "tile", () => this.setMetric(metric.name));
      tile.setAttribute("role", "radio");
      tile.dataset["metric"] = metric.name;
      const note = metric.note === null ? blocksText(metric.count) : `${blocksText(metric.count)}, ${metric.note}`;
      tile.append(
        make("span", "name", metric.title),
        make("strong", "", bytesText(metric.bytes)),
        make("small", "", note),
      );
      return tile;
    });
    const group = element("metrics");
    group.append(...tiles);
    group.addEventListener("keydown", (event) => {
      const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
      if (step === 0) return;
      event.preventDefault();
      event.stopPropagation();
      const usable = tiles.filter((tile) => !tile.disabled);
      const at = usable.findIndex((tile) => tile === document.activeElement);
      const next = usable[(at + step + usable.length) % usable.length];
      next?.focus();
      next?.click();
    });
  }

  private showTiles(): void {
    for (const tile of element("metrics").querySelectorAll<HTMLButtonElement>(".tile")) {
      const name = tile.dataset["metric"] as MetricName;
      const checked = name === this.metric;
      tile.setAttribute("aria-checked", String(checked));
      tile.tabIndex = checked ? 0 : -1;
      tile.disabled = !this.canShow(name);
    }
    this.showChart();
  }

  private fillTools(): void {
    const { head } = this.data;
    for (const view of element("views").querySelectorAll<HTMLButtonElement>("button")) {
      view.addEventListener("click", () => this.setView(view.dataset["view"] as ViewName));
    }
    element("views").hidden = head.report === "table";
    element("icicle").addEventListener("click", () => this.setFlames(false));
    element("flame").addEventListener("click", () => this.setFlames(true));
    element("invert").addEventListener("click", () => this.toggleInverted());
    for (const unit of document.querySelectorAll<HTMLButtonElement>("[data-unit]")) {
      unit.addEventListener("click", () => this.setUnit(unit.dataset["unit"] === "blocks" ? "blocks" : "bytes"));
    }
    for (const id of ["hide-irrelevant", "hide-imports"]) {
      element(id).addEventListener("change", () => {
        this.readHidden();
        this.recompute(pathOf(this.state.view, this.state.zoom));
      });
    }
    element("reset").addEventListener("click", () => this.reset());
    const search = element<HTMLInputElement>("search");
    search.addEventListener("input", () => this.search(search.value));
    if (head.split_threads) {
      element("thread-label").hidden = false;
      const select = element<HTMLSelectElement>("thread");
      const used = new Set(METRIC_NAMES.flatMap((name) => Array.from(this.data.cells[name].thread)));
      select.append(new Option("all", "-1"));
      for (const thread of Array.from(used).sort((left, right) => left - right)) {
        select.append(new Option(head.threads[thread] ?? "", String(thread)));
      }
      select.addEventListener("change", () => {
        this.thread = Number(select.value);
        this.recompute(pathOf(this.state.view, this.state.zoom));
      });
    }
  }

  private showTools(): void {
    const graph = this.view === "graph";
    for (const view of element("views").querySelectorAll<HTMLButtonElement>("button")) {
      pressed(view, view.dataset["view"] === this.view);
    }
    document.body.dataset["view"] = this.view;
    element("graph-pane").hidden = !graph;
    element("table-pane").hidden = graph;
    pressed(element("icicle"), !this.state.flames);
    pressed(element("flame"), this.state.flames);
    pressed(element("invert"), this.inverted);
    for (const unit of document.querySelectorAll<HTMLButtonElement>("[data-unit]")) {
      pressed(unit, unit.dataset["unit"] === this.unit);
    }
  }

  private showMatched(): void {
    const { view, matched, zoom } = this.state;
    const output = element("matched");
    if (matched === null || this.view === "table") {
      output.textContent = "";
      return;
    }
    const sum = found(view, matched, zoom);
    const amount = this.unit === "bytes" ? bytesText(sum.bytes) : blocksText(sum.blocks);
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
      const thread = this.thread >= 0 ? (this.data.head.threads[this.thread] ?? "") : "";
      showTooltip(this.data, this.state.view, this.state.zoom, node, thread, event);
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
    const { data, state } = this;
    const { view } = state;
    const node = this.current();
    this.showDetail(node);
    const whole = { bytes: view.bytes[0]!, count: view.counts[0]! };
    const shared = {
      whole,
      cells: this.cells,
      thread: this.thread,
      metric: this.metric,
      wholeRun: this.range === null,
    };
    const row = this.view === "table" ? this.row : null;
    const pane = element("details");
    const find = data.head.report === "table" ? null : (query: string) => this.search(query);
    if (row !== null) {
      const nodes: number[] = [];
      data.tree.locations.forEach((location, at) => {
        if (at > 0 && location === row.location) nodes.push(at);
      });
      const selection: Selection = {
        ...shared,
        location: row.location,
        title: data.functionOf(row.location),
        bytes: row.bytes,
        ownBytes: null,
        count: row.count,
        nodes,
        below: null,
      };
      const show = (query: string) => {
        this.setView("graph");
        this.search(query);
      };
      showDetails(pane, data, selection, { zoom: null, find: find === null ? null : show });
      return;
    }
    const members = membersOf(view, data.tree, this.hidden, node);
    const selection: Selection = {
      ...shared,
      location: node === 0 ? undefined : view.locations[node]!,
      title: node === 0 ? this.words() : data.functionOf(view.locations[node]!),
      bytes: view.bytes[node]!,
      ownBytes: node === 0 ? null : view.ownBytes[node]!,
      count: view.counts[node]!,
      nodes: members.at,
      below: members.below,
    };
    const zoom = node === state.zoom ? null : () => this.zoomTo(node);
    showDetails(pane, data, selection, { zoom, find: node === 0 ? null : find });
  }
}
