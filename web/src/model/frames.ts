// Which frames say nothing about the program, by Memray's rules.

import type { PageData } from "./data.ts";
import { inPieces, TEXT_STEPS, type Work } from "./work.ts";

export const IRRELEVANT = 1;
export const IMPORT_SYSTEM = 2;

const INTERPRETER_SOURCE = /(?:Include|Objects|Modules|Python|cpython).*\.[ch]$/;
/** The only file whose frames differ by their names. */
const INTERPRETER_LOOP = "ceval.c";
const BY_NAME = -1;
const IMPORT_INSTRUCTIONS = new Set(["import_name", "import_from", "import_all_from"]);

/** Flags of a frame: what starts programs, what runs them, what imports modules. */
export function flagsOfFrame(name: string, file: string): number {
  let flags = 0;
  if (file === "<frozen runpy>" || file.endsWith("runpy.py") || INTERPRETER_SOURCE.test(file)) flags |= IRRELEVANT;
  if (file.includes("frozen importlib") || (IMPORT_INSTRUCTIONS.has(name) && file.endsWith(INTERPRETER_LOOP))) {
    flags |= IMPORT_SYSTEM;
  }
  return flags;
}

/** Flags of all locations. */
export function* flagsWork(data: PageData): Work<Uint8Array> {
  const flags = new Uint8Array(data.locations.size);
  const ofFiles = new Map<string, number>();
  const piece = (from: number, to: number) => {
    for (let location = from; location < to; location++) {
      const file = data.fileOf(location);
      let known = ofFiles.get(file);
      if (known === undefined) {
        known = file.endsWith(INTERPRETER_LOOP) ? BY_NAME : flagsOfFrame("", file);
        ofFiles.set(file, known);
      }
      flags[location] = known === BY_NAME ? flagsOfFrame(data.functionOf(location), file) : known;
    }
  };
  yield* inPieces(flags.length, piece, TEXT_STEPS);
  return flags;
}
