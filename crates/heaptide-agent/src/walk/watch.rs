//! How a walk learns that a frame has been on the stack since it was remembered, so that it may end there.

use heaptide_cpython::{
    Family39, Family311, Family313, FamilyWithoutGil, Layout, Marking, Marks, NewestChunk, Waits,
};

/// What a walk asks of the frames that it passes.
pub(super) trait Watch<F> {
    /// Whether it matters, and is looked at, for which frames the interpreter was entered from C.
    const ENTRIES: bool = false;

    /// Has the frame been on the stack since it was remembered? If not, what can be done is done for the
    /// question to be answered next time.
    ///
    /// # Safety
    /// The frame is on this thread's stack and shown, and will be remembered, or the memo emptied. `callee` is what the
    /// chain led to it from; null at its start.
    unsafe fn has_stayed(&self, layout: &Layout, callee: *const u8, frame: *const u8) -> bool;
}

/// Nothing.
pub(super) struct NoMarks;

impl<F> Watch<F> for NoMarks {
    #[inline(always)]
    unsafe fn has_stayed(&self, _layout: &Layout, _callee: *const u8, _frame: *const u8) -> bool {
        false
    }
}

/// As another, where native stacks are recorded, too.
pub(super) struct Entries<W>(pub(super) W);

impl<F, W: Watch<F>> Watch<F> for Entries<W> {
    const ENTRIES: bool = true;

    #[inline(always)]
    unsafe fn has_stayed(&self, layout: &Layout, callee: *const u8, frame: *const u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.0.has_stayed(layout, callee, frame) }
    }
}

/// What can be asked about frames of all versions.
pub(super) trait AnyWatch:
    Watch<Family39>
    + Watch<Family311>
    + Watch<Family313>
    + Watch<FamilyWithoutGil<true>>
    + Watch<FamilyWithoutGil<false>>
{
}

impl<W> AnyWatch for W where
    W: Watch<Family39>
        + Watch<Family311>
        + Watch<Family313>
        + Watch<FamilyWithoutGil<true>>
        + Watch<FamilyWithoutGil<false>>
{
}

/// Whether it begins the newest chunk of the stack, and that is still there.
pub(super) struct StartOfChunk(pub(super) NewestChunk);

impl<F> Watch<F> for StartOfChunk {
    #[inline(always)]
    unsafe fn has_stayed(&self, _layout: &Layout, _callee: *const u8, frame: *const u8) -> bool {
        // SAFETY: this thread stands still while it is in here.
        unsafe {
            if frame.addr() != self.0.first_frame() {
                return false;
            }
            if self.0.is_marked() {
                return true;
            }
            self.0.set_marked();
        }
        false
    }
}

/// Whether it has been waiting, or begins the newest chunk.
pub(super) struct Waiting<'a> {
    pub(super) waits: &'a Waits,
    /// See [`super::Memo::mark`].
    pub(super) mark: usize,
    pub(super) chunk: Option<StartOfChunk>,
}

impl<F> Watch<F> for Waiting<'_> {
    #[inline(always)]
    unsafe fn has_stayed(&self, layout: &Layout, callee: *const u8, frame: *const u8) -> bool {
        // SAFETY: the caller's promise; this thread stands still while it is in here.
        unsafe {
            if let Some(word) = self.waits.dead_word(layout, callee, frame) {
                if word.get() == self.mark {
                    return true;
                }
                word.set(self.mark);
            }
            match &self.chunk {
                Some(chunk) => Watch::<F>::has_stayed(chunk, layout, callee, frame),
                None => false,
            }
        }
    }
}

/// Whether it is marked.
pub(super) struct Marked<'a> {
    pub(super) marks: &'a Marks,
    pub(super) python: *const u8,
}

impl<F: Marking> Watch<F> for Marked<'_> {
    #[inline(always)]
    unsafe fn has_stayed(&self, layout: &Layout, _callee: *const u8, frame: *const u8) -> bool {
        // SAFETY: the caller's promise; marks were found to be valid for this state.
        unsafe {
            if F::is_marked(self.marks, frame) {
                return true;
            }
            F::mark(self.marks, layout, self.python, frame);
        }
        false
    }
}
