//! `heaptide table`: allocations per place, as a page that sorts and filters and needs no network.

use std::io::{self, Write};

use heaptide_capture::{Capture, Liveness};
use heaptide_engine::{Amount, LocationId, Metric, Profile};
use rustc_hash::FxHashMap;

use crate::SCHEMA_VERSION;
use crate::flamegraph::MAX_MEMORY_RECORDS;
use crate::object::{Field, object, write_pretty};
use crate::page::{ConfidentialFiles, PageRequest, write_page};
use crate::stats::Part;

/// What the table shows.
#[derive(Clone, Copy, Debug)]
pub struct TableOptions<'a> {
    /// What is counted.
    pub metric: Metric,
    /// A row per thread.
    pub split_threads: bool,
    /// Of which files no source line may be in the page.
    pub confidential_files: ConfidentialFiles,
    /// Of what the figures of the profile are.
    pub part: Part,
    /// The same in words, for the page's notes; empty: of everything.
    pub shown: &'a str,
}

/// What one place allocated by one function.
struct Row {
    thread: Option<u32>,
    /// Its name: the domains of Python's allocators are not told apart, as in Memray.
    allocator: &'static str,
    location: Option<LocationId>,
    amount: Amount,
}

/// Rows by thread (if they are split), allocator and innermost frame, the largest first.
fn rows(profile: &Profile, options: TableOptions<'_>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut indices: FxHashMap<_, usize> = FxHashMap::default();
    for entry in &profile.entries {
        let amount = entry.figures.get(options.metric);
        if amount.is_zero() {
            continue;
        }
        let frame = profile.stacks.innermost(entry.stack);
        let location = frame.map(|frame| frame.location);
        let thread = options.split_threads.then_some(entry.thread);
        let allocator = entry.allocator.name();
        let key = (thread, allocator, location);
        let index = *indices.entry(key).or_insert_with(|| {
            rows.push(Row {
                thread,
                allocator,
                location,
                amount: Amount::default(),
            });
            rows.len() - 1
        });
        rows[index].amount.add(amount);
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.amount.bytes, row.amount.count)));
    rows
}

/// The page.
///
/// # Errors
/// When writing fails.
pub fn table_html(
    capture: &Capture,
    profile: &Profile,
    liveness: &Liveness,
    options: TableOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let request = PageRequest {
        report: "table",
        capture,
        profile,
        liveness,
        metric: options.metric,
        inverted: false,
        split_threads: options.split_threads,
        confidential_files: options.confidential_files,
        max_memory_records: MAX_MEMORY_RECORDS,
        histories: &[],
        part: options.part,
        shown: options.shown,
    };
    write_page(&request, out)
}

/// The same rows as JSON.
///
/// # Errors
/// When writing fails.
pub fn table_json(
    profile: &Profile,
    options: TableOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let whole = profile.totals.figures.get(options.metric);
    let rows = rows(profile, options);
    let rows = rows.iter().map(|row| {
        let place = row
            .location
            .map(|location| profile.stacks.locations[location.index()]);
        let thread = row.thread.map(|thread| &profile.threads[thread as usize]);
        object! {
            "thread_id": thread.map(|thread| thread.thread_id),
            "thread_name": thread.map(|thread| thread.name.as_str()),
            "allocator": row.allocator,
            "function": place.map(|place| profile.stacks.text(place.function)),
            "file": place.map(|place| profile.stacks.text(place.file)),
            "line": place.map(|place| place.line),
            "size": row.amount.bytes,
            "count": row.amount.count,
        }
    });
    let report = object! {
        "schema_version": SCHEMA_VERSION,
        "metric": options.metric.name(),
        "total_bytes": whole.bytes,
        "total_count": whole.count,
        "rows": Field::List(rows.collect()),
    };
    write_pretty(out, &report)
}
