//! Any bytes give a result or an error: nothing panics, hangs, or makes a report fail.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hasher;
use std::io;

use heaptide_capture::{Capture, Liveness, ProcessState, Table};
use heaptide_engine::{Metric, ProcessHistory, Profile, StackId, Temporal, TemporalOptions};
use heaptide_format::SegmentKind;
use heaptide_report as report;
use heaptide_testkit::fixtures;
use rustc_hash::FxHasher;

/// Damaged captures are many, and most are read as what another one was read as, or make the same profile: a report is made once
/// of all that it is made of, which a hash of it tells.
#[derive(Default)]
struct Reporter {
    profiles: HashSet<u64>,
    captures: HashSet<u64>,
    /// How many captures could be read.
    readable: usize,
}

/// Of everything that can be seen of a value.
fn hash_of(value: &dyn Debug) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(format!("{value:?}").as_bytes());
    hasher.finish()
}

impl Reporter {
    /// Reads the bytes and makes every report of them; `pages` makes the compressed ones too, which take most of the time.
    fn read_and_make(&mut self, bytes: &[u8], pages: bool) {
        let Ok(mut capture) = Capture::from_bytes(bytes, "damaged.tide") else {
            return;
        };
        self.readable += 1;
        let profile = Profile::new(&capture);
        check(&capture, &profile);
        let liveness = capture.liveness_given(|| ProcessState::Gone);
        make_of_records(&capture, &profile, &liveness);
        // What no other report looks at is not there for them, so what is left is all that they are made of.
        capture.slots = Table::default();
        capture.identity.reserved.fill(0);
        capture.lifecycle.reserved.fill(0);
        capture.own.reserved.fill(0);
        capture.identity.checksum = 0;
        let profile_hash = hash_of(&profile);
        if self.profiles.insert(profile_hash) {
            make_of_profile(&profile);
        }
        let length = std::mem::take(&mut capture.file_bytes);
        let capture_hash = hash_of(&(&capture, profile_hash));
        // Shown as a number, and nothing is made of it.
        capture.file_bytes = length;
        if self.captures.insert(capture_hash) {
            make_of_capture(&capture, &profile, &liveness);
            if pages {
                make_pages(&capture, &profile, &liveness);
            }
        }
    }
}

fn check(capture: &Capture, profile: &Profile) {
    let temporal = Temporal::new(capture, profile, TemporalOptions::default());
    assert_eq!(temporal.is_ok(), capture.holds_events());
    if let Ok(temporal) = temporal {
        let held = temporal.held_at_peak(0..=temporal.intervals());
        let sum = held
            .iter()
            .fold(0u64, |sum, (_, amount)| sum.saturating_add(amount.bytes));
        assert_eq!(sum, profile.totals.figures.peak.bytes);
    }
    let sum: u64 = profile.entries.iter().fold(0, |sum: u64, entry| {
        sum.saturating_add(entry.figures.peak.bytes)
    });
    assert_eq!(
        sum, profile.totals.figures.peak.bytes,
        "the entries add up to the total"
    );
    for (_, survivor) in capture.survivors.iter().flat_map(Table::iter) {
        let stack = profile.stack_of_node(survivor.node);
        let frames = profile.stacks.walk(stack.unwrap_or(StackId::LOST));
        assert!(frames.count() <= capture.nodes.len() + 1);
        let _ = capture.definitions.string(survivor.type_name);
    }
}

/// What lists the records of a capture, one by one.
fn make_of_records(capture: &Capture, profile: &Profile, liveness: &Liveness) {
    let out = &mut io::sink();
    let parse = report::ParseOptions::default();
    report::parse_text(capture, profile, liveness, parse, out).unwrap();
    report::parse_json(capture, profile, liveness, parse, out).unwrap();
}

/// What is made of a profile alone.
fn make_of_profile(profile: &Profile) {
    let out = &mut io::sink();
    let text = report::TextOptions::default();
    for metric in [Metric::Peak, Metric::Live] {
        let summary = report::SummaryOptions {
            metric,
            ..report::SummaryOptions::default()
        };
        let tree = report::TreeOptions {
            metric,
            min_percent: 0.0,
            ..report::TreeOptions::default()
        };
        report::summary_text(profile, summary, text, out).unwrap();
        report::summary_json(profile, summary, out).unwrap();
        report::tree_text(profile, tree, text, out).unwrap();
        report::tree_json(profile, tree, out).unwrap();
        let table = report::TableOptions {
            metric,
            split_threads: true,
            confidential_files: report::ConfidentialFiles::Default,
            part: report::Part::Whole,
            shown: "",
        };
        report::table_json(profile, table, out).unwrap();
        report::transform_csv(profile, metric, out).unwrap();
        report::gprof2dot_json(profile, metric, out).unwrap();
        report::collapsed_stacks(profile, metric, out).unwrap();
    }
}

/// What is made of both.
fn make_of_capture(capture: &Capture, profile: &Profile, liveness: &Liveness) {
    let out = &mut io::sink();
    let stats = report::StatsOptions::default();
    report::stats_text(capture, profile, liveness, stats, out).unwrap();
    report::stats_json(capture, profile, liveness, stats, out).unwrap();
    for metric in [Metric::Peak, Metric::Live] {
        report::speedscope_json(&capture.metadata.command_line(), profile, metric, out).unwrap();
        report::firefox_json(capture, profile, metric, out).unwrap();
    }
    report::pprof(capture, profile, Metric::Peak, out).unwrap();
    let death = report::DeathOptions::default();
    assert!(!report::death_summary(capture, profile, liveness, death).is_empty());
    assert!(!report::status_lines(capture, profile, liveness).is_empty());
}

fn make_pages(capture: &Capture, profile: &Profile, liveness: &Liveness) {
    let out = &mut io::sink();
    let temporal = Temporal::new(capture, profile, TemporalOptions::default()).ok();
    let histories: Vec<ProcessHistory> = (temporal.into_iter())
        .map(|temporal| ProcessHistory {
            temporal,
            start_unix_ns: capture.lifecycle.tracking_start_unix_ns,
            end_unix_ns: report::end_unix_ns(capture),
        })
        .collect();
    let page = report::FlamegraphOptions {
        split_threads: true,
        histories: &histories,
        ..report::FlamegraphOptions::default()
    };
    report::flamegraph_html(capture, profile, liveness, page, out).unwrap();
    let table = report::TableOptions {
        metric: Metric::Live,
        split_threads: true,
        confidential_files: report::ConfidentialFiles::Default,
        part: report::Part::Whole,
        shown: "",
    };
    report::table_html(capture, profile, liveness, table, out).unwrap();
}

/// The places of a capture that hold something: all but the zeros that fill up pages.
fn used_ranges(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let capture = Capture::from_bytes(bytes, "whole.tide").unwrap();
    let used = capture.segments.iter().map(|segment| {
        let start = segment.offset as usize;
        start..start + heaptide_format::SEGMENT_HEADER_BYTES + segment.readable as usize
    });
    std::iter::once(0..heaptide_format::offsets::OWN + 128)
        .chain(used)
        .collect()
}

#[test]
fn cut_off_at_every_byte() {
    let bytes = fixtures::tiny_objects().build();
    let ranges = used_ranges(&bytes);
    let mut reporter = Reporter::default();
    for length in 0..bytes.len() {
        // Of those that end in the zeros that fill up pages, which say no more than how many there are, a few get reports.
        if length % 32 == 0 || ranges.iter().any(|range| range.contains(&length)) {
            reporter.read_and_make(&bytes[..length], true);
        } else if let Ok(capture) = Capture::from_bytes(&bytes[..length], "damaged.tide") {
            check(&capture, &Profile::new(&capture));
        }
    }
    assert!(reporter.readable > 4000, "{}", reporter.readable);
}

/// Makes every report of the capture with each of these bits flipped, one at a time.
fn flip_each_bit(mut bytes: Vec<u8>, places: impl IntoIterator<Item = usize>) -> Reporter {
    let mut reporter = Reporter::default();
    for place in places {
        for bit in 0..8 {
            bytes[place] ^= 1 << bit;
            reporter.read_and_make(&bytes, bit % 4 == 0);
            bytes[place] ^= 1 << bit;
        }
    }
    reporter
}

#[test]
fn every_single_bit_flipped() {
    let bytes = fixtures::tiny_objects().build();
    let places = used_ranges(&bytes).into_iter().flatten();
    let reporter = flip_each_bit(bytes, places);
    let told_apart = (reporter.profiles.len(), reporter.captures.len());
    assert!(
        told_apart.0 > 5000 && told_apart.1 > 10_000,
        "{told_apart:?}"
    );
}

#[test]
fn every_single_bit_of_the_streamed_nodes_flipped() {
    let mut builder = fixtures::tiny_objects();
    builder.streams_nodes = true;
    builder.records_per_segment = 3;
    let bytes = builder.build();
    let whole = Capture::from_bytes(&bytes, "whole.tide").unwrap();
    assert_eq!(Profile::new(&whole).warnings, []);
    let segments = whole.segments.iter();
    let of_nodes = segments.filter(|segment| segment.kind == Some(SegmentKind::NodeStream));
    let places = of_nodes.flat_map(|segment| {
        let start = segment.offset as usize;
        start..start + heaptide_format::SEGMENT_HEADER_BYTES + segment.readable as usize
    });
    let reporter = flip_each_bit(bytes, places.collect::<Vec<_>>());
    assert!(reporter.profiles.len() > 50, "{}", reporter.profiles.len());
}

#[test]
fn every_single_bit_of_the_events_flipped() {
    flip_each_bit_of_events(fixtures::tiny_events().build(), 80);
    flip_each_bit_of_events(fixtures::tiny_object_events().build(), 60);
}

fn flip_each_bit_of_events(bytes: Vec<u8>, at_least: usize) {
    let whole = Capture::from_bytes(&bytes, "whole.tide").unwrap();
    assert_eq!(Profile::new(&whole).warnings, []);
    let chunks = whole.events.chunks().iter();
    let places: Vec<usize> = chunks
        .flat_map(|chunk| chunk.offset..chunk.offset + chunk.bytes)
        .map(|place| place as usize)
        .collect();
    assert!(places.len() > at_least, "{}", places.len());
    flip_each_bit(bytes, places);
}

#[test]
fn random_bytes_over_a_whole_capture() {
    for capture in [
        fixtures::tiny_objects(),
        fixtures::tiny_events(),
        fixtures::tiny_object_events(),
        fixtures::tiny_native(),
    ] {
        random_bytes_over(&capture.build());
    }
}

fn random_bytes_over(whole: &[u8]) {
    let ranges = used_ranges(whole);
    let mut random = 0x1234_5678_9ABC_DEF1u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut reporter = Reporter::default();
    for _ in 0..3000 {
        let mut bytes = whole.to_vec();
        for _ in 0..1 + next() % 16 {
            let range = &ranges[next() as usize % ranges.len()];
            let place = range.start + next() as usize % range.len();
            let length = (1usize << (next() % 4)).min(bytes.len() - place);
            let value = if next() & 1 == 0 { u64::MAX } else { next() };
            bytes[place..place + length].copy_from_slice(&value.to_le_bytes()[..length]);
        }
        reporter.read_and_make(&bytes, true);
    }
}

#[test]
fn nothing_but_random_bytes() {
    let mut bytes = vec![0u8; 3 * 4096];
    let mut random = 99u64;
    let mut reporter = Reporter::default();
    for round in 0..200 {
        for byte in &mut bytes {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = (random >> 56) as u8;
        }
        if round % 2 == 0 {
            bytes[..8].copy_from_slice(&heaptide_format::MAGIC);
            bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
        }
        reporter.read_and_make(&bytes, true);
    }
}
