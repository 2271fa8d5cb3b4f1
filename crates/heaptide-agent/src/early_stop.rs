//! Where walks may end early, by `HEAPTIDE_EARLY_STOP`: without it where frames have been waiting (3.11, 3.12) and at the
//! start of the stack's newest chunk (3.11 and later), with `1` at any frame of other versions, too, with `check` also there, every
//! walk being compared with a whole one, and with `0` nowhere. With `check-chunks` they end at chunks only, and are compared.
//!
//! The marks of other versions than 3.11 and 3.12 only when asked for: they are written into fields that a program can see.
//! `docs/design/006-cheap-walks.md`.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, Ordering};

use heaptide_cpython::{FrameFamily, Layout, Marks, Stacks, Waits};

use crate::RECORDER;

const VARIABLE: &core::ffi::CStr = c"HEAPTIDE_EARLY_STOP";

/// Bits of [`MODE`].
const AT_CHUNKS: u8 = 1;
const AT_FRAMES: u8 = 2;
const CHECKED: u8 = 4;
/// Without the GIL, with or without `CHUNKS_IN_PARALLEL`; never together with the first two.
const IN_PARALLEL: u8 = 8;
const CHUNKS_IN_PARALLEL: u8 = 16;
/// With chunks, where there is no frame that has been waiting.
const AT_WAITS: u8 = 32;

static MODE: AtomicU8 = AtomicU8::new(0);

struct Cell<T>(UnsafeCell<MaybeUninit<T>>);
// SAFETY: written once in `prepare`, before tracking starts and before `MODE` says that it is there.
unsafe impl<T> Sync for Cell<T> {}
static MARKS: Cell<Marks> = Cell(UnsafeCell::new(MaybeUninit::uninit()));
static WAITS: Cell<Waits> = Cell(UnsafeCell::new(MaybeUninit::uninit()));
static STACKS: Cell<Stacks> = Cell(UnsafeCell::new(MaybeUninit::uninit()));

/// Where walks may end.
#[derive(Clone, Copy)]
pub(crate) enum EarlyStop {
    Nowhere,
    AtChunks(&'static Stacks),
    /// 3.11 and 3.12: where a frame has been waiting, else at chunks.
    AtWaits(&'static Waits, &'static Stacks),
    AtFrames(&'static Marks),
    /// In an interpreter without the GIL: at chunks or nowhere.
    InParallel(Option<&'static Stacks>),
}

/// Where walks may end, and whether each is compared with a whole one.
#[inline(always)]
pub(crate) fn mode() -> (EarlyStop, bool) {
    let mode = MODE.load(Ordering::Relaxed);
    // SAFETY: `MODE` was set after what it promises was written, before tracking started.
    let place = unsafe {
        if mode & AT_WAITS != 0 {
            EarlyStop::AtWaits(
                (*WAITS.0.get()).assume_init_ref(),
                (*STACKS.0.get()).assume_init_ref(),
            )
        } else if mode & AT_CHUNKS != 0 {
            EarlyStop::AtChunks((*STACKS.0.get()).assume_init_ref())
        } else if mode & AT_FRAMES != 0 {
            EarlyStop::AtFrames((*MARKS.0.get()).assume_init_ref())
        } else if mode & IN_PARALLEL != 0 {
            let chunks = mode & CHUNKS_IN_PARALLEL != 0;
            EarlyStop::InParallel(chunks.then(|| (*STACKS.0.get()).assume_init_ref()))
        } else {
            EarlyStop::Nowhere
        }
    };
    (place, mode & CHECKED != 0)
}

/// Reads the variable. Once, with the GIL, before tracking starts.
pub(crate) fn prepare(layout: &Layout, none: usize) {
    if layout.family == FrameFamily::WithoutGil {
        MODE.store(IN_PARALLEL, Ordering::Release);
    }
    // SAFETY: the GIL is held, which is what the interpreter changes the environment under.
    let value = unsafe { libc::getenv(VARIABLE.as_ptr()) };
    let value = if value.is_null() {
        c"".to_bytes()
    } else {
        // SAFETY: `getenv` returns a C string, which nobody changes while the GIL is held.
        unsafe { core::ffi::CStr::from_ptr(value) }.to_bytes()
    };
    let (frames, waits, checked) = match value {
        b"0" => return,
        b"1" => (true, true, 0),
        b"check" => (true, true, CHECKED),
        b"check-chunks" => (false, false, CHECKED),
        _ => (false, true, 0),
    };
    // SAFETY: nobody reads the cells while `MODE` is zero, and this is called once.
    let place = unsafe {
        if frames && let Some(marks) = Marks::new(layout, none) {
            (*MARKS.0.get()).write(marks);
            AT_FRAMES
        } else if let Some(stacks) = Stacks::new(layout) {
            (*STACKS.0.get()).write(stacks);
            if layout.family == FrameFamily::WithoutGil {
                IN_PARALLEL | CHUNKS_IN_PARALLEL
            } else if waits && let Some(waits) = Waits::new(layout) {
                (*WAITS.0.get()).write(waits);
                AT_WAITS
            } else {
                AT_CHUNKS
            }
        } else {
            return;
        }
    };
    MODE.store(place | checked, Ordering::Release);
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
