//! Whether walks may end early, by `HEAPTIDE_EARLY_STOP`: `1` for yes, `check` for yes with every
//! such walk compared with a whole one, anything else or nothing for no.
//!
//! Off unless asked for: it writes into frames of the interpreter. `docs/design/006-cheap-walks.md`.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, Ordering};

use heaptide_cpython::{Layout, Marks};

use crate::RECORDER;

const VARIABLE: &core::ffi::CStr = c"HEAPTIDE_EARLY_STOP";

const OFF: u8 = 0;
const ON: u8 = 1;
const CHECKED: u8 = 2;

static MODE: AtomicU8 = AtomicU8::new(OFF);

struct Cell(UnsafeCell<MaybeUninit<Marks>>);
// SAFETY: written once in `prepare`, before tracking starts and before `MODE` says that it is there.
unsafe impl Sync for Cell {}
static MARKS: Cell = Cell(UnsafeCell::new(MaybeUninit::uninit()));

/// How frames are marked, if they are.
#[inline(always)]
pub(crate) fn marks() -> Option<&'static Marks> {
    if MODE.load(Ordering::Relaxed) == OFF {
        return None;
    }
    // SAFETY: `MODE` was set after the marks were written, before tracking started.
    Some(unsafe { (*MARKS.0.get()).assume_init_ref() })
}

/// Is every walk that may end early compared with a whole one?
#[inline(always)]
pub(crate) fn is_checked() -> bool {
    MODE.load(Ordering::Relaxed) == CHECKED
}

/// Reads the variable. Once, with the GIL, before tracking starts.
pub(crate) fn prepare(layout: &Layout, none: usize) {
    // SAFETY: the GIL is held, which is what the interpreter changes the environment under.
    let value = unsafe { libc::getenv(VARIABLE.as_ptr()) };
    if value.is_null() {
        return;
    }
    // SAFETY: `getenv` returns a C string, which nobody changes while the GIL is held.
    let mode = match unsafe { core::ffi::CStr::from_ptr(value) }.to_bytes() {
        b"1" => ON,
        b"check" => CHECKED,
        _ => return,
    };
    if let Some(marks) = Marks::new(layout, none) {
        // SAFETY: nobody reads the cell while `MODE` is off, and this is called once.
        unsafe { (*MARKS.0.get()).write(marks) };
        MODE.store(mode, Ordering::Release);
    }
}

/// Notes what came of comparing the `early` stack with the `whole` one.
#[cold]
pub(crate) fn compared(early: u32, whole: u32) {
    let Some(own) = RECORDER.file().own() else {
        return;
    };
    // When the node budget runs low the same stack may get another node later on.
    let folds = own.folded_stacks.load(Ordering::Relaxed) > 0
        || own.overflow_stacks.load(Ordering::Relaxed) > 0;
    if folds {
        return;
    }
    own.early_stops_compared.fetch_add(1, Ordering::Relaxed);
    if early != whole {
        own.early_stop_mismatches.fetch_add(1, Ordering::Relaxed);
    }
}
