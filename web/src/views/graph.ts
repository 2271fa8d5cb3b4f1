// The flame graph: boxes on a canvas that is as large as what can be seen of it.

import type { PageData } from "../model/data.ts";
import { type Boxes, boxAt, boxesWork } from "../model/boxes.ts";
import { childrenOf, type View } from "../model/view.ts";
import type { Work } from "../model/work.ts";
import { Pending } from "../pace.ts";
import { type Paint, paintOf } from "./colors.ts";
import { element, penOf } from "./dom.ts";
import type { Theme } from "./theme.ts";

export const ROW = 22;
const FONT = '12px system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif';

export interface GraphState {
  view: View;
  zoom: number;
  /** -1: none. */
  selected: number;
  flames: boolean;
  /** By location. */
  matched: Uint8Array | null;
  rootLabel: string;
}

export class FlameGraph {
  hovered: number | undefined;
  private readonly canvas = element<HTMLCanvasElement>("graph");
  private readonly scroll = element("scroll");
  private readonly sizer = element("sizer");
  /** What can be seen; until another zoom is laid out, that before. Null when there is nothing of this tree. */
  private boxes: Boxes | null = null;
  /** Laid out before the tree is shown. */
  private prepared: Boxes | null = null;
  private readonly pending: Pending;
  /** What is to be put in sight as soon as it is laid out. */
  private toShow: "zoom" | number | null = null;
  private paints: (Paint | undefined)[] = [];
  private widths = new Map<string, number>();
  private drawing = false;
  private readonly data: PageData;
  private readonly theme: Theme;
  private readonly state: GraphState;

  constructor(
    data: PageData,
    theme: Theme,
    state: GraphState,
    on: {
      hover(node: number | undefined, event: MouseEvent): void;
      click(node: number): void;
      failed(error: unknown): void;
    },
  ) {
    this.data = data;
    this.pending = new Pending(this.scroll, on.failed);
    this.theme = theme;
    this.state = state;
    this.canvas.addEventListener("mousemove", (event) => {
      const node = this.nodeAt(event);
      if (node !== this.hovered) {
        this.hovered = node;
        this.redraw();
      }
      on.hover(node, event);
    });
    this.canvas.addEventListener("mouseleave", (event) => {
      this.hovered = undefined;
      on.hover(undefined, event);
      this.redraw();
    });
    this.canvas.addEventListener("click", (event) => {
      const node = this.nodeAt(event);
      if (node !== undefined) on.click(node);
    });
    this.scroll.addEventListener("scroll", () => {
      this.hovered = undefined;
      this.redraw();
    });
    new ResizeObserver(() => this.layOut()).observe(this.scroll);
  }

  /** Another tree or another frame is to be drawn, in sight. */
  changed(): void {
    this.hovered = undefined;
    this.toShow = "zoom";
    this.layOut();
  }

  recolor(): void {
    this.paints = [];
    this.redraw();
  }

  /** Lays out what is to be shown, so that this takes no time when it is. */
  *prepareWork(view: View, zoom: number): Work<void> {
    const width = this.scroll.clientWidth;
    this.prepared = width === 0 ? null : yield* boxesWork(view, zoom, width);
  }

  redraw(): void {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.draw();
    });
  }

  /** Puts a node in sight. */
  showNode(node: number): void {
    this.toShow = node;
    if (!this.pending.busy) this.scrollTo();
  }

  /** The neighbour in a direction of the screen. */
  neighbour(node: number, key: string): number {
    const { view, flames } = this.state;
    const visible = (child: number) => view.weights[child]! > 0;
    if (key === (flames ? "ArrowDown" : "ArrowUp")) return view.parents[node]!;
    if (key === "ArrowUp" || key === "ArrowDown") {
      const child = childrenOf(view, node)[0];
      return child !== undefined && visible(child) ? child : node;
    }
    if (node === 0) return node;
    const siblings = childrenOf(view, view.parents[node]!).filter(visible);
    const place = siblings.indexOf(node) + (key === "ArrowRight" ? 1 : -1);
    return siblings[Math.min(Math.max(place, 0), siblings.length - 1)] ?? node;
  }

  /** Branches of inverted trees are made by it, which may take a while. */
  private layOut(): void {
    const { view, zoom } = this.state;
    const width = this.scroll.clientWidth;
    if (this.boxes?.view !== view) this.boxes = null;
    const { prepared, boxes } = this;
    this.prepared = null;
    this.redraw();
    if (width === 0) {
      this.pending.stop();
      return;
    }
    const isOf = (one: Boxes | null) => one !== null && one.view === view && one.zoom === zoom && one.width === width;
    const known = isOf(prepared) ? prepared : isOf(boxes) ? boxes : null;
    if (known !== null) {
      this.pending.stop();
      this.take(known);
    } else this.pending.start(boxesWork(view, zoom, width), (made) => this.take(made));
  }

  private take(boxes: Boxes): void {
    this.boxes = boxes;
    this.sizer.style.height = `${Math.max(0, this.height(boxes) - this.scroll.clientHeight)}px`;
    this.scrollTo();
    this.redraw();
  }

  private scrollTo(): void {
    const { boxes, scroll, toShow } = this;
    const { view, zoom, flames } = this.state;
    this.toShow = null;
    if (boxes === null || toShow === null) return;
    const bottom = this.height(boxes);
    if (toShow === "zoom") {
      // Or where reading begins.
      const callers = Math.max(view.depths[zoom]! - 3, 0) * ROW;
      scroll.scrollTop = flames ? bottom - scroll.clientHeight - callers : callers;
      return;
    }
    const top = this.top(view.depths[toShow]!, bottom);
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    else if (top + ROW > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + ROW - scroll.clientHeight;
  }

  private height(boxes: Boxes): number {
    return Math.max(boxes.rows.length * ROW + 8, this.scroll.clientHeight);
  }

  private top(depth: number, height: number): number {
    return this.state.flames ? height - (depth + 1) * ROW : depth * ROW;
  }

  private nodeAt(event: MouseEvent): number | undefined {
    const { boxes } = this;
    if (boxes === null) return undefined;
    const bounds = this.canvas.getBoundingClientRect();
    const y = event.clientY - bounds.top + this.scroll.scrollTop;
    const depth = Math.floor((this.state.flames ? this.height(boxes) - y : y) / ROW);
    return boxAt(boxes, depth, event.clientX - bounds.left);
  }

  private paint(location: number): Paint {
    let paint = this.paints[location];
    if (paint === undefined) {
      const file = this.data.locations.files[location]!;
      paint = paintOf(this.data.head.files[file] ?? "", this.data.head.modules[file] ?? null, this.theme.dark);
      this.paints[location] = paint;
    }
    return paint;
  }

  private draw(): void {
    const { scroll, canvas } = this;
    const [width, height] = [scroll.clientWidth, scroll.clientHeight];
    if (width === 0 || height === 0) return;
    const { boxes } = this;
    canvas.style.height = `${height}px`;
    const pen = penOf(canvas, width, height);
    pen.font = FONT;
    pen.textBaseline = "middle";
    const colors: Colors = {
      accent: this.theme.color("accent"),
      match: this.theme.color("match"),
      root: this.theme.color("root"),
      text: this.theme.color("text"),
    };
    if (boxes === null) return;
    const whole = this.height(boxes);
    boxes.rows.forEach((row, depth) => {
      const top = this.top(depth, whole) - scroll.scrollTop;
      if (top + ROW < 0 || top > height) return;
      for (let index = 0; index < row.nodes.length; index++) {
        this.drawBox(pen, row.nodes[index]!, row.left[index]!, row.right[index]!, top, colors);
      }
    });
  }

  private drawBox(
    pen: CanvasRenderingContext2D,
    node: number,
    left: number,
    right: number,
    top: number,
    colors: Colors,
  ): void {
    const { view, zoom, selected, matched } = this.state;
    const wide = right - left;
    const width = wide > 3 ? wide - 1 : wide * 0.8;
    const location = view.locations[node]!;
    const hit = node !== 0 && matched !== null && matched[location] === 1;
    const paint = node === 0 ? { fill: colors.root, text: colors.text } : this.paint(location);
    const above = view.depths[node]! < view.depths[zoom]!;
    pen.globalAlpha = above ? 0.55 : matched !== null && !hit && node !== 0 ? 0.4 : 1;
    pen.fillStyle = hit ? colors.match : paint.fill;
    pen.fillRect(left, top, width, ROW - 1);
    if (node === this.hovered) {
      pen.globalAlpha = 0.22;
      pen.fillStyle = this.theme.dark ? "#ffffff" : "#000000";
      pen.fillRect(left, top, width, ROW - 1);
    }
    pen.globalAlpha = above ? 0.75 : 1;
    if (node === selected) {
      pen.strokeStyle = colors.accent;
      pen.lineWidth = 2;
      pen.strokeRect(left + 1, top + 1, Math.max(width - 2, 1), ROW - 3);
    }
    if (width > 24) this.drawLabel(pen, node, left + 6, top + (ROW - 1) / 2 + 0.5, width - 12, hit ? "#ffffff" : paint.text);
    pen.globalAlpha = 1;
  }

  private drawLabel(
    pen: CanvasRenderingContext2D,
    node: number,
    x: number,
    y: number,
    room: number,
    color: string,
  ): void {
    pen.fillStyle = color;
    if (node === 0) {
      pen.fillText(this.fitted(pen, this.state.rootLabel, room), x, y);
      return;
    }
    const location = this.state.view.locations[node]!;
    const name = this.data.functionOf(location);
    pen.fillText(this.fitted(pen, name, room), x, y);
    const place = this.data.placeOf(location);
    const short = place.slice(place.lastIndexOf("/") + 1);
    const after = this.widthOf(pen, name) + 8;
    if (short !== "" && after + this.widthOf(pen, short) <= room) {
      pen.globalAlpha *= 0.62;
      pen.fillText(short, x + after, y);
    }
  }

  private widthOf(pen: CanvasRenderingContext2D, text: string): number {
    let width = this.widths.get(text);
    if (width === undefined) {
      if (this.widths.size > 20_000) this.widths.clear();
      width = pen.measureText(text).width;
      this.widths.set(text, width);
    }
    return width;
  }

  private fitted(pen: CanvasRenderingContext2D, text: string, room: number): string {
    const width = this.widthOf(pen, text);
    if (width <= room) return text;
    let length = Math.floor((text.length * (room - 8)) / width);
    while (length > 0 && pen.measureText(`${text.slice(0, length)}…`).width > room) length -= 1;
    return length > 0 ? `${text.slice(0, length)}…` : "";
  }
}

interface Colors {
  accent: string;
  match: string;
  root: string;
  text: string;
}
