//! `heaptide stats --json`: the keys of Memray's, then ours under `heaptide`.

use std::io::{self, Write};

use heaptide_capture::{Capture, Liveness};
use heaptide_engine::{Amount, LocationRow, Metric, Profile, by_allocator, by_location, by_thread};
use heaptide_format::{HISTOGRAM_BINS, MetadataKey, PythonAllocator, histogram_bounds};
use serde_json::{Value, json};

use crate::SCHEMA_VERSION;
use crate::format::time_text;
use crate::modules::{ModuleRow, by_module, largest_modules};
use crate::object::{Field, Object, object, write_pretty};
use crate::stats::{Part, StatsOptions, largest};

/// Memray's numbers of its formats.
const MEMRAY_ALL: u32 = 0;
const MEMRAY_AGGREGATED: u32 = 1;

/// Totals, sizes, allocators and the largest locations.
///
/// # Errors
/// When writing fails.
pub fn stats_json(
    capture: &Capture,
    profile: &Profile,
    liveness: &Liveness,
    options: StatsOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let figures = &profile.totals.figures;
    // Of a stretch of time it is not known, which is not zero.
    let known = |count: u64| (options.part != Part::Interval).then_some(count);
    let rows = by_location(profile);
    let module_rows = by_module(capture, profile, Metric::Allocated);
    let mut by_name: Vec<(&str, u64)> = Vec::new();
    for (allocator, figures) in by_allocator(profile) {
        let name = allocator.name();
        match by_name.iter_mut().find(|row| row.0 == name) {
            Some(row) => row.1 += figures.allocated.count,
            None => by_name.push((name, figures.allocated.count)),
        }
    }
    by_name.sort_by_key(|row| std::cmp::Reverse(row.1));
    let allocators = by_name
        .into_iter()
        .filter(|&(_, count)| count > 0)
        .map(|(name, count)| (name.to_owned(), Value::from(count)))
        .collect();
    let report = object! {
        "schema_version": SCHEMA_VERSION,
        "total_num_allocations": known(figures.allocated.count),
        "total_bytes_allocated": known(figures.allocated.bytes),
        "allocation_size_histogram": Field::List(memray_histogram(profile)),
        "allocator_type_distribution": Field::Map(allocators),
        "top_allocations_by_size": Field::List(locations(profile, &rows, Metric::Allocated, true, options)),
        "top_allocations_by_count": Field::List(locations(profile, &rows, Metric::Allocated, false, options)),
        "top_modules_by_allocation_size": Field::List(modules(&module_rows, true, options)),
        "top_modules_by_allocation_count": Field::List(modules(&module_rows, false, options)),
        "metadata": metadata(capture, profile, liveness, options),
        "heaptide": heaptide(capture, profile, liveness, &rows, options),
    };
    write_pretty(out, &report)
}

/// As many bins as Memray has.
const MEMRAY_BINS: usize = 10;

/// Memray's bins: ten, without a gap from 0 on, on a logarithmic scale between the smallest and the largest
/// size. Ours end at powers of two, because sizes are counted by those, so that counts are exact.
fn memray_histogram(profile: &Profile) -> Vec<Object> {
    let counts = &profile.histogram;
    let Some(last) = counts.iter().rposition(|&count| count > 0) else {
        return Vec::new();
    };
    // Size zero has no logarithm; it goes into the first bin.
    let sizes = counts.iter().skip(1).position(|&count| count > 0);
    let first = sizes.map_or(last, |first| first + 1);
    let width = (last + 1 - first).div_ceil(MEMRAY_BINS);
    let first = first.min(HISTOGRAM_BINS.saturating_sub(width * MEMRAY_BINS));
    let bins = (0..MEMRAY_BINS).map(|bin| {
        let from = if bin == 0 { 0 } else { first + bin * width };
        let to = first + (bin + 1) * width;
        let count = counts.iter().take(to).skip(from).copied();
        object! {
            "min_bytes": histogram_bounds(from.min(HISTOGRAM_BINS - 1)).0,
            "max_bytes": histogram_bounds((to - 1).min(HISTOGRAM_BINS - 1)).1,
            "count": count.fold(0, u64::saturating_add),
        }
    });
    bins.collect()
}

fn histogram(profile: &Profile) -> Vec<Object> {
    let last = profile.histogram.iter().rposition(|&count| count > 0);
    let bins = profile
        .histogram
        .iter()
        .enumerate()
        .take(last.map_or(0, |last| last + 1));
    bins.map(|(bin, &count)| {
        let (low, high) = histogram_bounds(bin);
        object! { "min_bytes": low, "max_bytes": high, "count": count }
    })
    .collect()
}

fn locations(
    profile: &Profile,
    rows: &[LocationRow],
    metric: Metric,
    bytes: bool,
    options: StatsOptions,
) -> Vec<Object> {
    let rows = largest(rows, metric, bytes, options.num_largest);
    rows.iter()
        .map(|row| {
            let label = row.location.map_or_else(
                || "<unknown>:<unknown>:0".to_owned(),
                |id| profile.stacks.location_label(id),
            );
            let amount = row.figures.get(metric);
            match (metric, bytes) {
                (Metric::Allocated, true) => object! { "location": label, "size": amount.bytes },
                (Metric::Allocated, false) => object! { "location": label, "count": amount.count },
                _ => object! { "location": label, "size": amount.bytes, "count": amount.count },
            }
        })
        .collect()
}

fn modules(rows: &[ModuleRow], bytes: bool, options: StatsOptions) -> Vec<Object> {
    let rows = largest_modules(rows, bytes, options.num_largest);
    rows.into_iter()
        .map(|row| {
            object! {
                "module": row.module.as_str(),
                "num_allocations": row.amount.count,
                "total_bytes": row.amount.bytes,
            }
        })
        .collect()
}

fn metadata(
    capture: &Capture,
    profile: &Profile,
    liveness: &Liveness,
    options: StatsOptions,
) -> Object {
    // Cells of a running program are read one after the other, so their sum may waver by what is
    // under way; the heap word's maximum never falls.
    let peak_bytes = match liveness {
        Liveness::Running { .. } if options.part == Part::Whole => capture.heap.peak_bytes,
        _ => profile.totals.figures.peak.bytes,
    };
    let lifecycle = &capture.lifecycle;
    let allocator =
        PythonAllocator::from_raw(lifecycle.python_allocator).unwrap_or(PythonAllocator::Unknown);
    object! {
        "start_time": time_value(lifecycle.tracking_start_unix_ns),
        "end_time": time_value(end_unix_ns(capture)),
        "total_allocations": profile.totals.figures.allocated.count,
        "total_frames": 0,
        "peak_memory": peak_bytes,
        "command_line": capture.metadata.command_line(),
        "pid": capture.identity.pid,
        "main_thread_id": lifecycle.main_thread_id,
        "python_allocator": allocator.name(),
        "has_native_traces": false,
        "trace_python_allocators": capture.identity.traces_python_allocators(),
        "file_format": if capture.holds_events() { MEMRAY_ALL } else { MEMRAY_AGGREGATED },
    }
}

fn time_value(unix_ns: u64) -> Value {
    if unix_ns == 0 {
        Value::Null
    } else {
        time_text(unix_ns).into()
    }
}

/// The last moment of which the capture knows, nanoseconds since the Unix epoch.
#[must_use]
pub fn end_unix_ns(capture: &Capture) -> u64 {
    let lifecycle = &capture.lifecycle;
    match (lifecycle.tracking_end_unix_ns, lifecycle.ended_unix_ns) {
        (0, 0) => lifecycle
            .heartbeat_unix_ns
            .max(capture.samples.last().map_or(0, |sample| sample.unix_ns)),
        (0, ended) => ended,
        (tracking, _) => tracking,
    }
}

fn heaptide(
    capture: &Capture,
    profile: &Profile,
    liveness: &Liveness,
    rows: &[LocationRow],
    options: StatsOptions,
) -> Object {
    let figures = &profile.totals.figures;
    let known = |count: u64| (options.part != Part::Interval).then_some(count);
    object! {
        "part": options.part.name(),
        "status": object! { "state": liveness.word(), "text": liveness.to_string() },
        "peak": amount(figures.peak),
        "live": amount(figures.live),
        "live_bytes": figures.live.bytes,
        "live_count": figures.live.count,
        "peak_bytes": figures.peak.bytes,
        "peak_count": figures.peak.count,
        "temporary_bytes": known(figures.temporary.bytes),
        "temporary_count": known(figures.temporary.count),
        "temporary_threshold": profile.temporary_threshold,
        "deallocations": known(profile.totals.deallocations),
        "size_histogram": Field::List(histogram(profile)),
        "top_at_peak": Field::List(locations(profile, rows, Metric::Peak, true, options)),
        "top_live": Field::List(locations(profile, rows, Metric::Live, true, options)),
        "top_temporary": Field::List(locations(profile, rows, Metric::Temporary, true, options)),
        "in_flight": object! {
            "peak_bytes": profile.in_flight.peak_bytes,
            "live_bytes": profile.in_flight.live_bytes,
            "clamped_cells": profile.in_flight.clamped_cells,
            "newer_cells": profile.in_flight.newer_cells,
        },
        "missed": missed(capture, profile),
        "own": own_cost(capture, profile),
        "cgroup": cgroup(capture),
        "sample_weight": capture.identity.sample_weight,
        "python_version": capture.metadata.text(MetadataKey::PythonVersion),
        "hostname": capture.metadata.text(MetadataKey::Hostname),
        "python_allocators": Field::List(python_allocators(profile)),
        "threads": Field::List(threads(profile)),
        "warnings": Field::List(warnings(profile)),
    }
}

/// Requests to Python's own allocators, by domain.
fn python_allocators(profile: &Profile) -> Vec<Object> {
    let rows = by_allocator(profile).into_iter();
    rows.filter_map(|(allocator, figures)| {
        let domain = allocator.python_domain()?;
        Some(object! {
            "allocator": allocator.name(),
            "domain": domain.name(),
            "allocated": amount(figures.allocated),
            "live": amount(figures.live),
            "peak": amount(figures.peak),
            "temporary": amount(figures.temporary),
        })
    })
    .collect()
}

fn threads(profile: &Profile) -> Vec<Object> {
    let rows = profile.threads.iter().zip(by_thread(profile));
    rows.map(|(thread, figures)| {
        object! {
            "thread": thread.number,
            "thread_id": thread.thread_id,
            "thread_name": thread.name.as_str(),
            "allocated": amount(figures.allocated),
            "live": amount(figures.live),
            "peak": amount(figures.peak),
            "temporary": amount(figures.temporary),
        }
    })
    .collect()
}

fn amount(amount: Amount) -> Object {
    object! { "bytes": amount.bytes, "count": amount.count }
}

fn missed(capture: &Capture, profile: &Profile) -> Object {
    let own = &capture.own;
    object! {
        "folded_stacks": own.folded_stacks,
        "overflow_stacks": own.overflow_stacks,
        "truncated_stacks": own.truncated_stacks,
        "dropped_code": own.dropped_code,
        "overflow_threads": own.overflow_threads,
        "missed_reentrant": profile.own.missed_reentrant,
        "missed_frees": profile.own.missed_frees,
        "unknown_frees": profile.own.unknown_frees,
    }
}

fn own_cost(capture: &Capture, profile: &Profile) -> Object {
    let own = &capture.own;
    object! {
        "anonymous_bytes": own.anonymous_bytes,
        "mapped_bytes": own.mapped_bytes,
        "capture_bytes": capture.file_bytes,
        "estimated_ns": profile.own.estimated_ns(),
        "timed_events": profile.own.timed_events,
        "patched_objects": own.patched_objects,
        "patched_slots": own.patched_slots,
    }
}

fn cgroup(capture: &Capture) -> Value {
    let path = capture.metadata.text(MetadataKey::MemoryCgroup);
    let last = capture
        .samples
        .iter()
        .rev()
        .find(|sample| sample.cgroup_bytes != 0);
    if path.is_none() && last.is_none() && capture.lifecycle.oom_kills == 0 {
        return Value::Null;
    }
    let limit = last
        .map(|sample| sample.cgroup_limit_bytes)
        .filter(|&limit| limit != 0);
    json!({
        "path": path,
        "limit_bytes": limit,
        "last_bytes": last.map(|sample| sample.cgroup_bytes),
        "oom_kills": capture.lifecycle.oom_kills,
    })
}

/// Warnings as objects.
pub(crate) fn warnings(profile: &Profile) -> Vec<Object> {
    let warnings = profile.warnings.iter();
    warnings
        .map(|warning| {
            object! {
                "kind": warning.kind.name(),
                "count": warning.count,
                "offset": warning.offset,
                "detail": warning.detail.clone(),
            }
        })
        .collect()
}
