//! Blocks of events and of records as they stand in a capture that was compressed after its program had ended.

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

/// Blocks of records are never larger than this when they are unpacked.
pub const LARGEST_RECORD_BLOCK_BYTES: u32 = 256 << 10;
/// A block of records unpacks to at most so many times its `total_bytes`, so that a small file cannot ask for all memory.
pub const MOST_EXPANSION: u64 = 16;

/// The head of a block of a segment of records, or of definitions, that is [`crate::SEGMENT_IN_BLOCKS`]. The packed
/// bytes follow it, then zeros.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct RecordBlock {
    /// Bytes to the next block, a multiple of 8.
    pub total_bytes: u32,
    /// Bytes of the records: whole ones, where they are numbered.
    pub unpacked_bytes: u32,
    /// Bytes that they were packed into.
    pub packed_bytes: u32,
    /// [`RecordPacking`]
    pub packing: u32,
    /// Bytes of the columns before they became an LZ4 block; zero in the other packings.
    pub column_bytes: u32,
    /// Checksum of the records.
    pub records_checksum: u32,
    /// Checksum of this head up to here.
    pub checksum: u32,
    /// Zero.
    pub reserved: u32,
}

/// Size of a [`RecordBlock`].
pub const RECORD_BLOCK_BYTES: usize = 32;
const _: () = assert!(size_of::<RecordBlock>() == RECORD_BLOCK_BYTES);

impl RecordBlock {
    /// The checksum this head should carry.
    #[must_use]
    pub fn expected_checksum(&self) -> u32 {
        crate::checksum(&self.as_bytes()[..24])
    }
}

code_enum! {
    /// How the records of a block are packed.
    RecordPacking {
        /// They are not.
        Stored = 0 => "stored",
        /// An LZ4 block.
        Lz4 = 1 => "lz4",
        /// Their 32-bit words are sorted into columns, in each the differences from record to record, as an LZ4 block.
        Columns = 2 => "columns",
    }
}
