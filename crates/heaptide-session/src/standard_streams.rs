//! Standard streams that were closed when we were started, and stay closed for the program.
//!
//! Rust's runtime opens `/dev/null` in their place before `main`, so they are looked at earlier.

use std::sync::atomic::{AtomicBool, Ordering};

static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

extern "C" fn look() {
    for (descriptor, closed) in (0..).zip(&CLOSED) {
        // SAFETY: asks for the flags of a descriptor, which may not exist.
        let is_closed = unsafe { libc::fcntl(descriptor, libc::F_GETFD) } == -1;
        closed.store(is_closed, Ordering::Relaxed);
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

/// Closes them again. In the child, before the exec; async-signal-safe.
pub(crate) fn close_again() {
    for (descriptor, closed) in (0..).zip(&CLOSED) {
        if closed.load(Ordering::Relaxed) {
            // SAFETY: the runtime's own descriptor of /dev/null, in a process that is about to be replaced.
            unsafe { libc::close(descriptor) };
        }
    }
}
