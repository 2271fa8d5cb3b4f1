//! Any bytes give a result or an error: nothing panics, hangs, or makes a report fail.

use std::io;

use heaptide_capture::{Capture, Liveness, ProcessState};
use heaptide_engine::{Metric, ProcessHistory, Profile, Temporal, TemporalOptions};
use heaptide_report as report;
use heaptide_testkit::fixtures;

/// Reads the bytes and makes every report of them.
fn read_and_report(bytes: &[u8]) {
    read_and_make(bytes, true);
}

/// As [`read_and_report`]; `pages` makes the compressed ones too, which take most of the time.
fn read_and_make(bytes: &[u8], pages: bool) {
    let Ok(capture) = Capture::from_bytes(bytes, "damaged.tide") else {
        return;
    };
    let profile = Profile::new(&capture);
    let temporal = Temporal::new(&capture, &profile, TemporalOptions::default());
    assert_eq!(temporal.is_ok(), capture.holds_events());
    if let Ok(temporal) = temporal {
        let held = temporal.held_at_peak(0..=temporal.intervals());
        let sum = held
            .iter()
            .fold(0u64, |sum, (_, amount)| sum.saturating_add(amount.bytes));
        assert_eq!(sum, profile.totals.figures.peak.bytes);
    }
    let liveness = capture.liveness_given(|| ProcessState::Gone);
    let out = &mut io::sink();
    let stats = report::StatsOptions::default();
    let parse = report::ParseOptions::default();
    let text = report::TextOptions::default();
    report::stats_text(&capture, &profile, &liveness, stats, out).unwrap();
    report::stats_json(&capture, &profile, &liveness, stats, out).unwrap();
    report::parse_text(&capture, &profile, &liveness, parse, out).unwrap();
    report::parse_json(&capture, &profile, &liveness, parse, out).unwrap();
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
        report::summary_text(&profile, summary, text, out).unwrap();
        report::summary_json(&profile, summary, out).unwrap();
        report::tree_text(&profile, tree, text, out).unwrap();
        report::tree_json(&profile, tree, out).unwrap();
        let table = report::TableOptions {
            metric,
            split_threads: true,
            confidential_files: report::ConfidentialFiles::Default,
            part: report::Part::Whole,
            shown: "",
        };
        report::table_json(&profile, table, out).unwrap();
        report::transform_csv(&profile, metric, out).unwrap();
        report::gprof2dot_json(&profile, metric, out).unwrap();
        report::speedscope_json(&capture, &profile, metric, out).unwrap();
        report::collapsed_stacks(&profile, metric, out).unwrap();
        report::firefox_json(&capture, &profile, metric, out).unwrap();
    }
    if pages {
        make_pages(&capture, &profile, &liveness);
    }
    report::pprof(&capture, &profile, Metric::Peak, out).unwrap();
    let death = report::DeathOptions::default();
    assert!(!report::death_summary(&capture, &profile, &liveness, death).is_empty());
    assert!(!report::status_lines(&capture, &profile, &liveness).is_empty());

    let sum: u64 = profile.entries.iter().fold(0, |sum: u64, entry| {
        sum.saturating_add(entry.figures.peak.bytes)
    });
    assert_eq!(
        sum, profile.totals.figures.peak.bytes,
        "the entries add up to the total"
    );
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
    let bytes = fixtures::tiny().build();
    for length in 0..bytes.len() {
        read_and_report(&bytes[..length]);
    }
}

#[test]
fn every_single_bit_flipped() {
    let mut bytes = fixtures::tiny().build();
    for place in used_ranges(&bytes).into_iter().flatten() {
        for bit in 0..8 {
            bytes[place] ^= 1 << bit;
            read_and_make(&bytes, bit % 4 == 0);
            bytes[place] ^= 1 << bit;
        }
    }
}

#[test]
fn every_single_bit_of_the_events_flipped() {
    let mut bytes = fixtures::tiny_events().build();
    let whole = Capture::from_bytes(&bytes, "whole.tide").unwrap();
    assert_eq!(Profile::new(&whole).warnings, []);
    let chunks = whole.events.chunks().iter();
    let places: Vec<usize> = chunks
        .flat_map(|chunk| chunk.offset..chunk.offset + chunk.bytes)
        .map(|place| place as usize)
        .collect();
    assert!(places.len() > 80, "{}", places.len());
    for place in places {
        for bit in 0..8 {
            bytes[place] ^= 1 << bit;
            read_and_make(&bytes, bit % 4 == 0);
            bytes[place] ^= 1 << bit;
        }
    }
}

#[test]
fn random_bytes_over_a_whole_capture() {
    for capture in [fixtures::tiny(), fixtures::tiny_events()] {
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
    for _ in 0..3000 {
        let mut bytes = whole.to_vec();
        for _ in 0..1 + next() % 16 {
            let range = &ranges[next() as usize % ranges.len()];
            let place = range.start + next() as usize % range.len();
            let length = (1usize << (next() % 4)).min(bytes.len() - place);
            let value = if next() & 1 == 0 { u64::MAX } else { next() };
            bytes[place..place + length].copy_from_slice(&value.to_le_bytes()[..length]);
        }
        read_and_report(&bytes);
    }
}

#[test]
fn nothing_but_random_bytes() {
    let mut bytes = vec![0u8; 3 * 4096];
    let mut random = 99u64;
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
        read_and_report(&bytes);
    }
}
