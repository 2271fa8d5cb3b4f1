//! Marks on frames: a value in a field that every new frame has reset, and that nobody looks at meanwhile.
//!
//! A frame that carries the mark has been on the stack since it was marked, so its caller is the same and has not run. That is what lets a walk end
//! early: see `docs/design/006-cheap-walks.md` for the argument, which depends on every rule here.
//!
//! | version | field | new frame | mark | who else looks |
//! |---|---|---|---|---|
//! | 3.9, 3.10 | `f_trace_lines` | 1 | 0x55 | a truth test before a line is traced; `frame.f_trace_lines`, which reads `True` |
//! | 3.13 and later | `f_locals` | null | `None` | nobody in optimized code, except for an overridden `__import__`, which is given `None` for null |
//!
//! 3.11 and 3.12 have no such field, and without the GIL frames are not marked: a collector in another thread may look at them.

use core::ffi::c_ulong;

use crate::Layout;
use crate::frame::{Family39, Family311, Family313, FamilyWithoutGil, pointer, read};
use crate::stack::{StackLayout, stack_chunk};

/// Bits of `co_flags`.
const OPTIMIZED: u32 = 0x1;
/// A generator's, coroutine's or asynchronous generator's code.
const SUSPENDS: u32 = 0x20 | 0x80 | 0x200;
/// `FRAME_OWNED_BY_THREAD`
const OWNED_BY_THREAD: u8 = 0;

/// `f_trace_lines` in a new frame, and with the mark.
const TRACES_LINES: u8 = 1;
const MARKED: u8 = 0x55;

/// Chunks of a thread's stack that are looked through for a frame: at 16 KiB each deep enough for what is marked one frame after the other.
const MOST_CHUNKS: u32 = 8;

/// Offsets of what marks need, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkLayout {
    /// In the frame: where the mark goes.
    pub field: u32,
    /// `f_gen` of the frame (3.9, 3.10), else zero.
    pub generator: u32,
}

impl MarkLayout {
    /// For the versions that were read and tested; `None` for all others.
    #[must_use]
    pub const fn for_version(hexversion: u32) -> Option<Self> {
        let (field, generator) = match hexversion >> 16 {
            0x0309 => (88, 96),
            0x030a => (84, 88),
            0x030d..=0x030f => (40, 0),
            _ => return None,
        };
        Some(Self { field, generator })
    }
}

/// All that it takes to mark frames of one interpreter.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    layout: MarkLayout,
    stack: StackLayout,
    /// Address of `None`.
    none: usize,
}

impl Marks {
    /// For the interpreter with this layout, whose `None` is at `none`. `None` when its frames are not to be marked.
    #[must_use]
    pub fn new(layout: &Layout, none: usize) -> Option<Self> {
        let marks = MarkLayout::for_version(layout.hexversion)?;
        let stack = StackLayout::for_version(layout.hexversion)?;
        // The interpreter may say that its frames are laid out in another way than its version's; it does not say where `f_locals` is.
        let table = Layout::table(layout.hexversion).ok()?;
        (table.frame == layout.frame && table.thread == layout.thread && none != 0).then_some(
            Self {
                layout: marks,
                stack,
                none,
            },
        )
    }

    /// Whether marks tell the truth now and may be set: not inside a trace or monitoring callback, which may move the instruction of a frame further
    /// out, and only on the thread that the state was made for.
    ///
    /// # Safety
    /// `state` is what [`crate::Interpreter::thread_state`] returned on this thread just now, not null, and `self` and `layout` are its interpreter's.
    #[inline(always)]
    #[must_use]
    pub unsafe fn are_valid(&self, layout: &Layout, state: *const u8, thread: c_ulong) -> bool {
        // SAFETY: a live thread state (the caller) with its fields where the tables say.
        unsafe {
            self.stack.is_untraced(state)
                && read::<c_ulong>(state, layout.thread.thread_id) == thread
        }
    }
}

/// Families whose frames may carry marks.
pub trait Marking {
    /// Does the frame carry the mark?
    ///
    /// # Safety
    /// As for [`crate::Family::read_raw`]; `marks` is the interpreter's.
    unsafe fn is_marked(marks: &Marks, frame: *const u8) -> bool;

    /// Marks the frame if it may be marked: a normal frame (a generator's changes its caller) whose field has the value of a new one.
    ///
    /// # Safety
    /// As for [`Marking::is_marked`], with the thread state that the frame was got from, for which [`Marks::are_valid`]; and the frame is shown.
    unsafe fn mark(marks: &Marks, layout: &Layout, state: *const u8, frame: *const u8);
}

impl Marking for Family39 {
    #[inline(always)]
    unsafe fn is_marked(marks: &Marks, frame: *const u8) -> bool {
        // SAFETY: a field of a live frame (the caller).
        unsafe { read::<u8>(frame, marks.layout.field) == MARKED }
    }

    #[inline]
    unsafe fn mark(marks: &Marks, layout: &Layout, _state: *const u8, frame: *const u8) {
        // SAFETY: fields of a live frame and of the code object that it holds. Only this thread runs the frame; who reads the field from another
        // finds a true value before and after.
        unsafe {
            let code = pointer(frame, layout.frame.code);
            if read::<u8>(frame, marks.layout.field) == TRACES_LINES
                && pointer(frame, marks.layout.generator).is_null()
                && read::<u32>(code, layout.code.flags) & SUSPENDS == 0
            {
                frame
                    .add(marks.layout.field as usize)
                    .cast_mut()
                    .write(MARKED);
            }
        }
    }
}

/// Never marked.
impl Marking for Family311 {
    #[inline(always)]
    unsafe fn is_marked(_marks: &Marks, _frame: *const u8) -> bool {
        false
    }

    #[inline(always)]
    unsafe fn mark(_marks: &Marks, _layout: &Layout, _state: *const u8, _frame: *const u8) {}
}

/// Never marked.
impl<const ATTACHED: bool> Marking for FamilyWithoutGil<ATTACHED> {
    #[inline(always)]
    unsafe fn is_marked(_marks: &Marks, _frame: *const u8) -> bool {
        false
    }

    #[inline(always)]
    unsafe fn mark(_marks: &Marks, _layout: &Layout, _state: *const u8, _frame: *const u8) {}
}

impl Marking for Family313 {
    #[inline(always)]
    unsafe fn is_marked(marks: &Marks, frame: *const u8) -> bool {
        // SAFETY: a field of a live frame (the caller).
        unsafe { read::<usize>(frame, marks.layout.field) == marks.none }
    }

    #[inline]
    unsafe fn mark(marks: &Marks, layout: &Layout, state: *const u8, frame: *const u8) {
        // SAFETY: fields of a live frame, of the code object that it holds, and of this thread's state. The reference to `None` is not counted:
        // `None` is immortal in these versions, so that dropping it changes nothing either.
        unsafe {
            if read::<u8>(frame, layout.frame.owner) != OWNED_BY_THREAD
                || read::<usize>(frame, marks.layout.field) != 0
            {
                return;
            }
            let code = crate::frame::untag(pointer(frame, layout.frame.code));
            let flags = read::<u32>(code, layout.code.flags);
            if flags & (OPTIMIZED | SUSPENDS) == OPTIMIZED && is_on_stack(marks, state, frame) {
                frame
                    .add(marks.layout.field as usize)
                    .cast_mut()
                    .cast::<usize>()
                    .write(marks.none);
            }
        }
    }
}

/// Is the frame in the interpreter's own stack of this thread? Frames that others make may not be reset when they are used again.
///
/// # Safety
/// `state` is this thread's, of a version with stack chunks.
unsafe fn is_on_stack(marks: &Marks, state: *const u8, frame: *const u8) -> bool {
    // SAFETY: the chunks of a thread are a list that only the thread itself changes.
    unsafe {
        let mut chunk = pointer(state, marks.stack.chunk);
        for _ in 0..MOST_CHUNKS {
            if chunk.is_null() {
                break;
            }
            let from = chunk.addr() + stack_chunk::DATA as usize;
            let to = chunk.addr() + read::<usize>(chunk, stack_chunk::SIZE);
            if (from..to).contains(&frame.addr()) {
                return true;
            }
            chunk = pointer(chunk, stack_chunk::PREVIOUS);
        }
        false
    }
}
