// A line of source and the parts of it that allocate.

import { visible } from "../text.ts";

export interface Segment {
  text: string;
  marked: boolean;
}

export interface Mark {
  /** In bytes of UTF-8 from the start of the line, as CPython counts. */
  from: number;
  /** After the end; infinite when the place goes on in the next line. */
  to: number;
}

/** Takes a line apart at the marks, with everything visible that would hide. */
export function segmentsOf(line: string, marks: Mark[]): Segment[] {
  const segments: Segment[] = [];
  let at = 0;
  for (const character of line) {
    const marked = marks.some((mark) => mark.from <= at && at < mark.to);
    at += bytesOf(character);
    const shown = visible(character, "\t");
    const last = segments.at(-1);
    if (last !== undefined && last.marked === marked) last.text += shown;
    else segments.push({ text: shown, marked });
  }
  return segments;
}

function bytesOf(character: string): number {
  const point = character.codePointAt(0) ?? 0;
  if (point < 0x80) return 1;
  if (point < 0x800) return 2;
  return point < 0x10000 ? 3 : 4;
}

/** What all lines have in front, to be left out. */
export function commonIndent(lines: string[]): number {
  const indents = lines.filter((line) => line.trim() !== "").map((line) => /^[ \t]*/.exec(line)?.[0].length ?? 0);
  return indents.length === 0 ? 0 : Math.min(...indents);
}
