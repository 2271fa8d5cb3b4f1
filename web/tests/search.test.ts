import { expect, test } from "vitest";
import { flagsOfFrame, IMPORT_SYSTEM, IRRELEVANT } from "../src/model/frames.ts";
import { isQuery, matcherOf } from "../src/model/search.ts";
import { example, found, makeView, matchedLocations, ownOf, random, randomCells, randomTree } from "./support.ts";

test("text or an expression, in names and places", () => {
  const data = example();
  const matched = (query: string) => Array.from(matchedLocations(data, matcherOf(query)));
  expect(matched("B")).toEqual([0, 1, 1, 0]);
  expect(matched("a.py:2")).toEqual([0, 0, 1, 0]);
  expect(matched("/^[ac] /")).toEqual([1, 0, 0, 1]);
  expect(matched("/")).toEqual([1, 1, 1, 0]);
  expect(["/(/", "/(a)/", "("].map(isQuery)).toEqual([false, true, true]);
});

test("matched frames below each other count once", () => {
  const next = random(11);
  const tree = randomTree(500, 12, next);
  const own = ownOf(tree.size, randomCells(tree, 700, next), -1);
  const view = makeView(tree, own, { inverted: false, hidden: null, unit: "bytes" });
  const matched = Uint8Array.from([0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  for (const zoom of [0, 1, 7, 100]) {
    let bytes = 0;
    for (let node = 1; node < tree.size; node++) {
      let below = false;
      let hit = false;
      for (let at = node; ; at = tree.parents[at]!) {
        if (at !== 0 && matched[tree.locations[at]!] === 1 && !below) hit = true;
        if (at === zoom) below = true;
        if (at === 0) break;
      }
      if (below && hit) bytes += own.bytes[node]!;
    }
    expect(found(view, matched, zoom).bytes).toBe(bytes);
  }
});

test("frames by Memray's rules", () => {
  const cases: [string, string, number][] = [
    ["_run_code", "<frozen runpy>", IRRELEVANT],
    ["_run_code", "/usr/lib/python3.10/runpy.py", IRRELEVANT],
    ["_find_and_load", "<frozen importlib._bootstrap>", IMPORT_SYSTEM],
    ["import_name", "/build/Python/ceval.c", IRRELEVANT | IMPORT_SYSTEM],
    ["list_resize", "/build/Objects/listobject.c", IRRELEVANT],
    ["import_name", "/srv/app.py", 0],
    ["main", "/srv/Python/app.py", 0],
    ["<no Python frame>", "", 0],
  ];
  for (const [name, file, flags] of cases) expect(flagsOfFrame(name, file), `${name} ${file}`).toBe(flags);
});
