//! The list of segments of a file.

use std::fs::File;
use std::io;
use std::ops::Range;

use heaptide_format::{
    HEADER_BYTES, SEGMENT_HEADER_BYTES, SEGMENT_IN_BLOCKS, SEGMENT_MAGIC, SegmentHeader,
    SegmentKind,
};
use zerocopy::FromBytes;

use crate::rewrite::{RewriteError, read_header as read_whole_header};
use crate::source::{FileSource, Source};
use crate::warning::{WarningKind, Warnings};

/// The unit in which a damaged chain of segments is searched for the next whole header.
const SEARCH_STEP: u64 = HEADER_BYTES as u64;

/// One segment as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// File offset of its header.
    pub offset: u64,
    /// What it holds; `None` for a kind this version does not know.
    pub kind: Option<SegmentKind>,
    /// The number of the kind as it is in the file.
    pub raw_kind: u32,
    /// Whether the payload is blocks of what it holds ([`heaptide_format::RecordBlock`]).
    pub in_blocks: bool,
    /// Bytes to the next segment.
    pub capacity: u64,
    /// Number of its first record.
    pub first_index: u64,
    /// Bytes of a record, zero for streams.
    pub record_bytes: u32,
    /// Payload bytes that may be read and are there.
    pub readable: u64,
}

impl SegmentSummary {
    /// File offset of the payload.
    #[must_use]
    pub fn payload_offset(&self) -> u64 {
        self.offset + SEGMENT_HEADER_BYTES as u64
    }
}

/// Ranges of bytes of a capture, which nobody writes any more, that say nothing: tables of working memory and room that was not
/// used. Whole pages; none where something in the file is damaged, and in what is no such capture or was written anew.
///
/// # Errors
/// When it cannot be read.
pub fn spare_room(capture: &File) -> io::Result<Vec<Range<u64>>> {
    let source = FileSource::from(capture.try_clone()?);
    let header = match read_whole_header(&source) {
        Ok(header) => header,
        Err(RewriteError::Io(error)) => return Err(error),
        Err(_) => return Ok(Vec::new()),
    };
    let mut warnings = Warnings::default();
    let segments = list_segments(
        &source,
        HEADER_BYTES as u64,
        header.lifecycle.allocated_end,
        &mut warnings,
    )?;
    if !warnings.into_vec().is_empty() {
        return Ok(Vec::new());
    }
    let spare = segments.iter().map(|segment| {
        let used = match segment.kind {
            Some(SegmentKind::Scratch) => 0,
            // Whoever wrote it may count otherwise.
            None => segment.capacity,
            Some(_) => segment.readable,
        };
        let start = (segment.payload_offset().saturating_add(used)).next_multiple_of(SEARCH_STEP);
        start..segment.offset.saturating_add(segment.capacity)
    });
    Ok(spare.filter(|range| !range.is_empty()).collect())
}

enum Found {
    Segment(SegmentHeader),
    /// No header has been written here.
    Nothing,
    Damaged,
}

/// Walks the chain of segments. A broken link is bridged by a search for the next whole header,
/// as far as the writer says that it gave out space.
pub(crate) fn list_segments(
    source: &dyn Source,
    start: u64,
    allocated_end: u64,
    warnings: &mut Warnings,
) -> io::Result<Vec<SegmentSummary>> {
    let mut segments = Vec::new();
    let mut offset = start;
    let mut searching = false;
    loop {
        let length = source.length()?;
        if offset.saturating_add(SEGMENT_HEADER_BYTES as u64) > length {
            if offset < length || (offset < allocated_end && !searching) {
                warnings.add(WarningKind::TruncatedSegment, Some(length), || {
                    "the file ends before its last segment".to_owned()
                });
            }
            return Ok(segments);
        }
        match read_header(source, offset)? {
            Found::Segment(header) => {
                segments.push(summarise(&header, offset, length, warnings));
                searching = false;
                // Checked to be at least one step, so the walk ends.
                offset = offset.saturating_add(header.capacity);
                continue;
            }
            // A writer that died between taking the space and writing the header leaves a hole.
            Found::Nothing if offset >= allocated_end => return Ok(segments),
            Found::Nothing => {}
            Found::Damaged if searching => {}
            Found::Damaged => warnings.add(WarningKind::DamagedSegment, Some(offset), || {
                "a segment header is damaged; what it held is lost".to_owned()
            }),
        }
        searching = true;
        offset += SEARCH_STEP;
    }
}

fn read_header(source: &dyn Source, offset: u64) -> io::Result<Found> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    if source.read_at(offset, &mut bytes)? < bytes.len() {
        return Ok(Found::Nothing);
    }
    let Ok(header) = SegmentHeader::read_from_bytes(&bytes) else {
        return Ok(Found::Damaged);
    };
    let whole = header.magic == SEGMENT_MAGIC
        && header.checksum == header.expected_checksum()
        && header.capacity >= SEARCH_STEP
        && header.capacity.is_multiple_of(SEARCH_STEP);
    Ok(match header.magic {
        0 => Found::Nothing,
        _ if whole => Found::Segment(header),
        _ => Found::Damaged,
    })
}

fn summarise(
    header: &SegmentHeader,
    offset: u64,
    length: u64,
    warnings: &mut Warnings,
) -> SegmentSummary {
    let in_blocks = header.kind & SEGMENT_IN_BLOCKS != 0;
    let kind = SegmentKind::from_raw(header.kind & !SEGMENT_IN_BLOCKS)
        .filter(|kind| !in_blocks || kind.may_be_in_blocks());
    let name = kind.map_or("unknown", SegmentKind::name);
    if kind.is_none() {
        warnings.add(WarningKind::UnknownSegment, Some(offset), || {
            format!(
                "a segment of kind {} was skipped: this version does not know it",
                header.kind
            )
        });
    }
    let room = header.capacity - SEGMENT_HEADER_BYTES as u64;
    let mut readable = header.committed;
    if readable > room {
        warnings.add(WarningKind::DamagedSegment, Some(offset), || {
            format!("a segment of {name} claims {readable} bytes and has room for {room}")
        });
        readable = room;
    }
    let in_file = length - offset - SEGMENT_HEADER_BYTES as u64;
    if readable > in_file {
        warnings.add(WarningKind::TruncatedSegment, Some(length), || {
            format!(
                "the file ends inside a segment of {name}: {in_file} of {readable} bytes are there"
            )
        });
        readable = in_file;
    }
    SegmentSummary {
        offset,
        kind,
        raw_kind: header.kind,
        in_blocks,
        capacity: header.capacity,
        first_index: header.first_index,
        record_bytes: header.record_bytes,
        readable,
    }
}
