//! The records of native stacks: loaded objects and the frames in them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Native node 0: the empty native stack.
pub const NATIVE_ROOT: u32 = 0;
/// In [`NativeNode::module`]: nobody knows what was there, and the address is the one in memory.
pub const NO_MODULE: u32 = u32::MAX;
/// The longest build-id that a [`Module`] has room for.
pub const BUILD_ID_BYTES: usize = 32;

/// A file that was mapped at a base. The same file at another base is another module.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Module {
    /// String number of its path.
    pub file_name: u32,
    /// Bytes of the build-id; zero: not known.
    pub build_id_bytes: u32,
    /// What is added to the addresses in the file when it is mapped.
    pub base: u64,
    /// The build-id, then zeros.
    pub build_id: [u8; BUILD_ID_BYTES],
}

impl Module {
    /// The build-id, where it is known.
    #[must_use]
    pub fn known_build_id(&self) -> Option<&[u8]> {
        let id = self.build_id.get(..self.build_id_bytes as usize)?;
        (!id.is_empty()).then_some(id)
    }
}

/// One native frame of a stack, in a trie: the stack of a node is the node and its ancestors, down to [`NATIVE_ROOT`].
///
/// A parent always has a smaller number than its children.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct NativeNode {
    /// The caller's node.
    pub parent: u32,
    /// Number of the module, or [`NO_MODULE`].
    pub module: u32,
    /// Where the frame goes on (the address that a call of its returns to), less the base of the module. What it is doing
    /// is before that.
    pub address: u64,
}

const _: () = {
    assert!(size_of::<Module>() == 48);
    assert!(size_of::<NativeNode>() == 16);
};
