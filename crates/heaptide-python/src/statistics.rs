//! `compute_statistics`: totals and the largest places.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use heaptide_engine::{LocationRow, Metric, allocation_sizes, by_allocator, by_location};
use heaptide_format::histogram_bounds;
use heaptide_report::by_module;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::source::Source;

/// Function, file and line.
type Place<'a> = (&'a str, &'a str, i32);

const UNKNOWN: Place<'static> = ("<unknown>", "<unknown>", 0);

/// By the names of `Stats`, but for the metadata.
pub(crate) fn statistics<'py>(
    py: Python<'py>,
    source: &Source,
    num_largest: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let (sizes, locations, modules) = py.detach(|| {
        (
            sizes(source),
            by_location(&source.profile),
            by_module(&source.capture, &source.profile, Metric::Allocated),
        )
    });
    let figures = &source.profile.totals.figures;
    let stats = PyDict::new(py);
    stats.set_item("total_num_allocations", figures.allocated.count)?;
    stats.set_item("total_memory_allocated", figures.allocated.bytes)?;
    stats.set_item("peak_memory_allocated", source.profile.heap.peak_bytes)?;
    stats.set_item("allocation_count_by_size", sizes)?;
    let allocators = by_allocator(&source.profile);
    let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
    for (allocator, figures) in allocators {
        *by_name.entry(allocator.name()).or_default() += figures.allocated.count;
    }
    by_name.retain(|_, count| *count > 0);
    stats.set_item("allocation_count_by_allocator", by_name)?;

    let bytes = |row: &LocationRow| row.figures.allocated.bytes;
    let count = |row: &LocationRow| row.figures.allocated.count;
    let by_size = largest(source, &locations, num_largest, bytes);
    stats.set_item("top_locations_by_size", by_size)?;
    let by_count = largest(source, &locations, num_largest, count);
    stats.set_item("top_locations_by_count", by_count)?;

    let mut modules: Vec<(String, u64, u64)> = modules
        .into_iter()
        .map(|row| (row.module, row.amount.count, row.amount.bytes))
        .collect();
    modules.sort_by_key(|&(_, count, bytes)| Reverse((bytes, count)));
    stats.set_item(
        "top_modules_by_allocation_size",
        &modules[..modules.len().min(num_largest)],
    )?;
    modules.sort_by_key(|&(_, count, bytes)| Reverse((count, bytes)));
    stats.set_item(
        "top_modules_by_allocation_count",
        &modules[..modules.len().min(num_largest)],
    )?;
    Ok(stats)
}

/// How often each size was asked for. Where only classes of sizes were counted, the smallest of each class stands
/// for it.
fn sizes(source: &Source) -> BTreeMap<u64, u64> {
    allocation_sizes(&source.capture).unwrap_or_else(|| {
        let bins = source.profile.histogram.iter().enumerate();
        bins.filter(|&(_, &count)| count > 0)
            .map(|(bin, &count)| (histogram_bounds(bin).0, count))
            .collect()
    })
}

fn largest<'a>(
    source: &'a Source,
    rows: &[LocationRow],
    limit: usize,
    figure: impl Fn(&LocationRow) -> u64,
) -> Vec<(Place<'a>, u64)> {
    let mut rows: Vec<&LocationRow> = rows.iter().filter(|row| figure(row) > 0).collect();
    rows.sort_by_key(|row| Reverse(figure(row)));
    rows.truncate(limit);
    let stacks = &source.profile.stacks;
    let place = |row: &LocationRow| {
        row.location.map_or(UNKNOWN, |location| {
            let location = stacks.locations[location.index()];
            (
                stacks.text(location.function),
                stacks.text(location.file),
                location.line,
            )
        })
    };
    rows.iter().map(|row| (place(row), figure(row))).collect()
}
