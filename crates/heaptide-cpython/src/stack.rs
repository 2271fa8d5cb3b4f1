//! The thread's stack of frames (3.11 and later), which grows by chunks of 16 KiB, and a mark that tells that the newest chunk has stayed.
//!
//! A chunk is pushed for the frame that begins it and let go of when exactly that frame is popped, so while it is there that frame is there, and so
//! is all that it stands on: its caller waits for it. A chunk that is pushed has `top` zero; a value is only written there when a further chunk is
//! pushed onto it, and only read when that one goes again. So the `top` of the *newest* chunk is nobody's, and a mark in it is gone as soon as the
//! chunk is another, even one that is used again at the same address. See `docs/design/006-cheap-walks.md`.

use crate::Layout;
use crate::frame::{pointer, read};

/// Offsets in `PyThreadState`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackLayout {
    /// `tracing`
    pub tracing: u32,
    /// `what_event` (3.12 and later), else zero.
    pub event: u32,
    /// `datastack_chunk` (3.11 and later), else zero.
    pub chunk: u32,
}

impl StackLayout {
    /// For the versions that were read and tested; `None` for all others.
    #[must_use]
    pub const fn for_version(hexversion: u32) -> Option<Self> {
        let (tracing, event, chunk) = match hexversion >> 16 {
            0x0309 | 0x030a => (44, 0, 0),
            0x030b => (44, 0, 296),
            0x030c => (44, 48, 232),
            0x030d | 0x030e => (60, 64, 232),
            0x030f => (64, 68, 256),
            _ => return None,
        };
        Some(Self {
            tracing,
            event,
            chunk,
        })
    }

    /// Whether the thread is in no trace or monitoring callback. Such a one may move the instruction of a frame further out.
    ///
    /// # Safety
    /// `state` is what [`crate::Interpreter::thread_state`] returned on this thread just now, not null, and `self` is its interpreter's.
    #[inline(always)]
    #[must_use]
    pub unsafe fn is_untraced(&self, state: *const u8) -> bool {
        // SAFETY: a live thread state (the caller) with its fields where the table says.
        unsafe {
            read::<i32>(state, self.tracing) == 0
                && (self.event == 0 || read::<i32>(state, self.event) < 0)
        }
    }
}

/// Offsets in `_PyStackChunk`, of every version that has it.
pub mod stack_chunk {
    /// `previous`
    pub const PREVIOUS: u32 = 0;
    /// `size`, in bytes, of the whole.
    pub const SIZE: u32 = 8;
    /// `top`, in words.
    pub const TOP: u32 = 16;
    /// `data`, the frames.
    pub const DATA: u32 = 24;
}

/// How to find the stacks of an interpreter's threads.
#[derive(Clone, Copy, Debug)]
pub struct Stacks(StackLayout);

impl Stacks {
    /// For the interpreter with this layout; `None` when it has no stacks of this kind.
    #[must_use]
    pub fn new(layout: &Layout) -> Option<Self> {
        let stack = StackLayout::for_version(layout.hexversion)?;
        // The interpreter may say that its thread states are laid out in another way than its version's; it does not say where this is.
        let table = Layout::table(layout.hexversion).ok()?;
        (stack.chunk != 0 && table.thread == layout.thread).then_some(Self(stack))
    }

    /// The newest chunk of a thread's stack, for one who marks with `mark`: an odd number that is his alone and larger than any chunk is long. `None`
    /// when a walk cannot end there: in a trace or monitoring callback, and for the first chunk, which is never let go of.
    ///
    /// # Safety
    /// As for [`StackLayout::is_untraced`].
    #[inline(always)]
    #[must_use]
    pub unsafe fn newest(&self, state: *const u8, mark: usize) -> Option<NewestChunk> {
        // SAFETY: a live thread state (the caller), whose chunks are a list that only the thread itself changes.
        unsafe {
            if !self.0.is_untraced(state) {
                return None;
            }
            let chunk = pointer(state, self.0.chunk);
            if chunk.is_null() || pointer(chunk, stack_chunk::PREVIOUS).is_null() {
                return None;
            }
            Some(NewestChunk { chunk, mark })
        }
    }
}

/// The newest chunk of the calling thread's stack, while the thread stands still.
#[derive(Clone, Copy, Debug)]
pub struct NewestChunk {
    chunk: *const u8,
    mark: usize,
}

impl NewestChunk {
    /// Address of the frame that the chunk begins with.
    #[inline(always)]
    #[must_use]
    pub fn first_frame(&self) -> usize {
        self.chunk.addr() + stack_chunk::DATA as usize
    }

    /// Whether it is still the chunk that was marked.
    ///
    /// # Safety
    /// The thread has not run Python since [`Stacks::newest`].
    #[inline(always)]
    #[must_use]
    pub unsafe fn is_marked(&self) -> bool {
        // SAFETY: the chunk is live (the caller).
        unsafe { read::<usize>(self.chunk, stack_chunk::TOP) == self.mark }
    }

    /// Marks it.
    ///
    /// # Safety
    /// As for [`NewestChunk::is_marked`].
    #[inline(always)]
    pub unsafe fn set_marked(&self) {
        // SAFETY: the chunk is live (the caller); nobody reads the word before it is written, as long as this is the newest.
        unsafe {
            self.chunk
                .add(stack_chunk::TOP as usize)
                .cast_mut()
                .cast::<usize>()
                .write(self.mark);
        }
    }
}
