//! The trie of stacks: a node is a frame on top of its caller's node, interned once.

mod entry;
mod stream;

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use heaptide_format::{
    NATIVE_ROOT, NO_CODE, NODE_COMBINED, NODE_ENTRY, NODE_OVERFLOW, NODE_ROOT, Node, SegmentKind,
};

pub use self::entry::ENTERED;
use self::entry::{Entry, Frame, NUMBER_BITS};
use self::stream::NodeStream;
use crate::file::{CaptureFile, Stop};
use crate::index::Index;
use crate::pool::Pool;

/// How far up a fold looks for the same frame.
const FOLD_REACH: u32 = 4096;

/// Children of a node and cells of a node that hang in a chain; those beyond are found by hash.
///
/// Chains keep what belongs together close together: a program that recurses through a million
/// stacks walks pages in the order in which they were written, where a hash would scatter it over
/// all of them and make them all resident.
pub(crate) const CHAIN: u32 = 8;

pub(crate) struct Stacks {
    /// What readers have of the nodes.
    stream: NodeStream,
    /// The trie.
    nodes: Pool<Entry, 12, 1024>,
    /// The first cell of each node plus one, or 0, where there are cells.
    first_cells: Pool<AtomicU32, 12, 1024>,
    has_cells: AtomicBool,
    index: Index,
    /// How many nodes there may be of frames.
    budget: AtomicU32,
    /// How many nodes are combined ones.
    combined: AtomicU32,
}

impl Stacks {
    pub(crate) const fn new() -> Self {
        Self {
            stream: NodeStream::new(),
            nodes: Pool::new(SegmentKind::Scratch),
            first_cells: Pool::new(SegmentKind::Scratch),
            has_cells: AtomicBool::new(false),
            index: Index::new(),
            budget: AtomicU32::new(0),
            combined: AtomicU32::new(0),
        }
    }

    /// Makes the root and the overflow node. Under the growth lock, once.
    pub(crate) fn start(&self, file: &CaptureFile, budget: u32) -> Result<(), Stop> {
        const {
            assert!(1 << NUMBER_BITS >= (1 << 12) * 1024u32 && CHAIN < 1 << (32 - NUMBER_BITS));
        };
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
        // SAFETY: `parent` is a node's number.
        let parent_entry = unsafe { self.entry(parent) };
        if parent_entry.is_folded()
            && let Some(earlier) = self.earlier(parent, code, last_instruction)
        {
            count_fold(file);
            return Some(earlier);
        }
        self.callee(parent, Frame::new(code, last_instruction))
    }

    /// The node on top of `parent` that is of this frame.
    #[inline(always)]
    fn callee(&self, parent: u32, frame: Frame) -> Option<u32> {
        // SAFETY: `parent` is a node's number.
        let mut child = unsafe { self.entry(parent) }.children().0;
        let mut length = 0;
        while child != 0 {
            // SAFETY: `child` is a node's number.
            let (is_it, sibling) = unsafe { self.entry(child) }.is_of(frame);
            if is_it {
                return Some(child);
            }
            child = sibling;
            length += 1;
        }
        if length < CHAIN {
            return None;
        }
        self.index.find(frame.hash_on(parent), |number| {
            // SAFETY: numbers in the index were given out by the pool.
            let entry = unsafe { self.entry(number) };
            entry.parent() == parent && entry.is_of(frame).0
        })
    }

    /// The node of a frame that stood at `previous` and stands at `last_instruction` of the same code now, on the
    /// same caller, if it was there next when all this was seen for the first time. Loops come to
    /// their places in one order, so mostly it was; and the processor foresees that it is.
    #[inline]
    pub(crate) fn moved_on(&self, previous: u32, last_instruction: i32) -> Option<u32> {
        // SAFETY: a node's number.
        let before = unsafe { self.entry(previous) };
        let next = before.sibling();
        // SAFETY: as above; 0 is the root's.
        let after = unsafe { self.entry(next) };
        (next != 0 && after.last_instruction() == last_instruction && after.code() == before.code())
            .then_some(next)
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
        let budget = self.budget();
        let used = self.nodes.len() - self.combined.load(Ordering::Relaxed);
        if used >= budget / 4 * 3 {
            if let Some(earlier) = self.fold(file, parent, code, last_instruction)? {
                count_fold(file);
                return Ok(earlier);
            }
            if used >= budget {
                return Ok(NODE_OVERFLOW);
            }
        }
        let node = Node {
            parent,
            code: code & !ENTERED,
            last_instruction,
            flags: if code & ENTERED == 0 { 0 } else { NODE_ENTRY },
        };
        let Some(number) = self.push(file, node)? else {
            return Ok(NODE_OVERFLOW);
        };
        self.add_callee(file, parent, number)?;
        Ok(number)
    }

    /// Makes a new node one of those on top of `parent`.
    fn add_callee(&self, file: &CaptureFile, parent: u32, number: u32) -> Result<(), Stop> {
        // SAFETY: `parent` is a node's number.
        let (first, siblings) = unsafe { self.entry(parent) }.children();
        if siblings < CHAIN {
            // At the end of the chain, so that the first stay within reach.
            // SAFETY: all are nodes' numbers.
            unsafe {
                if siblings == 0 {
                    self.entry(parent).set_children(number, 1);
                } else {
                    let mut last = self.entry(first);
                    while let next @ 1.. = last.sibling() {
                        last = self.entry(next);
                    }
                    last.set_sibling(number);
                    self.entry(parent).set_children(first, siblings + 1);
                }
            }
            return Ok(());
        }
        let hash = |number: u32| {
            // SAFETY: numbers in the index were given out by the pool.
            let entry = unsafe { self.entry(number) };
            entry.frame().hash_on(entry.parent())
        };
        self.index.insert(file, hash(number), number, hash)
    }

    /// The node of a Python stack together with a native one, if they have been seen together.
    #[inline]
    pub(crate) fn find_combined(&self, python: u32, native: u32) -> Option<u32> {
        if native == NATIVE_ROOT || python == NODE_OVERFLOW {
            return Some(python);
        }
        self.callee(python, Frame::combined(native))
    }

    /// The node of a Python stack together with a native one, made if need be. Under the growth lock. Where there is no
    /// room for more the Python stack stands alone.
    pub(crate) fn intern_combined(
        &self,
        file: &CaptureFile,
        python: u32,
        native: u32,
    ) -> Result<u32, Stop> {
        if let Some(found) = self.find_combined(python, native) {
            return Ok(found);
        }
        // Room for all frames that there may be is left.
        let combined = self.combined.load(Ordering::Relaxed);
        if combined >= self.nodes.capacity() - self.budget() {
            count_fold(file);
            return Ok(python);
        }
        let node = Node {
            parent: python,
            code: native,
            last_instruction: 0,
            flags: NODE_COMBINED,
        };
        let Some(number) = self.push(file, node)? else {
            return Ok(python);
        };
        self.combined.store(combined + 1, Ordering::Relaxed);
        self.add_callee(file, python, number)?;
        Ok(number)
    }

    /// How many nodes there may be of frames.
    fn budget(&self) -> u32 {
        self.budget.load(Ordering::Relaxed)
    }

    fn push(&self, file: &CaptureFile, node: Node) -> Result<Option<u32>, Stop> {
        let number = self.nodes.len();
        if number == self.nodes.capacity() {
            return Ok(None);
        }
        // What belongs to the node first: a number that readers of the trie can meet has it all.
        if self.has_cells.load(Ordering::Relaxed) {
            self.first_cells.push(file, AtomicU32::new(0))?;
        }
        self.stream.node(file, number, &node)?;
        self.nodes.push(file, Entry::new(&node))
    }

    /// # Safety
    /// `number` was given out by the pool.
    #[inline(always)]
    unsafe fn entry(&self, number: u32) -> &Entry {
        // SAFETY: the caller's promise; the mapping lasts for ever.
        unsafe { &*self.nodes.get(number) }
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
        let frame = Frame::new(code, last_instruction);
        let mut at = parent;
        let mut found = None;
        for _ in 0..FOLD_REACH {
            if at == NODE_ROOT {
                break;
            }
            // SAFETY: `at` is a node's number.
            let entry = unsafe { self.entry(at) };
            if entry.is_of(frame).0 {
                found = Some(at);
            }
            at = entry.parent();
        }
        found
    }

    /// Folds the frame onto [`Stacks::earlier`], and remembers there that more than one depth meets.
    fn fold(
        &self,
        file: &CaptureFile,
        parent: u32,
        code: u32,
        last_instruction: i32,
    ) -> Result<Option<u32>, Stop> {
        let Some(earlier) = self.earlier(parent, code, last_instruction) else {
            return Ok(None);
        };
        // SAFETY: a node's number.
        let entry = unsafe { self.entry(earlier) };
        if !entry.is_folded() {
            self.stream.fold(file, self.nodes.len(), earlier)?;
            entry.set_folded();
        }
        Ok(Some(earlier))
    }
}

fn count_fold(file: &CaptureFile) {
    if let Some(own) = file.own() {
        own.folded_stacks.fetch_add(1, Ordering::Relaxed);
    }
}
