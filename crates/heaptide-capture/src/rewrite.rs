//! Writes a capture anew when its program has ended: events and records packed, and nothing that was only of use to the
//! writer (tables of working memory, room that was not needed).

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use heaptide_format::{
    CHUNK_HEADER_BYTES, FEATURE_NODE_STREAM, FEATURE_PACKED_EVENTS, FEATURE_PACKED_RECORDS,
    HEADER_BYTES, Header, Identity, KNOWN_FEATURES, LARGEST_BLOCK_BYTES,
    LARGEST_RECORD_BLOCK_BYTES, MAGIC, NODE_FOLDED, Node, SEGMENT_HEADER_BYTES, SEGMENT_IN_BLOCKS,
    SegmentHeader, SegmentKind,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::batch::{Batch, Block};
use crate::chunks::{ChunkBuffer, EventLog};
use crate::node_streams::{NodeRun, is_node_stream};
use crate::record_blocks;
use crate::segments::{SegmentSummary, list_segments};
use crate::source::{FileSource, Source};
use crate::warning::Warnings;

/// Blocks are gathered up to about this size for a segment.
const SEGMENT_BYTES: usize = 1 << 20;
const COPY_BYTES: u64 = 256 << 10;

/// Why a capture was not written anew. The original has not been touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewriteError {
    /// It is no whole capture of this version; what is there is better left alone.
    #[error("the capture is damaged: {0}")]
    Damaged(String),
    /// It has been written anew already.
    #[error("it is compressed already")]
    DoneBefore,
    /// The caller wanted no more of it.
    #[error("interrupted")]
    Interrupted,
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Length of the original.
    pub bytes_before: u64,
    /// Length now.
    pub bytes_after: u64,
}

/// Writes the capture `original`, which nobody writes any more, to the empty file `target`. Records and
/// events are the same, byte for byte. `go_on` is asked often, with the bytes read so far and those in all.
///
/// Memory: a few MiB, and 40 bytes for each chunk of events.
///
/// # Errors
/// See [`RewriteError`]; `target` then holds anything.
pub fn rewrite(
    original: &File,
    target: &File,
    go_on: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Rewritten, RewriteError> {
    let source = FileSource::from(original.try_clone()?);
    let mut header = read_header(&source)?;
    let mut warnings = Warnings::default();
    let segments = list_segments(
        &source,
        HEADER_BYTES as u64,
        header.lifecycle.allocated_end,
        &mut warnings,
    )?;
    let log = EventLog::new(Box::new(source), &segments, &mut warnings);
    if let Some(warning) = warnings.into_vec().first() {
        return Err(RewriteError::Damaged(warning.to_string()));
    }
    let bytes_before = original.metadata()?.len();
    let mut writer = Writer {
        original,
        target,
        page: (header.identity.page_bytes as usize).clamp(HEADER_BYTES, 1 << 16),
        end: HEADER_BYTES as u64,
        done: 0,
        total: bytes_before,
        go_on,
    };
    let mut kept: Vec<&SegmentSummary> =
        segments.iter().filter(|segment| is_kept(segment)).collect();
    // Tables stand in pieces all over the file; those that follow one another become one. Streams keep their order.
    kept.sort_by_key(|segment| (segment.raw_kind, segment.first_index));
    let mut in_blocks = false;
    for table in kept.chunk_by(|one, next| is_continued(one, next)) {
        if is_packed(table[0]) {
            writer.pack_records(table)?;
            in_blocks = true;
        } else {
            writer.copy(table[0])?;
        }
    }
    in_blocks |= writer.pack_nodes(&segments)?;
    let packed = writer.pack_all(&log)?;
    header.lifecycle.allocated_end = writer.end;
    header.identity.required_features &= !FEATURE_NODE_STREAM;
    for (is_there, feature) in [
        (packed, FEATURE_PACKED_EVENTS),
        (in_blocks, FEATURE_PACKED_RECORDS),
    ] {
        if is_there {
            header.identity.required_features |= feature;
        }
    }
    header.identity.checksum = Identity::expected_checksum(&header.identity);
    let bytes_after = writer.end;
    target.set_len(bytes_after)?;
    // Last: without it the file is no capture.
    target.write_all_at(header.as_bytes(), 0)?;
    Ok(Rewritten {
        bytes_before,
        bytes_after,
    })
}

/// What is not events says something to a reader?
fn is_kept(segment: &SegmentSummary) -> bool {
    match segment.kind {
        Some(SegmentKind::Events | SegmentKind::Scratch | SegmentKind::NodeStream) => false,
        // Says that nothing has survived, where it is empty.
        Some(SegmentKind::Survivors) => true,
        _ => segment.readable > 0,
    }
}

/// Others are kinds that we do not know.
fn is_packed(segment: &SegmentSummary) -> bool {
    segment.kind.is_some_and(SegmentKind::may_be_in_blocks)
        && segment.record_bytes <= LARGEST_RECORD_BLOCK_BYTES
}

/// Do the records of `next` have the numbers behind those of `one`, or are both of a stream?
fn is_continued(one: &SegmentSummary, next: &SegmentSummary) -> bool {
    let bytes = u64::from(one.record_bytes);
    let alike = one.raw_kind == next.raw_kind && one.record_bytes == next.record_bytes;
    let follows = bytes == 0
        || one.readable.is_multiple_of(bytes)
            && one.first_index.checked_add(one.readable / bytes) == Some(next.first_index);
    alike && is_packed(one) && follows
}

/// Of a whole capture that has not been written anew.
pub(crate) fn read_header(source: &FileSource) -> Result<Header, RewriteError> {
    let damaged = |what: &str| RewriteError::Damaged(what.to_owned());
    let mut bytes = [0; HEADER_BYTES];
    if source.read_at(0, &mut bytes)? < bytes.len() {
        return Err(damaged("it has no whole header"));
    }
    let header = Header::read_from_bytes(&bytes).map_err(|_| damaged("it has no header"))?;
    let identity = &header.identity;
    if identity.magic != MAGIC
        || identity.version != heaptide_format::FORMAT_VERSION
        || identity.checksum != identity.expected_checksum()
    {
        return Err(damaged("its identity is not whole"));
    }
    if identity.required_features & (FEATURE_PACKED_EVENTS | FEATURE_PACKED_RECORDS) != 0 {
        return Err(RewriteError::DoneBefore);
    }
    if identity.required_features & !KNOWN_FEATURES != 0 {
        return Err(damaged("it uses features that this version does not know"));
    }
    Ok(header)
}

struct Writer<'a> {
    original: &'a File,
    target: &'a File,
    page: usize,
    /// Where the next segment goes.
    end: u64,
    done: u64,
    total: u64,
    go_on: &'a mut dyn FnMut(u64, u64) -> bool,
}

impl Writer<'_> {
    /// So many more bytes of the original are done.
    fn advance(&mut self, bytes: u64) -> Result<(), RewriteError> {
        self.done += bytes;
        if (self.go_on)(self.done, self.total) {
            Ok(())
        } else {
            Err(RewriteError::Interrupted)
        }
    }

    /// The header of a segment for `payload` bytes; returns where the payload goes.
    fn begin_segment(
        &mut self,
        kind: u32,
        first_index: u64,
        record_bytes: u32,
        payload: u64,
    ) -> io::Result<u64> {
        let start = self.end;
        let capacity = (SEGMENT_HEADER_BYTES as u64 + payload).next_multiple_of(self.page as u64);
        let mut header = SegmentHeader::new(
            SegmentKind::PackedEvents,
            capacity,
            first_index,
            record_bytes,
        );
        // Kinds that we do not know are copied as well.
        header.kind = kind;
        header.checksum = header.expected_checksum();
        header.committed = payload;
        self.target.write_all_at(header.as_bytes(), start)?;
        self.end = start + capacity;
        Ok(start + SEGMENT_HEADER_BYTES as u64)
    }

    /// A segment without the room that it did not need.
    fn copy(&mut self, segment: &SegmentSummary) -> Result<(), RewriteError> {
        let to = self.begin_segment(
            segment.raw_kind,
            segment.first_index,
            segment.record_bytes,
            segment.readable,
        )?;
        let mut buffer = vec![0; COPY_BYTES.min(segment.readable) as usize];
        let mut at = 0;
        while at < segment.readable {
            let piece = &mut buffer[..COPY_BYTES.min(segment.readable - at) as usize];
            self.original
                .read_exact_at(piece, segment.payload_offset() + at)?;
            self.target.write_all_at(piece, to + at)?;
            at += piece.len() as u64;
            self.advance(piece.len() as u64)?;
        }
        Ok(())
    }

    /// Records in segments that follow one another, or a stream.
    fn pack_records(&mut self, segments: &[&SegmentSummary]) -> Result<(), RewriteError> {
        let mut table = PackedTable::new(segments[0]);
        for segment in segments {
            // Where a block is lost a stream can be taken up again: blocks begin where segments began.
            if table.stride == 0 {
                table.finish_block();
                self.write_table(&mut table, SEGMENT_BYTES)?;
            }
            let mut at = 0;
            while at < segment.readable {
                let length = table.wanted().min(segment.readable - at);
                let to = table.records.len();
                table.records.resize(to + length as usize, 0);
                self.original
                    .read_exact_at(&mut table.records[to..], segment.payload_offset() + at)?;
                at += length;
                self.advance(length)?;
                if table.wanted() == 0 {
                    table.finish_block();
                    self.write_table(&mut table, SEGMENT_BYTES)?;
                }
            }
        }
        table.finish_block();
        self.write_table(&mut table, 0)
    }

    /// The nodes of all streams as a table; false when there are none.
    fn pack_nodes(&mut self, segments: &[SegmentSummary]) -> Result<bool, RewriteError> {
        let streams = || segments.iter().filter(|segment| is_node_stream(segment));
        let mut folded = BTreeSet::new();
        for segment in streams() {
            folded.extend(self.read_nodes(segment)?.folds);
        }
        let mut table: Option<PackedTable> = None;
        let mut next = None;
        for segment in streams() {
            let mut run = self.read_nodes(segment)?;
            if next.is_some_and(|next| next != run.first) {
                return Err(RewriteError::Damaged(
                    "segments of stack nodes do not follow one another".to_owned(),
                ));
            }
            next = run.first.checked_add(run.nodes.len() as u32);
            for &number in folded.range(run.first..) {
                match run.get_mut(number) {
                    Some(node) => node.flags |= NODE_FOLDED,
                    None => break,
                }
            }
            let table = table.get_or_insert_with(|| PackedTable::of_nodes(run.first));
            let mut bytes = run.nodes.as_bytes();
            while !bytes.is_empty() {
                let (records, rest) = bytes.split_at(bytes.len().min(table.wanted() as usize));
                table.records.extend_from_slice(records);
                bytes = rest;
                if table.wanted() == 0 {
                    table.finish_block();
                    self.write_table(table, SEGMENT_BYTES)?;
                }
            }
            self.advance(segment.readable)?;
        }
        let Some(mut table) = table else {
            return Ok(false);
        };
        table.finish_block();
        self.write_table(&mut table, 0)?;
        Ok(true)
    }

    fn read_nodes(&self, segment: &SegmentSummary) -> Result<NodeRun, RewriteError> {
        let length = segment.readable.min(u64::from(LARGEST_RECORD_BLOCK_BYTES));
        let mut bytes = vec![0; length as usize];
        self.original
            .read_exact_at(&mut bytes, segment.payload_offset())?;
        let run = NodeRun::decode(&bytes, segment.first_index);
        if run.damaged || length < segment.readable {
            return Err(RewriteError::Damaged(
                "a segment of stack nodes says what cannot be".to_owned(),
            ));
        }
        Ok(run)
    }

    /// Writes the gathered blocks of records once there are `least` bytes of them.
    fn write_table(&mut self, table: &mut PackedTable, least: usize) -> Result<(), RewriteError> {
        // One without blocks is for a table that is empty.
        let is_due = table.blocks.len() >= least && (table.unpacked > 0 || !table.is_written);
        if is_due {
            let to = self.begin_segment(
                table.kind | SEGMENT_IN_BLOCKS,
                table.first_index,
                table.stride,
                table.blocks.len() as u64,
            )?;
            self.target.write_all_at(&table.blocks, to)?;
            table.begin_next();
        }
        Ok(())
    }

    /// The events of all streams, one after the other; false when there are none.
    fn pack_all(&mut self, log: &EventLog) -> Result<bool, RewriteError> {
        let bytes = log.chunks().iter().map(|chunk| chunk.bytes).sum();
        let mut batch = Batch::new(bytes);
        let mut segment = Vec::new();
        let mut buffer = ChunkBuffer::default();
        for stream in log
            .chunks()
            .chunk_by(|left, right| left.stream == right.stream)
        {
            let mut block = Block::default();
            for chunk in stream {
                let place = log.read(chunk, &mut buffer)?;
                let events = buffer.written(&place).unwrap_or_default();
                if events.len() + CHUNK_HEADER_BYTES != chunk.bytes as usize
                    || events.len() > LARGEST_BLOCK_BYTES as usize
                {
                    return Err(RewriteError::Damaged(
                        "a chunk of events has an impossible length".to_owned(),
                    ));
                }
                if !block.takes(events.len()) {
                    batch.push(std::mem::take(&mut block));
                    if batch.is_full() {
                        self.write_batch(&mut batch, &mut segment)?;
                    }
                }
                block.push(chunk, events);
                self.advance(chunk.bytes)?;
            }
            batch.push(block);
            if batch.is_full() {
                self.write_batch(&mut batch, &mut segment)?;
            }
        }
        self.write_batch(&mut batch, &mut segment)?;
        self.write_segment(&mut segment, 1)?;
        Ok(!log.chunks().is_empty())
    }

    fn write_batch(&mut self, batch: &mut Batch, segment: &mut Vec<u8>) -> io::Result<()> {
        for block in batch.pack() {
            segment.extend_from_slice(&block);
            self.write_segment(segment, SEGMENT_BYTES)?;
        }
        Ok(())
    }

    /// Writes the gathered blocks once there are `least` bytes of them.
    fn write_segment(&mut self, blocks: &mut Vec<u8>, least: usize) -> io::Result<()> {
        if blocks.len() >= least {
            let kind = SegmentKind::PackedEvents as u32;
            let to = self.begin_segment(kind, 0, 0, blocks.len() as u64)?;
            self.target.write_all_at(blocks, to)?;
            blocks.clear();
        }
        Ok(())
    }
}

/// Blocks of records for the next segment, and the block that is being filled.
struct PackedTable {
    kind: u32,
    stride: u32,
    /// Of the next segment.
    first_index: u64,
    blocks: Vec<u8>,
    /// Bytes of the records in these blocks.
    unpacked: u64,
    records: Vec<u8>,
    is_written: bool,
}

impl PackedTable {
    fn new(first: &SegmentSummary) -> Self {
        Self {
            kind: first.raw_kind,
            stride: first.record_bytes,
            first_index: first.first_index,
            blocks: Vec::new(),
            unpacked: 0,
            records: Vec::new(),
            is_written: false,
        }
    }

    fn of_nodes(first: u32) -> Self {
        Self {
            kind: SegmentKind::Nodes as u32,
            stride: size_of::<Node>() as u32,
            first_index: u64::from(first),
            blocks: Vec::new(),
            unpacked: 0,
            records: Vec::new(),
            is_written: false,
        }
    }

    /// How many more bytes the block takes: whole records fit.
    fn wanted(&self) -> u64 {
        let most = LARGEST_RECORD_BLOCK_BYTES;
        let room = most - most.checked_rem(self.stride).unwrap_or_default();
        u64::from(room) - self.records.len() as u64
    }

    fn finish_block(&mut self) {
        if !self.records.is_empty() {
            let block = record_blocks::pack(&self.records, self.stride as usize);
            self.blocks.extend_from_slice(&block);
            self.unpacked += self.records.len() as u64;
            self.records.clear();
        }
    }

    fn begin_next(&mut self) {
        let records = self.unpacked.checked_div(u64::from(self.stride));
        self.first_index = self.first_index.saturating_add(records.unwrap_or_default());
        self.blocks.clear();
        self.unpacked = 0;
        self.is_written = true;
    }
}
