//! Marks that tell that a frame has waited all the while (3.11 and 3.12): in the first dead word above its value stack.
//!
//! A frame that calls a Python function waits with its operands gone: the callee has taken them. The word that the innermost of them was in is
//! nobody's until the frame runs again. Before it can wait at the *same* instruction it must have pushed operands again, as the depth of the value
//! stack is the same each time an instruction is reached, and the first of them goes into that very word. So does any frame that is made in the same
//! memory later. A mark in that word, with the instruction that it was written at, therefore tells: this frame has not run since.
//!
//! That takes an instruction which consumes at least one operand, and a callee in the same run of the interpreter's loop:
//! - The callee is a frame of the thread's stack that was not entered from C. Generators are excluded: `FOR_ITER` consumes nothing.
//! - `LOAD_ATTR` of a property, and of a `__getattribute__`, consumes nothing when a method is asked for: it leaves null on top instead. So a frame
//!   with null on top is not marked. (Null may be there for other reasons; such a frame is walked past.)
//!
//! See `docs/design/006-cheap-walks.md`.

use crate::Layout;
use crate::frame::{pointer, read};
use crate::stack::StackLayout;

/// `FRAME_OWNED_BY_THREAD`
const OWNED_BY_THREAD: u8 = 0;
const WORD: usize = size_of::<usize>();

/// Offsets in `_PyInterpreterFrame`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitLayout {
    /// `stacktop`
    pub stack_top: u32,
}

impl WaitLayout {
    /// For the versions that were read and tested; `None` for all others.
    #[must_use]
    pub const fn for_version(hexversion: u32) -> Option<Self> {
        match hexversion >> 16 {
            0x030b | 0x030c => Some(Self { stack_top: 64 }),
            _ => None,
        }
    }
}

/// How to mark the waiting frames of an interpreter.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    layout: WaitLayout,
    stack: StackLayout,
}

impl Waits {
    /// For the interpreter with this layout; `None` when its frames are not to be marked.
    #[must_use]
    pub fn new(layout: &Layout) -> Option<Self> {
        Some(Self {
            layout: WaitLayout::for_version(layout.hexversion)?,
            stack: StackLayout::for_version(layout.hexversion)?,
        })
    }

    /// Whether marks tell the truth now: not inside a trace or monitoring callback, which may move the instruction of a frame further out.
    ///
    /// # Safety
    /// As for [`StackLayout::is_untraced`].
    #[inline(always)]
    #[must_use]
    pub unsafe fn are_valid(&self, state: *const u8) -> bool {
        // SAFETY: the caller's promise, handed on.
        unsafe { self.stack.is_untraced(state) }
    }

    /// The dead word of `frame`, which waits for `callee`; `None` where there is none that tells anything.
    ///
    /// # Safety
    /// `callee` is null or a frame of this thread's chain as in [`crate::Family::read_raw`], and `frame` the one it is linked to, and shown.
    /// `self` and `layout` are the interpreter's.
    #[inline(always)]
    #[must_use]
    pub unsafe fn dead_word(
        &self,
        layout: &Layout,
        callee: *const u8,
        frame: *const u8,
    ) -> Option<DeadWord> {
        // SAFETY: fields of live frames (the caller). `stacktop` counts words of the frame's own memory, which goes on behind it, as the callee took
        // at least one from there; or the word below is null, or there is none, and nothing is written.
        unsafe {
            if callee.is_null()
                || read::<u8>(callee, layout.frame.owner) != OWNED_BY_THREAD
                || (layout.frame.entry != 0 && read::<u8>(callee, layout.frame.entry) != 0)
                || read::<u8>(frame, layout.frame.owner) != OWNED_BY_THREAD
            {
                return None;
            }
            let top = usize::try_from(read::<i32>(frame, self.layout.stack_top)).ok()?;
            let word = frame.add(layout.frame.locals as usize + top * WORD);
            if top > 0 && word.sub(WORD).cast::<usize>().read() == 0 {
                // The last local may be unset, too.
                let code = pointer(frame, layout.frame.code);
                if usize::try_from(read::<i32>(code, layout.code.local_count)).ok()? != top {
                    return None;
                }
            }
            Some(DeadWord(word.cast_mut().cast()))
        }
    }
}

/// A word of a waiting frame that nobody reads before it is written.
#[derive(Debug)]
pub struct DeadWord(*mut usize);

impl DeadWord {
    /// What is in it.
    ///
    /// # Safety
    /// The thread has not run Python since [`Waits::dead_word`].
    #[inline(always)]
    #[must_use]
    pub unsafe fn get(&self) -> usize {
        // SAFETY: the frame is live (the caller).
        unsafe { self.0.read() }
    }

    /// Puts a mark there: no address of an object, and nobody else's mark.
    ///
    /// # Safety
    /// As for [`DeadWord::get`].
    #[inline(always)]
    pub unsafe fn set(&self, mark: usize) {
        // SAFETY: the frame is live (the caller), and nobody else looks at the word.
        unsafe { self.0.write(mark) }
    }
}
