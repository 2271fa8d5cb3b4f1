// Memory over time: two curves, the limit, the largest heap, and a range to choose where the page
// can take one apart.

import { lowerBound } from "../model/bounds.ts";
import { bytesText, secondsText } from "../text.ts";
import { element, penOf } from "./dom.ts";
import type { Theme } from "./theme.ts";

const LEFT = 64;
const RIGHT = 16;
const TOP = 8;
const BOTTOM = 20;

export interface Series {
  seconds: Float64Array;
  resident: Float64Array;
  heap: Float64Array;
  limitBytes: number;
  /** Of the run, which goes on after the last sample. */
  end: number;
  /** The heap where more is known of it than at the samples. */
  curve: { seconds: Float64Array; bytes: Float64Array };
}

/** Points of a curve, at most four a pixel: first, least, most, last of each column. */
export function thinned(xs: Float64Array, ys: Float64Array, columns: number): [number, number][] {
  const points: [number, number][] = [];
  if (xs.length <= columns * 4) {
    for (let index = 0; index < xs.length; index++) points.push([xs[index]!, ys[index]!]);
    return points;
  }
  const first = xs[0]!;
  const span = xs[xs.length - 1]! - first || 1;
  let index = 0;
  for (let column = 0; column < columns && index < xs.length; column++) {
    const end = column === columns - 1 ? Infinity : first + (span * (column + 1)) / columns;
    const from = index;
    let low = index;
    let high = index;
    for (; index < xs.length && xs[index]! < end; index++) {
      if (ys[index]! < ys[low]!) low = index;
      if (ys[index]! > ys[high]!) high = index;
    }
    if (index === from) continue;
    const kept = new Set([from, low, high, index - 1]);
    for (const at of Array.from(kept).sort((left, right) => left - right)) points.push([xs[at]!, ys[at]!]);
  }
  return points;
}

/** Round steps for an axis: about `wanted` of them up to `largest`. */
export function ticks(largest: number, wanted: number, base: 10 | 1024): number[] {
  if (!(largest > 0)) return [0];
  const raw = largest / wanted;
  const power = base === 1024 ? 1024 ** Math.floor(Math.log(raw) / Math.log(1024)) : 10 ** Math.floor(Math.log10(raw));
  const choices = base === 1024 ? [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] : [1, 2, 5, 10];
  const step = (choices.find((choice) => choice * power >= raw) ?? 1) * power;
  const marks: number[] = [];
  for (let mark = 0; mark <= largest * 1.0001; mark += step) marks.push(mark);
  return marks;
}

export class TimeChart {
  private readonly canvas = element<HTMLCanvasElement>("chart");
  private readonly moment = element("moment");
  private readonly start: number;
  private readonly end: number;
  private readonly largest: number;
  private readonly limitShown: boolean;
  private hover: number | null = null;
  private drag: { from: number; to: number } | null = null;
  /** Seconds; null is the whole run. */
  range: [number, number] | null = null;
  /** Where the peak of the range is, seconds. */
  mark: { seconds: number; bytes: number } | null = null;
  private readonly series: Series;
  private readonly theme: Theme;

  constructor(series: Series, theme: Theme, choose: ((range: [number, number] | null) => void) | null) {
    this.series = series;
    this.theme = theme;
    const { seconds, resident, heap } = series;
    this.start = Math.min(0, seconds[0] ?? 0);
    this.end = Math.max(series.end, seconds[seconds.length - 1] ?? 0, this.start + 1e-6);
    let largest = 1;
    for (let index = 0; index < seconds.length; index++) largest = Math.max(largest, resident[index]!, heap[index]!);
    largest = Math.max(largest, maximum(series.curve.bytes));
    // A limit far above all memory would press the curves flat.
    this.limitShown = series.limitBytes > 0 && series.limitBytes < largest * 4;
    this.largest = (this.limitShown ? Math.max(largest, series.limitBytes) : largest) * 1.06;
    if (series.limitBytes > 0) {
      element("limit-key").hidden = false;
      element("limit").textContent = bytesText(series.limitBytes);
    }
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.canvas.addEventListener("pointermove", (event) => {
      this.hover = this.secondsAt(event);
      if (this.drag !== null) this.drag.to = this.hover;
      this.draw();
    });
    this.canvas.addEventListener("pointerleave", () => {
      this.hover = null;
      this.draw();
    });
    if (choose === null) return;
    this.canvas.classList.add("choosable");
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.canvas.setPointerCapture(event.pointerId);
      const at = this.secondsAt(event);
      this.drag = { from: at, to: at };
    });
    this.canvas.addEventListener("pointerup", () => {
      const { drag } = this;
      this.drag = null;
      if (drag === null) return;
      const few = Math.abs(drag.to - drag.from) * this.scale() < 4;
      choose(few ? null : [Math.min(drag.from, drag.to), Math.max(drag.from, drag.to)]);
    });
    this.canvas.addEventListener("pointercancel", () => {
      this.drag = null;
      this.draw();
    });
  }

  /** Seconds since tracking began at which the chart ends. */
  get duration(): number {
    return this.end;
  }

  private scale(): number {
    return Math.max(this.canvas.clientWidth - LEFT - RIGHT, 1) / (this.end - this.start);
  }

  private secondsAt(event: MouseEvent): number {
    const x = event.clientX - this.canvas.getBoundingClientRect().left - LEFT;
    return Math.min(Math.max(this.start + x / this.scale(), this.start), this.end);
  }

  draw(): void {
    const { canvas, theme, series } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (width === 0 || height === 0) return;
    const pen = penOf(canvas, width, height);
    const x = (seconds: number) => LEFT + (seconds - this.start) * this.scale();
    const floor = height - BOTTOM;
    const y = (bytes: number) => floor - (bytes / this.largest) * (floor - TOP);
    this.drawAxes(pen, x, y, width, floor);
    const chosen = this.drag ?? (this.range === null ? null : { from: this.range[0], to: this.range[1] });
    if (chosen !== null) this.drawRange(pen, x(Math.min(chosen.from, chosen.to)), x(Math.max(chosen.from, chosen.to)), width, floor);
    this.drawCurve(pen, x, y, series.seconds, series.resident, theme.color("resident"), floor, width);
    this.drawCurve(pen, x, y, series.curve.seconds, series.curve.bytes, theme.color("heap"), floor, width);
    if (this.limitShown) {
      pen.setLineDash([5, 4]);
      this.line(pen, LEFT, y(series.limitBytes), width - RIGHT, y(series.limitBytes), theme.color("bad"));
      pen.setLineDash([]);
    }
    if (this.mark !== null) this.drawMark(pen, x(this.mark.seconds), y(this.mark.bytes), width);
    if (this.hover !== null && series.seconds.length > 0) this.drawHover(pen, x, y, floor);
    else this.moment.textContent = `${secondsText(this.end)}, up to ${bytesText(maximum(series.resident))} resident`;
  }

  private drawAxes(
    pen: CanvasRenderingContext2D,
    x: (seconds: number) => number,
    y: (bytes: number) => number,
    width: number,
    floor: number,
  ): void {
    const { theme } = this;
    pen.font = '11px system-ui, "Segoe UI", Roboto, sans-serif';
    pen.fillStyle = theme.color("muted");
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const mark of ticks(this.largest, 2 + Math.floor(floor / 50), 1024)) {
      if (y(mark) < TOP - 2) continue;
      this.line(pen, LEFT, y(mark), width - RIGHT, y(mark), theme.color("line"));
      pen.fillText(mark === 0 ? "0" : bytesText(mark).replace(/\.?0+ /, " "), LEFT - 8, y(mark));
    }
    pen.textAlign = "center";
    for (const mark of ticks(this.end, Math.max(2, Math.floor(width / 160)), 10)) {
      if (x(mark) > width - RIGHT - 10 || mark === 0) continue;
      pen.fillText(secondsText(mark).replace(/\.0+ /, " "), x(mark), floor + 11);
    }
    pen.textAlign = "left";
  }

  private drawRange(pen: CanvasRenderingContext2D, from: number, to: number, width: number, floor: number): void {
    pen.fillStyle = this.theme.color("shade");
    pen.fillRect(LEFT, TOP, from - LEFT, floor - TOP);
    pen.fillRect(to, TOP, width - RIGHT - to, floor - TOP);
    for (const edge of [from, to]) this.line(pen, edge, TOP, edge, floor, this.theme.color("accent"), 1.5);
  }

  private drawCurve(
    pen: CanvasRenderingContext2D,
    x: (seconds: number) => number,
    y: (bytes: number) => number,
    seconds: Float64Array,
    values: Float64Array,
    color: string,
    floor: number,
    width: number,
  ): void {
    const points = thinned(seconds, values, Math.max(width - LEFT - RIGHT, 1));
    const [first, last] = [points[0], points.at(-1)];
    if (first === undefined || last === undefined) return;
    pen.beginPath();
    for (const [at, bytes] of points) pen.lineTo(x(at), y(bytes));
    pen.strokeStyle = color;
    pen.lineWidth = 1.75;
    pen.lineJoin = "round";
    pen.stroke();
    pen.lineTo(x(last[0]), floor);
    pen.lineTo(x(first[0]), floor);
    pen.closePath();
    pen.globalAlpha = 0.13;
    pen.fillStyle = color;
    pen.fill();
    pen.globalAlpha = 1;
  }

  private drawMark(pen: CanvasRenderingContext2D, x: number, y: number, width: number): void {
    const { mark, theme } = this;
    if (mark === null) return;
    pen.fillStyle = theme.color("panel");
    pen.strokeStyle = theme.color("heap");
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x, y, 4, 0, 2 * Math.PI);
    pen.fill();
    pen.stroke();
    const text = `peak ${bytesText(mark.bytes)}`;
    const wide = pen.measureText(text).width;
    const left = x + 8 + wide > width - RIGHT ? x - 8 - wide : x + 8;
    pen.globalAlpha = 0.8;
    pen.fillRect(left - 3, y - 7, wide + 6, 14);
    pen.globalAlpha = 1;
    pen.fillStyle = theme.color("text");
    pen.fillText(text, left, y + 0.5);
  }

  private drawHover(
    pen: CanvasRenderingContext2D,
    x: (seconds: number) => number,
    y: (bytes: number) => number,
    floor: number,
  ): void {
    const { seconds, resident, heap } = this.series;
    const wanted = this.hover ?? 0;
    let at = Math.min(lowerBound(seconds, wanted), seconds.length - 1);
    if (at > 0 && wanted - seconds[at - 1]! < seconds[at]! - wanted) at -= 1;
    this.line(pen, x(seconds[at]!), TOP, x(seconds[at]!), floor, this.theme.color("muted"));
    for (const [values, name] of [[resident, "resident"], [heap, "heap"]] as const) {
      pen.beginPath();
      pen.arc(x(seconds[at]!), y(values[at]!), 3, 0, 2 * Math.PI);
      pen.fillStyle = this.theme.color(name);
      pen.fill();
    }
    this.moment.textContent = `at ${secondsText(seconds[at]!)}: resident ${bytesText(resident[at]!)}, heap ${bytesText(heap[at]!)}`;
  }

  private line(
    pen: CanvasRenderingContext2D,
    fromX: number,
    fromY: number,
    toX: number,
    toY: number,
    color: string,
    width = 1,
  ): void {
    pen.beginPath();
    pen.moveTo(Math.round(fromX) + 0.5, Math.round(fromY) + 0.5);
    pen.lineTo(Math.round(toX) + 0.5, Math.round(toY) + 0.5);
    pen.strokeStyle = color;
    pen.lineWidth = width;
    pen.stroke();
  }
}

function maximum(values: Float64Array): number {
  let largest = 0;
  for (const value of values) largest = Math.max(largest, value);
  return largest;
}

/** The heap at boundaries, and between them its peak in the middle of each interval. */
export function curveOf(seconds: Float64Array, heap: Float64Array, peaks: Float64Array, end: number): Series["curve"] {
  const curve = { seconds: new Float64Array(heap.length + peaks.length), bytes: new Float64Array(heap.length + peaks.length) };
  for (let interval = 0; interval < peaks.length; interval++) {
    const from = seconds[interval - 1] ?? Math.min(0, seconds[0] ?? 0);
    const to = seconds[interval] ?? Math.max(end, from);
    curve.seconds[2 * interval] = (from + to) / 2;
    curve.bytes[2 * interval] = peaks[interval]!;
    if (interval === heap.length) continue;
    curve.seconds[2 * interval + 1] = to;
    curve.bytes[2 * interval + 1] = heap[interval]!;
  }
  return curve;
}

/** Time, resident memory and heap, for other programs. */
export function csvOf(series: Pick<Series, "seconds" | "resident" | "heap">, startUnixMs: number): string {
  const lines = ["unix_ms,resident_bytes,heap_bytes"];
  for (let index = 0; index < series.seconds.length; index++) {
    const time = startUnixMs + Math.round(series.seconds[index]! * 1000);
    lines.push(`${time},${series.resident[index]},${series.heap[index]}`);
  }
  return `${lines.join("\r\n")}\r\n`;
}
