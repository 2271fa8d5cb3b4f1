import { expect, test } from "vitest";
import { bytesOfBase64Work, inflate } from "../src/model/block.ts";
import { finish } from "../src/model/work.ts";
import { encodeBlock, example, parseBlock, random } from "./support.ts";

test("numbers of any size come back", () => {
  const next = random(1);
  const values = [0, 1, 127, 128, 2 ** 28 - 1, 2 ** 28, 2 ** 31, 2 ** 32 + 5, 2 ** 52 + 3, Number.MAX_SAFE_INTEGER];
  for (let index = 0; index < 200; index++) values.push(next(2 ** 31) * next(2 ** 20));
  const block = parseBlock(encodeBlock({}, [["a", "plain", values], ["none", "delta", []], ["b", "delta", values.slice(0, 8)]]));
  expect(Array.from(block.column("a"))).toEqual(values);
  expect(Array.from(block.column("b"))).toEqual(values.slice(0, 8));
  expect(block.column("none").length).toBe(0);
  expect(() => block.column("c")).toThrow("no column c");
});

test("data that are cut off are told of", () => {
  const block = encodeBlock({}, [["a", "plain", [1, 2, 3]]]);
  expect(() => parseBlock(block.subarray(0, block.length - 1))).toThrow("not whole");
  expect(() => parseBlock(Uint8Array.from([...block, 0]))).toThrow("not whole");
});

test("base64 of a zlib stream", async () => {
  // As `zlib.compress(b"heaptide")` of Python writes it.
  const bytes = await inflate(finish(bytesOfBase64Work("eJzLSE0sKMlMSQUADrkDRQ==")));
  expect(new TextDecoder().decode(bytes)).toBe("heaptide");
});

test("a page is read into trees and names", () => {
  const data = example();
  expect(Array.from(data.tree.parents)).toEqual([0, 0, 1, 1, 1]);
  expect(Array.from(data.locations.lines)).toEqual([1, 1, 2, 0]);
  expect(data.functionOf(3)).toBe("c");
  expect(data.placeOf(0)).toBe("/x/a.py:1");
  expect(data.placeOf(3)).toBe("");
  expect(data.cells.peak.bytes[3]).toBe(2 ** 40);
  expect(Array.from(data.samples.seconds)).toEqual([0, 1.5]);
  expect(data.source("/x/a.py", 2)?.text).toBe("b(");
  expect(data.source("/x/a.py", 4)).toBeNull();
  expect(() => example({ head: { schema_version: 2 } })).toThrow("different versions");
});
