// Which boxes a flame graph has at a width: only those that can be seen, so that the work depends on
// the screen and not on the tree.

import { childrenWork, stepsTo, type View } from "./view.ts";
import { STEPS, type Work } from "./work.ts";

/** Boxes of one depth from left to right. */
export interface Row {
  left: number[];
  right: number[];
  nodes: number[];
}

export interface Boxes {
  rows: Row[];
  /** What they are of. */
  view: View;
  zoom: number;
  width: number;
}

/** Of narrower boxes only one a pixel is drawn, and nothing below them. */
export const NARROWEST = 1;

/** Boxes of the zoomed node, of everything below it, and of its callers at full width. */
export function* boxesWork(view: View, zoom: number, width: number): Work<Boxes> {
  const rows: Row[] = [];
  const rowAt = (depth: number): Row => {
    while (rows.length <= depth) rows.push({ left: [], right: [], nodes: [] });
    return rows[depth]!;
  };
  const add = (depth: number, left: number, right: number, node: number) => {
    const row = rowAt(depth);
    row.left.push(left);
    row.right.push(right);
    row.nodes.push(node);
  };
  for (let node = zoom; node !== 0; ) {
    node = view.parents[node]!;
    add(view.depths[node]!, 0, width, node);
  }
  const scale = view.weights[zoom]! > 0 ? width / view.weights[zoom]! : 0;
  // Depth first, by hand: stacks are deeper than the browser's own.
  const waiting: [number, number][] = [[zoom, 0]];
  let steps = 0;
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const [node, left] = next;
    const depth = view.depths[node]!;
    add(depth, left, left + view.weights[node]! * scale, node);
    steps += stepsTo(view, node);
    if (steps > STEPS) {
      steps = 0;
      yield;
    }
    const children = yield* childrenWork(view, node);
    let start = left;
    const visible: [number, number][] = [];
    for (const child of children) {
      const wide = view.weights[child]! * scale;
      if (wide < NARROWEST) break;
      visible.push([child, start]);
      start += wide;
    }
    // The last one first onto the pile, so that rows fill from left to right.
    for (let index = visible.length - 1; index >= 0; index--) waiting.push(visible[index]!);
    addNarrow(view, children, visible.length, start, scale, (left, child) => add(depth + 1, left, left + 1, child));
  }
  for (const row of rows) sortRow(row);
  return { rows, view, zoom, width };
}

/**
 * Children that are narrower than a pixel, from the one numbered `from` on: a box of one pixel for the
 * first of each pixel, so that there is something to see and to zoom into.
 */
function addNarrow(
  view: View,
  children: Int32Array,
  from: number,
  start: number,
  scale: number,
  add: (left: number, child: number) => void,
): void {
  let end = start;
  let drawn = start;
  for (let index = from; index < children.length; index++) {
    const child = children[index]!;
    end += view.weights[child]! * scale;
    if (end < drawn + 1) continue;
    add(drawn, child);
    drawn += 1;
  }
}

function sortRow(row: Row): void {
  const order = Array.from(row.left.keys()).sort((left, right) => row.left[left]! - row.left[right]!);
  row.left = order.map((index) => row.left[index]!);
  const { right, nodes } = row;
  row.right = order.map((index) => right[index]!);
  row.nodes = order.map((index) => nodes[index]!);
}

/** The box of a row at `x`, or undefined. */
export function boxAt(boxes: Boxes, depth: number, x: number): number | undefined {
  const row = boxes.rows[depth];
  if (row === undefined) return undefined;
  let low = 0;
  let high = row.left.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (x < row.left[middle]!) high = middle - 1;
    else if (x >= row.right[middle]!) low = middle + 1;
    else return row.nodes[middle];
  }
  return undefined;
}
