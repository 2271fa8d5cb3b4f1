//! A node as the trie has it, in 16 bytes.

use core::sync::atomic::{AtomicU32, Ordering};

use heaptide_format::{NO_CODE, NODE_COMBINED, NODE_ENTRY, Node};

use crate::definitions::MOST_DEFINITIONS;
use crate::hash::mix;

/// Enough for the number of any node.
pub(crate) const NUMBER_BITS: u32 = 22;
const NUMBER: u32 = (1 << NUMBER_BITS) - 1;
/// Of the number of a code object in each of two words, the uppermost bits.
const CODE_BITS: u32 = 9;
const CODE_SHIFT: u32 = 32 - CODE_BITS;
/// Where these bits are.
const CODE: u32 = !(u32::MAX >> CODE_BITS);
/// What stands for [`NO_CODE`].
const NONE: u32 = (1 << (2 * CODE_BITS)) - 1;
/// What stands in place of a code object in a combined node, whose native one is where frames have their instruction.
const COMBINED: u32 = NONE - 1;
const FOLDED: u32 = 1 << NUMBER_BITS;
/// The interpreter was entered from C for the frame. In the word of the sibling.
const ENTRY: u32 = 1 << NUMBER_BITS;

/// Together with the number of a code object: the interpreter was entered from C for the frame. It is part of what tells
/// frames apart.
pub const ENTERED: u32 = 1 << 31;

const _: () = assert!(MOST_DEFINITIONS <= COMBINED && FOLDED < 1 << CODE_SHIFT);

/// As little as can be, since a walk through many stacks touches each. Numbers are of nodes, 0 for none (node 0 is
/// nobody's child). Words are changed under the growth lock only.
#[repr(C)]
pub(crate) struct Entry {
    /// First child; above [`NUMBER_BITS`] how many there are.
    children: AtomicU32,
    /// Next sibling; whether the frame is an [`ENTRY`]; above [`CODE_SHIFT`] the upper half of the code object's number.
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
        let entry = if code & ENTERED == 0 { 0 } else { ENTRY };
        // The shifts take the bit itself away.
        Self {
            upper: code >> CODE_BITS << CODE_SHIFT | entry,
            lower: code << CODE_SHIFT,
            last_instruction,
        }
    }

    /// What stands for a native node.
    #[inline(always)]
    pub(crate) fn combined(native: u32) -> Self {
        Self::new(COMBINED, native.cast_signed())
    }

    /// Of the node of this frame on top of `parent`.
    #[inline]
    pub(crate) fn hash_on(self, parent: u32) -> u64 {
        let code = u64::from(self.upper) << 32 | u64::from(self.lower);
        mix(
            code | u64::from(parent),
            u64::from(self.last_instruction.cast_unsigned()),
        )
    }
}

impl Entry {
    pub(crate) fn new(node: &Node) -> Self {
        let frame = if node.flags & NODE_COMBINED != 0 {
            Frame::combined(node.code)
        } else if node.code != NO_CODE && node.flags & NODE_ENTRY != 0 {
            Frame::new(node.code | ENTERED, node.last_instruction)
        } else {
            Frame::new(node.code & !ENTERED, node.last_instruction)
        };
        Self {
            children: AtomicU32::new(0),
            sibling: AtomicU32::new(frame.upper),
            parent: AtomicU32::new(frame.lower | node.parent),
            last_instruction: frame.last_instruction,
        }
    }

    /// Is it of this frame? And its next sibling.
    #[inline(always)]
    pub(crate) fn is_of(&self, frame: Frame) -> (bool, u32) {
        let sibling = self.sibling.load(Ordering::Acquire);
        let parent = self.parent.load(Ordering::Relaxed);
        let is_same = self.last_instruction == frame.last_instruction
            && sibling & (CODE | ENTRY) == frame.upper
            && parent & CODE == frame.lower;
        (is_same, sibling & NUMBER)
    }

    pub(crate) fn frame(&self) -> Frame {
        Frame {
            upper: self.sibling.load(Ordering::Relaxed) & (CODE | ENTRY),
            lower: self.parent.load(Ordering::Relaxed) & CODE,
            last_instruction: self.last_instruction,
        }
    }

    #[inline(always)]
    pub(crate) fn parent(&self) -> u32 {
        self.parent.load(Ordering::Relaxed) & NUMBER
    }

    #[inline(always)]
    pub(crate) fn last_instruction(&self) -> i32 {
        self.last_instruction
    }

    /// The code object, with [`ENTERED`] where it is.
    #[inline(always)]
    pub(crate) fn code(&self) -> u32 {
        let sibling = self.sibling.load(Ordering::Relaxed);
        let lower = self.parent.load(Ordering::Relaxed) >> CODE_SHIFT;
        let entered = if sibling & ENTRY == 0 { 0 } else { ENTERED };
        match sibling >> CODE_SHIFT << CODE_BITS | lower {
            NONE => NO_CODE,
            code => code | entered,
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
        let rest = self.sibling.load(Ordering::Relaxed) & !NUMBER;
        self.sibling.store(rest | sibling, Ordering::Release);
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

    /// All that there is to a node, through every change of its words.
    fn check(node: Node, key: u32, last_instruction: i32) {
        let entry = Entry::new(&node);
        let check = |sibling: u32, children: (u32, u32), folded: bool| {
            let own = Frame::new(key, last_instruction);
            assert_eq!(entry.is_of(own), (true, sibling));
            for other in [1, 511, 512, 1 << 17, ENTERED] {
                let other = Frame::new(key ^ other, last_instruction);
                assert!(!entry.is_of(other).0);
            }
            let later = Frame::new(key, last_instruction.wrapping_add(2));
            assert!(!entry.is_of(later).0);
            assert_eq!(entry.parent(), node.parent);
            assert_eq!(entry.last_instruction(), last_instruction);
            assert_eq!((entry.sibling(), entry.children()), (sibling, children));
            assert_eq!(entry.is_folded(), folded);
            let code = if node.code == NO_CODE { NO_CODE } else { key };
            assert_eq!(entry.code(), code);
        };
        let most = NUMBER;
        check(0, (0, 0), false);
        entry.set_folded();
        check(0, (0, 0), true);
        entry.set_sibling(most);
        entry.set_children(most - 1, 8);
        check(most, (most - 1, 8), true);
        entry.set_sibling(5);
        check(5, (most - 1, 8), true);
    }

    #[test]
    fn what_is_packed_into_a_word_stays_what_it_is() {
        for parent in [0, 1, NUMBER - 1, NUMBER] {
            for last_instruction in [-1, 0, i32::MIN, i32::MAX] {
                let node = |code, flags| Node {
                    parent,
                    code,
                    last_instruction,
                    flags,
                };
                for code in [0, 1, 511, 512, MOST_DEFINITIONS - 1] {
                    check(node(code, 0), code, last_instruction);
                    check(node(code, NODE_ENTRY), code | ENTERED, last_instruction);
                }
                check(node(NO_CODE, 0), NONE, last_instruction);
            }
            for native in [1, NUMBER] {
                let combined = Node {
                    parent,
                    code: native,
                    last_instruction: 0,
                    flags: NODE_COMBINED,
                };
                check(combined, COMBINED, native.cast_signed());
                assert!(Entry::new(&combined).is_of(Frame::combined(native)).0);
            }
        }
    }
}
