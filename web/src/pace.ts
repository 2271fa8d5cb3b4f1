// Work done on the page's only thread, a slice at a time. Between slices the browser draws and answers.
//
// A worker would need a copy of all data, and the page's policy to allow scripts that are not its own.

import type { Work } from "./model/work.ts";

/** A frame of a screen is 16 ms; what is left is for drawing. */
const SLICE_MS = 10;

/** While the page opens nobody can ask for anything yet; as long as browsers do not call it long. */
export const OPENING_SLICE_MS = 40;

/** Ends the work; it is never heard of again. */
export type Cancel = () => void;

/**
 * Does the first slice at once. When that was all, `done` has been called and there is nothing to
 * cancel; otherwise the rest follows, and then `done`.
 */
export function inSlices<Result>(
  work: Work<Result>,
  done: (result: Result) => void,
  failed: (error: unknown) => void,
  sliceMs = SLICE_MS,
): Cancel | null {
  /** True when there is no more to do. */
  const slice = (): boolean => {
    const end = performance.now() + sliceMs;
    try {
      do {
        const next = work.next();
        if (next.done === true) {
          done(next.value);
          return true;
        }
      } while (performance.now() < end);
    } catch (error) {
      failed(error);
      return true;
    }
    return false;
  };
  if (slice()) return null;
  // Timers wait for 4 ms, and for a second in pages that are not in sight; messages do not.
  const { port1, port2 } = new MessageChannel();
  const cancel = () => {
    port1.onmessage = null;
    port1.close();
  };
  port1.onmessage = () => {
    if (slice()) cancel();
    else port2.postMessage(null);
  };
  port2.postMessage(null);
  return cancel;
}

/** The same for those who wait. */
export const paced = <Result>(work: Work<Result>, sliceMs = SLICE_MS): Promise<Result> =>
  new Promise((done, failed) => void inSlices(work, done, failed, sliceMs));

/** Lets the browser draw and answer. */
export const pause = (): Promise<void> =>
  new Promise((done) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      done();
    };
    port2.postMessage(null);
  });

/** What a part of the page waits for, one thing at a time: a new one ends the one before. */
export class Pending {
  private cancel: Cancel | null = null;
  private readonly part: HTMLElement;
  private readonly failed: (error: unknown) => void;

  constructor(part: HTMLElement, failed: (error: unknown) => void) {
    this.part = part;
    this.failed = failed;
  }

  start<Result>(work: Work<Result>, done: (result: Result) => void): void {
    this.stop();
    this.follow(
      inSlices(
        work,
        (result) => {
          this.follow(null);
          done(result);
        },
        (error) => {
          this.follow(null);
          this.failed(error);
        },
      ),
    );
  }

  stop(): void {
    this.cancel?.();
    this.follow(null);
  }

  get busy(): boolean {
    return this.cancel !== null;
  }

  private follow(cancel: Cancel | null): void {
    this.cancel = cancel;
    this.part.setAttribute("aria-busy", String(cancel !== null));
  }
}
