//! `libheaptide_agent.so`: the half of heaptide that lives inside the profiled process.
//!
//! ```text
//!   loaded (constructor)
//!     │ no session for this process                     ┌──────────┐
//!     ├────────────────────────────────────────────────▶│ dormant  │ nothing of ours ever runs again
//!     │ not a CPython: leave the environment alone ─────▶└──────────┘
//!     │ a CPython, session is ours: audit hook added
//!     ▼
//!   armed ── audit event `cpython.run_*` ──▶ tracking ── atexit / interpreter cleared ──▶ finished
//!                    │ cannot map, unknown version          │ disk full, bug
//!                    ▼                                      ▼
//!                 stopped                                stopped        (the program goes on untouched)
//!
//!   fork: the flag page is wiped, so a child is dormant before its first instruction; with `--follow-fork`
//!         it is tracked again, in a capture of its own, when the fork's last handler returns (`fork`, `family`).
//! ```
//!
//! Loaded late, by a program that tracks stretches of itself, it does nothing until it is asked: see `inside`.
//!
//! What the program owes us: nothing. What we owe the program is the list "Laws inside a hook" of
//! the design: see `hooks` (1, 2, 4), `thread` (3), `fork` (5), `session` (6), `guard` (7).
//!
//! Not covered: statically linked allocators, calls that go around the GOT.

mod audit_hook;
mod code;
mod early_stop;
mod family;
mod fork;
mod guard;
mod hooks;
pub mod inside;
mod interpreter;
mod known_nodes;
mod loader;
mod names;
mod native;
mod objects;
mod own_heap;
mod python_allocators;
mod real;
mod sampler;
mod search_path;
mod server;
mod session;
mod start;
mod switch;
mod thread;
mod tls;
mod walk;

use core::cell::UnsafeCell;

use heaptide_recorder::Recorder;

/// The one recorder. A static, because hooks may run until the last instruction of the process.
static RECORDER: OnlyRecorder = OnlyRecorder(UnsafeCell::new(Recorder::new()));
/// What it is at first. Never used, only copied.
static BLANK: OnlyRecorder = OnlyRecorder(UnsafeCell::new(Recorder::new()));

/// A recorder that a forked child can put back to the beginning.
struct OnlyRecorder(UnsafeCell<Recorder>);

// SAFETY: the recorder is made for many threads, and replaced only while there is one (`make_blank`).
unsafe impl Sync for OnlyRecorder {}

impl core::ops::Deref for OnlyRecorder {
    type Target = Recorder;
    #[inline(always)]
    fn deref(&self) -> &Recorder {
        // SAFETY: references are held no longer than an event, and in none of those is it replaced.
        unsafe { &*self.0.get() }
    }
}

impl OnlyRecorder {
    /// Puts the recorder back to how it was at load time. What it had mapped for itself stays mapped, and
    /// shared with the parent until one of both writes there.
    ///
    /// # Safety
    /// In a forked child that still has one thread, which is in no hook; or where no thread records, and what the
    /// recorder held was released.
    unsafe fn make_blank(&self) {
        // SAFETY: nobody holds a reference into the recorder, by the caller's promise; `BLANK` holds nothing
        // but the constants that every recorder begins with. In place: it is too large for a stack.
        unsafe { core::ptr::copy_nonoverlapping(BLANK.0.get(), self.0.get(), 1) };
    }
}

/// Runs when the loader has mapped us, before `main`.
extern "C" fn constructor() {
    start::loaded();
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;
