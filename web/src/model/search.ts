// Searching frames by their function and place.

import type { PageData } from "./data.ts";
import type { InvertedView } from "./inverted.ts";
import type { UprightView, View } from "./view.ts";
import { inPieces, TEXT_STEPS, type Work } from "./work.ts";

export type Matcher = (text: string) => boolean;

/** `/expression/` is a regular expression, anything else is text; neither minds capitals. */
export function matcherOf(query: string): Matcher {
  const expression = /^\/(.+)\/$/.exec(query)?.[1];
  if (expression !== undefined) {
    const regex = new RegExp(expression, "iu");
    return (text) => regex.test(text);
  }
  const wanted = query.toLowerCase();
  return (text) => text.toLowerCase().includes(wanted);
}

/** Whether a query can be searched for; an expression that is still typed often cannot. */
export function isQuery(query: string): boolean {
  try {
    matcherOf(query);
    return true;
  } catch {
    return false;
  }
}

export interface Search {
  matches: Matcher;
  /** By location. */
  matched: Uint8Array;
}

/** Null for a query of nothing, or of what is no query. */
export function* searchWork(data: PageData, query: string): Work<Search | null> {
  if (query === "" || !isQuery(query)) return null;
  const matches = matcherOf(query);
  return { matches, matched: yield* matchedWork(data, matches) };
}

/** Which locations match; what is matched is `function  file:line`. */
export function* matchedWork(data: PageData, matches: Matcher): Work<Uint8Array> {
  const matched = new Uint8Array(data.locations.size);
  const piece = (from: number, to: number) => {
    for (let location = from; location < to; location++) {
      if (matches(`${data.functionOf(location)}  ${data.placeOf(location)}`)) matched[location] = 1;
    }
  };
  yield* inPieces(matched.length, piece, TEXT_STEPS);
  return matched;
}

/** Of the stacks that hold anything and have a matched frame: the same either way up. */
export interface Found {
  stacks: number;
  bytes: number;
  blocks: number;
  weight: number;
}

/** What stacks have in which a frame matched, at `zoom` or beyond it. */
export function* foundWork(view: View, matched: Uint8Array, zoom: number): Work<Found> {
  return yield* view.inverted ? foundStacksWork(view, matched, zoom) : foundFramesWork(view, matched, zoom);
}

function* foundFramesWork(view: UprightView, matched: Uint8Array, zoom: number): Work<Found> {
  const { own, stacks } = view;
  const inside = new Uint8Array(view.size);
  const below = new Uint8Array(view.size);
  below[zoom] = 1;
  const sum: Found = { stacks: 0, bytes: 0, blocks: 0, weight: 0 };
  yield* inPieces(view.size - zoom, (from, to) => {
    for (let node = zoom + from; node < zoom + to; node++) {
      if (node !== zoom) {
        const parent = view.parents[node]!;
        if (below[parent] !== 1) continue;
        below[node] = 1;
        inside[node] = inside[parent]!;
      }
      const above = inside[node] === 1;
      if (!above && node !== 0 && matched[view.locations[node]!] === 1) inside[node] = 1;
      if (inside[node] === 1) sum.stacks += stacks === null ? Number(own.counts[node]! > 0) : stacks[node]!;
      // A frame below another one that matched is in its sum already.
      if (above || inside[node] !== 1) continue;
      sum.bytes += view.bytes[node]!;
      sum.blocks += view.counts[node]!;
      sum.weight += view.weights[node]!;
    }
  });
  return sum;
}

function* foundStacksWork(view: InvertedView, matched: Uint8Array, zoom: number): Work<Found> {
  const { branches } = view;
  const { own, places, hidden, callers } = branches;
  // Of the frames that are shown, those of the page's tree: how deep they are, and the outermost one at or
  // above each that matched.
  const depths = new Int32Array(places.length);
  const outermost = new Int32Array(places.length);
  yield* inPieces(places.length, (from, to) => {
    for (let node = Math.max(from, 1); node < to; node++) {
      const [caller, place] = [callers[node]!, places[node]!];
      const depth = depths[caller]! + (hidden !== null && hidden[place] === 1 ? 0 : 1);
      depths[node] = depth;
      outermost[node] = outermost[caller] === 0 && depth > depths[caller]! && matched[place] === 1 ? depth : outermost[caller]!;
    }
  });
  // A copy, because stacks are moved while branches are made.
  const stacks = branches.leaves.slice(branches.starts[zoom], branches.ends[zoom]);
  const inwards = view.depths[zoom]!;
  const amounts = view.weights === view.bytes ? own.bytes : own.counts;
  const sum: Found = { stacks: 0, bytes: 0, blocks: 0, weight: 0 };
  yield* inPieces(stacks.length, (from, to) => {
    for (let index = from; index < to; index++) {
      const leaf = stacks[index]!;
      const match = outermost[leaf]!;
      // Frames further in than the zoomed one are not below it.
      if (match === 0 || match > depths[leaf]! - inwards + 1) continue;
      if (own.counts[leaf]! > 0) sum.stacks += 1;
      sum.bytes += own.bytes[leaf]!;
      sum.blocks += own.counts[leaf]!;
      sum.weight += amounts[leaf]!;
    }
  });
  return sum;
}
