//! Aggregation inside the profiled process, straight into a shared mapping of the capture file.
//!
//! What it is: everything between "this block was allocated at this stack" and the bytes of the
//! capture. It knows nothing of Python, of hooks or of the loader, so it can be tested by itself.
//!
//! What the caller owes:
//! - one [`ThreadRecord`] per thread, used by that thread only and never re-entered (the agent's
//!   per-thread guard); this is what makes the spin locks here safe against signal handlers;
//! - no call at all in a forked child, unless the recorder has been put back to [`Recorder::new`];
//! - once a call returns [`Stop`], no further calls that record.
//!
//! What holds at every instant: the file is readable and complete but for the event each thread is
//! in the middle of (`docs/design/001-aggregated-capture.md` has the argument).
//!
//! Nothing here allocates through `malloc`, formats, panics by design, or makes a system call on
//! the hot path. System calls go around the C library, so `errno` is never touched.
#![no_std]

#[cfg(test)]
extern crate std;

mod cells;
mod clock;
mod create;
mod definitions;
mod events;
mod file;
mod hash;
mod heap;
mod index;
mod live;
mod lock;
mod mappings;
mod memory;
mod native;
mod objects;
mod pool;
mod ranges;
mod recorder;
mod residency;
mod samples;
mod stacks;
mod threads;

pub use create::note_end;
pub use definitions::{CodeText, RawText};
pub use file::{CaptureFile, Stop};
pub use hash::mix;
pub use lock::{SpinGuard, SpinLock};
pub use memory::{Mapping, own_bytes};
pub use native::LoadedObject;
pub use objects::{KnownTypes, LiveObject, LiveObjects, ObjectList, TypeName};
pub use ranges::{MAX_PIECES, Piece, Pieces};
pub use recorder::{ArmedError, Block, Recorder};
pub use samples::{SampleTable, Seen};
pub use stacks::ENTERED;
pub use threads::ThreadRecord;

#[cfg(test)]
mod tests;
