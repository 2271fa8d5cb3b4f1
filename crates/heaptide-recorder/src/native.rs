//! Native stacks: a trie of return addresses, and the loaded objects that they are in.

use heaptide_format::{BUILD_ID_BYTES, Module, NATIVE_ROOT, NO_MODULE, NativeNode, SegmentKind};

use crate::definitions::{Definitions, RawText};
use crate::file::{CaptureFile, Stop};
use crate::hash::mix;
use crate::index::Index;
use crate::pool::Pool;

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

pub(crate) struct Native {
    nodes: Pool<NativeNode, 12, 1024>,
    index: Index,
    modules: Pool<Module, 6, 1024>,
}

impl Native {
    pub(crate) const fn new() -> Self {
        Self {
            nodes: Pool::new(SegmentKind::NativeFrames),
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
        self.nodes.push(file, root).map(|_| ())
    }

    /// The node of this frame, if it has been seen on this caller.
    #[inline]
    pub(crate) fn find(&self, node: &NativeNode) -> Option<u32> {
        // SAFETY: numbers in the index were given out by the pool.
        (self.index).find(hash(node), |number| unsafe {
            *self.nodes.get(number) == *node
        })
    }

    /// The node of this frame, made if need be; the caller's where there is no room for more. Under the growth lock.
    pub(crate) fn intern(
        &self,
        file: &CaptureFile,
        node: NativeNode,
        budget: u32,
    ) -> Result<u32, Stop> {
        if let Some(found) = self.find(&node) {
            return Ok(found);
        }
        if self.nodes.len() >= budget {
            return Ok(node.parent);
        }
        let Some(number) = self.nodes.push(file, node)? else {
            return Ok(node.parent);
        };
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

const _: () = assert!(BUILD_ID_BYTES == 32);

#[inline]
fn hash(node: &NativeNode) -> u64 {
    mix(
        u64::from(node.parent) << 32 | u64::from(node.module),
        node.address,
    )
}
