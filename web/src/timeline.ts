// Memory over time and the range that is chosen in it.

import type { PageData } from "./model/data.ts";
import { intervalsOf, type Settings } from "./model/shown.ts";
import { endsOf, peakInterval, wholeRanges } from "./model/temporal.ts";
import { curveOf, type Series, TimeChart } from "./views/chart.ts";
import { element } from "./views/dom.ts";
import type { Theme } from "./views/theme.ts";

type SetRange = (range: Settings["range"]) => void;

export class Timeline {
  private readonly data: PageData;
  /** Null where too little was measured for a curve. */
  private readonly chart: TimeChart | null;

  constructor(data: PageData, theme: Theme, setRange: SetRange) {
    this.data = data;
    this.chart = this.start(theme, setRange);
  }

  draw(): void {
    this.chart?.draw();
  }

  private start(theme: Theme, setRange: SetRange): TimeChart | null {
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
    const chart = new TimeChart(series, theme, temporal === null ? null : setRange);
    if (temporal !== null) {
      element("range").hidden = false;
      element("range-reset").addEventListener("click", () => setRange(null));
      const inputs = [element<HTMLInputElement>("range-from"), element<HTMLInputElement>("range-to")] as const;
      for (const input of inputs) {
        input.addEventListener("change", () => {
          const [from, to] = inputs.map((one) => Math.min(Math.max(Number(one.value), 0), chart.duration));
          setRange([Math.min(from!, to!), Math.max(from!, to!)]);
        });
      }
    }
    return chart;
  }

  show({ range }: Settings): void {
    const { chart, data } = this;
    const { temporal, samples, head } = data;
    if (chart === null) return;
    chart.range = null;
    if (temporal !== null) {
      const chosen = intervalsOf(data, range);
      const ranges = chosen ?? wholeRanges(temporal);
      // Whole intervals are shown, so they are what is marked.
      chart.range = chosen === null ? null : (endsOf(temporal, ranges) ?? range);
      chart.mark = null;
      // Several processes have their peaks at several moments.
      if (ranges.length === 1) {
        const interval = peakInterval(temporal, ranges[0]!);
        const before = temporal.seconds[interval - 1] ?? 0;
        const seconds = (before + (temporal.seconds[interval] ?? chart.duration)) / 2;
        chart.mark = { seconds, bytes: temporal.peakBytes[interval]! };
      }
      const [from, to] = range ?? [0, chart.duration];
      element<HTMLInputElement>("range-from").value = from.toFixed(3);
      element<HTMLInputElement>("range-to").value = to.toFixed(3);
      element<HTMLButtonElement>("range-reset").disabled = range === null;
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
}
