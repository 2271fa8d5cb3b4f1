//! A node as the trie has it, in 16 bytes.

use core::sync::atomic::{AtomicU32, Ordering};

use heaptide_format::{NO_CODE, Node};

use crate::definitions::MOST_DEFINITIONS;

/// Enough for the number of any node.
pub(crate) const NUMBER_BITS: u32 = 22;
const NUMBER: u32 = (1 << NUMBER_BITS) - 1;
/// Of the number of a code object in each of two words, the uppermost bits.
const CODE_BITS: u32 = 9;
const CODE_SHIFT: u32 = 32 - CODE_BITS;
/// What stands for [`NO_CODE`].
const NONE: u32 = (1 << (2 * CODE_BITS)) - 1;
const FOLDED: u32 = 1 << NUMBER_BITS;

const _: () = assert!(MOST_DEFINITIONS <= NONE && FOLDED < 1 << CODE_SHIFT);

/// As little as can be, since a walk through many stacks touches each. Numbers are of nodes, 0 for none (node 0 is
/// nobody's child). Words are changed under the growth lock only.
#[repr(C)]
pub(crate) struct Entry {
    /// First child; above [`NUMBER_BITS`] how many there are.
    children: AtomicU32,
    /// Next sibling; above [`CODE_SHIFT`] the upper half of the code object's number.
    sibling: AtomicU32,
    /// Parent; whether recursive frames were folded onto this one; above [`CODE_SHIFT`] the lower half of the code object's number.
    parent: AtomicU32,
    last_instruction: i32,
}

/// A frame as entries have it.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    upper: u32,
    lower: u32,
    last_instruction: i32,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(code: u32, last_instruction: i32) -> Self {
        Self {
            upper: code >> CODE_BITS << CODE_SHIFT,
            lower: code << CODE_SHIFT,
            last_instruction,
        }
    }
}

impl Entry {
    pub(crate) fn new(node: &Node) -> Self {
        let frame = Frame::new(node.code, node.last_instruction);
        Self {
            children: AtomicU32::new(0),
            sibling: AtomicU32::new(frame.upper),
            parent: AtomicU32::new(frame.lower | node.parent),
            last_instruction: node.last_instruction,
        }
    }

    /// Is it of this frame? And its next sibling.
    #[inline(always)]
    pub(crate) fn is_of(&self, frame: Frame) -> (bool, u32) {
        const CODE: u32 = !(u32::MAX >> CODE_BITS);
        let sibling = self.sibling.load(Ordering::Acquire);
        let parent = self.parent.load(Ordering::Relaxed);
        let is_same = self.last_instruction == frame.last_instruction
            && sibling & CODE == frame.upper
            && parent & CODE == frame.lower;
        (is_same, sibling & NUMBER)
    }

    #[inline(always)]
    pub(crate) fn parent(&self) -> u32 {
        self.parent.load(Ordering::Relaxed) & NUMBER
    }

    #[inline(always)]
    pub(crate) fn last_instruction(&self) -> i32 {
        self.last_instruction
    }

    #[inline(always)]
    pub(crate) fn code(&self) -> u32 {
        let upper = self.sibling.load(Ordering::Relaxed) >> CODE_SHIFT;
        let lower = self.parent.load(Ordering::Relaxed) >> CODE_SHIFT;
        match upper << CODE_BITS | lower {
            NONE => NO_CODE,
            code => code,
        }
    }

    /// The first child, and how many there are.
    #[inline(always)]
    pub(crate) fn children(&self) -> (u32, u32) {
        let word = self.children.load(Ordering::Acquire);
        (word & NUMBER, word >> NUMBER_BITS)
    }

    /// Who finds the child finds what was stored before.
    pub(crate) fn set_children(&self, first: u32, count: u32) {
        self.children
            .store(count << NUMBER_BITS | first, Ordering::Release);
    }

    #[inline(always)]
    pub(crate) fn sibling(&self) -> u32 {
        self.sibling.load(Ordering::Acquire) & NUMBER
    }

    /// As [`Entry::set_children`].
    pub(crate) fn set_sibling(&self, sibling: u32) {
        let code = self.sibling.load(Ordering::Relaxed) & !NUMBER;
        self.sibling.store(code | sibling, Ordering::Release);
    }

    #[inline(always)]
    pub(crate) fn is_folded(&self) -> bool {
        self.parent.load(Ordering::Relaxed) & FOLDED != 0
    }

    pub(crate) fn set_folded(&self) {
        let parent = self.parent.load(Ordering::Relaxed);
        self.parent.store(parent | FOLDED, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_into_a_word_stays_what_it_is() {
        let most = NUMBER;
        for code in [0, 1, 511, 512, MOST_DEFINITIONS - 1, NO_CODE] {
            for parent in [0, 1, most - 1, most] {
                for last_instruction in [-1, 0, i32::MIN, i32::MAX] {
                    let entry = Entry::new(&Node {
                        parent,
                        code,
                        last_instruction,
                        flags: 0,
                    });
                    let check = |sibling: u32, children: (u32, u32), folded: bool| {
                        let own = Frame::new(code, last_instruction);
                        assert_eq!(entry.is_of(own), (true, sibling));
                        for other in [1, 511, 512, 1 << 17] {
                            let other = Frame::new(code ^ other, last_instruction);
                            assert!(!entry.is_of(other).0);
                        }
                        let later = Frame::new(code, last_instruction.wrapping_add(2));
                        assert!(!entry.is_of(later).0);
                        assert_eq!((entry.code(), entry.parent()), (code, parent));
                        assert_eq!(entry.last_instruction(), last_instruction);
                        assert_eq!((entry.sibling(), entry.children()), (sibling, children));
                        assert_eq!(entry.is_folded(), folded);
                    };
                    check(0, (0, 0), false);
                    entry.set_folded();
                    check(0, (0, 0), true);
                    entry.set_sibling(most);
                    entry.set_children(most - 1, 8);
                    check(most, (most - 1, 8), true);
                    entry.set_sibling(5);
                    check(5, (most - 1, 8), true);
                }
            }
        }
    }
}
