//! What a thread remembers of its last walk.

use heaptide_cpython::{Family, Holder, Layout, RawFrame};
use heaptide_format::NODE_ROOT;
use heaptide_recorder::Mapping;

use super::watch::Watch;
use crate::known_nodes::{KNOWN_NODES, KnownNode};

/// Frames there is room for at first.
const FIRST_FRAMES: usize = 120;
/// Deepest stack there is room for at all; deeper ones lose their outermost frames.
const MOST_FRAMES: usize = 1 << 22;

/// What is compared for each remembered frame in each walk; kept apart from [`Detail`], so that
/// four share a cache line.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Step {
    pub(super) frame: usize,
    pub(super) instruction: usize,
}

/// In [`Detail::code`], as objects are aligned: the interpreter was entered from C for the frame. Set only where native
/// stacks are recorded.
pub(super) const ENTERED_BIT: usize = 1;

/// What else there is to a remembered frame.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Detail {
    /// Address of the code object; see [`ENTERED_BIT`].
    pub(super) code: usize,
    /// Offset of the instruction in the byte code.
    pub(super) offset: i32,
    /// The stack up to this frame.
    pub(super) node: u32,
}

/// Before the first remembered frame: no frame is at this address.
const BEFORE_ALL: Step = Step {
    frame: usize::MAX,
    instruction: 0,
};

/// A frame that the walk has come to.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Entry {
    pub(super) step: Step,
    pub(super) detail: Detail,
}

impl Entry {
    /// `own_copy`: of the byte code, where there are several, that which stays for as long as this thread's state.
    ///
    /// # Safety
    /// `raw` was read from `frame`, which is on the stack and shown, and `F` and `layout` fit.
    #[inline(always)]
    pub(super) unsafe fn new<F: Family, W: Watch<F>>(
        layout: &Layout,
        frame: *const u8,
        raw: &RawFrame,
        own_copy: u32,
    ) -> Self {
        // SAFETY: the caller's promise.
        let (offset, depends_on_owner, code) = unsafe {
            (
                F::last_instruction(layout, raw),
                F::depends_on_owner(layout, raw),
                marked_code::<F, W>(layout, frame, raw.previous, raw.code),
            )
        };
        // The copy of a thread that has ended is freed while its code object lives.
        let is_others = F::HAS_COPIES && raw.copy != 0 && raw.copy != own_copy;
        Self {
            step: Step {
                frame: frame as usize,
                // The owner is not compared. No instruction is at this address (or offset), so such a
                // frame, which is rare, is looked at anew each time.
                instruction: if depends_on_owner || is_others {
                    usize::MAX - 1
                } else {
                    raw.instruction
                },
            },
            detail: Detail {
                code,
                offset,
                node: NODE_ROOT,
            },
        }
    }

    /// The same frame at the same place, whatever stands below it?
    #[inline(always)]
    pub(super) fn equals(&self, step: &Step, detail: &Detail) -> bool {
        self.step == *step && self.detail.code == detail.code && self.detail.offset == detail.offset
    }
}

/// What [`Detail::code`] is for a frame with this code and caller.
///
/// # Safety
/// `frame` is on this thread's stack and shown, `previous` was read from it, and `F` and `layout` fit.
#[inline(always)]
pub(super) unsafe fn marked_code<F: Family, W: Watch<F>>(
    layout: &Layout,
    frame: *const u8,
    previous: *const u8,
    code: *const u8,
) -> usize {
    // SAFETY: the caller's promise.
    if W::ENTRIES && unsafe { F::is_entry(layout, frame, previous) } {
        code.addr() | ENTERED_BIT
    } else {
        code.addr()
    }
}

/// A thread's last walk.
pub(crate) struct Memo {
    /// Room for `capacity` frames: steps (behind one [`BEFORE_ALL`]) and details of those that are
    /// remembered, root first, `length` of them; then as many entries to work with, leaf first; then
    /// [`KNOWN_NODES`].
    memory: Option<Mapping>,
    pub(super) capacity: usize,
    pub(super) length: usize,
    pub(super) generation: u64,
    /// What known nodes carry that may be believed.
    pub(super) stamp: u32,
    /// Frames interned since the last look at how much of the capture is resident.
    pub(super) interned: u32,
    /// Of this thread, at that look.
    pub(super) faults: u64,
    /// Without the GIL: the thread state at the last walk.
    pub(super) holder: Holder,
}

impl Memo {
    pub(crate) const fn new() -> Self {
        Self {
            memory: None,
            capacity: 0,
            length: 0,
            generation: 0,
            stamp: 1,
            interned: 0,
            faults: 0,
            holder: Holder {
                identity: (0, 0),
                copy: 0,
                attached: false,
            },
        }
    }

    /// Remembers nothing any more.
    pub(crate) fn forget(&mut self) {
        self.length = 0;
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            // What was written under the next stamps long ago must not be believed.
            *self = Self::new();
        }
    }

    /// Believes nothing of before that a code object was destroyed.
    #[inline(always)]
    pub(super) fn be_of(&mut self, generation: u64) {
        if self.generation != generation {
            self.forget();
            self.generation = generation;
        }
    }

    /// Believes nothing of when the thread had another state. Without the GIL: the copies of byte code that belong to a thread
    /// state are freed after its end, and instructions are remembered by their addresses in these.
    #[inline(always)]
    pub(super) fn be_of_holder(&mut self, holder: Holder) {
        if self.holder.identity != holder.identity {
            self.forget();
        }
        self.holder = holder;
    }

    /// An odd number that no other memo has, and larger than any chunk of a stack.
    #[inline(always)]
    pub(super) fn mark(&self) -> usize {
        core::ptr::from_ref(self).addr() | 1
    }

    /// The outermost remembered frame.
    pub(crate) fn outermost_frame(&self) -> Option<*const u8> {
        // SAFETY: there is a first step.
        (self.length > 0).then(|| unsafe { (*self.steps()).frame as *const u8 })
    }

    /// There is one more before the first.
    #[inline(always)]
    pub(super) fn steps(&self) -> *mut Step {
        self.memory.as_ref().map_or(NOTHING.0.cast_mut(), |memory| {
            // SAFETY: the memory begins with BEFORE_ALL.
            unsafe { memory.as_ptr::<Step>().add(1) }
        })
    }

    #[inline(always)]
    pub(super) fn details(&self) -> *mut Detail {
        // SAFETY: the memory has room for `capacity` steps, and details behind them.
        unsafe { self.steps().add(self.capacity).cast() }
    }

    #[inline(always)]
    pub(super) fn fresh(&self) -> *mut Entry {
        // SAFETY: as above, and for as many entries behind these.
        unsafe { self.details().add(self.capacity).cast() }
    }

    #[inline(always)]
    pub(super) fn known(&self) -> *mut KnownNode {
        // SAFETY: as above, and for the known nodes behind these.
        unsafe { self.fresh().add(self.capacity).cast() }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn grow(&mut self, used_fresh: usize) -> bool {
        let capacity = if self.capacity == 0 {
            FIRST_FRAMES
        } else {
            self.capacity * 2
        };
        if capacity > MOST_FRAMES {
            return false;
        }
        let bytes = size_of::<Step>()
            + capacity * (size_of::<Step>() + size_of::<Detail>() + size_of::<Entry>())
            + KNOWN_NODES * size_of::<KnownNode>();
        let Some(memory) = Mapping::new(bytes) else {
            return false;
        };
        let bigger = Self {
            memory: Some(memory),
            capacity,
            ..*self
        };
        // SAFETY: all areas are larger in the new memory, which does not overlap the old.
        unsafe {
            bigger.steps().sub(1).write(BEFORE_ALL);
            core::ptr::copy_nonoverlapping(self.steps(), bigger.steps(), self.length);
            core::ptr::copy_nonoverlapping(self.details(), bigger.details(), self.length);
            core::ptr::copy_nonoverlapping(self.fresh(), bigger.fresh(), used_fresh);
            // The known nodes stay behind: they are soon found again.
        }
        *self = bigger;
        true
    }

    /// Remembered frame number `position`.
    ///
    /// # Safety
    /// `position < length`.
    #[inline(always)]
    pub(super) unsafe fn entry(&self, position: usize) -> Entry {
        // SAFETY: the caller's promise.
        unsafe {
            Entry {
                step: *self.steps().add(position),
                detail: *self.details().add(position),
            }
        }
    }

    /// Where `frame` is remembered among the first `below` entries, if among the last `reach` of these.
    #[inline(always)]
    pub(super) fn meet(&self, frame: *const u8, below: usize, reach: usize) -> Option<usize> {
        let reach = below.saturating_sub(reach);
        let mut position = below;
        while position > reach {
            position -= 1;
            // SAFETY: `position < below <= length`.
            if unsafe { (*self.steps().add(position)).frame } == frame as usize {
                return Some(position);
            }
        }
        None
    }
}

/// Where a memo without memory has its steps.
struct Nothing(*const Step);
// SAFETY: it points behind a constant that nobody writes: a memo without memory has no room.
unsafe impl Sync for Nothing {}
static NONE_YET: [Step; 2] = [BEFORE_ALL; 2];
static NOTHING: Nothing = Nothing(&raw const NONE_YET[1]);
