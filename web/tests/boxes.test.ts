import { expect, test } from "vitest";
import { boxAt } from "../src/model/boxes.ts";
import { boxesOf, makeView, ownOf, random, randomCells, randomTree, treeOf } from "./support.ts";

const options = { inverted: false, hidden: null, unit: "bytes" } as const;

test("boxes lie inside their callers' boxes and beside each other", () => {
  const next = random(99);
  const tree = randomTree(3000, 60, next);
  const view = makeView(tree, ownOf(tree.size, randomCells(tree, 4000, next), -1), options);
  for (const zoom of [0, 1, 40]) {
    const boxes = boxesOf(view, zoom, 900);
    boxes.rows.forEach((row, depth) => {
      for (let index = 0; index < row.nodes.length; index++) {
        const node = row.nodes[index]!;
        const [left, right] = [row.left[index]!, row.right[index]!];
        expect(view.depths[node]).toBe(depth);
        expect(left).toBeGreaterThanOrEqual(0);
        expect(right).toBeLessThanOrEqual(900 + 1e-6);
        if (index > 0) expect(left).toBeGreaterThanOrEqual(row.right[index - 1]! - 1e-6);
        if (depth > 0) {
          const above = boxes.rows[depth - 1]!;
          const place = above.nodes.indexOf(view.parents[node]!);
          expect(place).toBeGreaterThanOrEqual(0);
          expect(left).toBeGreaterThanOrEqual(above.left[place]! - 1e-6);
          expect(right).toBeLessThanOrEqual(above.right[place]! + 1e-6);
        }
        expect(boxAt(boxes, depth, (left + right) / 2)).toBe(node);
      }
    });
    const drawn = boxes.rows.reduce((sum, row) => sum + row.nodes.length, 0);
    expect(drawn).toBeLessThan(900 * boxes.rows.length);
  }
});

test("many children narrower than a pixel are a box a pixel", () => {
  const count = 5000;
  const tree = treeOf(new Array<number>(count + 1).fill(0), Array.from({ length: count + 1 }, (_, node) => node));
  const own = { bytes: new Float64Array(count + 1).fill(1), counts: new Float64Array(count + 1) };
  own.bytes[0] = 0;
  const view = makeView(tree, own, options);
  const row = boxesOf(view, 0, 500).rows[1]!;
  expect(row.nodes.length).toBeGreaterThanOrEqual(499);
  expect(row.nodes.length).toBeLessThanOrEqual(500);
});

test("callers of the zoomed frame are as wide as the graph", () => {
  const view = makeView(treeOf([0, 0, 1, 2, 0], [0, 1, 2, 3, 4]), { bytes: Float64Array.from([0, 0, 0, 1, 9]), counts: new Float64Array(5) }, options);
  const boxes = boxesOf(view, 2, 100);
  expect(boxes.rows.map((row) => [row.left[0], row.right[0], row.nodes])).toEqual([
    [0, 100, [0]],
    [0, 100, [1]],
    [0, 100, [2]],
    [0, 100, [3]],
  ]);
  expect(boxAt(boxes, 9, 5)).toBeUndefined();
  expect(boxAt(boxes, 0, 100)).toBeUndefined();
});

test("nothing at all is one box", () => {
  const view = makeView(treeOf([0], [0]), { bytes: new Float64Array(1), counts: new Float64Array(1) }, options);
  expect(boxesOf(view, 0, 100).rows.length).toBe(1);
});
