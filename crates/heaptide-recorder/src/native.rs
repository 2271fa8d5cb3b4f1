//! Native stacks: a trie of return addresses, and the loaded objects that they are in.

use core::sync::atomic::{AtomicU32, Ordering};

use heaptide_format::{Module, NATIVE_ROOT, NO_MODULE, NativeNode, SegmentKind};

use crate::definitions::{Definitions, RawText};
use crate::file::{CaptureFile, Stop};
use crate::hash::mix;
use crate::index::Index;
use crate::pool::Pool;
use crate::stacks::CHAIN;

/// A loaded object.
#[derive(Clone, Copy, Debug)]
pub struct LoadedObject<'a> {
    /// Where its file is.
    pub path: &'a [u8],
    /// What is added to the addresses in the file.
    pub base: u64,
    /// Its build-id; empty where it has none.
    pub build_id: &'a [u8],
}

/// Callees of a node in a chain, as in [`crate::stacks`]; 0: none.
struct Link {
    /// The first callee; above [`NUMBER_BITS`] how many there are in the chain.
    callees: AtomicU32,
    /// The next callee of the same caller.
    sibling: AtomicU32,
}

const NUMBER_BITS: u32 = 22;
const NUMBER: u32 = (1 << NUMBER_BITS) - 1;

pub(crate) struct Native {
    nodes: Pool<NativeNode, 12, 1024>,
    links: Pool<Link, 12, 1024>,
    /// Callees beyond those in chains.
    index: Index,
    modules: Pool<Module, 6, 1024>,
}

impl Native {
    pub(crate) const fn new() -> Self {
        Self {
            nodes: Pool::new(SegmentKind::NativeFrames),
            links: Pool::new(SegmentKind::Scratch),
            index: Index::new(),
            modules: Pool::new(SegmentKind::Modules),
        }
    }

    /// Makes the root. Under the growth lock, once.
    pub(crate) fn start(&self, file: &CaptureFile) -> Result<(), Stop> {
        let root = NativeNode {
            parent: NATIVE_ROOT,
            module: NO_MODULE,
            address: 0,
        };
        self.push(file, root).map(|_| ())
    }

    fn push(&self, file: &CaptureFile, node: NativeNode) -> Result<Option<u32>, Stop> {
        if self.nodes.len() == self.nodes.capacity() {
            return Ok(None);
        }
        let link = Link {
            callees: AtomicU32::new(0),
            sibling: AtomicU32::new(0),
        };
        self.links.push(file, link)?;
        self.nodes.push(file, node)
    }

    /// # Safety
    /// A node has this number.
    #[inline(always)]
    unsafe fn link(&self, number: u32) -> &Link {
        // SAFETY: every node has one under its number.
        unsafe { &*self.links.get(number) }
    }

    /// The node of this frame, if it has been seen on this caller.
    #[inline]
    pub(crate) fn find(&self, node: &NativeNode) -> Option<u32> {
        // SAFETY: `parent` and all that is found in chains and in the index are numbers of nodes.
        unsafe {
            let mut callee = self.link(node.parent).callees.load(Ordering::Acquire) & NUMBER;
            let mut length = 0;
            while callee != 0 {
                if *self.nodes.get(callee) == *node {
                    return Some(callee);
                }
                callee = self.link(callee).sibling.load(Ordering::Acquire);
                length += 1;
            }
            if length < CHAIN {
                return None;
            }
            (self.index).find(hash(node), |number| *self.nodes.get(number) == *node)
        }
    }

    /// The node of this frame, made if need be; the caller's where there is no room for more. Under the growth lock.
    pub(crate) fn intern(&self, file: &CaptureFile, node: NativeNode) -> Result<u32, Stop> {
        if let Some(found) = self.find(&node) {
            return Ok(found);
        }
        let Some(number) = self.push(file, node)? else {
            return Ok(node.parent);
        };
        // SAFETY: all are numbers of nodes.
        unsafe {
            let callees = &self.link(node.parent).callees;
            let before = callees.load(Ordering::Relaxed);
            let (first, count) = (before & NUMBER, before >> NUMBER_BITS);
            if count < CHAIN {
                // The newest first: what is called once is often called again soon. Who finds it finds what was stored before.
                self.link(number).sibling.store(first, Ordering::Relaxed);
                let after = (count + 1) << NUMBER_BITS | number;
                callees.store(after, Ordering::Release);
                return Ok(number);
            }
        }
        self.index.insert(file, hash(&node), number, |other| {
            // SAFETY: as in `find`.
            hash(unsafe { &*self.nodes.get(other) })
        })?;
        Ok(number)
    }

    /// The number of a loaded object; `Ok(None)` where there is no room. Under the growth lock.
    pub(crate) fn module(
        &self,
        file: &CaptureFile,
        definitions: &Definitions,
        object: &LoadedObject<'_>,
    ) -> Result<Option<u32>, Stop> {
        let text = RawText {
            bytes: object.path,
            kind: 0,
        };
        let Some(file_name) = definitions.string(file, text)? else {
            return Ok(None);
        };
        let mut module = Module {
            file_name,
            base: object.base,
            ..Module::default()
        };
        let length = object.build_id.len();
        if let Some(build_id) = module.build_id.get_mut(..length) {
            build_id.copy_from_slice(object.build_id);
            module.build_id_bytes = length as u32;
        }
        for number in 0..self.modules.len() {
            // SAFETY: a number below their count.
            if unsafe { *self.modules.get(number) == module } {
                return Ok(Some(number));
            }
        }
        self.modules.push(file, module)
    }
}

const _: () = assert!(1 << NUMBER_BITS >= (1 << 12) * 1024u32 && CHAIN < 1 << (32 - NUMBER_BITS));

#[inline]
fn hash(node: &NativeNode) -> u64 {
    mix(
        u64::from(node.parent) << 32 | u64::from(node.module),
        node.address,
    )
}
