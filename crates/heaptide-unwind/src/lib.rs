//! Native stacks of the calling thread, by the unwind information (`.eh_frame`) of loaded objects.
//!
//! What it is: from call frame information to a [`Rule`] of 8 bytes that says how one frame leads to its caller's
//! ([`Finder`]); a table of the rules that were found ([`RuleTable`]), so that each is made once; and a walk in step
//! with the last one ([`walk`]), which looks nothing up for as long as frames lead to one another as they did.
//!
//! What the caller owes: objects whose unwind information stays mapped while a [`Finder`] reads it, and stacks whose
//! words can be read up to the end that a [`Stack`] names.
//!
//! Only `rip`, `rsp` and `rbp` are followed. Not covered: frames that are found by other registers, or by longer
//! expressions than functions that align their stack have. There a walk ends.
//!
//! Nothing here allocates, locks or calls the system. `docs/design/020-recording-native-stacks.md` has the why.
#![no_std]

#[cfg(test)]
extern crate std;

mod cfi;
mod registers;
mod rule;
mod table;
mod walk;

pub use cfi::{Finder, UnwindInfo};
pub use registers::{Registers, Stack};
pub use rule::Rule;
pub use table::{Known, Place, RuleTable};
pub use walk::{Frame, Full, Walk, walk};
