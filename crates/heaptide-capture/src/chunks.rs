//! Where the events of a capture are: chunks as they were written, or packed into blocks later.

use std::fmt;
use std::io;

use heaptide_format::{
    CHUNK_HEADER_BYTES, ChunkHeader, PACKED_BLOCK_BYTES, PackedBlock, SegmentKind,
};
use zerocopy::FromBytes;

use crate::EventOrder;
use crate::packing::{self, Place, Unpacked};
use crate::segments::SegmentSummary;
use crate::source::Source;
use crate::warning::{WarningKind, Warnings};

/// Writers make chunks of at most 256 KiB.
const LARGEST_CHUNK_BYTES: u64 = 16 << 20;
/// Blocks of all streams that are held unpacked at the same time may have so many bytes. Packed ones may
/// claim to be far larger than what they take on disk.
const LARGEST_UNPACKED_BYTES: u64 = 4 << 30;

/// A piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventChunk {
    /// Number of the stream.
    pub stream: u32,
    /// Place in the stream.
    pub sequence: u32,
    /// Number of the thread that wrote it.
    pub thread: u32,
    /// File offset of the payload, or of the block that it is packed in.
    pub offset: u64,
    /// Bytes of the payload, head included, not packed.
    pub bytes: u64,
    /// Where it is packed.
    pub packed: Option<InBlock>,
}

/// A chunk's place in a packed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InBlock {
    /// Its number among those of the block.
    pub number: u32,
    /// Bytes of the events of all of the block's chunks, not packed.
    pub block_bytes: u32,
}

/// Where the events of a capture are. Nothing of them is held in memory.
#[derive(Default)]
pub struct EventLog {
    source: Option<Box<dyn Source>>,
    /// Ordered by stream and sequence.
    chunks: Vec<EventChunk>,
}

/// The events of a chunk, and those of its block around them.
#[derive(Debug, Default)]
pub(crate) struct ChunkBuffer {
    unpacked: Unpacked,
    /// File offset of the block.
    block: Option<u64>,
}

impl ChunkBuffer {
    /// What the places of chunks are in.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.unpacked.bytes
    }

    /// Is the block of this chunk in it?
    pub(crate) fn holds(&self, chunk: &EventChunk) -> bool {
        self.block == Some(chunk.offset)
    }

    /// The events at a place, if they are there as they were written.
    pub(crate) fn written(&self, place: &Place) -> Option<&[u8]> {
        match place {
            Place::Written(range) => self.unpacked.bytes.get(range.clone()),
            Place::Columns(_) => None,
        }
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EventLog")
            .field("chunks", &self.chunks.len())
            .finish_non_exhaustive()
    }
}

impl EventLog {
    pub(crate) fn new(
        source: Box<dyn Source>,
        segments: &[SegmentSummary],
        warnings: &mut Warnings,
    ) -> Self {
        let mut chunks = Vec::new();
        for segment in segments {
            match segment.kind {
                Some(SegmentKind::Events) => {
                    chunks.extend(plain_chunk(source.as_ref(), segment, warnings));
                }
                Some(SegmentKind::PackedEvents) => {
                    list_blocks(source.as_ref(), segment, &mut chunks, warnings);
                }
                _ => {}
            }
        }
        chunks.sort_by_key(|chunk| (chunk.stream, chunk.sequence));
        bound_memory(&mut chunks, warnings);
        Self {
            source: Some(source),
            chunks,
        }
    }

    /// The chunks, by stream and sequence.
    #[must_use]
    pub fn chunks(&self) -> &[EventChunk] {
        &self.chunks
    }

    /// Bytes of all chunks, not packed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    /// All events from the first on. Holds one chunk (or block of chunks) of each stream that has not ended.
    #[must_use]
    pub fn in_order(&self) -> EventOrder<'_> {
        EventOrder::new(self)
    }

    /// Reads the events of a chunk, and tells where they are in the buffer.
    pub(crate) fn read(&self, chunk: &EventChunk, buffer: &mut ChunkBuffer) -> io::Result<Place> {
        let Some(source) = self.source.as_deref() else {
            return Ok(Place::default());
        };
        let Some(packed) = chunk.packed else {
            buffer.block = None;
            let bytes = &mut buffer.unpacked.bytes;
            bytes.resize(usize::try_from(chunk.bytes).unwrap_or(0), 0);
            let count = source.read_at(chunk.offset, bytes)?;
            return Ok(Place::Written(CHUNK_HEADER_BYTES.min(count)..count));
        };
        if !buffer.holds(chunk) {
            buffer.block = None;
            read_block(source, chunk.offset, buffer)?;
            buffer.block = Some(chunk.offset);
        }
        let place = buffer.unpacked.chunks.get(packed.number as usize);
        Ok(place.cloned().unwrap_or_default())
    }
}

fn plain_chunk(
    source: &dyn Source,
    segment: &SegmentSummary,
    warnings: &mut Warnings,
) -> Option<EventChunk> {
    if segment.readable == 0 {
        // Given out and not begun when the program died.
        return None;
    }
    let mut head = [0; CHUNK_HEADER_BYTES];
    let read = source.read_at(segment.payload_offset(), &mut head).ok();
    let header = ChunkHeader::read_from_bytes(&head).unwrap_or_default();
    if read != Some(CHUNK_HEADER_BYTES)
        || segment.readable < CHUNK_HEADER_BYTES as u64
        || segment.readable > LARGEST_CHUNK_BYTES
    {
        warnings.add(WarningKind::DamagedEvents, Some(segment.offset), || {
            "a chunk of events has an impossible length and was left out".to_owned()
        });
        return None;
    }
    Some(EventChunk {
        stream: header.stream,
        sequence: header.sequence,
        thread: header.thread,
        offset: segment.payload_offset(),
        bytes: segment.readable,
        packed: None,
    })
}

/// Finds the chunks in a segment of packed events. Where a head is damaged the rest of the segment is lost.
fn list_blocks(
    source: &dyn Source,
    segment: &SegmentSummary,
    chunks: &mut Vec<EventChunk>,
    warnings: &mut Warnings,
) {
    let mut offset = segment.payload_offset();
    let end = offset + segment.readable;
    while offset < end {
        let heads = read_heads(source, offset)
            .ok()
            .flatten()
            .filter(|(head, _)| offset + u64::from(head.total_bytes) <= end);
        let Some((head, packed)) = heads else {
            warnings.add(WarningKind::DamagedEvents, Some(offset), || {
                "the head of a block of packed events is damaged; the blocks behind it are lost"
                    .to_owned()
            });
            return;
        };
        for (number, chunk) in (0..).zip(&packed) {
            chunks.push(EventChunk {
                stream: chunk.stream,
                sequence: chunk.sequence,
                thread: chunk.thread,
                offset,
                bytes: u64::from(chunk.event_bytes) + CHUNK_HEADER_BYTES as u64,
                packed: Some(InBlock {
                    number,
                    block_bytes: head.event_bytes,
                }),
            });
        }
        offset += u64::from(head.total_bytes);
    }
}

fn read_heads(
    source: &dyn Source,
    offset: u64,
) -> io::Result<Option<(PackedBlock, Vec<ChunkHeader>)>> {
    let mut bytes = vec![0; PACKED_BLOCK_BYTES];
    if source.read_at(offset, &mut bytes)? < bytes.len() {
        return Ok(None);
    }
    let head = PackedBlock::read_from_bytes(&bytes[..]).unwrap_or_default();
    let Some(directory) = packing::directory_bytes(&head) else {
        return Ok(None);
    };
    bytes.resize(PACKED_BLOCK_BYTES + directory, 0);
    let rest = &mut bytes[PACKED_BLOCK_BYTES..];
    if source.read_at(offset + PACKED_BLOCK_BYTES as u64, rest)? < directory {
        return Ok(None);
    }
    Ok(packing::read_heads(&bytes))
}

fn read_block(source: &dyn Source, offset: u64, buffer: &mut ChunkBuffer) -> io::Result<()> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "its packed block is damaged");
    let (head, chunks) = read_heads(source, offset)?.ok_or_else(damaged)?;
    let mut packed = vec![0; head.packed_bytes as usize];
    let start = offset + (PACKED_BLOCK_BYTES + size_of_val(chunks.as_slice())) as u64;
    if source.read_at(start, &mut packed)? < packed.len() {
        return Err(damaged());
    }
    packing::unpack(&head, &chunks, &packed, &mut buffer.unpacked).ok_or_else(damaged)
}

/// Each stream may hold its largest block; streams beyond the limit are left out.
fn bound_memory(chunks: &mut Vec<EventChunk>, warnings: &mut Warnings) {
    let mut held = 0;
    let mut left_out = None;
    for stream in chunks.chunk_by(|left, right| left.stream == right.stream) {
        let blocks = stream.iter().filter_map(|chunk| chunk.packed);
        let largest = blocks.map(|block| block.block_bytes).max().unwrap_or(0);
        // In columns, slots take more room.
        held += 2 * u64::from(largest);
        if held > LARGEST_UNPACKED_BYTES {
            left_out = Some(stream[0].stream);
            warnings.add(WarningKind::DamagedEvents, Some(stream[0].offset), || {
                "more streams of packed events than can be read at once; some were left out"
                    .to_owned()
            });
            break;
        }
    }
    if let Some(first) = left_out {
        chunks.retain(|chunk| chunk.stream < first);
    }
}
