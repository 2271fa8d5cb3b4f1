//! Which nodes a thread has lately found for frames that are not where they were at its last walk: a loop
//! that allocates at several places, a function that is called again and again.
//!
//! The trie finds them too, but by a chain of siblings whose length the processor cannot foresee.

use heaptide_format::NODE_OVERFLOW;
use heaptide_recorder::{Stop, mix};

use crate::{RECORDER, walk};

/// One of them; all zero bytes: none. What it says holds for as long as the memo's stamp is what it was.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct KnownNode {
    code: usize,
    parent: u32,
    offset: i32,
    stamp: u32,
    node: u32,
}

/// A power of two, for one page and a half.
pub(crate) const KNOWN_NODES: usize = 256;

/// Is this a node of its own below `parent`? A child is younger than its parent. What was folded onto an earlier
/// frame, or had no room, is not.
#[inline(always)]
pub(crate) const fn is_child(node: u32, parent: u32) -> bool {
    node > parent && node != NODE_OVERFLOW
}

/// The node of the frame that stands at `offset` of `code`, on top of `parent`.
///
/// # Safety
/// There are [`KNOWN_NODES`] at `known`, and nobody else uses them. No code object has been destroyed since
/// what carries this `stamp`, which is not 0, was written.
#[inline(always)]
pub(crate) unsafe fn find(
    known: *mut KnownNode,
    stamp: u32,
    parent: u32,
    code: usize,
    offset: i32,
) -> Result<u32, Stop> {
    let hash = mix(
        code as u64,
        u64::from(parent) << 32 | u64::from(offset as u32),
    );
    // SAFETY: the place is below their number.
    let known = unsafe { &mut *known.add(hash as usize % KNOWN_NODES) };
    if known.code == code
        && known.parent == parent
        && known.offset == offset
        && known.stamp == stamp
    {
        return Ok(known.node);
    }
    let node = RECORDER.node(parent, walk::number(code)?, offset)?;
    // The recorder counts each frame that is folded, so it is asked each time.
    if is_child(node, parent) {
        *known = KnownNode {
            code,
            parent,
            offset,
            stamp,
            node,
        };
    }
    Ok(node)
}

#[cfg(test)]
mod tests {
    use heaptide_format::NODE_ROOT;

    use super::*;

    #[test]
    fn children_are_younger_and_have_room() {
        assert!(is_child(2, NODE_ROOT));
        assert!(is_child(8, 7));
        assert!(!is_child(7, 7), "folded onto itself");
        assert!(!is_child(3, 7), "folded onto an ancestor");
        assert!(!is_child(NODE_OVERFLOW, NODE_ROOT));
        assert!(!is_child(NODE_OVERFLOW, 7));
    }
}
