//! From the interpreter's frame chain to the number of a stack, in step with the last walk.
//!
//! The thread remembers its last walk, root first. A new walk goes from the leaf to the root and
//! looks for the place where it meets the remembered frames; from there both run in lock step, one
//! comparison a frame. Whatever lies above the last difference is interned anew, the rest is
//! known. The memo believes an entry only if frame, code, instruction and owner are what they
//! were and no code object has been destroyed since.
//!
//! Cost: about 1.5 ns a frame when nothing changed, 5 - 15 ns for each frame that did.
//!
//! The seam for a walk of constant cost (a proof that a frame has stayed on the stack makes its
//! remembered node the answer for all below) is [`Memo::meet`].

use core::sync::atomic::Ordering;

use heaptide_cpython::{
    Family, Family39, Family311, Family313, FrameFamily, Layout, RawFrame, last_instruction,
};
use heaptide_format::{NODE_OVERFLOW, NODE_ROOT};
use heaptide_recorder::{Mapping, Stop};

use crate::thread::ThreadState;
use crate::{RECORDER, code, interpreter, names};

/// Frames there is room for at first.
const FIRST_FRAMES: usize = 120;
/// Deepest stack there is room for at all; deeper ones lose their outermost frames.
const MOST_FRAMES: usize = 1 << 22;
/// How far the meeting place is looked for in the memo when frames have returned since.
const MEETING_REACH: usize = 6;

/// Each interned frame may touch another page of the capture.
const INTERNED_BETWEEN_LOOKS: u32 = 2048;

/// A remembered frame.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Entry {
    frame: usize,
    code: usize,
    instruction: usize,
    owner: u32,
    /// The stack up to this frame.
    node: u32,
}

impl Entry {
    #[inline(always)]
    fn new(frame: *const u8, raw: &RawFrame) -> Self {
        Self {
            frame: frame as usize,
            code: raw.code as usize,
            instruction: raw.instruction,
            owner: u32::from(raw.owner),
            node: NODE_ROOT,
        }
    }

    #[inline(always)]
    fn is_same(&self, raw: &RawFrame) -> bool {
        self.code == raw.code as usize
            && self.instruction == raw.instruction
            && self.owner == u32::from(raw.owner)
    }

    #[inline(always)]
    fn equals(&self, other: &Self) -> bool {
        self.frame == other.frame
            && self.code == other.code
            && self.instruction == other.instruction
            && self.owner == other.owner
    }
}

/// A thread's last walk.
pub(crate) struct Memo {
    /// `capacity` entries, root first, of which `length` are remembered; then as many to work with,
    /// leaf first.
    memory: Option<Mapping>,
    capacity: usize,
    length: usize,
    generation: u64,
    /// Frames interned since the last look at how much of the capture is resident.
    interned: u32,
}

impl Memo {
    pub(crate) const fn new() -> Self {
        Self {
            memory: None,
            capacity: 0,
            length: 0,
            generation: 0,
            interned: 0,
        }
    }

    /// Remembers nothing any more.
    pub(crate) fn forget(&mut self) {
        self.length = 0;
    }

    /// The outermost remembered frame.
    pub(crate) fn outermost_frame(&self) -> Option<*const u8> {
        // SAFETY: there is a first entry.
        (self.length > 0).then(|| unsafe { (*self.known()).frame as *const u8 })
    }

    #[inline(always)]
    fn known(&self) -> *mut Entry {
        self.memory
            .as_ref()
            .map_or(core::ptr::null_mut(), Mapping::as_ptr)
    }

    #[inline(always)]
    fn fresh(&self) -> *mut Entry {
        // SAFETY: the memory has room for twice `capacity` entries.
        unsafe { self.known().add(self.capacity) }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, used_fresh: usize) -> bool {
        let capacity = if self.capacity == 0 {
            FIRST_FRAMES
        } else {
            self.capacity * 2
        };
        if capacity > MOST_FRAMES {
            return false;
        }
        let Some(memory) = Mapping::new(capacity * 2 * size_of::<Entry>()) else {
            return false;
        };
        if self.capacity > 0 {
            // SAFETY: both areas are larger in the new memory, which does not overlap the old.
            unsafe {
                core::ptr::copy_nonoverlapping(self.known(), memory.as_ptr::<Entry>(), self.length);
                core::ptr::copy_nonoverlapping(
                    self.fresh(),
                    memory.as_ptr::<Entry>().add(capacity),
                    used_fresh,
                );
            }
        }
        self.memory = Some(memory);
        self.capacity = capacity;
        true
    }

    /// Where `frame` is remembered among the first `below` entries, if near their end.
    #[inline(always)]
    fn meet(&self, frame: *const u8, below: usize) -> Option<usize> {
        let reach = below.saturating_sub(MEETING_REACH);
        let mut position = below;
        while position > reach {
            position -= 1;
            // SAFETY: `position < below <= length`.
            if unsafe { (*self.known().add(position)).frame } == frame as usize {
                return Some(position);
            }
        }
        None
    }
}

/// Number of the calling thread's Python stack.
///
/// Only for allocations, and only while tracking is on.
#[inline]
pub(crate) fn current_stack(state: &mut ThreadState) -> Result<u32, Stop> {
    // SAFETY: tracking is on.
    let interpreter = unsafe { interpreter::get() };
    // SAFETY: as above.
    let top = unsafe { interpreter::top_frame(interpreter) };
    if top.is_null() {
        return Ok(NODE_ROOT);
    }
    let generation = code::generation();
    if state.memo.generation != generation {
        state.memo.generation = generation;
        state.memo.length = 0;
    }
    let layout = &interpreter.layout;
    // SAFETY: `top` is the innermost frame of this thread, which stands still while it is in here;
    // the family is the layout's own.
    let node = unsafe {
        match layout.family {
            FrameFamily::V3_9 => walk::<Family39>(layout, top, &mut state.memo),
            FrameFamily::V3_11 => walk::<Family311>(layout, top, &mut state.memo),
            FrameFamily::V3_13 => walk::<Family313>(layout, top, &mut state.memo),
        }
    }?;
    if state.memo.interned >= INTERNED_BETWEEN_LOOKS {
        state.memo.interned = 0;
        RECORDER.file().trim_if_large();
    }
    if !state.named {
        names::name_thread(state, layout);
    }
    if node == NODE_OVERFLOW {
        RECORDER.count_overflow_stack(node);
    }
    Ok(node)
}

/// Follows the frames for as long as they are the remembered ones (of which `ahead` are left), and
/// returns where that ends. That a frame is to be shown was found out when it was remembered.
///
/// By value, so that the offsets are in registers: this is the loop that costs by the frame.
///
/// # Safety
/// As `walk`; `known` holds `ahead` entries.
#[inline(always)]
unsafe fn in_step<F: Family>(
    layout: Layout,
    mut frame: *const u8,
    known: *const Entry,
    mut ahead: usize,
) -> (*const u8, usize) {
    while ahead > 0 && !frame.is_null() {
        // SAFETY: the caller's promise.
        let (raw, entry) = unsafe { (F::read_raw(&layout, frame), &*known.add(ahead - 1)) };
        if entry.frame != frame as usize || !entry.is_same(&raw) {
            break;
        }
        ahead -= 1;
        frame = raw.previous;
    }
    (frame, ahead)
}

/// # Safety
/// `frame` is a frame of this thread, `F` and `layout` fit the interpreter.
#[inline(always)]
unsafe fn walk<F: Family>(
    layout: &Layout,
    mut frame: *const u8,
    memo: &mut Memo,
) -> Result<u32, Stop> {
    // Remembered frames that may still lie ahead: `0..ahead`. Of these, `ahead..run` have just been
    // met in an unbroken row. What was walked before the row is in `fresh`, leaf first.
    let mut ahead = memo.length;
    let mut run = memo.length;
    let mut fresh = 0usize;
    loop {
        // SAFETY: `ahead <= length`, and the chain is that of this thread's frames.
        (frame, ahead) = unsafe { in_step::<F>(*layout, frame, memo.known(), ahead) };
        if frame.is_null() {
            break;
        }
        // SAFETY: as above.
        let raw = unsafe { F::read_raw(layout, frame) };
        let next = raw.previous;
        // SAFETY: the frame was just read.
        if !unsafe { F::is_shown(layout, &raw) } {
            frame = next;
            continue;
        }
        // Out of step: what was met in the row stands on something else now, so it is no prefix.
        while fresh + (run - ahead) + 1 > memo.capacity {
            if !memo.grow(fresh) {
                return truncated(layout, memo, fresh);
            }
        }
        for position in (ahead..run).rev() {
            // SAFETY: there is room for `fresh + (run - ahead) + 1` entries; positions are remembered ones.
            unsafe { *memo.fresh().add(fresh) = *memo.known().add(position) };
            fresh += 1;
        }
        // The frame may be remembered further on (callees have returned), here (it has moved on), or
        // not at all (it is new: a call, or a generator resumed elsewhere).
        if let Some(met) = memo.meet(frame, ahead) {
            ahead = met + 1;
            // SAFETY: `met < length`.
            if unsafe { (*memo.known().add(met)).is_same(&raw) } {
                run = ahead;
                ahead -= 1;
                frame = next;
                continue;
            }
            ahead = met;
        }
        run = ahead;
        // SAFETY: room was made above.
        unsafe { *memo.fresh().add(fresh) = Entry::new(frame, &raw) };
        fresh += 1;
        frame = next;
    }
    let mut prefix = run;
    if ahead > 0 {
        // The row did not reach the root of what is remembered. Line the two up from the root instead.
        while fresh + (run - ahead) > memo.capacity {
            if !memo.grow(fresh) {
                return truncated(layout, memo, fresh);
            }
        }
        for position in (ahead..run).rev() {
            // SAFETY: room was made.
            unsafe { *memo.fresh().add(fresh) = *memo.known().add(position) };
            fresh += 1;
        }
        prefix = 0;
        // SAFETY: positions stay below `fresh` and `length`.
        unsafe {
            while prefix < fresh
                && prefix < memo.length
                && (*memo.known().add(prefix)).equals(&*memo.fresh().add(fresh - 1 - prefix))
            {
                prefix += 1;
            }
        }
        fresh -= prefix;
    }
    intern(layout, memo, prefix, fresh)
}

/// Interns `fresh` frames on top of the first `prefix` remembered ones and remembers the whole.
#[inline(always)]
fn intern(layout: &Layout, memo: &mut Memo, prefix: usize, fresh: usize) -> Result<u32, Stop> {
    while prefix + fresh > memo.capacity {
        if !memo.grow(fresh) {
            return truncated(layout, memo, fresh);
        }
    }
    memo.interned += fresh as u32;
    // Should anything below fail, nothing half done may be believed.
    memo.length = prefix;
    // SAFETY: `prefix + fresh <= capacity`, and the two areas do not overlap.
    unsafe {
        let mut node = if prefix == 0 {
            NODE_ROOT
        } else {
            (*memo.known().add(prefix - 1)).node
        };
        for position in (0..fresh).rev() {
            let mut entry = *memo.fresh().add(position);
            let offset = last_instruction(layout, entry.code as *const u8, entry.instruction);
            node = RECORDER.node(node, code::number(entry.code)?, offset)?;
            entry.node = node;
            *memo.known().add(memo.length) = entry;
            memo.length += 1;
        }
        Ok(node)
    }
}

/// A stack too deep to hold: the innermost frames count, as a stack of their own.
#[cold]
#[inline(never)]
fn truncated(layout: &Layout, memo: &mut Memo, fresh: usize) -> Result<u32, Stop> {
    memo.length = 0;
    if let Some(own) = RECORDER.file().own() {
        own.truncated_stacks.fetch_add(1, Ordering::Relaxed);
    }
    let mut node = NODE_ROOT;
    for position in (0..fresh).rev() {
        // SAFETY: `fresh` entries have been written.
        let entry = unsafe { *memo.fresh().add(position) };
        // SAFETY: code and instruction come from one frame.
        let offset =
            unsafe { last_instruction(layout, entry.code as *const u8, entry.instruction) };
        node = RECORDER.node(node, code::number(entry.code)?, offset)?;
    }
    Ok(node)
}
