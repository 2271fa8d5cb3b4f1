//! The trie of stacks: a node is a frame on top of its caller's node, interned once.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use heaptide_format::{NO_CODE, NODE_OVERFLOW, NODE_ROOT, Node, SegmentKind};

use crate::file::{CaptureFile, Stop};
use crate::hash::mix;
use crate::index::Index;
use crate::pool::Pool;

/// How far up a fold looks for the same frame.
const FOLD_REACH: u32 = 4096;
/// Nodes under this flag stand for frames at several depths.
const FLAG_FOLDED: u32 = 1;

/// Children of a node and cells of a node that hang in a chain; those beyond are found by hash.
///
/// Chains keep what belongs together close together: a program that recurses through a million
/// stacks walks pages in the order in which they were written, where a hash would scatter it over
/// all of them and make them all resident.
pub(crate) const CHAIN: u32 = 8;

/// Working data beside a node, in a scratch segment: as little as can be, since a walk through many stacks
/// touches that of each. Numbers are of nodes, 0 for none (node 0 is nobody's child).
#[repr(C)]
pub(crate) struct Links {
    /// Above [`NUMBER_BITS`], how many children there are, up to [`CHAIN`].
    first_child: AtomicU32,
    next_sibling: AtomicU32,
}

/// Enough for the number of any node.
const NUMBER_BITS: u32 = 28;

impl Links {
    /// The first child, and how many there are; [`CHAIN`] for more.
    #[inline(always)]
    fn first_child(&self) -> (u32, u32) {
        let word = self.first_child.load(Ordering::Acquire);
        (word & ((1 << NUMBER_BITS) - 1), word >> NUMBER_BITS)
    }

    /// Under the growth lock.
    fn set_first_child(&self, child: u32, children: u32) {
        self.first_child
            .store(children << NUMBER_BITS | child, Ordering::Release);
    }
}

pub(crate) struct Stacks {
    nodes: Pool<Node, 12, 1024>,
    links: Pool<Links, 12, 1024>,
    /// The first cell of each node plus one, or 0, where there are cells.
    first_cells: Pool<AtomicU32, 12, 1024>,
    has_cells: AtomicBool,
    index: Index,
    budget: AtomicU32,
}

impl Stacks {
    pub(crate) const fn new() -> Self {
        Self {
            nodes: Pool::new(SegmentKind::Nodes),
            links: Pool::new(SegmentKind::Scratch),
            first_cells: Pool::new(SegmentKind::Scratch),
            has_cells: AtomicBool::new(false),
            index: Index::new(),
            budget: AtomicU32::new(0),
        }
    }

    /// Makes the root and the overflow node. Under the growth lock, once.
    pub(crate) fn start(&self, file: &CaptureFile, budget: u32) -> Result<(), Stop> {
        const { assert!(1 << NUMBER_BITS > (1 << 12) * 1024u32 && CHAIN < 1 << (32 - NUMBER_BITS)) };
        self.has_cells
            .store(!file.holds_events(), Ordering::Relaxed);
        self.budget
            .store(budget.clamp(16, self.nodes.capacity()), Ordering::Relaxed);
        for parent in [NODE_ROOT, NODE_ROOT] {
            let node = Node {
                parent,
                code: NO_CODE,
                last_instruction: -1,
                flags: 0,
            };
            self.push(file, node)?;
        }
        Ok(())
    }

    /// The node for this frame, if it has been seen on this caller.
    #[inline]
    pub(crate) fn find(
        &self,
        file: &CaptureFile,
        parent: u32,
        code: u32,
        last_instruction: i32,
    ) -> Option<u32> {
        if self.flags_of(parent).load(Ordering::Relaxed) == FLAG_FOLDED
            && let Some(earlier) = self.earlier(parent, code, last_instruction)
        {
            count_fold(file);
            return Some(earlier);
        }
        let mut child = self.links_of(parent).first_child().0;
        let mut length = 0;
        while child != 0 {
            // SAFETY: `child` is a node's number.
            let node = unsafe { &*self.nodes.get(child) };
            if node.code == code && node.last_instruction == last_instruction {
                return Some(child);
            }
            child = self.links_of(child).next_sibling.load(Ordering::Acquire);
            length += 1;
        }
        if length < CHAIN {
            return None;
        }
        self.index
            .find(hash(parent, code, last_instruction), |number| {
                // SAFETY: numbers in the index were given out by the pool.
                let node = unsafe { &*self.nodes.get(number) };
                node.parent == parent
                    && node.code == code
                    && node.last_instruction == last_instruction
            })
    }

    /// The node of a frame that stood at `previous` and stands at `last_instruction` of the same code now, on the
    /// same caller, if it was there next when all this was seen for the first time. Loops come to
    /// their places in one order, so mostly it was; and the processor foresees that it is.
    #[inline]
    pub(crate) fn moved_on(&self, previous: u32, last_instruction: i32) -> Option<u32> {
        let next = self.links_of(previous).next_sibling.load(Ordering::Acquire);
        // SAFETY: both are nodes' numbers (0 is the root's).
        let (before, after) = unsafe { (&*self.nodes.get(previous), &*self.nodes.get(next)) };
        (after.last_instruction == last_instruction && after.code == before.code).then_some(next)
    }

    /// The node for this frame, made if need be. Under the growth lock. When the budget runs low a
    /// frame that recurs folds onto its earlier occurrence, and when it is used up the overflow
    /// node takes the rest.
    pub(crate) fn intern(
        &self,
        file: &CaptureFile,
        parent: u32,
        code: u32,
        last_instruction: i32,
    ) -> Result<u32, Stop> {
        if parent == NODE_OVERFLOW {
            return Ok(NODE_OVERFLOW);
        }
        if let Some(found) = self.find(file, parent, code, last_instruction) {
            return Ok(found);
        }
        let budget = self.budget.load(Ordering::Relaxed);
        let used = self.nodes.len();
        if used >= budget / 4 * 3 {
            if let Some(earlier) = self.fold(parent, code, last_instruction) {
                count_fold(file);
                return Ok(earlier);
            }
            if used >= budget {
                return Ok(NODE_OVERFLOW);
            }
        }
        let node = Node {
            parent,
            code,
            last_instruction,
            flags: 0,
        };
        let Some(number) = self.push(file, node)? else {
            return Ok(NODE_OVERFLOW);
        };
        let links = self.links_of(parent);
        let (first, siblings) = links.first_child();
        if siblings < CHAIN {
            // At the end of the chain, so that the first stay within reach. Release pairs with the Acquire in
            // `find`: whoever finds the number finds the node.
            if siblings == 0 {
                links.set_first_child(number, 1);
            } else {
                let mut last = self.links_of(first);
                while let next @ 1.. = last.next_sibling.load(Ordering::Relaxed) {
                    last = self.links_of(next);
                }
                last.next_sibling.store(number, Ordering::Release);
                links.set_first_child(first, siblings + 1);
            }
        } else {
            self.index.insert(
                file,
                hash(parent, code, last_instruction),
                number,
                |other| {
                    // SAFETY: as in `find`.
                    let node = unsafe { &*self.nodes.get(other) };
                    hash(node.parent, node.code, node.last_instruction)
                },
            )?;
        }
        Ok(number)
    }

    fn push(&self, file: &CaptureFile, node: Node) -> Result<Option<u32>, Stop> {
        // The links first: a number that readers of the trie can meet has both.
        let links = Links {
            first_child: AtomicU32::new(0),
            next_sibling: AtomicU32::new(0),
        };
        if self.links.push(file, links)?.is_none() {
            return Ok(None);
        }
        if self.has_cells.load(Ordering::Relaxed) {
            self.first_cells.push(file, AtomicU32::new(0))?;
        }
        self.nodes.push(file, node)
    }

    #[inline]
    fn links_of(&self, node: u32) -> &Links {
        // SAFETY: every node has links under the same number; the mapping lasts for ever.
        unsafe { &*self.links.get(node) }
    }

    /// The chain of a node's cells: the first one plus one, or 0.
    ///
    /// # Safety
    /// The node exists, in a capture that has cells.
    #[inline]
    pub(crate) unsafe fn cells_of(&self, node: u32) -> &AtomicU32 {
        // SAFETY: then every node has one under its number; the mapping lasts for ever.
        unsafe { &*self.first_cells.get(node) }
    }

    /// The outermost node on the way from `parent` to the root with this frame. Outermost, because
    /// then all depths of a recursion meet in a few nodes near the root, and what is touched from
    /// there on is small.
    fn earlier(&self, parent: u32, code: u32, last_instruction: i32) -> Option<u32> {
        let mut at = parent;
        let mut found = None;
        for _ in 0..FOLD_REACH {
            if at == NODE_ROOT {
                break;
            }
            // SAFETY: `at` is a node's number; nodes are written once, only their flags change later.
            let node = unsafe { &*self.nodes.get(at) };
            if node.code == code && node.last_instruction == last_instruction {
                found = Some(at);
            }
            at = node.parent;
        }
        found
    }

    /// Folds the frame onto [`Stacks::earlier`], and remembers there that more than one depth meets.
    fn fold(&self, parent: u32, code: u32, last_instruction: i32) -> Option<u32> {
        let earlier = self.earlier(parent, code, last_instruction)?;
        self.flags_of(earlier).store(FLAG_FOLDED, Ordering::Relaxed);
        Some(earlier)
    }

    #[inline]
    fn flags_of(&self, node: u32) -> &AtomicU32 {
        // SAFETY: the number is a node's; its flags are only used as this atomic.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.nodes.get(node)).flags) }
    }
}

fn count_fold(file: &CaptureFile) {
    if let Some(own) = file.own() {
        own.folded_stacks.fetch_add(1, Ordering::Relaxed);
    }
}

#[inline]
fn hash(parent: u32, code: u32, last_instruction: i32) -> u64 {
    mix(
        u64::from(parent) << 32 | u64::from(code),
        u64::from(last_instruction as u32),
    )
}
