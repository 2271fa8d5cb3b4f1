// Numbers and names for people, as `crates/heaptide-report/src/format.rs` writes them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/** Bytes with three digits: `1.50 MiB`. */
export function bytesText(bytes: number): string {
  let power = 0;
  while (power < UNITS.length - 1 && bytes >= (power === 0 ? 1024 : 999.5)) {
    bytes /= 1024;
    power += 1;
  }
  const decimals = power === 0 ? 0 : bytes < 9.995 ? 2 : bytes < 99.95 ? 1 : 0;
  return `${bytes.toFixed(decimals)} ${UNITS[power]}`;
}

const numbers = new Intl.NumberFormat("en-US");

/** A number with separators: `1,234,567`. */
export const countText = (count: number): string => numbers.format(count);

/** `1 block`, `2 blocks`. */
export const blocksText = (count: number): string => `${countText(count)} ${count === 1 ? "block" : "blocks"}`;

/** What a table says whose last rows cannot be reached by scrolling; nothing when all can. */
export const unreachableText = (rows: number, most: number): string =>
  rows > most ? `; scrolling reaches the first ${countText(most)}, sorting and search the others` : "";

/** `part` of `whole` in percent, one decimal. */
export const shareText = (part: number, whole: number): string =>
  `${(whole > 0 ? (part * 100) / whole : 0).toFixed(1)}%`;

/** A duration with as many digits as help. */
export function secondsText(seconds: number): string {
  if (seconds >= 3600) {
    const minutes = Math.floor(seconds / 60);
    return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  }
  if (seconds >= 120) return `${Math.floor(seconds / 60)} min ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
  if (seconds >= 10) return `${seconds.toFixed(1)} s`;
  if (seconds >= 1) return `${seconds.toFixed(2)} s`;
  return `${(seconds * 1000).toFixed(seconds < 0.01 ? 2 : 0)} ms`;
}

// Everything that would hide, or turn text around: the same characters as `visible` in Rust.
const INVISIBLE =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/** Control characters and marks of direction as escapes; `keep` are left as they are. */
export function visible(text: string, keep = ""): string {
  return text.replace(INVISIBLE, (character) => {
    if (keep.includes(character)) return character;
    const point = character.codePointAt(0) ?? 0;
    return point < 0x100 ? `\\x${point.toString(16).padStart(2, "0")}` : `\\u${point.toString(16).padStart(4, "0")}`;
  });
}
