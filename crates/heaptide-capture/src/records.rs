//! Reads the records of segments into tables.

use std::io;

use heaptide_format::{RECORD_BLOCK_BYTES, RecordBlock, SegmentKind};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::record_blocks::{self, Unpacked};
use crate::segments::SegmentSummary;
use crate::source::Source;
use crate::table::Table;
use crate::warning::{WarningKind, Warnings};

/// Blocks expand by a bounded factor, twice this one; what they come to is bounded by what is on disk as well, since they may stand
/// in a sparse file.
const MORE_WHERE_UNPACKED: u64 = 8;
/// Reads go through a buffer of this size, so a claim of the file is never an allocation.
const CHUNK_BYTES: usize = 256 << 10;

/// Damaged blocks that are passed over. More are no accident, and each leaves a gap in a table.
const MOST_DAMAGED_BLOCKS: u32 = 64;

/// What is left of the memory that the payload of a file may take.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    /// Where records stand in the file as they are.
    stored: u64,
    /// Where they come out of blocks.
    unpacked: u64,
    /// More blocks that may be damaged.
    damaged_blocks: u32,
}

impl Budget {
    /// Of so many bytes; what is packed may be more.
    pub(crate) const fn new(bytes: u64) -> Self {
        Self {
            stored: bytes,
            unpacked: bytes.saturating_mul(MORE_WHERE_UNPACKED),
            damaged_blocks: MOST_DAMAGED_BLOCKS,
        }
    }
}

/// The records of all segments of `kind`.
pub(crate) fn read_table<T: FromBytes + IntoBytes + Immutable + Clone>(
    source: &dyn Source,
    segments: &[SegmentSummary],
    kind: SegmentKind,
    budget: &mut Budget,
    warnings: &mut Warnings,
) -> io::Result<Table<T>> {
    let mut table = Table::default();
    for segment in segments.iter().filter(|segment| segment.kind == Some(kind)) {
        let stride = segment.record_bytes as usize;
        if stride < size_of::<T>() || stride > CHUNK_BYTES {
            warnings.add(WarningKind::DamagedSegment, Some(segment.offset), || {
                format!(
                    "a segment of {} has records of {stride} bytes and was skipped",
                    kind.name()
                )
            });
            continue;
        }
        for (first, records) in read_records(source, segment, stride, budget, warnings)? {
            if table.insert(first, records).is_err() {
                warnings.add(
                    WarningKind::OverlappingSegments,
                    Some(segment.offset),
                    || {
                        format!(
                            "a segment of {} has numbers that were taken before and was skipped",
                            kind.name()
                        )
                    },
                );
            }
        }
    }
    Ok(table)
}

/// Records whose numbers follow one another, after the number of the first.
type Run<T> = (u64, Vec<T>);

/// A later minor version may append fields to a record, so a record may be longer than `T`.
fn read_records<T: FromBytes + IntoBytes + Immutable + Clone>(
    source: &dyn Source,
    segment: &SegmentSummary,
    stride: usize,
    budget: &mut Budget,
    warnings: &mut Warnings,
) -> io::Result<Vec<Run<T>>> {
    let mut runs: Vec<Run<T>> = Vec::new();
    let mut expected = 0;
    for_each_piece(
        source,
        segment,
        stride,
        budget,
        warnings,
        |offset, bytes| {
            let records = bytes
                .chunks_exact(stride)
                .filter_map(|record| T::read_from_prefix(record).ok())
                .map(|(record, _)| record);
            match runs.last_mut() {
                Some((_, run)) if offset == expected => run.extend(records),
                _ => {
                    let first = segment.first_index.saturating_add(offset / stride as u64);
                    runs.push((first, records.collect()));
                }
            }
            expected = offset + bytes.len() as u64;
        },
    )?;
    Ok(runs)
}

/// Calls `consume` with pieces of the payload, and where they stand in it: of what is packed there, if it is in blocks. Pieces are
/// multiples of `unit`, but for damage. Something may be left out between them.
fn for_each_piece(
    source: &dyn Source,
    segment: &SegmentSummary,
    unit: usize,
    budget: &mut Budget,
    warnings: &mut Warnings,
    consume: impl FnMut(u64, &[u8]),
) -> io::Result<()> {
    let mut readable = segment.readable;
    if readable > budget.stored {
        warnings.add(WarningKind::SparseSegment, Some(segment.offset), || {
            format!("a segment claims {readable} bytes, far more than the file has on disk; it was read in part")
        });
        readable = budget.stored;
    }
    budget.stored -= readable;
    let read = Read {
        source,
        start: segment.payload_offset(),
        readable,
    };
    if segment.in_blocks {
        let stride = segment.record_bytes as usize;
        read.for_each_block(stride, budget, warnings, consume)
    } else {
        read.for_each_chunk(unit, warnings, consume)
    }
}

/// A payload that is to be read.
struct Read<'a> {
    source: &'a dyn Source,
    start: u64,
    readable: u64,
}

impl Read<'_> {
    fn for_each_chunk(
        &self,
        unit: usize,
        warnings: &mut Warnings,
        mut consume: impl FnMut(u64, &[u8]),
    ) -> io::Result<()> {
        let step = (CHUNK_BYTES - CHUNK_BYTES % unit) as u64;
        let mut buffer = vec![0; step.min(self.readable) as usize];
        let mut done = 0;
        while done < self.readable {
            let wanted = step.min(self.readable - done) as usize;
            let count = self.fill(done, &mut buffer[..wanted], warnings)?;
            consume(done, &buffer[..count]);
            if count < wanted {
                break;
            }
            done += count as u64;
        }
        Ok(())
    }

    /// `stride`: bytes of a record, zero in a stream.
    fn for_each_block(
        &self,
        stride: usize,
        budget: &mut Budget,
        warnings: &mut Warnings,
        mut consume: impl FnMut(u64, &[u8]),
    ) -> io::Result<()> {
        let mut unpacked = Unpacked::default();
        let mut packed = Vec::new();
        let (mut at, mut offset) = (0, 0);
        while at < self.readable {
            let Some(head) = self.read_block(at, &mut packed, warnings)? else {
                warnings.add(WarningKind::DamagedSegment, Some(self.start + at), || {
                    "a block of records is damaged; what stands behind it in its segment is lost"
                        .to_owned()
                });
                break;
            };
            let Some(left) = budget.unpacked.checked_sub(u64::from(head.unpacked_bytes)) else {
                warnings.add(WarningKind::SparseSegment, Some(self.start + at), || {
                    "blocks of records claim far more than the file has on disk; they were read in part"
                        .to_owned()
                });
                break;
            };
            budget.unpacked = left;
            if unpacked.read(&head, stride, &packed) {
                consume(offset, &unpacked.records);
            } else {
                warnings.add(WarningKind::DamagedSegment, Some(self.start + at), || {
                    "a block of records is damaged; what it held is lost".to_owned()
                });
                let Some(left) = budget.damaged_blocks.checked_sub(1) else {
                    break;
                };
                budget.damaged_blocks = left;
            }
            offset += u64::from(head.unpacked_bytes);
            at += u64::from(head.total_bytes);
        }
        Ok(())
    }

    /// The head of the block at `at`, and what was packed into it. `None`: there is no whole block.
    fn read_block(
        &self,
        at: u64,
        packed: &mut Vec<u8>,
        warnings: &mut Warnings,
    ) -> io::Result<Option<RecordBlock>> {
        let mut head = [0; RECORD_BLOCK_BYTES];
        let left = self.readable - at;
        if left < RECORD_BLOCK_BYTES as u64 {
            return Ok(None);
        }
        self.fill(at, &mut head, warnings)?;
        let Some(head) =
            record_blocks::read_head(&head).filter(|head| u64::from(head.total_bytes) <= left)
        else {
            return Ok(None);
        };
        packed.resize(head.packed_bytes as usize, 0);
        self.fill(at + RECORD_BLOCK_BYTES as u64, packed, warnings)?;
        Ok(Some(head))
    }

    /// How much of `buffer` could be filled from what stands at `at`.
    fn fill(&self, at: u64, buffer: &mut [u8], warnings: &mut Warnings) -> io::Result<usize> {
        let count = self.source.read_at(self.start + at, buffer)?;
        if count < buffer.len() {
            // The file has shrunk since its length was asked for.
            warnings.add(
                WarningKind::TruncatedSegment,
                Some(self.start + at + count as u64),
                || "the file became shorter while it was read".to_owned(),
            );
        }
        Ok(count)
    }
}

/// The payload of a stream segment: in pieces where something between them is lost.
pub(crate) fn read_stream(
    source: &dyn Source,
    segment: &SegmentSummary,
    budget: &mut Budget,
    warnings: &mut Warnings,
) -> io::Result<Vec<Vec<u8>>> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut expected = 0;
    for_each_piece(source, segment, 1, budget, warnings, |offset, bytes| {
        match pieces.last_mut() {
            Some(piece) if offset == expected => piece.extend_from_slice(bytes),
            _ => pieces.push(bytes.to_vec()),
        }
        expected = offset + bytes.len() as u64;
    })?;
    Ok(pieces)
}
