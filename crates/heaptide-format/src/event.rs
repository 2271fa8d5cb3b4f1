//! Events: the compact streams of mode "all". [`crate::Encoder`] writes them, [`crate::Decoder`] is the way back.
//!
//! Each thread writes streams of its own, cut into chunks (one [`crate::SegmentKind::Events`] segment
//! each) that can be decoded alone. Chunks of all threads are put into one order by *turns*: see
//! [`crate::Encoder::turn`]. Events refer to what encoder and decoder both remember of the chunk: sites (stack node,
//! allocator, size), which site followed which, addresses.
//!
//! ```text
//! control byte  28 m + c: m says what happens and how its site is told, c how its address is; from 252 on others
//! m  0          free            address, stamp
//!    1          allocation      address, stamp: the site that followed last time
//!    2          allocation      size, address, stamp: stack node and allocator of the last allocation
//!    3          allocation      node (zigzag delta, doubled, plus 1 if followed by an allocator u8), size, address, stamp
//!    4 to 8     allocation      u8, address, stamp: the site in slot 256 (m - 4) + u8
//! c  0 to 15    u8: the address in slot 256 c + u8
//!    16         the obvious address: of the stream's last free for an allocation, of its last allocation for a free
//!    17         10 less than the zigzag delta to the last address so told, rotated right by 4 bits
//!    18 to 27   that delta, 0 to 9
//! 252           turn: delta
//! 253           u8: 1 the last free did not happen, 2 unmap: address, length, 3 the last unmap did not happen; stamp
//! 254           an object: then a control byte and what follows it, as for a free (it is destroyed) or an allocation (it
//!               was made), with allocator 0 and, for the size, the number of the name of its type plus 1
//! stamp         delta of the time stamp, in turns with odd numbers only
//! ```
//! Numbers are LEB128 varints. The slot of a site and of an address follow from themselves: `site_slot` and
//! `address_place` of `memory.rs`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Head of every chunk, counted in its committed bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ChunkHeader {
    /// Number of the stream; a stream is written by one thread.
    pub stream: u32,
    /// Number of the chunk in its stream, from 0 without gaps.
    pub sequence: u32,
    /// Number of the thread.
    pub thread: u32,
    /// Bytes of its events in a [`crate::PackedBlock`], else zero.
    pub event_bytes: u32,
}

/// Size of a [`ChunkHeader`].
pub const CHUNK_HEADER_BYTES: usize = 16;
const _: () = assert!(size_of::<ChunkHeader>() == CHUNK_HEADER_BYTES);

/// No event is longer; an encoder wants this much room.
pub const MOST_EVENT_BYTES: usize = 64;

/// Control bytes of one sort, one for each way to tell an address.
pub(crate) const ADDRESS_CODES: u8 = 28;
pub(crate) const FREE: u8 = 0;
pub(crate) const SITE_EXPECTED: u8 = 1;
pub(crate) const SITE_OF_ANOTHER_SIZE: u8 = 2;
pub(crate) const SITE_NEW: u8 = 3;
pub(crate) const SITE_KNOWN: u8 = 4;

pub(crate) const ADDRESS_OBVIOUS: u8 = 16;
pub(crate) const ADDRESS_FAR: u8 = 17;
pub(crate) const ADDRESS_NEAR: u8 = 18;
/// Deltas below this one are in the control byte.
pub(crate) const FAR: u64 = 10;

pub(crate) const TURN: u8 = 252;
pub(crate) const RARE: u8 = 253;
/// What follows is about a Python object.
pub(crate) const OBJECT: u8 = 254;
/// No event of this version begins with this byte or a larger one.
pub(crate) const NOTHING: u8 = 255;
pub(crate) const FREE_UNDONE: u8 = 1;
pub(crate) const UNMAP: u8 = 2;
pub(crate) const UNMAP_UNDONE: u8 = 3;

/// What makes one allocation like another: where, by which function, how large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Site {
    /// Number of the stack node.
    pub node: u32,
    /// Raw [`crate::Allocator`]
    pub allocator: u8,
    /// Bytes asked for.
    pub size: u64,
}

/// One event of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A block or a mapping was made.
    Allocated {
        /// Its first byte.
        address: u64,
        /// Where, how, how much.
        site: Site,
    },
    /// A block is given back.
    Freed {
        /// Its first byte.
        address: u64,
    },
    /// The last [`Event::Freed`] of this stream did not happen (a `realloc` failed).
    FreeUndone,
    /// All mappings within a range of addresses end there.
    Unmapped {
        /// First byte, on a page.
        address: u64,
        /// Bytes, whole pages.
        length: u64,
    },
    /// The last [`Event::Unmapped`] of this stream did not happen.
    UnmapUndone,
    /// A Python object was made.
    ObjectMade {
        /// Its first byte, as `id()` tells it.
        address: u64,
        /// Number of the stack node.
        node: u32,
        /// Number of the string that is the name of its type, or [`crate::NO_STRING`].
        type_name: u32,
    },
    /// A Python object is destroyed.
    ObjectGone {
        /// Its first byte.
        address: u64,
    },
}

/// Where an event stands among those of all threads: first by turn, then by stamp, then as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// The turn. An even one belongs to one stream alone.
    pub turn: u64,
    /// Time stamp in odd turns, in a unit of the writer's; zero in even ones.
    pub stamp: u64,
}

/// Does this turn belong to several streams at once?
#[must_use]
#[inline]
pub const fn turn_is_shared(turn: u64) -> bool {
    turn & 1 == 1
}

/// The next turn after `turn` that one stream (or the sampler) has for itself.
#[must_use]
#[inline]
pub const fn next_own_turn(turn: u64) -> u64 {
    (turn | 1).wrapping_add(1)
}

/// The next turn after `turn` that several streams share.
#[must_use]
#[inline]
pub const fn next_shared_turn(turn: u64) -> u64 {
    turn.wrapping_add(1) | 1
}

#[cfg(test)]
mod tests;
