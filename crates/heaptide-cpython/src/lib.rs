//! Reads the frame chain, code objects and line tables of a running CPython, from inside, without calling it.
//!
//! An allocation hook runs at moments when nothing may be asked of the interpreter: the GIL may be released, an object may be half built,
//! the allocator may be in the middle of a collection. All that is left is to *look*: this crate follows the pointers that the interpreter
//! itself follows, with the field offsets of its version. No Python API that runs code, no reference counts, no allocation, no lock, no panic.
//!
//! ```text
//! Interpreter::resolve ── once ──▶ Interpreter { Layout, entry points }
//!      thread_state() ──▶ top_frame() ──▶ read_frame() ─┬▶ previous … ──▶ read_frame()
//!                                                       ├▶ code ──▶ read_code()        once per code object
//!                                                       └▶ instruction ──▶ last_instruction()   once per stack node
//! resolve_position(form, line table, first line, last instruction)      later, by the reading side, over untrusted bytes
//! ```
//!
//! # What the caller owes
//! - A frame chain is only walked by the thread it belongs to, at an *allocation*. Never inside a free: greenlet frees memory in the middle
//!   of a switch, when the chain points at overwritten memory.
//! - Nothing read here is kept without care: a frame, a code object or a string lives only as long as the interpreter keeps it. While a walk
//!   runs they stay alive, because the walking thread is the one that would have to pop them.
//! - Walking ends before `PyInterpreterState_Clear`: finalisation frees the thread states of daemon threads without telling them.
//! - The line-table half ([`linetable`]) has no such rules: it is safe code and takes any bytes.
//!
//! # What is shown
//! Exactly the frames of `traceback.extract_stack()`: shim and trampoline frames, and frames that have not reached their first traceable
//! instruction, are skipped ([`FrameView::code`] is null).
//!
//! # What is not covered
//! - free-threaded builds of other versions than 3.14 ([`Unsupported::FreeThreaded`]);
//! - `Py_TRACE_REFS` builds, whose objects have a larger head ([`Unsupported::TraceReferences`]). Other debug builds are not tested;
//! - alpha and beta releases, whose structures still change from one to the next ([`Unsupported::PreRelease`]);
//! - PyPy and other implementations: they lack the symbols ([`Unsupported::MissingSymbol`]);
//! - 32-bit and big-endian machines;
//! - a subinterpreter entered on 3.9 – 3.11 by a thread that then released the GIL shows the stack of the thread's first interpreter;
//! - on 3.9 – 3.11, a thread state that an embedding program makes on one thread and runs on another: the thread that made it must not walk
//!   while the other runs (from 3.12 on the interpreter itself keeps them apart).
#![cfg_attr(not(test), no_std)]

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("the layout tables are those of 64-bit little-endian interpreters");

mod code;
mod copies;
mod frame;
mod interpreter;
pub mod layout;
pub mod linetable;
mod mark;
mod stack;
mod unsupported;
mod wait;

pub use code::{CodeView, RawStr, read_code, read_str};
pub use copies::{Holder, checked_read};
pub use frame::{
    Family, Family39, Family311, Family313, FamilyWithoutGil, FrameStep, FrameView, RawFrame,
    first_local, last_instruction, read_frame,
};
pub use interpreter::Interpreter;
pub use layout::{FrameFamily, Layout};
pub use linetable::{LineTableForm, Position, positions, resolve_position};
pub use mark::{MarkLayout, Marking, Marks};
pub use stack::{NewestChunk, StackLayout, Stacks, stack_chunk};
pub use unsupported::Unsupported;
pub use wait::{DeadWord, WaitLayout, Waits};
