// Tiles and tools: what the reader wants to see, as buttons that show and say it.

import type { MetricName, PageData } from "./model/data.ts";
import { IMPORT_SYSTEM, IRRELEVANT } from "./model/frames.ts";
import { isQuery } from "./model/search.ts";
import type { PaneName, Settings } from "./model/shown.ts";
import { blocksText, bytesText } from "./text.ts";
import { button, element, make, pressed } from "./views/dom.ts";

export interface ControlActions {
  change(part: Partial<Settings>): void;
  toggleInverted(): void;
  setMetric(metric: MetricName): void;
  setPane(pane: PaneName): void;
  setFlames(flames: boolean): void;
  search(query: string): void;
  reset(): void;
}

const HIDES = [
  { id: "hide-irrelevant", flag: IRRELEVANT },
  { id: "hide-imports", flag: IMPORT_SYSTEM },
];

/** What is hidden when the page opens. */
export const HIDDEN_AT_FIRST = IRRELEVANT;

export class Controls {
  private readonly data: PageData;
  private readonly on: ControlActions;
  /** Metrics of which there is anything. */
  private readonly measured: Set<MetricName>;

  constructor(data: PageData, on: ControlActions) {
    this.data = data;
    this.on = on;
    const some = data.head.metrics.filter(({ bytes, count }) => bytes > 0 || count > 0);
    this.measured = new Set(some.map(({ name }) => name));
    this.fillTiles();
    this.fillTools();
  }

  canShow(metric: MetricName, range: Settings["range"]): boolean {
    return range === null ? this.measured.has(metric) : metric === "peak" || metric === "live";
  }

  /** What is wanted; what is shown follows. */
  show(settings: Settings, flames: boolean): void {
    for (const tile of element("metrics").querySelectorAll<HTMLButtonElement>(".tile")) {
      const name = tile.dataset["metric"] as MetricName;
      const checked = name === settings.metric;
      tile.setAttribute("aria-checked", String(checked));
      tile.tabIndex = checked ? 0 : -1;
      tile.disabled = !this.canShow(name, settings.range);
    }
    for (const one of element("views").querySelectorAll<HTMLButtonElement>("button")) {
      pressed(one, one.dataset["view"] === settings.pane);
    }
    pressed(element("icicle"), !flames);
    pressed(element("flame"), flames);
    pressed(element("invert"), settings.inverted);
    for (const unit of document.querySelectorAll<HTMLButtonElement>("[data-unit]")) {
      pressed(unit, unit.dataset["unit"] === settings.unit);
    }
    for (const { id, flag } of HIDES) element<HTMLInputElement>(id).checked = (settings.hide & flag) !== 0;
    element<HTMLSelectElement>("thread").value = String(settings.thread);
    const search = element<HTMLInputElement>("search");
    if (search.value !== settings.query) search.value = settings.query;
    search.classList.toggle("wrong", !isQuery(settings.query));
  }

  showPane(pane: PaneName): void {
    document.body.dataset["view"] = pane;
    element("graph-pane").hidden = pane !== "graph";
    element("table-pane").hidden = pane === "graph";
  }

  private fillTiles(): void {
    const tiles = this.data.head.metrics.map((metric) => {
      const tile = button("", "tile", () => this.on.setMetric(metric.name));
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

  private fillTools(): void {
    const { on } = this;
    const { head } = this.data;
    for (const view of element("views").querySelectorAll<HTMLButtonElement>("button")) {
      view.addEventListener("click", () => on.setPane(view.dataset["view"] as PaneName));
    }
    element("views").hidden = head.report === "table";
    element("icicle").addEventListener("click", () => on.setFlames(false));
    element("flame").addEventListener("click", () => on.setFlames(true));
    element("invert").addEventListener("click", () => on.toggleInverted());
    for (const unit of document.querySelectorAll<HTMLButtonElement>("[data-unit]")) {
      unit.addEventListener("click", () => on.change({ unit: unit.dataset["unit"] === "blocks" ? "blocks" : "bytes" }));
    }
    for (const { id } of HIDES) {
      element(id).addEventListener("change", () => {
        const checked = HIDES.filter((hide) => element<HTMLInputElement>(hide.id).checked);
        on.change({ hide: checked.reduce((sum, { flag }) => sum | flag, 0) });
      });
    }
    element("reset").addEventListener("click", () => on.reset());
    const search = element<HTMLInputElement>("search");
    search.addEventListener("input", () => on.search(search.value));
    this.fillThreads();
  }

  private fillThreads(): void {
    const select = element<HTMLSelectElement>("thread");
    select.append(new Option("all", "-1"));
    const { head, threadsOfEntries } = this.data;
    if (!head.split_threads) return;
    element("thread-label").hidden = false;
    const used = new Uint8Array(head.threads.length);
    for (const thread of threadsOfEntries) used[thread] = 1;
    used.forEach((is, thread) => {
      if (is === 1) select.append(new Option(head.threads[thread] ?? "", String(thread)));
    });
    select.addEventListener("change", () => this.on.change({ thread: Number(select.value) }));
  }
}
