//! Forked children are silent and never touch the parent's capture.

use crate::{RECORDER, switch, thread};

/// Registers the handler that makes a child forget us.
pub(crate) fn watch() {
    // SAFETY: the handler stays mapped for ever.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

/// The switch is off in the child already where the kernel wipes its page. The mapping of the
/// capture becomes private memory, so that not even a bug could reach the parent's file.
unsafe extern "C" fn in_child() {
    switch::turn_off();
    thread::forget_in_child();
    // SAFETY: in a forked child, which has one thread.
    unsafe { RECORDER.file().abandon() };
}
