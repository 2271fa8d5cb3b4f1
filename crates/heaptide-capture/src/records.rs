//! Reads the records of segments into tables.

use std::io;

use heaptide_format::SegmentKind;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::segments::SegmentSummary;
use crate::source::Source;
use crate::table::Table;
use crate::warning::{WarningKind, Warnings};

/// Reads go through a buffer of this size, so a claim of the file is never an allocation.
const CHUNK_BYTES: usize = 256 << 10;

/// What is left of the memory that the payload of a file may take.
pub(crate) struct Budget(pub(crate) u64);

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
        let records = read_records(source, segment, stride, budget, warnings)?;
        if table.insert(segment.first_index, records).is_err() {
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
    Ok(table)
}

/// A later minor version may append fields to a record, so a record may be longer than `T`.
fn read_records<T: FromBytes + IntoBytes + Immutable + Clone>(
    source: &dyn Source,
    segment: &SegmentSummary,
    stride: usize,
    budget: &mut Budget,
    warnings: &mut Warnings,
) -> io::Result<Vec<T>> {
    let mut records = Vec::new();
    for_each_chunk(source, segment, stride, budget, warnings, |bytes| {
        records.extend(
            bytes
                .chunks_exact(stride)
                .filter_map(|record| T::read_from_prefix(record).ok())
                .map(|(record, _)| record),
        );
    })?;
    Ok(records)
}

/// Calls `consume` with the readable payload in pieces that are multiples of `unit`.
fn for_each_chunk(
    source: &dyn Source,
    segment: &SegmentSummary,
    unit: usize,
    budget: &mut Budget,
    warnings: &mut Warnings,
    mut consume: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut readable = segment.readable;
    if readable > budget.0 {
        warnings.add(WarningKind::SparseSegment, Some(segment.offset), || {
            format!("a segment claims {readable} bytes, far more than the file has on disk; it was read in part")
        });
        readable = budget.0;
    }
    budget.0 -= readable;
    let step = (CHUNK_BYTES - CHUNK_BYTES % unit) as u64;
    let mut buffer = vec![0; step.min(readable) as usize];
    let mut done = 0;
    while done < readable {
        let wanted = step.min(readable - done) as usize;
        let count = source.read_at(segment.payload_offset() + done, &mut buffer[..wanted])?;
        consume(&buffer[..count]);
        if count < wanted {
            // The file has shrunk since its length was asked for.
            warnings.add(
                WarningKind::TruncatedSegment,
                Some(segment.payload_offset() + done + count as u64),
                || "the file became shorter while it was read".to_owned(),
            );
            break;
        }
        done += count as u64;
    }
    Ok(())
}

/// The payload of a stream segment.
pub(crate) fn read_stream(
    source: &dyn Source,
    segment: &SegmentSummary,
    budget: &mut Budget,
    warnings: &mut Warnings,
) -> io::Result<Vec<u8>> {
    let mut payload = Vec::new();
    for_each_chunk(source, segment, 1, budget, warnings, |bytes| {
        payload.extend_from_slice(bytes);
    })?;
    Ok(payload)
}
