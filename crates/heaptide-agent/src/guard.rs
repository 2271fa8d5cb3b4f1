//! A panic of ours never reaches the program.

use core::sync::atomic::{AtomicBool, Ordering};

use heaptide_format::StopReason;
use heaptide_recorder::Stop;

use crate::{RECORDER, switch};

static SILENT: AtomicBool = AtomicBool::new(false);

/// Makes panics silent: no message on the program's stderr. Once, at the start.
pub(crate) fn silence_panics() {
    if !SILENT.swap(true, Ordering::Relaxed) {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

/// Runs `record`. When it says stop, or panics, tracking ends and the program goes on.
#[inline(always)]
pub(crate) fn recording(record: impl FnOnce() -> Result<(), Stop>) {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(record)) {
        Ok(Ok(())) => {}
        Ok(Err(Stop)) => switch::turn_off(),
        Err(_) => broken(),
    }
}

/// Runs set-up code; `None` when it panicked, and tracking is over.
pub(crate) fn catching<T>(work: impl FnOnce() -> T) -> Option<T> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(value) => Some(value),
        Err(_) => {
            broken();
            None
        }
    }
}

#[cold]
fn broken() {
    switch::turn_off();
    RECORDER.file().stop(StopReason::Internal, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_tracking_and_goes_no_further() {
        silence_panics();
        switch::turn_on(0);
        recording(|| Ok(()));
        assert!(switch::is_on());
        recording(|| panic!("a bug"));
        assert!(!switch::is_on());
        switch::turn_on(0);
        recording(|| Err(Stop));
        assert!(!switch::is_on());
        assert_eq!(catching(|| -> u32 { panic!("another") }), None);
        assert_eq!(catching(|| 3), Some(3));
    }
}
