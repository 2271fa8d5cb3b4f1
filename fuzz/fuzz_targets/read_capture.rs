//! Any bytes through capture, engine and all reports.
//!
//! Each input is read as it is, and once more with all checksums made right, so that the fuzzer
//! gets past them.
#![no_main]

use std::io;

use heaptide_capture::{Capture, ProcessState};
use heaptide_engine::{Metric, Profile, ProfileOptions, Temporal, TemporalOptions};
use heaptide_format::{
    DefinitionHeader, HEADER_BYTES, SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, checksum,
};
use heaptide_report as report;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    read_and_report(bytes);
    let mut mended = bytes.to_vec();
    mend(&mut mended);
    read_and_report(&mended);
});

fn read_and_report(bytes: &[u8]) {
    let Ok(capture) = Capture::from_bytes(bytes, "fuzz.tide") else {
        return;
    };
    let profile = Profile::new(&capture);
    history(&capture, &profile);
    let liveness = capture.liveness_given(|| ProcessState::Gone);
    let out = &mut io::sink();
    let stats = report::StatsOptions::default();
    let parse = report::ParseOptions::default();
    let text = report::TextOptions {
        color: true,
        unicode: true,
    };
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
        let page = report::FlamegraphOptions {
            metric,
            split_threads: true,
            ..report::FlamegraphOptions::default()
        };
        report::flamegraph_html(&capture, &profile, &liveness, page, out).unwrap();
        let table = report::TableOptions {
            metric,
            split_threads: true,
            confidential_files: report::ConfidentialFiles::All,
            part: report::Part::Whole,
            shown: "",
        };
        report::table_html(&capture, &profile, &liveness, table, out).unwrap();
        // Of the formats of other tools the one that has a tree: the others list every frame of every
        // stack, which takes the square of a capture made for it.
        report::firefox_json(&capture, &profile, metric, out).unwrap();
    }
    let death = report::DeathOptions::default();
    assert!(!report::death_summary(&capture, &profile, &liveness, death).is_empty());
    assert!(!report::status_lines(&capture, &profile, &liveness).is_empty());
}

fn history(capture: &Capture, profile: &Profile) {
    let other_threshold = ProfileOptions {
        temporary_threshold: Some(3),
        ..ProfileOptions::default()
    };
    let few = TemporalOptions {
        max_records: 3,
        ..TemporalOptions::default()
    };
    let temporal = Temporal::new(capture, profile, few);
    assert_eq!(temporal.is_ok(), capture.holds_events());
    if let Ok(temporal) = temporal {
        Profile::with(capture, other_threshold).unwrap();
        let all = 0..=temporal.intervals();
        let _ = temporal.held_at_peak(all.clone());
        let _ = temporal.allocated_in_and_alive_at_end(all);
    }
}

/// Makes magic, version and checksums right, wherever there is room for them.
fn mend(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    bytes[..8].copy_from_slice(b"heaptide");
    bytes[8..16].copy_from_slice(&[1, 0, 0, 0, 0, 0x10, 0, 0]);
    bytes[16..24].fill(0);
    let sum = checksum(&bytes[..508]);
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    for page in (HEADER_BYTES..bytes.len()).step_by(4096) {
        let Some(segment) = bytes
            .get_mut(page..)
            .filter(|rest| rest.len() >= SEGMENT_HEADER_BYTES)
        else {
            return;
        };
        if segment[..4] != SEGMENT_MAGIC.to_le_bytes() {
            continue;
        }
        let sum = checksum(&segment[4..28]);
        segment[28..32].copy_from_slice(&sum.to_le_bytes());
        if segment[4..8] == [1, 0, 0, 0] {
            mend_definitions(&mut segment[SEGMENT_HEADER_BYTES..]);
        }
    }
}

fn mend_definitions(mut stream: &mut [u8]) {
    const HEADER: usize = size_of::<DefinitionHeader>();
    while stream.len() >= HEADER {
        let field = |at: usize| {
            u32::from_le_bytes([stream[at], stream[at + 1], stream[at + 2], stream[at + 3]])
                as usize
        };
        let (total, payload) = (field(0), field(16));
        if total < HEADER + payload || total > stream.len() {
            return;
        }
        let sum = checksum(&stream[HEADER..HEADER + payload]);
        stream[20..24].copy_from_slice(&sum.to_le_bytes());
        stream = &mut std::mem::take(&mut stream)[total..];
    }
}
