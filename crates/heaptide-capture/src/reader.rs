//! Reads a whole capture in the order that suits a living writer.
//!
//! Writers publish a record before anything names it. A reader must go the other way round: first
//! the cells, then what they name (threads, nodes), then what those name (code, strings).

use std::io;
use std::path::Path;

use heaptide_format::{
    Cell, FORMAT_VERSION, HEADER_BYTES, Header, HeapWord, Identity, KNOWN_FEATURES, Lifecycle,
    MAGIC, Mode, OwnCost, Sample, SegmentKind, State, Survivor, offsets,
};
use zerocopy::{FromBytes, FromZeros};

use crate::definitions::{Definitions, Metadata, parse_stream};
use crate::node_streams::read_node_streams;
use crate::records::{Budget, read_stream, read_table};
use crate::segments::{SegmentSummary, list_segments};
use crate::source::Source;
use crate::table::Table;
use crate::warning::{WarningKind, Warnings};
use crate::{Capture, Error, LARGEST_FILE_BYTES};

/// How often the cells are read again when the peak moved meanwhile.
const CONSISTENT_READ_ATTEMPTS: usize = 4;
/// How often the heap word is read until two reads agree; a copy of 16 bytes may be torn.
const HEAP_WORD_ATTEMPTS: usize = 16;

pub(crate) fn read_capture(source: &dyn Source, path: &Path) -> Result<Capture, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        offset: 0,
        source,
    };
    let mut warnings = Warnings::default();
    let header = read_header(source, path)?;
    let identity = checked_identity(&header.identity, path, &mut warnings)?;
    let mut budget = Budget::new(source.budget().map_err(failed)?);

    let (heap, cells, first_walk) =
        read_heap_and_cells(source, &header, &mut budget, &mut warnings).map_err(failed)?;
    let lifecycle: Lifecycle = read_block(source, offsets::LIFECYCLE).map_err(failed)?;
    // The second walk is the one that is kept: it sees everything that the cells name.
    let mut segments = list_segments(
        source,
        HEADER_BYTES as u64,
        lifecycle.allocated_end,
        &mut warnings,
    )
    .map_err(failed)?;
    keep_events_of(&first_walk, &mut segments);
    let read = read_rest(source, &segments, &mut budget, &mut warnings).map_err(failed)?;
    let own: OwnCost = read_block(source, offsets::OWN).map_err(failed)?;
    if State::from_raw(lifecycle.state).is_none() {
        warnings.add(
            WarningKind::OddHeader,
            Some(offsets::LIFECYCLE as u64),
            || {
                format!(
                    "the header has state {}, which does not exist",
                    lifecycle.state
                )
            },
        );
    }
    Ok(Capture {
        path: path.to_owned(),
        file_bytes: source.length().map_err(failed)?,
        identity,
        lifecycle,
        heap,
        own,
        metadata: read.metadata,
        definitions: read.definitions,
        nodes: read.nodes,
        modules: read.modules,
        native_nodes: read.native_nodes,
        symbols: crate::Symbols::default(),
        cells,
        threads: read.threads,
        slots: read.slots,
        samples: read.samples,
        survivors: read
            .survivors
            .filter(|_| lifecycle.state == State::Finished as u32),
        segments,
        events: crate::EventLog::default(),
        warnings: warnings.into_vec(),
    })
}

fn read_header(source: &dyn Source, path: &Path) -> Result<Header, Error> {
    let path = || path.to_owned();
    let failed = |source| Error::Read {
        path: path(),
        offset: 0,
        source,
    };
    let length = source.length().map_err(failed)?;
    let mut bytes = [0; HEADER_BYTES];
    let count = source.read_at(0, &mut bytes).map_err(failed)?;
    if count == 0 {
        return Err(Error::Empty { path: path() });
    }
    let compared = count.min(MAGIC.len());
    if bytes[..compared] != MAGIC[..compared] {
        return Err(Error::NotACapture {
            path: path(),
            hint: hint_for(&bytes[..count]),
        });
    }
    match Header::read_from_bytes(&bytes) {
        Ok(header) if count == HEADER_BYTES => {
            if length > LARGEST_FILE_BYTES && header.identity.mode != Mode::All as u32 {
                return Err(Error::TooLarge {
                    path: path(),
                    bytes: length,
                });
            }
            Ok(header)
        }
        _ => Err(Error::TruncatedHeader {
            path: path(),
            bytes: count as u64,
        }),
    }
}

fn hint_for(start: &[u8]) -> &'static str {
    if start.starts_with(b"memray") || start.starts_with(&[0x04, 0x22, 0x4d, 0x18]) {
        ": it looks like a capture of Memray"
    } else if start.starts_with(b"<!DOCTYPE html") {
        ": it is an HTML page; the capture it was made from is wanted"
    } else if start.iter().all(|&byte| byte == 0) {
        ": it starts with zeros; its writer may have died before the header was written"
    } else {
        ""
    }
}

fn checked_identity(
    identity: &Identity,
    path: &Path,
    warnings: &mut Warnings,
) -> Result<Identity, Error> {
    let path = || path.to_owned();
    let version = identity.version;
    let whole = identity.checksum == identity.expected_checksum();
    // The layout of a newer version is not known, not even where its checksum is.
    if version > FORMAT_VERSION {
        return Err(Error::NewerVersion {
            path: path(),
            version,
        });
    }
    if version == 0 {
        return Err(Error::UnknownVersion {
            path: path(),
            version,
        });
    }
    if !whole {
        warnings.add(WarningKind::DamagedIdentity, Some(0), || {
            "the identity block of the header is damaged; process id, times and settings may be wrong".to_owned()
        });
    } else if identity.required_features & !KNOWN_FEATURES != 0 {
        return Err(Error::UnknownFeatures {
            path: path(),
            bits: identity.required_features & !KNOWN_FEATURES,
        });
    }
    if identity.header_bytes as usize != HEADER_BYTES {
        warnings.add(WarningKind::OddHeader, Some(12), || {
            format!(
                "the header claims to have {} bytes; {HEADER_BYTES} are assumed",
                identity.header_bytes
            )
        });
    }
    if Mode::from_raw(identity.mode).is_none() {
        warnings.add(WarningKind::UnsupportedMode, Some(0), || {
            format!("captures of mode {} cannot be read by this version; only what an aggregated one has is shown", identity.mode)
        });
    }
    Ok(*identity)
}

fn read_block<T: FromBytes + FromZeros + zerocopy::IntoBytes>(
    source: &dyn Source,
    offset: usize,
) -> io::Result<T> {
    let mut value = T::new_zeroed();
    source.read_at(offset as u64, value.as_mut_bytes())?;
    Ok(value)
}

fn read_heap_word(source: &dyn Source) -> io::Result<HeapWord> {
    let mut word: HeapWord = read_block(source, offsets::HEAP)?;
    for _ in 0..HEAP_WORD_ATTEMPTS {
        let again: HeapWord = read_block(source, offsets::HEAP)?;
        if again == word {
            break;
        }
        word = again;
    }
    Ok(word)
}

/// Events name stacks and threads, as cells do: those that came after the first walk may name what the second one has passed.
fn keep_events_of(first_walk: &[SegmentSummary], segments: &mut [SegmentSummary]) {
    for segment in segments {
        if segment.kind == Some(SegmentKind::Events) {
            let before = first_walk.binary_search_by_key(&segment.offset, |each| each.offset);
            let readable = before.map_or(0, |index| first_walk[index].readable);
            segment.readable = segment.readable.min(readable);
        }
    }
}

/// Reads the cells and the heap word that belongs to them: while `epoch` stays the same, the
/// figures at the peak of all cells stay the same.
fn read_heap_and_cells(
    source: &dyn Source,
    header: &Header,
    budget: &mut Budget,
    warnings: &mut Warnings,
) -> io::Result<(HeapWord, Table<Cell>, Vec<SegmentSummary>)> {
    let budget_before = *budget;
    let mut attempt = 1;
    loop {
        // Damage in the list is reported by the second walk, damage of cells by the last attempt.
        let mut own_warnings = Warnings::default();
        *budget = budget_before;
        let before = read_heap_word(source)?;
        let segments = list_segments(
            source,
            HEADER_BYTES as u64,
            header.lifecycle.allocated_end,
            &mut Warnings::default(),
        )?;
        let cells = read_table(
            source,
            &segments,
            SegmentKind::Cells,
            budget,
            &mut own_warnings,
        )?;
        let after = read_heap_word(source)?;
        if before.epoch == after.epoch || attempt == CONSISTENT_READ_ATTEMPTS {
            if before.epoch != after.epoch {
                own_warnings.add(WarningKind::InFlight, None, || {
                    "the program writes while it is read and its peak moves; figures may be off by events in flight"
                        .to_owned()
                });
            }
            warnings.append(own_warnings);
            return Ok((after, cells, segments));
        }
        attempt += 1;
    }
}

/// What the cells name.
struct Rest {
    metadata: Metadata,
    definitions: Definitions,
    nodes: Table<heaptide_format::Node>,
    modules: Table<heaptide_format::Module>,
    native_nodes: Table<heaptide_format::NativeNode>,
    threads: Table<heaptide_format::Thread>,
    slots: Table<heaptide_format::Slot>,
    samples: Vec<Sample>,
    survivors: Option<Table<Survivor>>,
}

fn read_rest(
    source: &dyn Source,
    segments: &[SegmentSummary],
    budget: &mut Budget,
    warnings: &mut Warnings,
) -> io::Result<Rest> {
    let slots = read_table(source, segments, SegmentKind::Slots, budget, warnings)?;
    let threads = read_table(source, segments, SegmentKind::Threads, budget, warnings)?;
    let samples: Table<Sample> =
        read_table(source, segments, SegmentKind::Samples, budget, warnings)?;
    // Not to be told from the records: there may be none, and while they are written not all are there.
    let is_survivors =
        |segment: &crate::SegmentSummary| segment.kind == Some(SegmentKind::Survivors);
    let survivors = if segments.iter().any(is_survivors) {
        let kind = SegmentKind::Survivors;
        Some(read_table(source, segments, kind, budget, warnings)?)
    } else {
        None
    };
    let mut nodes = read_table(source, segments, SegmentKind::Nodes, budget, warnings)?;
    read_node_streams(source, segments, &mut nodes, budget, warnings)?;
    // Native nodes are named by nodes, and name modules.
    let kind = SegmentKind::NativeFrames;
    let native_nodes = read_table(source, segments, kind, budget, warnings)?;
    let modules = read_table(source, segments, SegmentKind::Modules, budget, warnings)?;
    let mut metadata = Metadata::default();
    let mut definitions = Definitions::default();
    for segment in segments
        .iter()
        .filter(|segment| segment.kind == Some(SegmentKind::Definitions))
    {
        for piece in read_stream(source, segment, budget, warnings)? {
            parse_stream(
                &piece,
                segment.payload_offset(),
                &mut definitions,
                &mut metadata,
                warnings,
            );
        }
    }
    Ok(Rest {
        metadata,
        definitions,
        nodes,
        modules,
        native_nodes,
        threads,
        slots,
        samples: sorted_samples(&samples),
        survivors,
    })
}

/// A writer thins its samples out in place, so they may be unsorted and twice there.
fn sorted_samples(table: &Table<Sample>) -> Vec<Sample> {
    let mut samples: Vec<Sample> = table
        .iter()
        .map(|(_, sample)| *sample)
        .filter(|sample| sample.unix_ns != 0)
        .collect();
    samples.sort_by_key(|sample| sample.unix_ns);
    samples.dedup_by_key(|sample| sample.unix_ns);
    samples
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;
    use heaptide_format::SegmentHeader;
    use heaptide_testkit::fixtures;
    use zerocopy::IntoBytes;

    /// A file whose epoch moves each of the first times that somebody reads cells.
    struct Moving {
        bytes: Vec<u8>,
        cells_offset: u64,
        moves: AtomicU64,
        reads_of_cells: AtomicUsize,
    }

    impl Moving {
        fn new(moves: u64) -> Self {
            let bytes = fixtures::tiny().build();
            let capture = Capture::from_bytes(&bytes, "x").unwrap();
            let is_cells =
                |segment: &&crate::SegmentSummary| segment.kind == Some(SegmentKind::Cells);
            let cells_offset = capture
                .segments
                .iter()
                .find(is_cells)
                .unwrap()
                .payload_offset();
            Self {
                bytes,
                cells_offset,
                moves: AtomicU64::new(moves),
                reads_of_cells: AtomicUsize::new(0),
            }
        }
    }

    impl Source for Moving {
        fn length(&self) -> io::Result<u64> {
            Ok(self.bytes.len() as u64)
        }

        fn budget(&self) -> io::Result<u64> {
            Ok(u64::MAX)
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            let count = crate::source::BytesSource(&self.bytes).read_at(offset, buffer)?;
            if offset == self.cells_offset {
                self.reads_of_cells.fetch_add(1, Ordering::Relaxed);
                let moves = self.moves.load(Ordering::Relaxed).saturating_sub(1);
                self.moves.store(moves, Ordering::Relaxed);
            }
            if offset == offsets::HEAP as u64 {
                // The epoch counts up to its last value while cells are read.
                let mut word = HeapWord::read_from_bytes(buffer).unwrap();
                word.epoch = word.epoch.wrapping_sub(self.moves.load(Ordering::Relaxed));
                buffer.copy_from_slice(word.as_bytes());
            }
            Ok(count)
        }
    }

    #[test]
    fn cells_are_read_again_until_the_peak_stays_where_it_is() {
        let source = Moving::new(2);
        let capture = read_capture(&source, Path::new("moving")).unwrap();
        assert_eq!(source.reads_of_cells.into_inner(), 3);
        assert_eq!(capture.warnings, []);
    }

    /// A file in which an event is committed between two readings of the header of its segment.
    struct Growing {
        bytes: Vec<u8>,
        events_offset: u64,
        reads_of_events: AtomicUsize,
    }

    impl Source for Growing {
        fn length(&self) -> io::Result<u64> {
            Ok(self.bytes.len() as u64)
        }

        fn budget(&self) -> io::Result<u64> {
            Ok(u64::MAX)
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            let count = crate::source::BytesSource(&self.bytes).read_at(offset, buffer)?;
            if offset == self.events_offset {
                let mut header = SegmentHeader::read_from_bytes(buffer).unwrap();
                header.committed -= 8;
                header.committed += self.reads_of_events.fetch_add(8, Ordering::Relaxed) as u64;
                buffer.copy_from_slice(header.as_bytes());
            }
            Ok(count)
        }
    }

    #[test]
    fn events_that_came_while_it_was_read_are_left_for_the_next_time() {
        let bytes = fixtures::tiny_events().build();
        let capture = Capture::from_bytes(&bytes, "x").unwrap();
        let is_events = |segment: &&SegmentSummary| segment.kind == Some(SegmentKind::Events);
        let events = |capture: &Capture| *capture.segments.iter().find(is_events).unwrap();
        let source = Growing {
            events_offset: events(&capture).offset,
            bytes,
            reads_of_events: AtomicUsize::new(0),
        };
        let read = read_capture(&source, Path::new("growing")).unwrap();
        assert_eq!(source.reads_of_events.into_inner(), 16, "two walks");
        assert_eq!(events(&read).readable, events(&capture).readable - 8);
        assert_eq!(read.segments.len(), capture.segments.len());
    }

    #[test]
    fn a_peak_that_never_rests_is_told() {
        let source = Moving::new(1000);
        let capture = read_capture(&source, Path::new("moving")).unwrap();
        assert_eq!(source.reads_of_cells.into_inner(), CONSISTENT_READ_ATTEMPTS);
        assert_eq!(capture.warnings[0].kind, WarningKind::InFlight);
    }
}
