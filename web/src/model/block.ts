// The reading side of `crates/heaptide-report/src/page/block.rs`: a head and columns of numbers.

import { inPieces, STEPS, type Work } from "./work.ts";

/** The numbers of a page by the names of their columns. They are read when they are asked for: many never are. */
export interface Block {
  head: unknown;
  /** Up to 2^53 they are exact; larger ones are rounded, as all numbers of the page are. */
  floatsWork(name: string): Work<Float64Array>;
  /** Of 32 bits. */
  integersWork(name: string): Work<Int32Array>;
}

/** Newer than the types of it. */
const nativeBase64 = (Uint8Array as unknown as { fromBase64?: (text: string) => Uint8Array<ArrayBuffer> }).fromBase64;

export function* bytesOfBase64Work(text: string, native = nativeBase64): Work<Uint8Array<ArrayBuffer>> {
  if (native !== undefined) return native.call(Uint8Array, text);
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

/** Bytes that are inflated without a pause, which takes some milliseconds. */
const PIECE = 1 << 20;

/** Without a `Blob`, whose bytes would go through another process. */
export async function inflate(bytes: Uint8Array<ArrayBuffer>, pause: () => Promise<void>): Promise<Uint8Array> {
  const stream = new DecompressionStream("deflate");
  const write = async () => {
    const writer = stream.writable.getWriter();
    for (let at = 0; at < bytes.length; at += PIECE) {
      if (at > 0) await pause();
      await writer.write(bytes.subarray(at, at + PIECE));
    }
    await writer.close();
  };
  // What fails is told by the side that reads.
  write().catch(() => {});
  const reader = stream.readable.getReader();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    chunks.push(next.value);
    size += next.value.length;
  }
  const inflated = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    inflated.set(chunk, at);
    at += chunk.length;
  }
  return inflated;
}

interface Column {
  index: number;
  count: number;
  isDelta: boolean;
}

/** Columns follow each other without a word of how long they are; those before one that is asked for are passed over. */
class Columns implements Block {
  readonly head: unknown;
  private readonly bytes: Uint8Array;
  private readonly columns = new Map<string, Column>();
  private readonly counts: number[] = [];
  /** Of the first columns, as far as that is known. */
  private readonly starts: number[];

  constructor(bytes: Uint8Array) {
    const length = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0, true);
    const head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length))) as {
      columns: [string, string, number][];
    };
    this.head = head;
    this.bytes = bytes;
    this.starts = [4 + length];
    for (const [name, encoding, count] of head.columns) {
      this.columns.set(name, { index: this.counts.length, count, isDelta: encoding === "delta" });
      this.counts.push(count);
    }
  }

  *floatsWork(name: string): Work<Float64Array> {
    const column = this.column(name);
    return yield* this.numbersWork(column, new Float64Array(column.count));
  }

  *integersWork(name: string): Work<Int32Array> {
    const column = this.column(name);
    return yield* this.numbersWork(column, new Int32Array(column.count));
  }

  private column(name: string): Column {
    const column = this.columns.get(name);
    if (column === undefined) throw new Error(`the page has no column ${name}`);
    return column;
  }

  private *startWork(index: number): Work<number> {
    for (let known = this.starts.length - 1; known < index; known++) {
      let [at, left] = [this.starts[known]!, this.counts[known]!];
      // So many numbers have at least as many bytes.
      while (left > 0) {
        const size = Math.min(left, 4 * STEPS);
        left -= endsIn(this.bytes, at, at + size);
        at += size;
        if (left > STEPS) yield;
      }
      this.ended(known, at);
    }
    return this.starts[index]!;
  }

  /** A column ends at `at`, where the next one begins. */
  private ended(index: number, at: number): void {
    const { bytes, starts, counts } = this;
    if (at > bytes.length || (index + 1 === counts.length && at < bytes.length)) {
      throw new Error("the data of the page are not whole");
    }
    starts[index + 1] = at;
  }

  private *numbersWork<Numbers extends Float64Array | Int32Array>({ index, count, isDelta }: Column, values: Numbers): Work<Numbers> {
    const { bytes } = this;
    let [at, previous] = [yield* this.startWork(index), 0];
    yield* inPieces(count, (from, to) => {
      // The loop's own, which is faster than what is shared.
      let [next, sum] = [at, previous];
      for (let index = from; index < to; index++) {
        let byte = bytes[next++]!;
        let value = byte;
        if (byte >= 0x80) {
          value = byte & 0x7f;
          // Shifts are of 32 bits; past them the scale is a factor.
          for (let shift = 7; byte >= 0x80 && shift < 28; shift += 7) {
            byte = bytes[next++]!;
            value |= (byte & 0x7f) << shift;
          }
          for (let scale = 2 ** 28; byte >= 0x80; scale *= 128) {
            byte = bytes[next++]!;
            value += (byte & 0x7f) * scale;
          }
        }
        if (isDelta) {
          sum += value % 2 === 0 ? value / 2 : -(value + 1) / 2;
          value = sum;
        }
        values[index] = value;
      }
      [at, previous] = [next, sum];
    });
    this.ended(index, at);
    return values;
  }
}

/** How many numbers end in a stretch of bytes: their last bytes are below 0x80. Whether one does is hard to guess, so nothing branches. */
function endsIn(bytes: Uint8Array, from: number, to: number): number {
  // What is not there ends numbers that are not there either.
  const end = Math.min(to, bytes.length);
  let ends = Math.max(to - Math.max(bytes.length, from), 0);
  for (let at = from; at < end; at++) ends += (bytes[at]! >> 7) ^ 1;
  return ends;
}

export const blockOf = (bytes: Uint8Array): Block => new Columns(bytes);
