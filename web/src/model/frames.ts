// Which frames say nothing about the program, by Memray's rules.

import type { PageData } from "./data.ts";
import { inPieces, TEXT_STEPS, type Work } from "./work.ts";

export const IRRELEVANT = 1;
export const IMPORT_SYSTEM = 2;

const INTERPRETER_SOURCE = /(?:Include|Objects|Modules|Python|cpython).*\.[ch]$/;
const IMPORT_INSTRUCTIONS = new Set(["import_name", "import_from", "import_all_from"]);

/** Flags of a frame: what starts programs, what runs them, what imports modules. */
export function flagsOfFrame(name: string, file: string): number {
  let flags = 0;
  if (file === "<frozen runpy>" || file.endsWith("runpy.py") || INTERPRETER_SOURCE.test(file)) flags |= IRRELEVANT;
  if (file.includes("frozen importlib") || (IMPORT_INSTRUCTIONS.has(name) && file.endsWith("ceval.c"))) {
    flags |= IMPORT_SYSTEM;
  }
  return flags;
}

/** Flags of all locations. */
export function* flagsWork(data: PageData): Work<Uint8Array> {
  const flags = new Uint8Array(data.locations.size);
  const piece = (from: number, to: number) => {
    for (let location = from; location < to; location++) {
      flags[location] = flagsOfFrame(data.functionOf(location), data.fileOf(location));
    }
  };
  yield* inPieces(flags.length, piece, TEXT_STEPS);
  return flags;
}
