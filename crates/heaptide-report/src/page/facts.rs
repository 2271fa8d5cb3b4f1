//! What a page says besides its graph.

use heaptide_engine::{Metric, Profile};
use heaptide_format::{MetadataKey, PythonAllocator, histogram_bounds};
use serde_json::{Value, json};

use super::{METRICS, PageRequest};
use crate::format::{bytes_text, count_text, percent_text, time_text, visible};
use crate::stats::{Part, amount_text, process_text};
use crate::stats_json::end_unix_ns;
use crate::status::{live_title, own_cost_text, status_lines};

/// The metrics that are known, with their totals.
pub(crate) fn metrics(request: &PageRequest) -> Vec<Value> {
    let figures = &request.profile.totals.figures;
    let metric = |metric: Metric| {
        let amount = figures.get(metric);
        let note = match metric {
            Metric::Temporary => {
                let share = percent_text(amount.count, figures.allocated.count);
                Some(format!("{share} of all blocks"))
            }
            _ => None,
        };
        json!({
            "name": metric.name(),
            "title": metric_title(metric, request),
            "bytes": amount.bytes,
            "count": amount.count,
            "note": note,
        })
    };
    let known = |&metric: &Metric| is_known(metric, request);
    METRICS.into_iter().filter(known).map(metric).collect()
}

fn is_known(metric: Metric, request: &PageRequest<'_>) -> bool {
    match request.part {
        Part::Whole | Part::Threads => true,
        Part::Interval => matches!(metric, Metric::Peak | Metric::Live),
        Part::Records => metric == request.metric,
    }
}

fn metric_title(metric: Metric, request: &PageRequest<'_>) -> &'static str {
    match metric {
        Metric::Peak if request.part == Part::Interval => "At the peak of this time",
        Metric::Live if request.part == Part::Interval => "Allocated then, outlives it",
        // Whoever chose them knows what they have in common.
        Metric::Peak if request.part == Part::Records => "In these records",
        Metric::Peak => "At the peak",
        Metric::Live => live_title(request.liveness),
        Metric::Allocated => "Allocated in total",
        Metric::Temporary => "Temporary",
    }
}

/// Sections of names and values: `[[title, [[name, value], …]], …]`.
pub(crate) fn facts(request: &PageRequest) -> Value {
    let PageRequest {
        capture,
        profile,
        liveness,
        ..
    } = *request;
    let peak_title = match request.part {
        Part::Interval | Part::Records => metric_title(Metric::Peak, request),
        _ => "Peak",
    };
    // What is not known of a part is left out; an empty value is.
    let if_there = |text: String, there: bool| if there { text } else { String::new() };
    let known = |text: String| if_there(text, matches!(request.part, Part::Whole | Part::Threads));
    let of_capture = |text: String| if_there(text, request.part != Part::Records);
    let figures = &profile.totals.figures;
    let amount = |metric: Metric| {
        let text = amount_text(figures.get(metric));
        if_there(text, is_known(metric, request))
    };
    let metadata = |key: MetadataKey| capture.metadata.text(key).unwrap_or_default();
    let lifecycle = &capture.lifecycle;
    let (start, end) = (lifecycle.tracking_start_unix_ns, end_unix_ns(capture));
    let duration = match end.checked_sub(start) {
        Some(duration) if start != 0 => format!("{:.3} s", duration as f64 / 1e9),
        _ => String::new(),
    };
    let allocator = PythonAllocator::from_raw(lifecycle.python_allocator);
    let recorded = match capture.holds_events() {
        true => "every event",
        false => "aggregated",
    };
    let recorded = match capture.identity.traces_python_allocators() {
        true => format!("{recorded}, Python's own allocators too"),
        false => recorded.to_owned(),
    };
    let threshold = match capture.identity.temporary_threshold {
        0 => String::new(),
        threshold => count_text(threshold.into()),
    };
    let sections = [
        (
            "Program",
            vec![
                ("Status", liveness.to_string()),
                ("Command line", capture.metadata.command_line()),
                ("Process", process_text(&capture.identity)),
                ("Host", metadata(MetadataKey::Hostname)),
                ("Executable", metadata(MetadataKey::Executable)),
                ("Working directory", metadata(MetadataKey::WorkingDirectory)),
                ("Python", metadata(MetadataKey::PythonVersion)),
                (
                    "Python's allocator",
                    allocator
                        .map_or("unknown", PythonAllocator::name)
                        .to_owned(),
                ),
                ("Memory cgroup", metadata(MetadataKey::MemoryCgroup)),
                ("Threads", count_text(profile.threads.len() as u64)),
            ],
        ),
        (
            "Memory",
            vec![
                ("Part shown", request.shown.to_owned()),
                (peak_title, amount(Metric::Peak)),
                (metric_title(Metric::Live, request), amount(Metric::Live)),
                ("Allocated in total", amount(Metric::Allocated)),
                ("Temporary", amount(Metric::Temporary)),
                ("Temporary threshold", known(threshold)),
                (
                    "Deallocations",
                    known(count_text(profile.totals.deallocations)),
                ),
            ],
        ),
        (
            "Recording",
            vec![
                ("Recorded", recorded),
                ("Started", time_text(start)),
                ("Ended", time_text(end)),
                ("Duration", duration),
                (
                    "Capture",
                    of_capture(format!(
                        "{}, {}",
                        capture.path.display(),
                        bytes_text(capture.file_bytes)
                    )),
                ),
                (
                    "Written by",
                    of_capture(
                        format!("heaptide {}", metadata(MetadataKey::Writer))
                            .trim()
                            .to_owned(),
                    ),
                ),
                (
                    "The profiler took",
                    of_capture(own_cost_text(capture, profile)),
                ),
            ],
        ),
    ];
    let sections = sections.into_iter().map(|(title, rows)| {
        let rows = rows.into_iter().filter(|(_, value)| !value.is_empty());
        let rows: Vec<Value> = rows
            .map(|(name, value)| json!([name, visible(&value)]))
            .collect();
        json!([title, rows])
    });
    sections.collect()
}

/// Allocations by size: `[[largest size of the bin or null, count], …]`, empty ends left out.
pub(crate) fn histogram(profile: &Profile) -> Vec<Value> {
    let counts = &profile.histogram;
    let used = |count: &u64| *count > 0;
    let (Some(first), Some(last)) = (counts.iter().position(used), counts.iter().rposition(used))
    else {
        return Vec::new();
    };
    let bin = |index: usize| match histogram_bounds(index).1 {
        u64::MAX => json!([null, counts[index]]),
        high => json!([high, counts[index]]),
    };
    (first..=last).map(bin).collect()
}

/// What a user should know before believing the figures.
pub(crate) fn notes(request: &PageRequest) -> Vec<String> {
    let PageRequest {
        capture,
        profile,
        liveness,
        ..
    } = *request;
    let mut notes: Vec<String> = status_lines(capture, profile, liveness)
        .into_iter()
        // The state itself is in the head of the page.
        .skip(1)
        .map(|line| {
            let line = line.strip_prefix("warning: ").unwrap_or(&line);
            visible(line).into_owned()
        })
        .collect();
    if !request.shown.is_empty() {
        let shown = visible(request.shown);
        notes.insert(
            0,
            format!("Only a part of the run is shown: {shown}. The chart is of all of it."),
        );
    }
    let pooled = match PythonAllocator::from_raw(capture.lifecycle.python_allocator) {
        Some(PythonAllocator::Pymalloc | PythonAllocator::PymallocDebug) => Some("pymalloc"),
        Some(PythonAllocator::Mimalloc | PythonAllocator::MimallocDebug) => Some("mimalloc"),
        _ => None,
    };
    let hidden = !capture.identity.traces_python_allocators();
    if let Some(allocator) = pooled.filter(|_| hidden && request.metric == Metric::Live) {
        notes.push(format!(
            "Python's {allocator} keeps the memory of freed objects for later ones, and what it took from the system \
             for that may be reported as leaks. Record with --trace-python-allocators to see every object's own \
             allocation."
        ));
    }
    notes
}
