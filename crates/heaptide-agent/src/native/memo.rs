//! What a thread remembers of its last walk of its native stack.

use heaptide_format::NATIVE_ROOT;
use heaptide_recorder::{Mapping, Stop};
use heaptide_unwind::{Frame, Stack};

use super::stack::OwnStack;
use crate::RECORDER;

/// Frames there is room for at first.
const FIRST_FRAMES: usize = 168;
/// Deepest stack there is room for; allocations on deeper ones have none.
const MOST_FRAMES: usize = FIRST_FRAMES << 11;

/// In a remembered node: there was no room for one more, so the frames further in have none.
const NO_ROOM: u32 = 1 << 31;

/// A thread's last walk.
pub(crate) struct NativeMemo {
    /// `capacity` frames that are remembered, the outermost first, `length` of them; then as many to work with, the innermost
    /// first.
    memory: Option<Mapping>,
    capacity: usize,
    length: usize,
    generation: u32,
    stack: Stack,
    pub(super) own_stack: OwnStack,
    /// The Python node and the native one that were combined last, and into which.
    last: [u32; 3],
}

impl NativeMemo {
    pub(crate) const fn new() -> Self {
        Self {
            memory: None,
            capacity: 0,
            length: 0,
            generation: 0,
            // SAFETY: empty.
            stack: unsafe { Stack::new(0, 0) },
            own_stack: OwnStack::new(),
            last: [0; 3],
        }
    }

    /// Remembers nothing any more.
    pub(crate) fn forget(&mut self) {
        self.length = 0;
        self.last = [0; 3];
        self.own_stack = OwnStack::new();
    }

    /// Believes nothing of before that objects were unloaded, or of another stack.
    pub(super) fn be_of(&mut self, generation: u32, stack: Stack) {
        if (self.generation, self.stack) != (generation, stack) {
            self.length = 0;
            self.generation = generation;
            self.stack = stack;
        }
    }

    /// What is remembered, and the room to work in.
    pub(super) fn frames(&mut self) -> (&[Frame], &mut [Frame]) {
        let Some(memory) = &self.memory else {
            return (&[], &mut []);
        };
        let start: *mut Frame = memory.as_ptr();
        // SAFETY: the memory has room for twice `capacity` frames, `length` of which were written; the others are zeroes,
        // which are a frame.
        unsafe {
            (
                core::slice::from_raw_parts(start, self.length),
                core::slice::from_raw_parts_mut(start.add(self.capacity), self.capacity),
            )
        }
    }

    /// Doubles the room, if there may be more.
    #[cold]
    pub(super) fn grow(&mut self) -> bool {
        let capacity = (self.capacity * 2).max(FIRST_FRAMES);
        if capacity > MOST_FRAMES {
            return false;
        }
        let Some(memory) = Mapping::new(2 * capacity * size_of::<Frame>()) else {
            return false;
        };
        let (remembered, _) = self.frames();
        // SAFETY: the new memory has room for more than what is remembered.
        unsafe {
            let length = remembered.len();
            core::ptr::copy_nonoverlapping(remembered.as_ptr(), memory.as_ptr(), length);
        }
        self.memory = Some(memory);
        self.capacity = capacity;
        true
    }

    /// Whether so many frames can be remembered.
    pub(super) fn has_room(&self, frames: usize) -> bool {
        frames <= self.capacity
    }

    /// Number of the stack that is `python` together with `native`.
    pub(super) fn combined(&mut self, python: u32, native: u32) -> Result<u32, Stop> {
        if self.last[..2] != [python, native] {
            let node = RECORDER.combined(python, native)?;
            self.last = [python, native, node];
        }
        Ok(self.last[2])
    }

    /// Remembers the outermost `kept` frames and, on top of these, `fresh` ones from the room to work in. Returns the node of
    /// the whole. There is room for as many.
    pub(super) fn remember(&mut self, kept: usize, fresh: usize) -> Result<u32, Stop> {
        // Should anything below fail, nothing half done may be believed.
        self.length = kept;
        let Some(memory) = &self.memory else {
            return Ok(NATIVE_ROOT);
        };
        let start: *mut Frame = memory.as_ptr();
        // SAFETY: `kept + fresh <= capacity`, and the two areas do not overlap.
        unsafe {
            let mut node = match kept {
                0 => NATIVE_ROOT,
                _ => (*start.add(kept - 1)).node,
            };
            for position in (0..fresh).rev() {
                let mut frame = *start.add(self.capacity + position);
                // Frames of our own are not shown, nor are those of which nothing is known.
                if let Some((module, address)) = frame.place.get()
                    && node & NO_ROOM == 0
                {
                    node = match RECORDER.native_node(node, module, address)? {
                        same if same == node => node | NO_ROOM,
                        next => next,
                    };
                }
                frame.node = node;
                *start.add(self.length) = frame;
                self.length += 1;
            }
            Ok(node & !NO_ROOM)
        }
    }
}
