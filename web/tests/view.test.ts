import { describe, expect, test } from "vitest";
import type { BaseTree } from "../src/model/data.ts";
import type { Own } from "../src/model/nodes.ts";
import { addressOf, childrenOf, pathOf, pathOfAddress, type View } from "../src/model/view.ts";
import { looked, makeView, membersOf, nodeAtPath, ownOf, random, randomCells, randomTree, stackOf, treeOf } from "./support.ts";

/** What a view should say, the slow way: sums by path. */
function naive(tree: BaseTree, own: Own, hidden: Uint8Array | null, inverted: boolean) {
  const sums = new Map<string, { bytes: number; counts: number; own: number }>();
  for (let node = 0; node < tree.size; node++) {
    if (own.bytes[node] === 0 && own.counts[node] === 0) continue;
    let stack = stackOf(tree, node).filter((location) => hidden?.[location] !== 1);
    if (inverted) stack = stack.reverse();
    for (let length = 0; length <= stack.length; length++) {
      const key = stack.slice(0, length).join(" ");
      const sum = sums.get(key) ?? { bytes: 0, counts: 0, own: 0 };
      sum.bytes += own.bytes[node]!;
      sum.counts += own.counts[node]!;
      if (length === stack.length) sum.own += own.bytes[node]!;
      sums.set(key, sum);
    }
  }
  return sums;
}

function sumsOf(view: View) {
  const sums = new Map<string, { bytes: number; counts: number; own: number }>();
  for (let node = 0; node < view.size; node++) {
    if (view.bytes[node] === 0 && view.counts[node] === 0) continue;
    const key = pathOf(view, node).join(" ");
    expect(sums.has(key), `${key} is there once`).toBe(false);
    sums.set(key, { bytes: view.bytes[node]!, counts: view.counts[node]!, own: view.ownBytes[node]! });
  }
  return sums;
}

describe.each([false, true])("inverted %s", (inverted) => {
  test.each([1, 2, 3, 4, 5, 6])("is what a naive model says, tree %i", (seed) => {
    const next = random(seed * 7919);
    const locations = 3 + next(20);
    const tree = randomTree(20 + next(400), locations, next);
    const cells = randomCells(tree, 300, next);
    const hidden = seed % 2 === 0 ? null : Uint8Array.from({ length: locations }, () => (next(3) === 0 ? 1 : 0));
    for (const thread of [-1, 0, 2]) {
      const own = ownOf(tree.size, cells, thread);
      const view = looked(makeView(tree, own, { inverted, hidden, unit: "bytes" }));
      expect(sumsOf(view)).toEqual(naive(tree, own, hidden, inverted));
      for (let node = 1; node < view.size; node++) {
        expect(view.parents[node]).toBeLessThan(node);
        expect(view.depths[node]).toBe(view.depths[view.parents[node]!]! + 1);
        if (view.bytes[node] === 0) continue;
        expect(nodeAtPath(view, pathOf(view, node))).toBe(node);
        const address = addressOf(view, node);
        expect(pathOfAddress(tree, hidden, address)).toEqual(pathOf(view, node));
      }
    }
  });

  test("members are the nodes whose amounts are in the sum", () => {
    const next = random(4242);
    const tree = randomTree(300, 9, next);
    const hidden = Uint8Array.from([0, 1, 0, 0, 1, 0, 0, 0, 0]);
    const own = ownOf(tree.size, randomCells(tree, 400, next), -1);
    const view = looked(makeView(tree, own, { inverted, hidden, unit: "bytes" }));
    for (let node = 0; node < view.size; node++) {
      const members = membersOf(view, tree, hidden, node);
      let bytes = 0;
      members.below.forEach((inside, base) => {
        if (inside === 1) bytes += own.bytes[base]!;
      });
      expect(bytes).toBe(view.bytes[node]);
      if (node === 0) continue;
      expect(members.at.includes(1)).toBe(true);
      members.at.forEach((is, base) => {
        if (is === 1) expect(tree.locations[base]).toBe(view.locations[node]);
      });
    }
  });
});

test("children are sorted by what is shown, equals as they are in the page", () => {
  const tree = treeOf([0, 0, 0, 0, 0], [0, 1, 2, 3, 4]);
  const own = { bytes: Float64Array.from([0, 5, 9, 5, 1]), counts: Float64Array.from([0, 1, 1, 1, 7]) };
  const options = { inverted: false, hidden: null };
  const byBytes = makeView(tree, own, { ...options, unit: "bytes" });
  expect(Array.from(childrenOf(byBytes, 0))).toEqual([2, 1, 3, 4]);
  const byBlocks = makeView(tree, own, { ...options, unit: "blocks" });
  expect(Array.from(childrenOf(byBlocks, 0))).toEqual([4, 1, 2, 3]);
});

test("addresses that are of no node lead to the root", () => {
  const tree = treeOf([0, 0, 1], [0, 1, 2]);
  for (const address of ["", "9", "-1", "1~", "x", "99~1", "1e1"]) expect(pathOfAddress(tree, null, address)).toEqual([]);
  expect(pathOfAddress(tree, null, "2")).toEqual([1, 2]);
  expect(pathOfAddress(tree, null, "2~1")).toEqual([2]);
});

test("the stacks may be as deep as they like", () => {
  const depth = 200_000;
  const tree = treeOf(Array.from({ length: depth }, (_, node) => Math.max(node - 1, 0)), Array.from({ length: depth }, (_, node) => node % 7));
  const own = { bytes: new Float64Array(depth), counts: new Float64Array(depth) };
  own.bytes[depth - 1] = 8;
  for (const inverted of [false, true]) {
    const view = looked(makeView(tree, own, { inverted, hidden: null, unit: "bytes" }));
    expect(view.bytes[0]).toBe(8);
    expect(view.depths[view.size - 1]).toBe(depth - 1);
  }
});
