//! One step of the walk.
//!
//! This runs for every frame of every allocation, so nothing is done here that can be done once per walk or once per code object. The layout
//! family is a type parameter for that reason: the caller matches on [`FrameFamily`] once and loops inside.
//!
//! # What is shown
//! `traceback` and `sys._getframe` skip a frame that is *incomplete*, by rules that have grown with the versions:
//!
//! | version | skipped |
//! |---|---|
//! | 3.9, 3.10 | nothing |
//! | 3.11 | not owned by a generator, and before `_co_firsttraceable` (cells and the generator object are still being made) |
//! | 3.12, 3.13 | the same, and entry frames on the C stack (`owner` 3) |
//! | 3.14 | the same, with two kinds of entry frames (`owner` 3: the interpreter's; 4: on the C stack) |
//! | 3.15 | the same, with one kind (`owner` 3) |
//!
//! Trampolines (the frame that cleans up after an inlined `__init__`, say) have code objects of a few instructions and a `_co_firsttraceable`
//! past their end, so the first rule covers them. As no version gives an owner of 3 or more to a frame with Python code, one comparison serves all.

use core::ptr;

use crate::copies;
use crate::layout::{FrameFamily, Layout};

/// `FRAME_OWNED_BY_GENERATOR` in every version.
const OWNED_BY_GENERATOR: u8 = 1;
/// The first owner whose frames have no Python code (`FRAME_OWNED_BY_CSTACK` before 3.14, `FRAME_OWNED_BY_INTERPRETER` since).
const FIRST_OWNER_WITHOUT_CODE: u8 = 3;
/// Low bits of a `_PyStackRef` that are no part of the pointer. Objects are aligned to 8 bytes at least, so clearing them is harmless before 3.14.
const REFERENCE_TAG: usize = 3;
/// Both bits set: a tagged integer, no pointer at all.
const TAGGED_INTEGER: usize = 3;
/// Bytes in a code unit since 3.6.
pub(crate) const CODE_UNIT: usize = 2;

/// What one frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameView {
    /// The caller's frame, or null.
    pub previous: *const u8,
    /// The code object, or null when this is no frame to show: skip it and follow `previous`.
    pub code: *const u8,
    /// `f_lasti`, `prev_instr` or `instr_ptr` as it is, to be compared for identity. [`last_instruction`] makes an offset of it.
    pub instruction: usize,
    /// The copy of the byte code that the instruction is in; zero with the GIL, where there is one.
    pub copy: u32,
}

/// What one frame says, before the question whether it is shown: four loads from the frame, none from the code object.
///
/// Whether a frame is shown depends on `(code, instruction, owner)` alone, and on the owner only where [`Family::depends_on_owner`] says so. Who
/// remembers a shown frame by these need not ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// The caller's frame, or null.
    pub previous: *const u8,
    /// The code object, or what an entry frame has in its place. Only to be followed when [`Family::is_shown`] says so.
    pub code: *const u8,
    /// As in [`FrameView::instruction`].
    pub instruction: usize,
    /// Who owns the frame; zero on 3.9 and 3.10.
    pub owner: u8,
    /// As in [`FrameView::copy`].
    pub copy: u32,
}

/// What tells whether a frame is still where it was: two loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameStep {
    /// The caller's frame, or null.
    pub previous: *const u8,
    /// As in [`FrameView::instruction`].
    pub instruction: usize,
}

/// How one family of versions keeps its frames. See [`FrameFamily`].
pub trait Family {
    /// Whether the instruction alone tells which code it belongs to, for as long as no code object is destroyed: from 3.11 on it is an address
    /// within the code object, or in a copy of its byte code. Before that it is an offset.
    const INSTRUCTION_TELLS_CODE: bool;

    /// Whether there are copies of the byte code, so that an instruction means what it does only as long as its copy is there. That of the code
    /// object itself is there for as long as that is, and that of a thread state for as long as both are; see [`crate::Holder`].
    const HAS_COPIES: bool = false;

    /// Reads what changes while a frame is on the stack.
    ///
    /// # Safety
    /// As for [`Family::read_raw`].
    unsafe fn read_step(layout: &Layout, frame: *const u8) -> FrameStep;

    /// Reads the code object of a frame that is known to be shown.
    ///
    /// # Safety
    /// As for [`Family::read_raw`].
    unsafe fn read_code_of(layout: &Layout, frame: *const u8) -> *const u8;

    /// Reads a frame without looking at its code object.
    ///
    /// # Safety
    /// `frame` is a frame of the calling thread, got from [`crate::Interpreter::top_frame`] or from `previous` of such a frame since the thread
    /// last ran Python, and `layout` is that of the running interpreter and of this family.
    unsafe fn read_raw(layout: &Layout, frame: *const u8) -> RawFrame;

    /// Whether `traceback` would show the frame.
    ///
    /// # Safety
    /// `raw` was read by [`Family::read_raw`], and its frame is still on the stack.
    unsafe fn is_shown(layout: &Layout, raw: &RawFrame) -> bool;

    /// Whether a frame that is shown would not be if somebody else owned it: a generator that is thrown into before it ever ran.
    ///
    /// # Safety
    /// As for [`Family::is_shown`], which has said yes.
    unsafe fn depends_on_owner(layout: &Layout, raw: &RawFrame) -> bool;

    /// Whether the interpreter was entered from C for the frame, rather than called by `previous` without leaving it.
    ///
    /// # Safety
    /// As for [`Family::read_raw`]; `previous` was read from `frame`.
    #[inline(always)]
    unsafe fn is_entry(layout: &Layout, frame: *const u8, previous: *const u8) -> bool {
        // SAFETY: the caller's promise: both are frames of this thread that stands still.
        unsafe {
            if layout.frame.entry != 0 {
                return read::<u8>(frame, layout.frame.entry) != 0;
            }
            // Whoever enters puts a frame without Python code in front.
            previous.is_null()
                || read::<u8>(previous, layout.frame.owner) >= FIRST_OWNER_WITHOUT_CODE
        }
    }

    /// As [`last_instruction`], of a frame that was just read.
    ///
    /// # Safety
    /// As for [`Family::is_shown`].
    #[inline(always)]
    unsafe fn last_instruction(layout: &Layout, raw: &RawFrame) -> i32 {
        // SAFETY: the caller's promise, handed on.
        unsafe { last_instruction(layout, raw.code, raw.instruction, raw.copy) }
    }

    /// Reads a frame.
    ///
    /// # Safety
    /// As for [`Family::read_raw`].
    #[inline(always)]
    unsafe fn read(layout: &Layout, frame: *const u8) -> FrameView {
        // SAFETY: the caller's promise, handed on; the frame has not gone anywhere between the two.
        let (raw, is_shown) = unsafe {
            let raw = Self::read_raw(layout, frame);
            (raw, Self::is_shown(layout, &raw))
        };
        FrameView {
            previous: raw.previous,
            code: if is_shown { raw.code } else { ptr::null() },
            instruction: raw.instruction,
            copy: raw.copy,
        }
    }
}

/// 3.9 and 3.10: [`FrameFamily::V3_9`].
#[derive(Clone, Copy, Debug)]
pub struct Family39;
/// 3.11 and 3.12: [`FrameFamily::V3_11`].
#[derive(Clone, Copy, Debug)]
pub struct Family311;
/// 3.13 and later: [`FrameFamily::V3_13`].
#[derive(Clone, Copy, Debug)]
pub struct Family313;
/// 3.14 without the GIL: [`FrameFamily::WithoutGil`]. `ATTACHED`: the walking thread is attached to the interpreter ([`crate::Holder`]), so that
/// what others replace meanwhile is kept for it.
#[derive(Clone, Copy, Debug)]
pub struct FamilyWithoutGil<const ATTACHED: bool>;

impl Family for Family39 {
    const INSTRUCTION_TELLS_CODE: bool = false;

    #[inline(always)]
    unsafe fn read_step(layout: &Layout, frame: *const u8) -> FrameStep {
        // SAFETY: as in `read_raw`.
        let raw = unsafe { Self::read_raw(layout, frame) };
        FrameStep {
            previous: raw.previous,
            instruction: raw.instruction,
        }
    }

    #[inline(always)]
    unsafe fn read_code_of(layout: &Layout, frame: *const u8) -> *const u8 {
        // SAFETY: as in `read_raw`.
        unsafe { pointer(frame, layout.frame.code) }
    }

    #[inline(always)]
    unsafe fn read_raw(layout: &Layout, frame: *const u8) -> RawFrame {
        // SAFETY: `frame` is a live PyFrameObject (the caller) with its fields where the table says (tests/layout.rs).
        unsafe {
            RawFrame {
                previous: pointer(frame, layout.frame.previous),
                code: pointer(frame, layout.frame.code),
                // A C int, -1 before the first instruction: the sign is kept so that identity and arithmetic agree.
                instruction: read::<i32>(frame, layout.frame.instruction) as isize as usize,
                owner: 0,
                copy: 0,
            }
        }
    }

    #[inline(always)]
    unsafe fn is_shown(_layout: &Layout, _raw: &RawFrame) -> bool {
        true
    }

    #[inline(always)]
    unsafe fn is_entry(_layout: &Layout, _frame: *const u8, _previous: *const u8) -> bool {
        // Every call of a Python function is one of C.
        true
    }

    #[inline(always)]
    unsafe fn depends_on_owner(_layout: &Layout, _raw: &RawFrame) -> bool {
        false
    }
}

impl Family for Family311 {
    const INSTRUCTION_TELLS_CODE: bool = true;

    #[inline(always)]
    unsafe fn read_step(layout: &Layout, frame: *const u8) -> FrameStep {
        // SAFETY: as in `read_raw`.
        unsafe { step_of_interpreter_frame(layout, frame) }
    }

    #[inline(always)]
    unsafe fn read_code_of(layout: &Layout, frame: *const u8) -> *const u8 {
        // SAFETY: as in `read_raw`.
        unsafe { pointer(frame, layout.frame.code) }
    }

    #[inline(always)]
    unsafe fn read_raw(layout: &Layout, frame: *const u8) -> RawFrame {
        // SAFETY: `frame` is a live _PyInterpreterFrame (the caller) with its fields where the table says (tests/layout.rs).
        unsafe { read_interpreter_frame(layout, frame) }
    }

    #[inline(always)]
    unsafe fn is_shown(layout: &Layout, raw: &RawFrame) -> bool {
        // SAFETY: the caller's promise, handed on.
        unsafe { is_complete(layout, raw) }
    }

    #[inline(always)]
    unsafe fn depends_on_owner(layout: &Layout, raw: &RawFrame) -> bool {
        // SAFETY: the caller's promise, handed on.
        unsafe { depends_on_generator(layout, raw) }
    }
}

impl Family for Family313 {
    const INSTRUCTION_TELLS_CODE: bool = true;

    #[inline(always)]
    unsafe fn read_step(layout: &Layout, frame: *const u8) -> FrameStep {
        // SAFETY: as in `read_raw`.
        unsafe { step_of_interpreter_frame(layout, frame) }
    }

    #[inline(always)]
    unsafe fn read_code_of(layout: &Layout, frame: *const u8) -> *const u8 {
        // SAFETY: as in `read_raw`.
        unsafe { untag(pointer(frame, layout.frame.code)) }
    }

    #[inline(always)]
    unsafe fn read_raw(layout: &Layout, frame: *const u8) -> RawFrame {
        // SAFETY: as for Family311.
        let raw = unsafe { read_interpreter_frame(layout, frame) };
        RawFrame {
            code: untag(raw.code),
            ..raw
        }
    }

    #[inline(always)]
    unsafe fn is_shown(layout: &Layout, raw: &RawFrame) -> bool {
        // SAFETY: the caller's promise, handed on.
        unsafe { is_complete(layout, raw) }
    }

    #[inline(always)]
    unsafe fn depends_on_owner(layout: &Layout, raw: &RawFrame) -> bool {
        // SAFETY: the caller's promise, handed on.
        unsafe { depends_on_generator(layout, raw) }
    }
}

impl<const ATTACHED: bool> Family for FamilyWithoutGil<ATTACHED> {
    const INSTRUCTION_TELLS_CODE: bool = true;
    const HAS_COPIES: bool = true;

    #[inline(always)]
    unsafe fn read_step(layout: &Layout, frame: *const u8) -> FrameStep {
        // SAFETY: as in `read_raw`.
        unsafe { step_of_interpreter_frame(layout, frame) }
    }

    #[inline(always)]
    unsafe fn read_code_of(layout: &Layout, frame: *const u8) -> *const u8 {
        // SAFETY: as in `read_raw`.
        unsafe { untag(pointer(frame, layout.frame.code)) }
    }

    #[inline(always)]
    unsafe fn read_raw(layout: &Layout, frame: *const u8) -> RawFrame {
        // SAFETY: as for Family311; the number of the copy lies within the frame, too.
        unsafe {
            let raw = read_interpreter_frame(layout, frame);
            RawFrame {
                code: untag(raw.code),
                copy: read::<u32>(frame, layout.copies.of_frame),
                ..raw
            }
        }
    }

    #[inline(always)]
    unsafe fn is_shown(layout: &Layout, raw: &RawFrame) -> bool {
        // SAFETY: the caller's promise, handed on; who has code has it in `code`.
        unsafe {
            has_code(raw)
                && (raw.owner == OWNED_BY_GENERATOR
                    || copies::is_traceable::<ATTACHED>(layout, raw))
        }
    }

    #[inline(always)]
    unsafe fn depends_on_owner(layout: &Layout, raw: &RawFrame) -> bool {
        raw.owner == OWNED_BY_GENERATOR
            // SAFETY: the caller's promise, handed on.
            && !unsafe { copies::is_traceable::<ATTACHED>(layout, raw) }
    }

    #[inline(always)]
    unsafe fn last_instruction(layout: &Layout, raw: &RawFrame) -> i32 {
        // SAFETY: the caller's promise, handed on.
        unsafe { copies::last_instruction::<ATTACHED>(layout, raw.code, raw.instruction, raw.copy) }
    }
}

/// Reads a frame, whatever the version. A loop over many frames should match on [`Layout::family`] once and use [`Family::read`].
///
/// # Safety
/// As for [`Family::read_raw`], but for any family.
#[inline(always)]
#[must_use]
pub unsafe fn read_frame(layout: &Layout, frame: *const u8) -> FrameView {
    // SAFETY: the caller's promise, handed on; the family is the layout's own.
    unsafe {
        match layout.family {
            FrameFamily::V3_9 => Family39::read(layout, frame),
            FrameFamily::V3_11 => Family311::read(layout, frame),
            FrameFamily::V3_13 => Family313::read(layout, frame),
            FrameFamily::WithoutGil => FamilyWithoutGil::<false>::read(layout, frame),
        }
    }
}

/// The offset in bytes of the frame's instruction in the byte code, as Python's `f_lasti` has it: -1 before the first.
///
/// # Safety
/// `code`, `instruction` and `copy` come from one frame of the running interpreter. With the GIL the code object is not read, so it may be gone by
/// now; without it the frame must still be on the calling thread's stack.
#[inline]
#[must_use]
pub unsafe fn last_instruction(
    layout: &Layout,
    code: *const u8,
    instruction: usize,
    copy: u32,
) -> i32 {
    let offset = match layout.family {
        FrameFamily::WithoutGil => {
            // SAFETY: the caller's promise, handed on.
            return unsafe { copies::last_instruction::<false>(layout, code, instruction, copy) };
        }
        FrameFamily::V3_9 => {
            // 3.10 counts code units, as `dis` does not: the unit went into the instruction set a version later.
            let unit = if layout.hexversion >> 16 == 0x030a {
                2
            } else {
                1
            };
            (instruction as isize).saturating_mul(unit)
        }
        // 3.11 and 3.12 point one unit before the byte code in a new frame.
        FrameFamily::V3_11 | FrameFamily::V3_13 => instruction
            .wrapping_sub((code as usize).wrapping_add(layout.code.instructions as usize))
            as isize,
    };
    if offset < 0 {
        -1
    } else {
        i32::try_from(offset).unwrap_or(i32::MAX)
    }
}

/// The first local of a frame (a function's first argument) as a pointer to an object, or null when there is none, or it is not set.
/// A variable that an inner function uses is a cell on 3.11 and later, and not there (null) before.
///
/// # Safety
/// As for [`Family::read_raw`], but for any family.
#[must_use]
pub unsafe fn first_local(layout: &Layout, frame: *const u8) -> *const u8 {
    // SAFETY: the caller's promise, handed on.
    let code = unsafe { read_frame(layout, frame) }.code;
    if code.is_null() {
        return ptr::null();
    }
    // SAFETY: a shown frame has a live code object. Without locals the slot is the value stack's, and may never have been written.
    unsafe {
        if read::<i32>(code, layout.code.local_count) <= 0 {
            return ptr::null();
        }
        let local = pointer(frame, layout.frame.locals);
        if local.addr() & REFERENCE_TAG == TAGGED_INTEGER {
            ptr::null()
        } else {
            untag(local)
        }
    }
}

/// # Safety
/// `frame` is a live `_PyInterpreterFrame`.
#[inline(always)]
unsafe fn read_interpreter_frame(layout: &Layout, frame: *const u8) -> RawFrame {
    // SAFETY: the caller's promise, and offsets that lie within the structure.
    unsafe {
        RawFrame {
            previous: pointer(frame, layout.frame.previous),
            code: pointer(frame, layout.frame.code),
            instruction: read::<usize>(frame, layout.frame.instruction),
            owner: read::<u8>(frame, layout.frame.owner),
            copy: 0,
        }
    }
}

/// # Safety
/// `frame` is a live `_PyInterpreterFrame`.
#[inline(always)]
unsafe fn step_of_interpreter_frame(layout: &Layout, frame: *const u8) -> FrameStep {
    // SAFETY: the caller's promise, and offsets that lie within the structure.
    unsafe {
        FrameStep {
            previous: pointer(frame, layout.frame.previous),
            instruction: read::<usize>(frame, layout.frame.instruction),
        }
    }
}

/// Whether the byte code of `code` has come so far that the frame is shown whoever owns it, if it is not one without Python code.
///
/// # Safety
/// `code` and `instruction` come from a frame that is shown and still on the stack.
#[inline(always)]
unsafe fn is_traceable(layout: &Layout, code: *const u8, instruction: usize) -> bool {
    // SAFETY: the frame holds a reference to its code object.
    let first_traceable =
        unsafe { read::<i32>(code, layout.code.first_traceable) } as isize as usize;
    let byte_code = code.addr().wrapping_add(layout.code.instructions as usize);
    instruction >= byte_code.wrapping_add(first_traceable.wrapping_mul(CODE_UNIT))
}

/// # Safety
/// `raw` was read from a `_PyInterpreterFrame` that is still on the stack.
#[inline(always)]
unsafe fn is_complete(layout: &Layout, raw: &RawFrame) -> bool {
    if !has_code(raw) {
        return false;
    }
    // A generator's frame is complete even when it is thrown into before it ever ran.
    if raw.owner == OWNED_BY_GENERATOR {
        return true;
    }
    // SAFETY: the caller's promise; below the owners without code this is a code object.
    unsafe { is_traceable(layout, raw.code, raw.instruction) }
}

/// Is what the frame has as code a code object?
#[inline(always)]
fn has_code(raw: &RawFrame) -> bool {
    // The owner first: only below it is `code` a code object (it is None in 3.13's entry frames).
    raw.owner < FIRST_OWNER_WITHOUT_CODE && !raw.code.is_null()
}

/// # Safety
/// As `is_complete`, which has said yes.
#[inline(always)]
unsafe fn depends_on_generator(layout: &Layout, raw: &RawFrame) -> bool {
    raw.owner == OWNED_BY_GENERATOR
        // SAFETY: the caller's promise, handed on.
        && !unsafe { is_traceable(layout, raw.code, raw.instruction) }
}

/// The pointer in a `_PyStackRef`; null for its null, which has a bit set.
#[inline(always)]
pub(crate) fn untag(reference: *const u8) -> *const u8 {
    reference.map_addr(|address| address & !REFERENCE_TAG)
}

/// # Safety
/// A `T` can be read at `base + offset`.
#[inline(always)]
pub(crate) unsafe fn read<T: Copy>(base: *const u8, offset: u32) -> T {
    // SAFETY: the caller's promise. The structures are C's, so their fields are aligned.
    unsafe { base.add(offset as usize).cast::<T>().read() }
}

/// # Safety
/// A pointer can be read at `base + offset`.
#[inline(always)]
pub(crate) unsafe fn pointer(base: *const u8, offset: u32) -> *const u8 {
    // SAFETY: the caller's promise.
    unsafe { read::<*const u8>(base, offset) }
}
