//! Segments of kind 12, the Python objects that survived: whole, absent, empty, and of bytes that mean no good.

use heaptide_capture::{Capture, WarningKind};
use heaptide_format::{
    NO_STRING, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind, State, Survivor, offsets,
};
use heaptide_testkit::builder::push_segment;
use heaptide_testkit::{CaptureBuilder, fixtures};
use zerocopy::{FromBytes, IntoBytes};

const RECORD_BYTES: u32 = size_of::<Survivor>() as u32;

fn read(bytes: &[u8]) -> Capture {
    Capture::from_bytes(bytes, "survivors.tide").expect("readable")
}

fn kinds(capture: &Capture) -> Vec<WarningKind> {
    let warnings = capture.warnings.iter();
    warnings.map(|warning| warning.kind).collect()
}

/// What is read, by number.
fn survivors(capture: &Capture) -> Option<Vec<(u32, Survivor)>> {
    let table = capture.survivors.as_ref()?;
    let read: Vec<_> = table
        .iter()
        .map(|(number, survivor)| (number, *survivor))
        .collect();
    assert!(read.len() <= table.len());
    Some(read)
}

fn numbers(capture: &Capture) -> Option<Vec<u32>> {
    let survivors = survivors(capture)?;
    Some(survivors.into_iter().map(|(number, _)| number).collect())
}

/// As [`fixtures::tiny_objects`], with segments of survivors that are put together by hand: first number, length of a record,
/// payload.
fn by_hand(segments: &[(u64, u32, &[u8])]) -> Vec<u8> {
    let mut builder = fixtures::tiny_objects();
    builder.survivors = None;
    let mut bytes = builder.build();
    let mut more = Vec::new();
    for &(first, record_bytes, payload) in segments {
        push_segment(
            &mut more,
            SegmentKind::Survivors,
            first,
            record_bytes,
            payload,
        );
    }
    bytes.extend_from_slice(&more);
    let end = bytes.len() as u64;
    let at = offsets::LIFECYCLE + std::mem::offset_of!(heaptide_format::Lifecycle, allocated_end);
    bytes[at..at + 8].copy_from_slice(&end.to_le_bytes());
    bytes
}

fn some(count: usize) -> Vec<u8> {
    let survivor = |index| Survivor {
        address: 0x1000 + index as u64,
        node: 2,
        thread: 1,
        type_name: NO_STRING,
        reserved: 0,
    };
    let records: Vec<Survivor> = (0..count).map(survivor).collect();
    records.as_bytes().to_vec()
}

#[test]
fn they_are_read_as_they_were_written() {
    let mut builder = fixtures::tiny_objects();
    let written = builder.survivors.clone().unwrap();
    for per_segment in [usize::MAX, 1] {
        builder.records_per_segment = per_segment;
        let capture = read(&builder.build());
        assert_eq!(kinds(&capture), []);
        let expected: Vec<_> = (0..).zip(written.iter().copied()).collect();
        assert_eq!(survivors(&capture), Some(expected));
        let name = capture.definitions.string(written[0].type_name);
        assert_eq!(name, Some("t.Kept"));
        assert_eq!(capture.definitions.string(written[1].type_name), None);
    }
}

/// That none survived, that nothing is said of it, and that it is not said yet.
#[test]
fn none_is_not_the_same_as_not_known() {
    let of = |change: &dyn Fn(&mut CaptureBuilder)| {
        let mut builder = fixtures::tiny_objects();
        change(&mut builder);
        let capture = read(&builder.build());
        assert_eq!(kinds(&capture), []);
        numbers(&capture)
    };
    assert_eq!(of(&|_| {}), Some(vec![0, 1]));
    assert_eq!(
        of(&|builder| builder.survivors = Some(vec![])),
        Some(vec![])
    );
    assert_eq!(of(&|builder| builder.survivors = None), None);
    for state in [State::Tracking, State::Stopped, State::Armed] {
        let unfinished = of(&|builder| builder.header.lifecycle.state = state as u32);
        assert_eq!(unfinished, None, "{state:?}");
    }
}

#[test]
fn records_of_a_later_version_may_be_longer() {
    let payload: Vec<u8> = some(3)
        .chunks(RECORD_BYTES as usize)
        .flat_map(|record| [record, &[0xEE; 16]].concat())
        .collect();
    let capture = read(&by_hand(&[(0, RECORD_BYTES + 16, &payload)]));
    assert_eq!(kinds(&capture), []);
    let found = survivors(&capture).unwrap();
    let expected = read(&by_hand(&[(0, RECORD_BYTES, &some(3))]));
    assert_eq!(found, survivors(&expected).unwrap());
    assert_eq!(found.len(), 3);
}

#[test]
fn records_that_cannot_be_are_told_of_and_skipped() {
    for record_bytes in [0, 1, RECORD_BYTES - 1, 1 << 20, u32::MAX] {
        let capture = read(&by_hand(&[
            (0, record_bytes, &some(2)),
            (7, RECORD_BYTES, &some(1)),
        ]));
        assert_eq!(kinds(&capture), [WarningKind::DamagedSegment]);
        assert_eq!(numbers(&capture), Some(vec![7]), "{record_bytes}");
    }
}

#[test]
fn numbers_that_are_taken_or_cannot_be_named_are_left_out() {
    let (two, one) = (some(2), some(1));
    let twice = read(&by_hand(&[
        (0, RECORD_BYTES, &two),
        (1, RECORD_BYTES, &two),
        (2, RECORD_BYTES, &one),
    ]));
    assert_eq!(kinds(&twice), [WarningKind::OverlappingSegments]);
    assert_eq!(numbers(&twice), Some(vec![0, 1, 2]));
    let beyond = read(&by_hand(&[
        (u64::from(u32::MAX), RECORD_BYTES, &two),
        (1 << 40, RECORD_BYTES, &one),
    ]));
    assert_eq!(numbers(&beyond), Some(vec![u32::MAX]));
    let wraps = read(&by_hand(&[(u64::MAX, RECORD_BYTES, &two)]));
    assert_eq!(kinds(&wraps), [WarningKind::OverlappingSegments]);
    assert_eq!(numbers(&wraps), Some(vec![]));
}

/// The writer may die in the middle of a record, and a header may claim what it likes.
#[test]
fn a_segment_is_read_as_far_as_it_is_there() {
    let payload = some(4);
    for length in 0..payload.len() {
        let capture = read(&by_hand(&[(0, RECORD_BYTES, &payload[..length])]));
        let whole = (length / RECORD_BYTES as usize) as u32;
        assert_eq!(numbers(&capture), Some((0..whole).collect()), "{length}");
    }
    let bytes = by_hand(&[(0, RECORD_BYTES, &payload)]);
    let place = read(&bytes).segments.last().unwrap().offset as usize;
    for claimed in [u64::MAX, 1 << 40, (bytes.len() - place) as u64 + 1] {
        let mut bytes = bytes.clone();
        let header = &mut bytes[place..place + SEGMENT_HEADER_BYTES];
        let mut changed = SegmentHeader::read_from_bytes(header).unwrap();
        changed.committed = claimed;
        header.copy_from_slice(changed.as_bytes());
        let capture = read(&bytes);
        assert_ne!(kinds(&capture), [], "{claimed}");
        // What follows within the segment is zeros; nothing is made up beyond it.
        let found = survivors(&capture).unwrap();
        assert!(found.len() <= 4096 / RECORD_BYTES as usize);
        assert_eq!(
            found[..4],
            survivors(&read(&by_hand(&[(0, RECORD_BYTES, &payload)]))).unwrap()
        );
    }
    for length in place..bytes.len() {
        let capture = read(&bytes[..length]);
        let there = length.saturating_sub(place + SEGMENT_HEADER_BYTES) / RECORD_BYTES as usize;
        let found = numbers(&capture).unwrap_or_default();
        assert_eq!(found.len(), there.min(4), "{length}");
        assert!(there >= 4 || !kinds(&capture).is_empty(), "{length}");
    }
}

#[test]
fn any_bytes_in_it_give_a_result() {
    let whole = fixtures::tiny_objects().build();
    let capture = read(&whole);
    let is_wanted =
        |segment: &&heaptide_capture::SegmentSummary| segment.kind == Some(SegmentKind::Survivors);
    let segment = capture.segments.iter().find(is_wanted).unwrap();
    let start = segment.offset as usize;
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut found = 0;
    for round in 0..4000 {
        let mut bytes = whole.clone();
        // Half of them leave the header of the segment as it is, half only make its checksum right again.
        let from = start
            + if round % 2 == 0 {
                SEGMENT_HEADER_BYTES
            } else {
                4
            };
        for _ in 0..1 + next() % 8 {
            let place = from + next() as usize % 60;
            bytes[place] = next() as u8;
        }
        let header = &mut bytes[start..start + SEGMENT_HEADER_BYTES];
        let mut mended = SegmentHeader::read_from_bytes(header).unwrap();
        mended.checksum = mended.expected_checksum();
        header.copy_from_slice(mended.as_bytes());
        let capture = read(&bytes);
        for (_, survivor) in survivors(&capture).unwrap_or_default() {
            // Whatever it names, looking for it is no danger.
            let _ = capture.definitions.string(survivor.type_name);
            let _ = capture.nodes.get(survivor.node);
            let _ = capture.threads.get(survivor.thread);
            found += 1;
        }
    }
    assert!(found > 4000, "{found}");
}

/// A capture that is written anew keeps them, and that none survived.
#[test]
fn they_are_kept_when_a_capture_is_written_anew() {
    for survivors_written in [some(3), vec![]] {
        let bytes = by_hand(&[(0, RECORD_BYTES, &survivors_written)]);
        let directory = tempfile::tempdir().unwrap();
        let paths = ["original", "anew"].map(|name| directory.path().join(name));
        std::fs::write(&paths[0], &bytes).unwrap();
        let original = std::fs::File::open(&paths[0]).unwrap();
        let target = std::fs::File::create(&paths[1]).unwrap();
        heaptide_capture::rewrite(&original, &target, &mut |_, _| true).unwrap();
        let anew = Capture::open(&paths[1]).unwrap();
        assert_eq!(kinds(&anew), []);
        assert_eq!(survivors(&anew), survivors(&read(&bytes)));
        assert!(survivors(&anew).is_some());
    }
}
