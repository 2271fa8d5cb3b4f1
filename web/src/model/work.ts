// Work that comes up for air: a generator that stops after so many steps of its loops, so that whoever
// drives it can let the page answer meanwhile, or drop it. Work of a few steps never stops.

export type Work<Result> = Generator<void, Result, void>;

/** Steps of a loop between two stops: a few milliseconds, whatever the loop does. */
export const STEPS = 1 << 16;

/** Steps between two stops where each looks at texts. */
export const TEXT_STEPS = STEPS >> 4;

/**
 * Goes through `0 .. count` in pieces of `steps`. What is called for each piece is an ordinary function, and
 * as fast.
 */
export function* inPieces(count: number, piece: (from: number, to: number) => void, steps = STEPS): Work<void> {
  for (let from = 0; ; ) {
    const to = Math.min(from + steps, count);
    piece(from, to);
    if (to === count) return;
    from = to;
    yield;
  }
}

/** Does all of it now. */
export function finish<Result>(work: Work<Result>): Result {
  for (;;) {
    const next = work.next();
    if (next.done === true) return next.value;
  }
}
