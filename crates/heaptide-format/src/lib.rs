//! The heaptide capture file, format version 1: plain data, no I/O, no allocation.
//!
//! Both sides share this crate and nothing else: the agent stores into a shared mapping of the
//! file while the program runs, and any reader may look at it at any moment. The normative text is
//! `docs/format/capture-v1.md`; the types here are its executable form.
//!
//! All integers are little-endian, all records are naturally aligned, and no record holds a
//! pointer: places in the file are byte offsets or record numbers.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!(
    "the capture format is little-endian and is mapped directly: big-endian hosts are not supported"
);

mod columns;
mod decoder;
mod definition;
mod encoder;
mod event;
mod header;
mod live;
mod memory;
mod native;
mod node_stream;
mod packed;
mod record;
mod segment;

pub use columns::{COLUMNS, Column, ColumnPlaces, Fields, InColumns, Written, sort_fields};
pub use decoder::{BadEvent, Decoder, Receiver};
pub use definition::{CodeFixed, DefinitionHeader, DefinitionKind, MetadataKey, StringEncoding};
pub use encoder::Encoder;
pub use event::{
    CHUNK_HEADER_BYTES, ChunkHeader, Event, MOST_EVENT_BYTES, Moment, Site, next_own_turn,
    next_shared_turn, turn_is_shared,
};
pub use header::{
    FEATURE_NATIVE_STACKS, FEATURE_NODE_STREAM, FEATURE_OBJECT_EVENTS, FEATURE_PACKED_EVENTS,
    FEATURE_PACKED_RECORDS, FORMAT_VERSION, HEADER_BYTES, Header, HeapWord, Identity,
    KNOWN_FEATURES, Lifecycle, MAGIC, Mode, NOTHING_KEPT, Origin, Outcome, OwnCost,
    PYTHON_ALLOCATORS, PYTHON_OBJECTS, PythonAllocator, State, StopReason, TOTALS_UNKNOWN, offsets,
};
pub use live::{
    LIVE_BYTES, LIVE_ENDED, LIVE_MAGIC, LIVE_MOST_PIECES, LIVE_NOTHING, LIVE_PIECE_BYTES,
    LIVE_REQUEST, LIVE_SAME, LIVE_VERSION, LiveHello, LiveReply, LiveRequest, LiveWanted,
    live_hash,
};
pub use native::{BUILD_ID_BYTES, Module, NATIVE_ROOT, NO_MODULE, NativeNode};
pub use node_stream::{BadNode, MOST_NODE_BYTES, NodeDecoder, NodeEncoder, NodeEntry};
pub use packed::{
    LARGEST_BLOCK_BYTES, LARGEST_RECORD_BLOCK_BYTES, MOST_EXPANSION, PACKED_BLOCK_BYTES,
    PackedBlock, Packing, RECORD_BLOCK_BYTES, RecordBlock, RecordPacking,
};
pub use record::{
    Allocator, Cell, CellKind, HISTOGRAM_BINS, NO_CODE, NO_STRING, NO_THREAD, NODE_BELOW,
    NODE_COMBINED, NODE_ENTRY, NODE_FOLDED, NODE_OVERFLOW, NODE_ROOT, Node, PythonDomain, Sample,
    Slot, Survivor, THREAD_OVERFLOW, Thread, histogram_bin, histogram_bounds,
};
pub use segment::{
    SEGMENT_HEADER_BYTES, SEGMENT_IN_BLOCKS, SEGMENT_MAGIC, SegmentHeader, SegmentKind,
};

/// CRC-32 (IEEE 802.3) of `bytes`, as used by every checksum of the format.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}
