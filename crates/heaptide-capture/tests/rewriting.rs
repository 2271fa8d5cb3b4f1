//! A capture written anew says what the original said, and its packed blocks bear any damage.

use std::fs::File;

use heaptide_capture::{
    Capture, EventVisitor, PlacedEvent, RewriteError, Rewritten, SegmentSummary, WarningKind,
    rewrite,
};
use heaptide_format::{
    CHUNK_HEADER_BYTES, ChunkHeader, DefinitionHeader, DefinitionKind, Encoder, Event,
    FEATURE_NODE_STREAM, FEATURE_OBJECT_EVENTS, FEATURE_PACKED_EVENTS, FEATURE_PACKED_RECORDS,
    HEADER_BYTES, Identity, MOST_EVENT_BYTES, Mode, Moment, NODE_FOLDED, Node, Receiver,
    RecordBlock, SEGMENT_IN_BLOCKS, SegmentHeader, SegmentKind, Site,
};
use heaptide_testkit::builder::push_segment;
use heaptide_testkit::{CaptureBuilder, fixtures};
use zerocopy::{FromBytes, IntoBytes};

/// A chunk as the agent writes it: allocations and frees in turns that the streams take one after the other. With `objects`,
/// half of them are creations and destructions of Python objects instead.
fn chunk(stream: u32, sequence: u32, events: u64, objects: bool) -> Vec<u8> {
    let header = ChunkHeader {
        stream,
        sequence,
        thread: stream + 1,
        event_bytes: 0,
    };
    let mut bytes = header.as_bytes().to_vec();
    let mut encoder = Encoder::new();
    let mut out = [0; MOST_EVENT_BYTES];
    for number in 0..events {
        let place = u64::from(sequence) * events + number;
        if number % 10 == 0 {
            let turn = (place / 10 * 8 + u64::from(stream)) * 2;
            let length = encoder.turn(&mut out, turn);
            bytes.extend_from_slice(&out[..length]);
        }
        let address = 0x5500_0000_0000 + (place / 2 * 7919 % 4096) * 64;
        let site = Site {
            node: (place % 7) as u32,
            allocator: 6,
            size: place % 1000,
        };
        let length = match number % 4 {
            2 if objects => encoder.object_made(&mut out, address, site.node, 3, 0),
            3 if objects => encoder.object_gone(&mut out, address, 0),
            0 | 2 => encoder.allocated(&mut out, address, site, 0),
            _ => encoder.freed(&mut out, address, 0),
        };
        bytes.extend_from_slice(&out[..length]);
    }
    bytes
}

/// Three streams with chunks in between one another and among scratch, and room that was never used.
fn with_events() -> Vec<u8> {
    with_events_of(false)
}

fn with_events_of(objects: bool) -> Vec<u8> {
    let mut builder = fixtures::killed_service();
    if objects {
        builder.header.identity.required_features = FEATURE_OBJECT_EVENTS;
    }
    builder.header.identity.mode = Mode::All as u32;
    builder.records_per_segment = 2;
    let mut bytes = builder.build();
    let mut segments = Vec::new();
    push_segment(&mut segments, SegmentKind::Scratch, 0, 0, &[1; 20_000]);
    for sequence in 0..4 {
        for stream in 0..3 {
            let payload = chunk(stream, sequence, 500 << (2 * sequence), objects);
            push_segment(&mut segments, SegmentKind::Events, 0, 0, &payload);
        }
        push_segment(&mut segments, SegmentKind::Scratch, 0, 0, &[2; 9000]);
    }
    push_segment(&mut segments, SegmentKind::Events, 0, 0, &[]);
    bytes.extend_from_slice(&segments);
    set_end(&mut bytes);
    bytes
}

fn set_end(bytes: &mut [u8]) {
    let at = heaptide_format::offsets::LIFECYCLE
        + std::mem::offset_of!(heaptide_format::Lifecycle, allocated_end);
    let end = bytes.len() as u64;
    bytes[at..at + 8].copy_from_slice(&end.to_le_bytes());
}

fn rewritten(bytes: &[u8]) -> Result<(Vec<u8>, Rewritten), RewriteError> {
    let directory = tempfile::tempdir().unwrap();
    let original = directory.path().join("original");
    std::fs::write(&original, bytes).unwrap();
    let target = directory.path().join("target");
    let figures = rewrite(
        &File::open(&original).unwrap(),
        &File::create(&target).unwrap(),
        &mut |done, total| {
            assert!(done <= total);
            true
        },
    )?;
    assert_eq!(std::fs::read(&original).unwrap(), bytes);
    Ok((std::fs::read(&target).unwrap(), figures))
}

fn read(bytes: &[u8]) -> Capture {
    Capture::from_bytes(bytes, "x.tide").unwrap()
}

fn events(capture: &Capture) -> Vec<PlacedEvent> {
    capture.events.in_order().collect()
}

#[test]
fn native_stacks_are_the_same() {
    for streams_nodes in [false, true] {
        let mut builder = fixtures::tiny_native();
        builder.streams_nodes = streams_nodes;
        builder.records_per_segment = 2;
        let bytes = builder.build();
        let (packed, _) = rewritten(&bytes).unwrap();
        let (before, after) = (read(&bytes), read(&packed));
        assert_eq!(after.warnings, []);
        assert!(before.nodes.iter().eq(after.nodes.iter()));
        assert!(before.modules.iter().eq(after.modules.iter()));
        assert!(before.native_nodes.iter().eq(after.native_nodes.iter()));
        assert_eq!(
            (
                after.modules.iter().count(),
                after.native_nodes.iter().count()
            ),
            (1, 4)
        );
        assert!(after.identity.holds_native_stacks());
    }
}

#[test]
fn every_record_and_every_event_is_the_same() {
    let bytes = with_events();
    let (packed, figures) = rewritten(&bytes).unwrap();
    assert_eq!(
        (figures.bytes_before, figures.bytes_after),
        (bytes.len() as u64, packed.len() as u64)
    );
    let (before, after) = (read(&bytes), read(&packed));
    assert_eq!(
        (before.warnings.as_slice(), after.warnings.as_slice()),
        (&[][..], &[][..])
    );
    assert!(before.nodes.iter().eq(after.nodes.iter()));
    assert!(before.cells.iter().eq(after.cells.iter()));
    assert!(before.definitions.strings().eq(after.definitions.strings()));
    assert!(before.definitions.codes().eq(after.definitions.codes()));
    fn raw<T: IntoBytes + zerocopy::Immutable>(table: &heaptide_capture::Table<T>) -> Vec<&[u8]> {
        table.iter().map(|(_, record)| record.as_bytes()).collect()
    }
    assert_eq!(raw(&before.threads), raw(&after.threads));
    assert_eq!(raw(&before.slots), raw(&after.slots));
    assert_eq!(before.samples, after.samples);
    assert_eq!(before.heap, after.heap);
    assert_eq!(
        before.metadata.command_line(),
        after.metadata.command_line()
    );
    assert_eq!(
        before.liveness_given(|| panic!("it has ended")),
        after.liveness_given(|| panic!())
    );
    let (all, same) = (events(&before), events(&after));
    assert_eq!(all.len(), 3 * (500 + 2000 + 8000 + 32_000));
    assert!(all == same);
    assert_eq!(before.events.bytes(), after.events.bytes());
    assert!(after.segments.iter().all(|segment| {
        !matches!(
            segment.kind,
            Some(SegmentKind::Events | SegmentKind::Scratch)
        )
    }));
    assert!(
        packed.len() * 3 < bytes.len(),
        "{} of {}",
        packed.len(),
        bytes.len()
    );
}

/// They are sorted into the columns of the others, and their slots as well.
#[test]
fn events_of_objects_are_packed_with_the_others() {
    let bytes = with_events_of(true);
    let (packed, _) = rewritten(&bytes).unwrap();
    let (before, after) = (read(&bytes), read(&packed));
    assert_eq!(after.warnings, []);
    assert!(after.identity.holds_object_events());
    assert_eq!(
        after.identity.required_features,
        FEATURE_OBJECT_EVENTS | FEATURE_PACKED_EVENTS | FEATURE_PACKED_RECORDS
    );
    let (all, same) = (events(&before), events(&after));
    assert_eq!(all.len(), 3 * (500 + 2000 + 8000 + 32_000));
    assert!(all == same);
    let of_objects = all.iter().filter(|placed| {
        matches!(
            placed.event,
            Event::ObjectMade { type_name: 3, .. } | Event::ObjectGone { .. }
        )
    });
    assert_eq!(of_objects.count(), all.len() / 2);
    assert!(
        packed.len() * 3 < bytes.len(),
        "{} of {}",
        packed.len(),
        bytes.len()
    );
    assert!(matches!(rewritten(&packed), Err(RewriteError::DoneBefore)));
}

/// As a running program writes them; a fold is told behind the node, here in another segment.
#[test]
fn streams_of_nodes_become_a_table() {
    let mut builder = fixtures::killed_service();
    builder.streams_nodes = true;
    builder.nodes[2].flags = NODE_FOLDED;
    builder.nodes[4].flags = NODE_FOLDED;
    for number in 0..40_000 {
        builder.nodes.push(Node {
            parent: number / 3,
            code: number % 1000,
            last_instruction: (number % 50) as i32 * 2 - i32::from(number % 50 == 0),
            flags: 0,
        });
    }
    for per_segment in [2, 4096, usize::MAX] {
        builder.records_per_segment = per_segment;
        let bytes = builder.build();
        let (packed, _) = rewritten(&bytes).unwrap();
        let (before, after) = (read(&bytes), read(&packed));
        assert_eq!(before.identity.required_features, FEATURE_NODE_STREAM);
        assert_eq!(after.identity.required_features, FEATURE_PACKED_RECORDS);
        for capture in [before, after] {
            assert_eq!(capture.warnings, []);
            let read = capture.nodes.iter().map(|(_, node)| node);
            assert!(read.eq(&builder.nodes), "{per_segment} a segment");
        }
    }
}

#[test]
fn damaged_streams_of_nodes_are_left_as_they_are() {
    let mut builder = fixtures::killed_service();
    builder.streams_nodes = true;
    builder.records_per_segment = 3;
    let good = builder.build();
    let places: Vec<SegmentSummary> = read(&good)
        .segments
        .into_iter()
        .filter(|segment| segment.kind == Some(SegmentKind::NodeStream))
        .collect();
    // No parent is so far away, and no node is here.
    for (at, bytes) in [(0, [0x80, 0xff].as_slice()), (0, &[0, 0, 0])] {
        let mut bad = good.clone();
        let start = places[1].payload_offset() as usize + at;
        bad[start..start + bytes.len()].copy_from_slice(bytes);
        assert!(matches!(rewritten(&bad), Err(RewriteError::Damaged(_))));
        let capture = read(&bad);
        let kinds = capture.warnings.iter().map(|warning| warning.kind);
        assert!(
            kinds.eq([WarningKind::DamagedNode]),
            "{:?}",
            capture.warnings
        );
        assert_eq!(capture.nodes.get(3), None);
        assert_eq!(capture.nodes.get(6), Some(&builder.nodes[6]));
    }
    // Numbers that are taken, or leave out some.
    for first in [2u64, 4] {
        let mut bad = good.clone();
        let start = places[1].offset as usize;
        let (mut header, _) = SegmentHeader::read_from_prefix(&bad[start..]).unwrap();
        header.first_index = first;
        header.checksum = header.expected_checksum();
        bad[start..start + size_of::<SegmentHeader>()].copy_from_slice(header.as_bytes());
        assert!(matches!(rewritten(&bad), Err(RewriteError::Damaged(_))));
        assert!(!read(&bad).warnings.is_empty());
    }
}

/// What is not known may mean anything.
#[test]
fn a_capture_of_other_features_is_left_as_it_is() {
    let mut bytes = with_events();
    let (mut identity, _) = Identity::read_from_prefix(&bytes).unwrap();
    identity.required_features = 1 << 63;
    identity.checksum = identity.expected_checksum();
    bytes[..size_of::<Identity>()].copy_from_slice(identity.as_bytes());
    assert!(matches!(rewritten(&bytes), Err(RewriteError::Damaged(_))));
}

#[test]
fn an_aggregated_capture_loses_its_scratch_only() {
    let mut bytes = CaptureBuilder::new().build();
    let length = bytes.len();
    push_segment(&mut bytes, SegmentKind::Scratch, 0, 0, &[1; 100_000]);
    set_end(&mut bytes);
    let (packed, _) = rewritten(&bytes).unwrap();
    // Empty segments are gone as well.
    assert!(packed.len() <= length);
    let (before, after) = (read(&bytes), read(&packed));
    assert!(before.nodes.iter().eq(after.nodes.iter()));
    assert_eq!(after.identity.required_features, FEATURE_PACKED_RECORDS);
    assert!(after.warnings.is_empty());
}

#[test]
fn an_old_reader_is_told_and_nothing_is_packed_twice() {
    let (packed, _) = rewritten(&with_events()).unwrap();
    let identity = Identity::read_from_prefix(&packed).unwrap().0;
    assert_eq!(
        identity.required_features,
        FEATURE_PACKED_EVENTS | FEATURE_PACKED_RECORDS
    );
    assert_eq!(identity.checksum, identity.expected_checksum());
    assert!(matches!(rewritten(&packed), Err(RewriteError::DoneBefore)));
}

#[test]
fn what_is_not_whole_is_not_written_anew() {
    let bytes = with_events();
    for end in [0, 100, HEADER_BYTES, bytes.len() - 5000] {
        assert!(
            matches!(rewritten(&bytes[..end]), Err(RewriteError::Damaged(_))),
            "{end}"
        );
    }
    let mut damaged = bytes;
    damaged[100] ^= 1;
    assert!(matches!(rewritten(&damaged), Err(RewriteError::Damaged(_))));
}

#[test]
fn it_stops_when_it_is_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("original");
    std::fs::write(&path, with_events()).unwrap();
    let target = File::create(directory.path().join("target")).unwrap();
    let mut calls = 0;
    let result = rewrite(&File::open(&path).unwrap(), &target, &mut |_, _| {
        calls += 1;
        calls < 9
    });
    assert!(matches!(result, Err(RewriteError::Interrupted)));
    assert_eq!(calls, 9);
}

/// The segment of packed events: where it is and its payload's end.
fn packed_segment(bytes: &[u8]) -> (usize, usize) {
    segment_of(bytes, SegmentKind::PackedEvents)
}

/// The first segment of a kind: where its payload begins and ends.
fn segment_of(bytes: &[u8], kind: SegmentKind) -> (usize, usize) {
    let capture = read(bytes);
    let found = capture
        .segments
        .iter()
        .find(|segment| segment.kind == Some(kind));
    let segment = found.expect("such a segment");
    let start = segment.payload_offset() as usize;
    (start, start + segment.readable as usize)
}

struct Counter(usize);

impl Receiver for Counter {
    fn allocated(&mut self, _: u64, _: &Site) {
        self.0 += 1;
    }

    fn freed(&mut self, _: u64) {
        self.0 += 1;
    }
}

impl EventVisitor for Counter {
    fn place(&mut self, _: Moment, _: usize, _: u32) {}

    fn rare(&mut self, _: Event) {
        self.0 += 1;
    }

    fn read(&mut self, _: u64) {}
}

#[test]
fn damage_in_a_block_is_told_and_costs_that_block() {
    let (packed, _) = rewritten(&with_events()).unwrap();
    let whole = events(&read(&packed));
    let (start, end) = packed_segment(&packed);
    let mut noticed = 0;
    for at in (start..end).step_by(397) {
        let mut damaged = packed.clone();
        damaged[at] ^= 0x10;
        let capture = read(&damaged);
        let left = events(&capture).len();
        let mut counter = Counter(0);
        let mut warnings = capture.events.in_order().visit(&mut counter).into_vec();
        assert_eq!(counter.0, left);
        warnings.extend(capture.warnings.clone());
        if left == whole.len() {
            // Bytes that mean nothing.
            continue;
        }
        noticed += 1;
        assert!(left < whole.len());
        assert!(
            warnings
                .iter()
                .any(|warning| warning.kind == WarningKind::DamagedEvents),
            "byte {at}: {warnings:?}"
        );
    }
    assert!(noticed > 20, "{noticed}");
}

#[test]
fn a_block_that_is_cut_off_is_told() {
    let (packed, _) = rewritten(&with_events()).unwrap();
    let whole = events(&read(&packed)).len();
    let (start, end) = packed_segment(&packed);
    for length in (start..end).step_by((end - start) / 50) {
        let capture = read(&packed[..length]);
        assert!(!capture.warnings.is_empty());
        assert!(events(&capture).len() < whole);
    }
}

#[test]
fn a_block_that_claims_too_much_is_refused() {
    let (packed, _) = rewritten(&with_events()).unwrap();
    let (start, _) = packed_segment(&packed);
    let head = heaptide_format::PackedBlock::read_from_prefix(&packed[start..])
        .unwrap()
        .0;
    let heads = heaptide_format::PACKED_BLOCK_BYTES + head.chunks as usize * CHUNK_HEADER_BYTES;
    for claim in [heaptide_format::LARGEST_BLOCK_BYTES, u32::MAX] {
        let mut lying = packed.clone();
        let mut head = head;
        head.event_bytes = claim;
        // Such a head would be whole by its checksum.
        let mut covered = head.as_bytes()[..24].to_vec();
        covered
            .extend_from_slice(&packed[start + heaptide_format::PACKED_BLOCK_BYTES..start + heads]);
        head.checksum = heaptide_format::checksum(&covered);
        lying[start..start + heaptide_format::PACKED_BLOCK_BYTES].copy_from_slice(head.as_bytes());
        let capture = read(&lying);
        assert!(!capture.warnings.is_empty(), "{claim}");
    }
}

/// More nodes than a block holds, in pieces that follow those of the builder and one another, a gap, and more.
fn with_nodes() -> Vec<u8> {
    let mut bytes = CaptureBuilder::new().build();
    let node = |number: u32| Node {
        parent: (number - 1).saturating_sub(number % 3),
        code: number / 7 % 50,
        last_instruction: (number % 90 * 2) as i32,
        flags: 0,
    };
    let mut push = |first: u32, count: u32| {
        let nodes: Vec<Node> = (first..first + count).map(node).collect();
        let first = u64::from(first);
        push_segment(
            &mut bytes,
            SegmentKind::Nodes,
            first,
            16,
            nodes.as_slice().as_bytes(),
        );
    };
    for piece in 0..12 {
        push(2 + piece * 4000, 4000);
    }
    push(100_000, 5000);
    set_end(&mut bytes);
    bytes
}

#[test]
fn pieces_of_a_table_become_one() {
    let bytes = with_nodes();
    let (packed, _) = rewritten(&bytes).unwrap();
    let (before, after) = (read(&bytes), read(&packed));
    assert_eq!(before.nodes.len(), 53_002);
    assert!(before.nodes.iter().eq(after.nodes.iter()));
    assert!(after.warnings.is_empty(), "{:?}", after.warnings);
    let nodes = after.segments.iter();
    let nodes: Vec<(u64, bool)> = nodes
        .filter(|segment| segment.kind == Some(SegmentKind::Nodes))
        .map(|segment| (segment.first_index, segment.in_blocks))
        .collect();
    assert_eq!(nodes, [(0, true), (100_000, true)]);
    assert!(
        packed.len() * 13 < bytes.len(),
        "{} of {}",
        packed.len(),
        bytes.len()
    );
}

#[test]
fn damage_in_a_block_of_records_is_told_and_leaves_the_others_their_numbers() {
    let (packed, _) = rewritten(&with_nodes()).unwrap();
    let whole = read(&packed).nodes;
    let (start, end) = segment_of(&packed, SegmentKind::Nodes);
    let mut kept_some_behind = false;
    for at in (start..end).step_by(97) {
        let mut damaged = packed.clone();
        damaged[at] ^= 0x10;
        let capture = read(&damaged);
        let lost = whole.len() - capture.nodes.len();
        // A byte that only fills up means nothing.
        assert_eq!(lost > 0, !capture.warnings.is_empty(), "byte {at}");
        for (number, node) in capture.nodes.iter() {
            assert_eq!(whole.get(number), Some(node), "byte {at}");
        }
        kept_some_behind |= lost > 0 && capture.nodes.get(10).is_none() && lost < 20_000;
        let cut_off = read(&packed[..at]);
        assert!(!cut_off.warnings.is_empty());
        assert!(cut_off.nodes.len() < whole.len());
    }
    assert!(kept_some_behind);
}

/// A string of one byte a code point.
fn push_string(stream: &mut Vec<u8>, number: u32, text: &[u8]) {
    let total = DefinitionHeader::total_bytes_for(text.len());
    let header = DefinitionHeader {
        total_bytes: total as u32,
        kind: DefinitionKind::String as u32,
        id: number,
        encoding: 1,
        payload_bytes: text.len() as u32,
        checksum: heaptide_format::checksum(text),
    };
    let end = stream.len() + total;
    stream.extend_from_slice(header.as_bytes());
    stream.extend_from_slice(text);
    stream.resize(end, 0);
}

#[test]
fn definitions_behind_a_lost_block_are_there() {
    let mut bytes = CaptureBuilder::new().build();
    let mut random = heaptide_testkit::Random(5);
    for segment in 0..9u32 {
        let mut stream = Vec::new();
        for number in 0..200 {
            // Nothing that a packer could make use of.
            let text: String = (0..300)
                .map(|_| char::from(b'!' + random.below(90) as u8))
                .collect();
            push_string(&mut stream, segment * 200 + number + 1000, text.as_bytes());
        }
        push_segment(&mut bytes, SegmentKind::Definitions, 0, 0, &stream);
    }
    set_end(&mut bytes);
    let (mut packed, _) = rewritten(&bytes).unwrap();
    let (before, after) = (read(&bytes), read(&packed));
    assert!(before.definitions.strings().eq(after.definitions.strings()));
    let (start, end) = segment_of(&packed, SegmentKind::Definitions);
    let count = |capture: &Capture| capture.definitions.strings().count();
    let all = count(&after);
    packed[usize::midpoint(start, end)] ^= 1;
    let damaged = read(&packed);
    assert!(!damaged.warnings.is_empty());
    assert!((all - 800..all - 100).contains(&count(&damaged)));
    assert!(damaged.definitions.string(1000).is_some());
    assert!(damaged.definitions.string(2799).is_some());
}

#[test]
fn a_table_of_nothing_says_so_still() {
    let mut bytes = CaptureBuilder::new().build();
    push_segment(&mut bytes, SegmentKind::Survivors, 0, 24, &[]);
    set_end(&mut bytes);
    let (packed, _) = rewritten(&bytes).unwrap();
    let is_survivors =
        |segment: &heaptide_capture::SegmentSummary| segment.kind == Some(SegmentKind::Survivors);
    assert!(read(&packed).segments.iter().any(is_survivors));
}

#[test]
fn damage_everywhere_ends_somewhere() {
    let (packed, _) = rewritten(&with_nodes()).unwrap();
    let (start, end) = segment_of(&packed, SegmentKind::Nodes);
    let block = &packed[start..end];
    let head = RecordBlock::read_from_prefix(block).unwrap().0;
    let good = &block[..head.total_bytes as usize];
    let mut bad = good.to_vec();
    bad[100] ^= 1;
    let blocks = [good, &bad].concat().repeat(80);
    let mut bytes = packed[..HEADER_BYTES].to_vec();
    let kind = SegmentKind::Nodes;
    push_segment(&mut bytes, kind, 0, 16, &blocks);
    let mut header = SegmentHeader::new(kind, (bytes.len() - HEADER_BYTES) as u64, 0, 16);
    header.kind |= SEGMENT_IN_BLOCKS;
    header.committed = blocks.len() as u64;
    header.checksum = header.expected_checksum();
    bytes[HEADER_BYTES..][..64].copy_from_slice(header.as_bytes());
    set_end(&mut bytes);
    let capture = read(&bytes);
    // Up to the 65th block that is damaged.
    assert_eq!(capture.nodes.len(), 65 * head.unpacked_bytes as usize / 16);
    assert!(!capture.warnings.is_empty());
}
