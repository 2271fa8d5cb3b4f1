// The reading side of `crates/heaptide-report/src/page/block.rs`: a head and columns of numbers.

import { inPieces, type Work } from "./work.ts";

/** The numbers of a page by the names of their columns. */
export interface Block {
  head: unknown;
  column(name: string): Float64Array;
}

export function* bytesOfBase64Work(text: string): Work<Uint8Array<ArrayBuffer>> {
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const quads = text.length / 4;
  const bytes = new Uint8Array(quads * 3 - padding);
  // Four characters are three bytes, so pieces are decoded by themselves.
  yield* inPieces(quads, (from, to) => {
    const binary = atob(text.slice(from * 4, to * 4));
    for (let index = 0; index < binary.length; index++) bytes[from * 3 + index] = binary.charCodeAt(index);
  });
  return bytes;
}

export async function inflate(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Numbers up to 2^53 are exact; larger ones are rounded, as all numbers of the page are. */
export function* parseBlockWork(bytes: Uint8Array): Work<Block> {
  const length = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length))) as {
    columns: [string, string, number][];
  };
  const columns = new Map<string, Float64Array>();
  let at = 4 + length;
  for (const [name, encoding, count] of head.columns) {
    const values = new Float64Array(count);
    let previous = 0;
    yield* inPieces(count, (from, to) => {
      for (let index = from; index < to; index++) {
        let byte = bytes[at++]!;
        let value = byte & 0x7f;
        // Shifts are of 32 bits; past them the scale is a factor.
        for (let shift = 7; byte >= 0x80 && shift < 28; shift += 7) {
          byte = bytes[at++]!;
          value |= (byte & 0x7f) << shift;
        }
        if (byte >= 0x80) {
          for (let scale = 2 ** 28; byte >= 0x80; scale *= 128) {
            byte = bytes[at++]!;
            value += (byte & 0x7f) * scale;
          }
        }
        if (encoding === "delta") {
          previous += value % 2 === 0 ? value / 2 : -(value + 1) / 2;
          value = previous;
        }
        values[index] = value;
      }
    });
    columns.set(name, values);
  }
  if (at !== bytes.length) throw new Error("the data of the page are not whole");
  return {
    head,
    column(name) {
      const values = columns.get(name);
      if (values === undefined) throw new Error(`the page has no column ${name}`);
      return values;
    },
  };
}

/** A column of numbers of 32 bits. */
export function* integersWork(block: Block, name: string): Work<Int32Array> {
  const values = block.column(name);
  const integers = new Int32Array(values.length);
  yield* inPieces(values.length, (from, to) => {
    for (let index = from; index < to; index++) integers[index] = values[index]!;
  });
  return integers;
}
