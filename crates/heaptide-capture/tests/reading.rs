//! What a reader makes of whole, odd and damaged captures.

use std::fs::File;
use std::os::unix::fs::FileExt;

use heaptide_capture::{Capture, Error, WarningKind};
use heaptide_format::{
    Cell, DefinitionKind, HEADER_BYTES, Identity, MetadataKey, SEGMENT_HEADER_BYTES, SegmentHeader,
    SegmentKind, StringEncoding, checksum,
};
use heaptide_testkit::builder::{PAGE_BYTES, push_segment};
use heaptide_testkit::{CaptureBuilder, fixtures};
use zerocopy::{FromBytes, IntoBytes};

fn read(bytes: &[u8]) -> Capture {
    Capture::from_bytes(bytes, "test.tide").expect("readable")
}

fn kinds(capture: &Capture) -> Vec<WarningKind> {
    capture
        .warnings
        .iter()
        .map(|warning| warning.kind)
        .collect()
}

/// Changes the identity block and makes its checksum right again.
fn with_identity(bytes: &mut [u8], change: impl FnOnce(&mut Identity)) {
    let mut identity = Identity::read_from_bytes(&bytes[..512]).unwrap();
    change(&mut identity);
    identity.checksum = identity.expected_checksum();
    bytes[..512].copy_from_slice(identity.as_bytes());
}

/// File offset of the first segment of a kind.
fn segment_offset(bytes: &[u8], kind: SegmentKind) -> usize {
    let capture = read(bytes);
    let found = capture
        .segments
        .iter()
        .find(|segment| segment.kind == Some(kind));
    found.expect("the segment is there").offset as usize
}

#[test]
fn a_whole_capture_has_everything_and_no_warning() {
    let mut builder = fixtures::killed_service();
    // Many segments of a kind are read like one.
    builder.records_per_segment = 3;
    let capture = read(&builder.build());
    assert_eq!(kinds(&capture), []);
    assert_eq!(capture.cells.len(), builder.cells.len());
    assert_eq!(capture.nodes.len(), builder.nodes.len());
    assert!(
        capture
            .cells
            .iter()
            .all(|(number, cell)| *cell == builder.cells[number as usize])
    );
    assert_eq!(
        capture.metadata.command_line(),
        "python app.py '--name=big one'"
    );
    assert_eq!(
        capture.metadata.text(MetadataKey::Hostname).as_deref(),
        Some("box")
    );
    assert_eq!(capture.samples.len(), 5);
}

#[test]
fn what_is_no_capture_is_refused_by_name() {
    let error = |bytes: &[u8]| Capture::from_bytes(bytes, "x").unwrap_err();
    assert!(matches!(error(b""), Error::Empty { .. }));
    assert!(
        matches!(error(b"memray\0\x0d"), Error::NotACapture { hint, .. } if hint.contains("Memray"))
    );
    assert!(matches!(error(&[0; 5000]), Error::NotACapture { hint, .. } if hint.contains("zeros")));
    assert!(matches!(
        error(b"heaptide"),
        Error::TruncatedHeader { bytes: 8, .. }
    ));
    assert!(matches!(
        error(b"hea"),
        Error::TruncatedHeader { bytes: 3, .. }
    ));

    let mut bytes = fixtures::tiny().build();
    with_identity(&mut bytes, |identity| identity.version = 2);
    assert!(matches!(
        error(&bytes),
        Error::NewerVersion { version: 2, .. }
    ));
    let mut bytes = fixtures::tiny().build();
    with_identity(&mut bytes, |identity| identity.required_features = 1 << 40);
    assert!(matches!(
        error(&bytes),
        Error::UnknownFeatures {
            bits: 0x100_0000_0000,
            ..
        }
    ));
    let mut bytes = fixtures::tiny().build();
    with_identity(&mut bytes, |identity| identity.optional_features = 4);
    assert_eq!(kinds(&read(&bytes)), []);
}

#[test]
fn a_damaged_identity_is_a_warning() {
    let mut bytes = fixtures::tiny().build();
    bytes[40] ^= 1;
    let capture = read(&bytes);
    assert_eq!(kinds(&capture), [WarningKind::DamagedIdentity]);
    assert_eq!(capture.cells.len(), fixtures::tiny().cells.len());
}

#[test]
fn unknown_segments_and_definitions_are_skipped() {
    let mut builder = fixtures::tiny();
    builder.definition(77, 0, 0, b"later", checksum(b"later"));
    let mut bytes = builder.build();
    let mut extra = Vec::new();
    push_segment(&mut extra, SegmentKind::Scratch, 0, 0, b"hash table");
    let mut unknown = SegmentHeader::new(SegmentKind::Events, PAGE_BYTES as u64, 0, 0);
    unknown.kind = 99;
    unknown.checksum = unknown.expected_checksum();
    extra.extend_from_slice(unknown.as_bytes());
    extra.resize(2 * PAGE_BYTES, 0);
    bytes.extend_from_slice(&extra);
    let capture = read(&bytes);
    assert_eq!(
        kinds(&capture),
        [WarningKind::UnknownSegment, WarningKind::UnknownDefinition]
    );
}

#[test]
fn a_damaged_definition_loses_nothing_but_itself() {
    let mut builder = CaptureBuilder::new();
    let good = builder.string("good");
    builder.definition(DefinitionKind::String as u32, 1, 1, b"bad", 0);
    let capture = read(&builder.build());
    assert_eq!(kinds(&capture), [WarningKind::DamagedDefinition]);
    assert_eq!(capture.definitions.string(good), Some("good"));
    assert_eq!(capture.definitions.string(1), Some("<damaged>"));
    assert_eq!(capture.definitions.string(2), None);
}

#[test]
fn names_that_are_not_unicode_survive() {
    let mut builder = CaptureBuilder::new();
    let units: Vec<u8> = [0x61u16, 0xDCE9, 0x62]
        .iter()
        .flat_map(|unit| unit.to_le_bytes())
        .collect();
    let name = builder.string_stored(StringEncoding::Ucs2, &units);
    builder.metadata(MetadataKey::CommandLine, b"python\0caf\xe9.py\0");
    let capture = read(&builder.build());
    assert_eq!(capture.definitions.string(name), Some("a\\xe9b"));
    let raw = capture
        .definitions
        .strings()
        .find_map(|(_, text)| text?.raw.clone());
    assert_eq!(raw.as_deref(), Some(&b"a\xe9b"[..]));
    assert_eq!(capture.metadata.arguments(), ["python", "caf\\xe9.py"]);
}

#[test]
fn longer_records_of_a_later_writer_are_read_by_their_known_part() {
    let builder = fixtures::tiny();
    let mut bytes = builder.build();
    let offset = segment_offset(&bytes, SegmentKind::Cells);
    bytes.truncate(offset);
    let mut payload = Vec::new();
    for cell in &builder.cells {
        payload.extend_from_slice(cell.as_bytes());
        payload.extend_from_slice(&[0xAB; 32]);
    }
    push_segment(
        &mut bytes,
        SegmentKind::Cells,
        0,
        (size_of::<Cell>() + 32) as u32,
        &payload,
    );
    let capture = read(&bytes);
    assert_eq!(kinds(&capture), []);
    assert!(
        capture
            .cells
            .iter()
            .all(|(number, cell)| *cell == builder.cells[number as usize])
    );
}

#[test]
fn a_broken_link_between_segments_is_bridged() {
    let mut bytes = fixtures::tiny().build();
    let nodes = segment_offset(&bytes, SegmentKind::Nodes);
    bytes[nodes + 8] ^= 0xFF;
    let capture = read(&bytes);
    assert_eq!(kinds(&capture), [WarningKind::DamagedSegment]);
    assert!(capture.nodes.is_empty());
    assert_eq!(capture.cells.len(), fixtures::tiny().cells.len());

    // A writer that died before it wrote the header of its segment leaves a hole.
    let mut bytes = fixtures::tiny().build();
    bytes[nodes..nodes + SEGMENT_HEADER_BYTES].fill(0);
    let capture = read(&bytes);
    assert_eq!(kinds(&capture), []);
    assert_eq!(capture.cells.len(), fixtures::tiny().cells.len());
}

#[test]
fn a_truncated_segment_is_read_to_its_last_whole_record() {
    let bytes = fixtures::tiny().build();
    let cells = segment_offset(&bytes, SegmentKind::Cells);
    let cut = &bytes[..cells + SEGMENT_HEADER_BYTES + size_of::<Cell>() + 5];
    let capture = read(cut);
    assert_eq!(kinds(&capture), [WarningKind::TruncatedSegment]);
    assert_eq!(capture.cells.len(), 1);
}

#[test]
fn claims_beyond_the_disk_cost_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sparse.tide");
    let builder = fixtures::tiny();
    let mut bytes = builder.build();
    let cells = segment_offset(&bytes, SegmentKind::Cells);
    let huge = 3u64 << 30;
    let mut header = SegmentHeader::new(SegmentKind::Cells, huge, 0, size_of::<Cell>() as u32);
    header.committed = huge - SEGMENT_HEADER_BYTES as u64;
    bytes[cells..cells + SEGMENT_HEADER_BYTES].copy_from_slice(header.as_bytes());
    let file = File::create(&path).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    file.set_len(cells as u64 + huge).unwrap();
    let capture = Capture::open(&path).unwrap();
    assert!(
        kinds(&capture).contains(&WarningKind::SparseSegment),
        "{:?}",
        capture.warnings
    );
    assert!(capture.cells.len() * size_of::<Cell>() <= 4 << 20);

    file.set_len(5 << 30).unwrap();
    assert!(matches!(
        Capture::open(&path).unwrap_err(),
        Error::TooLarge { .. }
    ));
    assert!(matches!(
        Capture::open(directory.path()).unwrap_err(),
        Error::NotAFile { .. }
    ));
    assert!(matches!(
        Capture::open(path.with_extension("no")).unwrap_err(),
        Error::Open { .. }
    ));
}

#[test]
fn a_file_that_changes_and_shrinks_meanwhile_is_no_danger() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scribbled.tide");
    let bytes = fixtures::killed_service().build();
    let file = File::create(&path).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    std::thread::scope(|scope| {
        let scribbler = scope.spawn(|| {
            let mut random = 7u64;
            for round in 0..3000 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let place = (random >> 33) % bytes.len() as u64;
                file.write_all_at(&random.to_le_bytes(), place).unwrap();
                match round % 50 {
                    10 => file.set_len(place).unwrap(),
                    30 => file.write_all_at(&bytes, 0).unwrap(),
                    _ => {}
                }
            }
        });
        // A result or an error, as long as the scribbler runs.
        while !scribbler.is_finished() {
            if let Ok(capture) = Capture::open(&path) {
                assert!(capture.cells.len() <= bytes.len());
            }
        }
    });
}

#[test]
fn samples_are_sorted_and_equal_times_dropped() {
    let mut builder = fixtures::killed_service();
    builder.samples.swap(0, 3);
    let twice = builder.samples[2];
    builder.samples.push(twice);
    let times: Vec<u64> = read(&builder.build())
        .samples
        .iter()
        .map(|sample| sample.unix_ns)
        .collect();
    assert_eq!(times.len(), 5);
    assert!(times.is_sorted());
}

#[test]
fn the_first_segment_follows_the_header() {
    let capture = read(&fixtures::tiny().build());
    assert_eq!(capture.segments[0].offset, HEADER_BYTES as u64);
}
