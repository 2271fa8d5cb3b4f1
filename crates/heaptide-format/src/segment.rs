//! Segments: the typed, length-committed pieces that follow the header page.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::header::code_enum;

/// `"SEG1"`; the last field of a segment header to be stored, so a reader sees a whole header or none.
pub const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"SEG1");
/// Bit of [`SegmentHeader::kind`], beside a kind that has records or is definitions: the payload is not these themselves but
/// blocks ([`crate::RecordBlock`]). First index and size of a record are those of what is in the blocks.
pub const SEGMENT_IN_BLOCKS: u32 = 1 << 16;
/// Size of a [`SegmentHeader`]; the payload follows it.
pub const SEGMENT_HEADER_BYTES: usize = 64;

/// The start of every segment.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SegmentHeader {
    /// [`SEGMENT_MAGIC`]. Zero: no segment here yet, and none after.
    pub magic: u32,
    /// [`SegmentKind`], perhaps with [`SEGMENT_IN_BLOCKS`]; readers skip kinds they do not know.
    pub kind: u32,
    /// Bytes from this header to the next segment, a multiple of the page size.
    pub capacity: u64,
    /// Number of the first record, for kinds whose records are numbered.
    pub first_index: u64,
    /// Size of a record; zero for a stream of records that carry their own length.
    pub record_bytes: u32,
    /// Checksum of the header's bytes from `kind` to `record_bytes`.
    pub checksum: u32,
    /// Payload bytes that are whole and may be read. Only ever grows; stored after what it covers.
    pub committed: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

const _: () = assert!(size_of::<SegmentHeader>() == SEGMENT_HEADER_BYTES);

impl SegmentHeader {
    /// The checksum this header should carry.
    #[must_use]
    pub fn expected_checksum(&self) -> u32 {
        crate::checksum(&self.as_bytes()[4..28])
    }

    /// A header with nothing committed, magic and checksum set.
    #[must_use]
    pub fn new(kind: SegmentKind, capacity: u64, first_index: u64, record_bytes: u32) -> Self {
        let mut header = Self {
            magic: SEGMENT_MAGIC,
            kind: kind as u32,
            capacity,
            first_index,
            record_bytes,
            checksum: 0,
            committed: 0,
            reserved: [0; 3],
        };
        header.checksum = header.expected_checksum();
        header
    }
}

code_enum! {
    /// What a segment holds.
    SegmentKind {
        /// A stream of definitions: strings, code objects, metadata.
        Definitions = 1 => "definitions",
        /// [`crate::Node`] records.
        Nodes = 2 => "nodes",
        /// [`crate::Cell`] records.
        Cells = 3 => "cells",
        /// [`crate::Thread`] records.
        Threads = 4 => "threads",
        /// [`crate::Slot`] records.
        Slots = 5 => "slots",
        /// [`crate::Sample`] records.
        Samples = 6 => "samples",
        /// Working memory of the writer (hash tables). Nothing for a reader.
        Scratch = 7 => "scratch",
        /// Events in order (mode "all").
        Events = 8 => "events",
        /// [`crate::Module`] records: loaded objects.
        Modules = 9 => "modules",
        /// [`crate::NativeNode`] records.
        NativeFrames = 10 => "native frames",
        /// Events of a capture that is finished, in blocks ([`crate::PackedBlock`]).
        PackedEvents = 11 => "packed events",
        /// [`crate::Survivor`] records, in the order in which the objects were made. Written when tracking has ended.
        Survivors = 12 => "survivors",
        /// Stack nodes while the program runs, as differences ([`crate::NodeDecoder`]).
        NodeStream = 13 => "node stream",
    }
}

impl SegmentKind {
    /// Whether such a segment may be [`SEGMENT_IN_BLOCKS`].
    #[must_use]
    pub const fn may_be_in_blocks(self) -> bool {
        matches!(
            self,
            Self::Definitions
                | Self::Nodes
                | Self::Cells
                | Self::Threads
                | Self::Slots
                | Self::Samples
                | Self::Modules
                | Self::NativeFrames
                | Self::Survivors
        )
    }
}
