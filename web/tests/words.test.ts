import { expect, test } from "vitest";
import { readAddress, writeAddress } from "../src/address.ts";
import type { Column } from "../src/model/listing.ts";
import { commonIndent, segmentsOf } from "../src/model/source.ts";
import { bytesText, countText, secondsText, shareText, unreachableText, visible } from "../src/text.ts";
import { lowerBound, upperBound } from "../src/model/bounds.ts";
import { csvOf, curveOf, thinned, ticks } from "../src/views/chart.ts";
import { hashOf, oklch, paintOf } from "../src/views/colors.ts";
import { marksOf } from "../src/views/details.ts";
import { cellsOf, example, orderOf, rowsOf, spansOf } from "./support.ts";

test("numbers are written as Rust writes them", () => {
  expect([0, 1023, 1024, 1536, 10_239, 102_348, 1e6, 2 ** 30].map(bytesText)).toEqual([
    "0 B", "1023 B", "1.00 KiB", "1.50 KiB", "10.0 KiB", "99.9 KiB", "977 KiB", "1.00 GiB",
  ]);
  expect(countText(1_234_567)).toBe("1,234,567");
  expect(shareText(1, 3)).toBe("33.3%");
  expect(shareText(1, 0)).toBe("0.0%");
  expect([0.0042, 0.5, 1.5, 12.34, 150, 3 * 3600 + 61].map(secondsText)).toEqual([
    "4.20 ms", "500 ms", "1.50 s", "12.3 s", "2 min 30 s", "3 h 01 min",
  ]);
});

test("what is not shown is told of", () => {
  expect(unreachableText(500_000, 500_000)).toBe("");
  expect(unreachableText(500_001, 500_000)).toBe("; scrolling reaches the first 500,000, sorting and search the others");
});

test("nothing hides", () => {
  expect(visible("plain ü 😀")).toBe("plain ü 😀");
  expect(visible("a\u001b[31mb\n")).toBe("a\\x1b[31mb\\x0a");
  expect(visible("a\u202eb\u0085\t", "\t")).toBe("a\\u202eb\\x85\t");
});

test("marks are in bytes of UTF-8, lines in characters", () => {
  expect(segmentsOf("b(é, b())", [{ from: 6, to: 9 }])).toEqual([
    { text: "b(é, ", marked: false },
    { text: "b()", marked: true },
    { text: ")", marked: false },
  ]);
  expect(segmentsOf("\u202ex", [{ from: 0, to: Infinity }])).toEqual([{ text: "\\u202ex", marked: true }]);
  expect(segmentsOf("", [{ from: 0, to: 5 }])).toEqual([]);
  expect(commonIndent(["    a", "", "  b"])).toBe(2);
  expect(commonIndent([])).toBe(0);
});

test("a frame's marks are those of its nodes, on all lines they reach", () => {
  const data = example();
  const marks = (location: number, ...nodes: number[]) => {
    const at = Uint8Array.from({ length: data.tree.size }, (_, node) => (nodes.includes(node) ? 1 : 0));
    return marksOf(data, location, spansOf(data.tree, at));
  };
  expect(marks(0, 1)).toEqual(new Map([[1, [{ from: 6, to: 9 }, { from: 0, to: 10 }]]]));
  expect(marks(2, 3)).toEqual(new Map([[2, [{ from: 2, to: Infinity }]], [3, [{ from: 0, to: 3 }]]]));
  expect(marks(1, 2).size).toBe(0);
});

test("rows of the table", () => {
  const data = example();
  const rows = rowsOf(data, cellsOf(data), -1);
  expect(rows).toEqual({
    size: 4,
    locations: Int32Array.of(1, 2, 2, 3),
    allocators: Int32Array.of(0, 0, 1, 1),
    threads: Int32Array.of(0, 0, 1, 1),
    bytes: Float64Array.of(100, 200, 50, 2 ** 40),
    counts: Float64Array.of(1, 2, 1, 1),
  });
  expect(rowsOf(data, cellsOf(data), 1).size).toBe(2);
  const together = rowsOf(example({ head: { split_threads: false } }), cellsOf(data), -1);
  expect(together.threads.every((thread) => thread === -1)).toBe(true);
  const order = (column: Column, descending: boolean) =>
    Array.from(orderOf(data, rows, { column, descending }), (row) => rows.bytes[row]);
  expect(order("bytes", true)).toEqual([2 ** 40, 200, 100, 50]);
  expect(order("count", false)).toEqual([2 ** 40, 100, 50, 200]);
  expect(order("average", false)).toEqual([50, 200, 100, 2 ** 40]);
  expect(order("place", false)).toEqual([2 ** 40, 100, 200, 50]);
  expect(order("function", true)).toEqual([2 ** 40, 200, 100, 50]);
  expect(order("allocator", false)).toEqual([200, 100, 2 ** 40, 50]);
  expect(order("thread", true)).toEqual([2 ** 40, 50, 200, 100]);
});

test("addresses come back, and strangers' do no harm", () => {
  const start = { metric: "peak", inverted: false, view: "graph", zoom: "0", range: null } as const;
  const there = { metric: "live", inverted: true, view: "table", zoom: "12~3", range: [0.5, 2] as [number, number] } as const;
  expect(writeAddress({ ...start }, start)).toBe("#");
  expect(readAddress(writeAddress({ ...there, range: [0.5, 2] }, start), start)).toEqual(there);
  expect(readAddress("#metric=x&view=y&range=1&inverted=2", start)).toEqual({ ...start });
});

test("curves keep their peaks when they are thinned", () => {
  const xs = Float64Array.from({ length: 10_000 }, (_, index) => index);
  const ys = xs.map((x) => (x === 7777 ? 1e6 : x % 10));
  const points = thinned(xs, ys, 100);
  expect(points.length).toBeLessThanOrEqual(400);
  expect(points.some(([x, y]) => x === 7777 && y === 1e6)).toBe(true);
  expect(points[0]).toEqual([0, 0]);
  expect(points.at(-1)?.[0]).toBe(9999);
  expect(thinned(xs.slice(0, 3), ys, 100).length).toBe(3);
  expect(lowerBound(xs, 7.5)).toBe(8);
  expect(lowerBound(xs, 1e9)).toBe(10_000);
  expect([upperBound(xs, 7), upperBound(xs, 7.5), upperBound(xs, 1e9)]).toEqual([8, 8, 10_000]);
});

test("between samples the heap's peaks are known", () => {
  const curve = curveOf(Float64Array.of(1, 2), Float64Array.of(5, 6), Float64Array.of(7, 8, 9), 4);
  expect(Array.from(curve.seconds)).toEqual([0.5, 1, 1.5, 2, 3]);
  expect(Array.from(curve.bytes)).toEqual([7, 5, 8, 6, 9]);
});

test("axes have round steps", () => {
  expect(ticks(100, 4, 10)).toEqual([0, 50, 100]);
  expect(ticks(3 * 2 ** 20, 3, 1024)).toEqual([0, 2 ** 20, 2 * 2 ** 20, 3 * 2 ** 20]);
  expect(ticks(0, 3, 10)).toEqual([0]);
});

test("the curve as CSV", () => {
  const data = example();
  expect(csvOf(data.samples, 1000)).toBe("unix_ms,resident_bytes,heap_bytes\r\n1000,10,1\r\n2500,20,2\r\n");
});

test("colours stay", () => {
  expect(hashOf("numpy")).toBe(hashOf("numpy"));
  expect(oklch(1, 0, 0)).toBe("rgb(255 255 255)");
  expect(oklch(0, 0, 0)).toBe("rgb(0 0 0)");
  expect(paintOf("/a/b.py", "b", false)).toEqual(paintOf("/a/b.py", "b", false));
  expect(paintOf("/a/b.py", "b", false)).not.toEqual(paintOf("/a/b.py", "b", true));
  expect(paintOf("", null, false)).not.toEqual(paintOf("/lib/x.py", null, false));
});
