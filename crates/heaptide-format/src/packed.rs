//! Blocks of events as they stand in a capture that was compressed after its program had ended.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::header::code_enum;

/// Blocks with more bytes of events than this are not read.
pub const LARGEST_BLOCK_BYTES: u32 = 1 << 20;

/// The head of a block: some consecutive chunks of one stream. A [`crate::ChunkHeader`] for each of them follows,
/// with the length of its events in `event_bytes`, then the packed bytes, then zeros up to a multiple of 8.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct PackedBlock {
    /// Bytes to the next block, a multiple of 8.
    pub total_bytes: u32,
    /// How many chunks.
    pub chunks: u32,
    /// Bytes of the events of all chunks, without heads, one chunk after the other.
    pub event_bytes: u32,
    /// Bytes that they were packed into.
    pub packed_bytes: u32,
    /// [`Packing`]
    pub packing: u32,
    /// Checksum of what was packed: the events, or the lengths of columns and the columns.
    pub events_checksum: u32,
    /// Checksum of this head up to here and of the heads of the chunks.
    pub checksum: u32,
    /// Zero.
    pub reserved: u32,
}

/// Size of a [`PackedBlock`].
pub const PACKED_BLOCK_BYTES: usize = 32;
const _: () = assert!(size_of::<PackedBlock>() == PACKED_BLOCK_BYTES);

code_enum! {
    /// How the events of a block are packed.
    Packing {
        /// They are not.
        Stored = 0 => "stored",
        /// An LZ4 block.
        Lz4 = 1 => "lz4",
        /// Their fields are sorted into columns ([`crate::Column`]), each an LZ4 block or stored.
        Columns = 2 => "columns",
    }
}
