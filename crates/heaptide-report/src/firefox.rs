//! `heaptide export firefox`: a processed profile for <https://profiler.firefox.com>.
//!
//! Each metric is a process, each thread of the program a thread in it, whose native allocations
//! are the metric's bytes per stack. The memory samples are counters. Version 48 of the format: the
//! profiler brings older versions up to its own.

mod tables;

use std::io::{self, Write};

use heaptide_capture::Capture;
use heaptide_engine::{Amount, CallTree, Metric, Profile};
use heaptide_format::MetadataKey;
use serde::Serialize;
use serde_json::{Value, json};

use self::tables::ThreadTables;
use crate::stats_json::end_unix_ns;

/// Version of the processed format.
const PROCESSED_VERSION: u32 = 48;
/// Version of the Gecko format that goes with it.
const GECKO_VERSION: u32 = 30;

#[derive(Serialize)]
struct File<'a> {
    meta: Value,
    libs: [u8; 0],
    counters: Vec<Value>,
    threads: Vec<ThreadTables<'a>>,
}

/// Milliseconds since the tracking started.
struct Clock {
    start_unix_ns: u64,
}

impl Clock {
    fn milliseconds(&self, unix_ns: u64) -> f64 {
        let nanoseconds = i128::from(unix_ns) - i128::from(self.start_unix_ns);
        nanoseconds.max(0) as f64 / 1e6
    }
}

/// The profile; `metric` comes first.
///
/// # Errors
/// When writing fails.
pub fn firefox_json(
    capture: &Capture,
    profile: &Profile,
    metric: Metric,
    out: &mut dyn Write,
) -> io::Result<()> {
    let first_sample = capture.samples.first().map_or(0, |sample| sample.unix_ns);
    let start_unix_ns = match capture.lifecycle.tracking_start_unix_ns {
        0 => first_sample,
        start => start,
    };
    let clock = Clock { start_unix_ns };
    let end = clock.milliseconds(end_unix_ns(capture).max(start_unix_ns));
    let others = [
        Metric::Peak,
        Metric::Live,
        Metric::Allocated,
        Metric::Temporary,
    ];
    let others = others.into_iter().filter(|&other| other != metric);
    let tree = CallTree::new(profile);
    let mut threads = Vec::new();
    for shown in std::iter::once(metric).chain(others) {
        add_threads(capture, profile, &tree, shown, end, &mut threads);
    }
    let file = File {
        meta: meta(capture, start_unix_ns),
        libs: [],
        counters: counters(capture, &process_id(capture, metric), &clock),
        threads,
    };
    serde_json::to_writer(&mut *out, &file)?;
    out.write_all(b"\n")
}

fn meta(capture: &Capture, start_unix_ns: u64) -> Value {
    let command = capture.metadata.command_line();
    let product = capture.metadata.text(MetadataKey::Target);
    json!({
        "interval": capture.identity.memory_interval_ms.max(1),
        // Milliseconds; in two steps, because nanoseconds since 1970 do not fit a double.
        "startTime": (start_unix_ns / 1_000_000) as f64 + (start_unix_ns % 1_000_000) as f64 / 1e6,
        "processType": 0,
        "product": product.filter(|text| !text.is_empty()).unwrap_or_else(|| command.clone()),
        "arguments": command,
        "importedFrom": concat!("heaptide ", env!("CARGO_PKG_VERSION")),
        "platform": "Linux",
        "stackwalk": 0,
        "debug": false,
        "symbolicated": true,
        "version": GECKO_VERSION,
        "preprocessedProfileVersion": PROCESSED_VERSION,
        "categories": [
            { "name": "Python", "color": "blue", "subcategories": ["Other"] },
            { "name": "Other", "color": "grey", "subcategories": ["Other"] },
        ],
        "markerSchema": [],
    })
}

const fn process_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Peak => "At the peak",
        Metric::Live => "Live at the end",
        Metric::Allocated => "Allocated in total",
        Metric::Temporary => "Temporary",
    }
}

/// Process ids are texts there, and must differ.
fn process_id(capture: &Capture, metric: Metric) -> String {
    format!("{}-{}", capture.identity.pid, metric.name())
}

/// The threads that have something of `metric`; an empty one if none has.
fn add_threads<'a>(
    capture: &Capture,
    profile: &'a Profile,
    tree: &CallTree,
    metric: Metric,
    end: f64,
    threads: &mut Vec<ThreadTables<'a>>,
) {
    let mut rows: Vec<(u32, u32, Amount)> = profile
        .entries
        .iter()
        .map(|entry| {
            let node = tree.node_of(entry.stack);
            (entry.thread, node, entry.figures.get(metric))
        })
        .filter(|(.., amount)| amount.bytes > 0)
        .collect();
    rows.sort_by_key(|&(thread, node, _)| (thread, node));
    rows.dedup_by(|row, kept| {
        let same = (row.0, row.1) == (kept.0, kept.1);
        if same {
            kept.2.add(row.2);
        }
        same
    });
    let pid = process_id(capture, metric);
    // Thread ids must differ over all processes there, and kernel ids come again.
    let head = |name: &'a str, thread_id: u32, number: u32| {
        let tid = format!("{thread_id}.{number}-{}", metric.name());
        ThreadTables::new(process_name(metric), pid.clone(), name, tid, end)
    };
    let first = threads.len();
    for of_thread in rows.chunk_by(|left, right| left.0 == right.0) {
        let thread = &profile.threads[of_thread[0].0 as usize];
        let mut tables = head(&thread.name, thread.thread_id, thread.number);
        for &(_, node, amount) in of_thread {
            tables.add(profile, tree, node, amount.bytes);
        }
        threads.push(tables);
    }
    if threads.len() == first {
        threads.push(head("", capture.lifecycle.main_thread_id, 0));
    }
    threads[first].set_main_thread();
}

/// Resident set and tracked heap over time, as changes from sample to sample.
fn counters(capture: &Capture, pid: &str, clock: &Clock) -> Vec<Value> {
    let samples = &capture.samples;
    if samples.is_empty() {
        return Vec::new();
    }
    let times: Vec<f64> = samples
        .iter()
        .map(|sample| clock.milliseconds(sample.unix_ns))
        .collect();
    let counter = |name: &str, description: &str, values: Vec<u64>| {
        let mut last = 0i128;
        let changes: Vec<i64> = values
            .into_iter()
            .map(|value| {
                let change = i128::from(value) - last;
                last = i128::from(value);
                change.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
            })
            .collect();
        json!({
            "name": name,
            "category": "Memory",
            "description": description,
            "pid": pid,
            "mainThreadIndex": 0,
            "samples": { "time": times, "count": changes, "length": times.len() },
        })
    };
    let resident = samples.iter().map(|sample| sample.resident_bytes);
    let heap = samples.iter().map(|sample| sample.heap_bytes);
    vec![
        counter(
            "Resident memory",
            "Resident set of the process",
            resident.collect(),
        ),
        counter(
            "Tracked heap",
            "Live bytes that heaptide recorded",
            heap.collect(),
        ),
    ]
}
