import { deflateSync } from "node:zlib";
import { expect, test, vi } from "vitest";
import { blockOf, bytesOfBase64Work, inflate } from "../src/model/block.ts";
import { finish, STEPS } from "../src/model/work.ts";
import { pause } from "../src/pace.ts";
import { encodeBlock, example, random } from "./support.ts";

test("numbers of any size come back", () => {
  const next = random(1);
  const values = [0, 1, 127, 128, 2 ** 28 - 1, 2 ** 28, 2 ** 31, 2 ** 32 + 5, 2 ** 52 + 3, Number.MAX_SAFE_INTEGER];
  for (let index = 0; index < 200; index++) values.push(next(2 ** 31) * next(2 ** 20));
  const block = blockOf(encodeBlock({}, [["a", "plain", values], ["none", "delta", []], ["b", "delta", values.slice(0, 8)]]));
  expect(Array.from(finish(block.floatsWork("b")))).toEqual(values.slice(0, 8));
  expect(Array.from(finish(block.floatsWork("a")))).toEqual(values);
  expect(finish(block.floatsWork("none")).length).toBe(0);
  expect(Array.from(finish(block.integersWork("b"))).slice(0, 6)).toEqual(values.slice(0, 6));
  expect(() => finish(block.floatsWork("c"))).toThrow("no column c");
});

test.each(["floatsWork", "integersWork"] as const)("data that are cut off are told of by whoever reads them, %s", (read) => {
  const block = encodeBlock({}, [["a", "plain", [1, 2, 300]], ["b", "delta", [1, 2, 300]]]);
  const last = (bytes: Uint8Array) => () => finish<Float64Array | Int32Array>(blockOf(bytes)[read]("b"));
  expect(Array.from(last(block)())).toEqual([1, 2, 300]);
  for (let less = 1; less <= 8; less++) expect(last(block.subarray(0, block.length - less))).toThrow("not whole");
  expect(last(Uint8Array.from([...block, 0]))).toThrow("not whole");
});

test("columns are found wherever reading begins", () => {
  const next = random(6);
  const columns = Array.from({ length: 6 }, (_, column): [string, "plain" | "delta", number[]] => [
    `${column}`,
    column % 2 === 0 ? "plain" : "delta",
    Array.from({ length: column === 2 ? 3 * STEPS : next(50) }, () => next(2 ** (1 + next(30)))),
  ]);
  const bytes = encodeBlock({}, columns);
  for (let order = 0; order < 20; order++) {
    const block = blockOf(bytes);
    for (let read = 0; read < 4; read++) {
      const [name, , values] = columns[next(columns.length)]!;
      expect(Array.from(finish(block.integersWork(name)))).toEqual(values);
    }
  }
});

test("base64 of a zlib stream", async () => {
  // As `zlib.compress(b"heaptide")` of Python writes it.
  const text = "eJzLSE0sKMlMSQUADrkDRQ==";
  const natively = vi.fn((_: string) => new Uint8Array(Buffer.from(text, "base64")));
  for (const native of [undefined, natively]) {
    const bytes = finish(native === undefined ? bytesOfBase64Work(text) : bytesOfBase64Work(text, native));
    expect(new TextDecoder().decode(await inflate(bytes, pause))).toBe("heaptide");
  }
  expect(natively).toHaveBeenCalledWith(text);
  await expect(inflate(Uint8Array.of(1, 2, 3), pause)).rejects.toThrow();
});

test("much is inflated with pauses", async () => {
  const next = random(12);
  const bytes = Uint8Array.from({ length: 3 << 20 }, () => next(256));
  const pauses = vi.fn(pause);
  const deflated = new Uint8Array(deflateSync(bytes));
  expect(Buffer.compare(await inflate(deflated, pauses), bytes)).toBe(0);
  // Chance cannot be deflated.
  expect(pauses).toHaveBeenCalledTimes(3);
  await expect(inflate(deflated.slice(0, deflated.length - 9), pause)).rejects.toThrow();
});

test("a page is read into trees and names", () => {
  const data = example();
  expect(Array.from(data.tree.parents)).toEqual([0, 0, 1, 1, 1]);
  expect(Array.from(data.locations.lines)).toEqual([1, 1, 2, 0]);
  expect(data.functionOf(3)).toBe("c");
  expect(data.placeOf(0)).toBe("/x/a.py:1");
  expect(data.placeOf(3)).toBe("");
  expect(finish(data.cellsWork("peak")).bytes[3]).toBe(2 ** 40);
  expect(Array.from(data.samples.seconds)).toEqual([0, 1.5]);
  expect(data.source("/x/a.py", 2)?.text).toBe("b(");
  expect(data.source("/x/a.py", 4)).toBeNull();
  expect(() => example({ head: { schema_version: 2 } })).toThrow("different versions");
});
