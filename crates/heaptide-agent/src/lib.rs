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
//!   fork: the flag page is wiped, so a child is dormant before its first instruction.
//! ```
//!
//! What the program owes us: nothing. What we owe the program is the list "Laws inside a hook" of
//! the design: see `hooks` (1, 2, 4), `thread` (3), `fork` (5), `session` (6), `guard` (7).
//!
//! Not covered: free-threaded builds, statically linked allocators, calls that go around the GOT.

mod audit_hook;
mod code;
mod fork;
mod guard;
mod hooks;
mod interpreter;
mod loader;
mod names;
mod own_heap;
mod real;
mod session;
mod start;
mod switch;
mod thread;
mod tls;
mod walk;

use heaptide_recorder::Recorder;

/// The one recorder. A static, because hooks may run until the last instruction of the process.
static RECORDER: Recorder = Recorder::new();

/// Runs when the loader has mapped us, before `main`.
extern "C" fn constructor() {
    start::loaded();
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;
