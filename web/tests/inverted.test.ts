// Inverted trees whose branches are made when they are looked at, against whole ones made the simple way.

import { describe, expect, test } from "vitest";
import type { BaseTree } from "../src/model/data.ts";
import { InvertedView } from "../src/model/inverted.ts";
import { type Own, type Unit } from "../src/model/nodes.ts";
import { addressOf, childrenOf, childrenWork, pathOf, pathOfAddress, reweighedWork, type View } from "../src/model/view.ts";
import { finish, STEPS } from "../src/model/work.ts";
import { boxesOf, found, looked, makeView, nodeAtPath, ownOf, random, randomCells, randomTree, stackOf, treeOf } from "./support.ts";

interface Whole {
  location: number;
  leaf: number;
  bytes: number;
  counts: number;
  own: number;
  branches: Map<number, Whole>;
}

const isShown = (hidden: Uint8Array | null) => (location: number) => hidden?.[location] !== 1;

/** Stack after stack, each from what allocated outwards. */
function wholeOf(tree: BaseTree, own: Own, hidden: Uint8Array | null): Whole {
  const fresh = (location: number, leaf: number): Whole => ({ location, leaf, bytes: 0, counts: 0, own: 0, branches: new Map() });
  const root = fresh(0, 0);
  for (let leaf = 0; leaf < tree.size; leaf++) {
    const [bytes, counts] = [own.bytes[leaf]!, own.counts[leaf]!];
    if (bytes === 0 && counts === 0) continue;
    let at = root;
    const add = () => {
      at.bytes += bytes;
      at.counts += counts;
    };
    add();
    for (const location of stackOf(tree, leaf).filter(isShown(hidden)).reverse()) {
      const branch = at.branches.get(location) ?? fresh(location, leaf);
      at.branches.set(location, branch);
      at = branch;
      add();
    }
    at.own += bytes;
  }
  return root;
}

/** Branches as they are shown: the heaviest first, equals as their first stacks are in the page. */
const orderOf = (whole: Whole, unit: Unit): Whole[] =>
  Array.from(whole.branches.values()).sort((left, right) => right[unit === "bytes" ? "bytes" : "counts"] - left[unit === "bytes" ? "bytes" : "counts"] || left.leaf - right.leaf);

/** Everything of a view from a node on is what the whole says. */
function expectSame(view: View, node: number, whole: Whole, unit: Unit): void {
  const figures = { location: view.locations[node], bytes: view.bytes[node], counts: view.counts[node], own: view.ownBytes[node] };
  const { location, bytes, counts, own } = whole;
  expect(figures).toEqual({ location, bytes, counts, own });
  const children = Array.from(childrenOf(view, node));
  const branches = orderOf(whole, unit);
  expect(children.map((child) => view.locations[child])).toEqual(branches.map(({ location }) => location));
  children.forEach((child, index) => {
    expect(view.parents[child]).toBe(node);
    expect(view.depths[child]).toBe(view.depths[node]! + 1);
    expect(view.origins[child]).toBe(branches[index]!.leaf);
    expectSame(view, child, branches[index]!, unit);
  });
}

interface Program {
  tree: BaseTree;
  own: Own;
  hidden: Uint8Array | null;
  next: (below: number) => number;
}

/** Programs with few functions call themselves, also around others; some frames are hidden, and one thread shown. */
function program(seed: number): Program {
  const next = random(seed * 104_729);
  const locations = 2 + next(seed % 3 === 0 ? 3 : 20);
  const parents = [0];
  const places = [next(locations)];
  const siblings = new Set<string>();
  for (let tries = 50 + next(600); tries > 0; tries--) {
    const parent = next(3) === 0 ? next(parents.length) : Math.max(parents.length - 1 - next(4), 0);
    const place = next(locations);
    if (siblings.has(`${parent} ${place}`)) continue;
    siblings.add(`${parent} ${place}`);
    parents.push(parent);
    places.push(place);
  }
  const tree = treeOf(parents, places);
  const own = ownOf(tree.size, randomCells(tree, tree.size, next), seed % 4 === 0 ? -1 : next(3));
  const hidden = seed % 2 === 0 ? null : Uint8Array.from({ length: locations }, () => (next(3) === 0 ? 1 : 0));
  return { tree, own, hidden, next };
}

describe.each(Array.from({ length: 24 }, (_, seed) => seed + 1))("program %i", (seed) => {
  test.each(["bytes", "blocks"] as const)("in %s, looked at from the root on", (unit) => {
    const { tree, own, hidden } = program(seed);
    expectSame(makeView(tree, own, { inverted: true, hidden, unit }), 0, wholeOf(tree, own, hidden), unit);
  });

  test("looked at here and there, in both units at a time, by path and by address", () => {
    const { tree, own, hidden, next } = program(seed);
    const whole = looked(makeView(tree, own, { inverted: true, hidden, unit: "bytes" }));
    const bytes = makeView(tree, own, { inverted: true, hidden, unit: "bytes" });
    const blocks = finish(reweighedWork(bytes, "blocks"));
    for (let look = 0; look < 60; look++) {
      const node = next(whole.size);
      const view = look % 2 === 0 ? bytes : blocks;
      if (!(whole.bytes[node]! > 0) || !(whole.counts[node]! > 0)) continue;
      const path = pathOfAddress(tree, hidden, addressOf(whole, node));
      expect(path).toEqual(pathOf(whole, node));
      const at = nodeAtPath(view, path);
      expect(pathOf(view, at)).toEqual(path);
      expect(addressOf(view, at)).toBe(addressOf(whole, node));
      expect([view.bytes[at], view.counts[at], view.ownBytes[at]]).toEqual([whole.bytes[node], whole.counts[node], whole.ownBytes[node]]);
      childrenOf(view, next(view.size));
    }
    const simple = wholeOf(tree, own, hidden);
    expectSame(blocks, 0, simple, "blocks");
    expectSame(bytes, 0, simple, "bytes");
  });

  test("a search finds stacks with a matched frame at or outside of the zoomed one", () => {
    const { tree, own, hidden, next } = program(seed);
    const matched = Uint8Array.from({ length: 22 }, () => (next(4) === 0 ? 1 : 0));
    const view = makeView(tree, own, { inverted: true, hidden, unit: seed % 3 === 0 ? "blocks" : "bytes" });
    looked(view);
    for (const zoom of [0, ...Array.from({ length: 12 }, () => next(view.size))]) {
      const path = pathOf(view, zoom);
      const expected = { stacks: 0, bytes: 0, blocks: 0, weight: 0 };
      for (let leaf = 0; leaf < tree.size; leaf++) {
        const stack = stackOf(tree, leaf).filter(isShown(hidden)).reverse();
        if (path.some((location, index) => stack[index] !== location)) continue;
        const weight = view.weights === view.bytes ? own.bytes[leaf]! : own.counts[leaf]!;
        if (!stack.slice(Math.max(path.length - 1, 0)).some((location) => matched[location] === 1)) continue;
        if (own.counts[leaf]! > 0) expected.stacks += 1;
        expected.bytes += own.bytes[leaf]!;
        expected.blocks += own.counts[leaf]!;
        expected.weight += weight;
      }
      expect(found(view, matched, zoom)).toEqual(expected);
    }
  });

  test("a search says the same either way up", () => {
    const { tree, own, hidden, next } = program(seed);
    for (const unit of ["bytes", "blocks"] as const) {
      const [upright, inverted] = [false, true].map((turned) => makeView(tree, own, { inverted: turned, hidden, unit }));
      const matched = Uint8Array.from({ length: 22 }, () => (next(4) === 0 ? 1 : 0));
      expect(found(upright!, matched, 0)).toEqual(found(inverted!, matched, 0));
    }
  });
});

test("a layout makes only the branches that are seen", () => {
  const next = random(31);
  const tree = randomTree(30_000, 12, next);
  const own = ownOf(tree.size, randomCells(tree, 60_000, next), -1);
  const options = { inverted: true, hidden: null, unit: "bytes" } as const;
  const [view, whole] = [makeView(tree, own, options), looked(makeView(tree, own, options))];
  const boxes = boxesOf(view, 0, 1000);
  const same = boxesOf(whole, 0, 1000);
  expect(boxes.rows.length).toBeGreaterThan(3);
  expect(boxes.rows.map(({ left, right }) => [left, right])).toEqual(same.rows.map(({ left, right }) => [left, right]));
  boxes.rows.forEach((row, depth) => {
    expect(row.nodes.map((node) => pathOf(view, node))).toEqual(same.rows[depth]!.nodes.map((node) => pathOf(whole, node)));
  });
  expect(view.size * 10).toBeLessThan(whole.size);
});

test("branches of many stacks are made in pieces; dropped or begun twice, they are right", () => {
  const size = 3 * STEPS;
  const next = random(8);
  // Chains of three frames.
  const parents = Array.from({ length: size }, (_, node) => (node % 3 === 1 ? 0 : Math.max(node - 1, 0)));
  const tree = treeOf(parents, Array.from(parents, (_, node) => node % 3 + 3 * next(2)));
  const own = { bytes: Float64Array.from(parents, () => next(9)), counts: Float64Array.from(parents, () => 1) };
  const view = makeView(tree, own, { inverted: true, hidden: null, unit: "bytes" });
  if (!(view instanceof InvertedView)) throw new Error("it is upright");
  const works = [0, 1, 2].map(() => childrenWork(view, 0));
  for (let step = 0; step < 3; step++) works[0]!.next();
  expect(view.size).toBe(1);
  works[1]!.next();
  finish(works[2]!);
  const { size: made } = view;
  finish(works[1]!);
  expect(view.size).toBe(made);
  let stops = 0;
  const other = makeView(tree, own, { inverted: true, hidden: null, unit: "bytes" });
  for (const _ of childrenWork(other, 0)) stops += 1;
  expect(stops).toBe(4);
  expectSame(view, 0, wholeOf(tree, own, null), "bytes");
});
