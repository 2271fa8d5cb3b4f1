//! Sums by stack and allocator, as Memray's queries give them.

use heaptide_engine::{Amount, Metric, Profile, StackId, Temporal};
use rustc_hash::FxHashMap;

use crate::allocation_record::memray_number;

/// What one stack allocated by one function.
pub(crate) struct Row {
    pub(crate) stack: StackId,
    /// Memray's number.
    pub(crate) allocator: u8,
    /// Index of the thread; where threads are merged, of the first one.
    pub(crate) thread: u32,
    pub(crate) amount: Amount,
}

/// Stands for no thread in particular.
pub(crate) const NO_THREAD: u32 = u32::MAX;

/// By stack and allocator, and by thread unless those are merged, in the order of the capture.
pub(crate) fn rows_of(profile: &Profile, metric: Metric, merge_threads: bool) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut indices: FxHashMap<(StackId, u8, u32), usize> = FxHashMap::default();
    for entry in &profile.entries {
        let amount = entry.figures.get(metric);
        if amount.is_zero() {
            continue;
        }
        let allocator = memray_number(entry.allocator);
        let thread = if merge_threads {
            NO_THREAD
        } else {
            entry.thread
        };
        let index = *indices
            .entry((entry.stack, allocator, thread))
            .or_insert_with(|| {
                rows.push(Row {
                    stack: entry.stack,
                    allocator,
                    thread: entry.thread,
                    amount: Amount::default(),
                });
                rows.len() - 1
            });
        rows[index].amount.add(amount);
    }
    rows
}

/// What was held over some intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: u32,
    /// `None`: to the end.
    pub(crate) to: Option<u32>,
    pub(crate) amount: Amount,
}

/// What one stack held over time by one allocator.
pub(crate) struct TemporalRow {
    pub(crate) stack: StackId,
    /// Memray's number.
    pub(crate) allocator: u8,
    /// Index of the thread, or [`NO_THREAD`].
    pub(crate) thread: u32,
    pub(crate) spans: Vec<Span>,
}

/// Rows for the keys of a history, and which row each key is in.
fn rows_of_keys(temporal: &Temporal, merge_threads: bool) -> (Vec<TemporalRow>, Vec<usize>) {
    let mut rows: Vec<TemporalRow> = Vec::new();
    let mut indices: FxHashMap<(StackId, u8, u32), usize> = FxHashMap::default();
    let row_of_key = temporal.keys.iter().map(|key| {
        let allocator = memray_number(key.allocator);
        let thread = if merge_threads { NO_THREAD } else { key.thread };
        *indices
            .entry((key.stack, allocator, thread))
            .or_insert_with(|| {
                rows.push(TemporalRow {
                    stack: key.stack,
                    allocator,
                    thread,
                    spans: Vec::new(),
                });
                rows.len() - 1
            })
    });
    let row_of_key = row_of_key.collect();
    (rows, row_of_key)
}

/// When what was allocated was freed: blocks that outlived the interval they were allocated in.
pub(crate) fn lifetimes(temporal: &Temporal, merge_threads: bool) -> Vec<TemporalRow> {
    let (mut rows, row_of_key) = rows_of_keys(temporal, merge_threads);
    let mut sums: FxHashMap<(usize, u32, Option<u32>), Amount> = FxHashMap::default();
    for life in &temporal.lifetimes {
        let row = row_of_key[life.key as usize];
        let sum = sums.entry((row, life.allocated_before, life.freed_before));
        sum.or_default().add(Amount {
            count: life.count,
            bytes: life.bytes,
        });
    }
    for ((row, from, to), amount) in sums {
        rows[row].spans.push(Span { from, to, amount });
    }
    finish(rows)
}

/// What was held at the peaks of the intervals.
pub(crate) fn held_at_peaks(temporal: &Temporal, merge_threads: bool) -> Vec<TemporalRow> {
    let end = temporal.intervals() as u32;
    let (mut rows, row_of_key) = rows_of_keys(temporal, merge_threads);
    // Runs of several threads overlap: where they begin and end the sum changes.
    let mut changes: Vec<Vec<(u32, i128, i128)>> = rows.iter().map(|_| Vec::new()).collect();
    for run in &temporal.at_peaks {
        let (count, bytes) = (i128::from(run.count), i128::from(run.bytes));
        let row = &mut changes[row_of_key[run.key as usize]];
        row.extend([(run.from, count, bytes), (run.to, -count, -bytes)]);
    }
    for (row, mut changes) in rows.iter_mut().zip(changes) {
        changes.sort_unstable();
        let (mut count, mut bytes) = (0i128, 0i128);
        let mut from = 0;
        for (at, more, more_bytes) in changes {
            if at != from && (count != 0 || bytes != 0) {
                push(&mut row.spans, from, at, end, count, bytes);
            }
            from = at;
            count += more;
            bytes += more_bytes;
        }
    }
    finish(rows)
}

/// Adds a span, to the one before where nothing has changed.
fn push(spans: &mut Vec<Span>, from: u32, to: u32, end: u32, count: i128, bytes: i128) {
    let whole = |value: i128| u64::try_from(value).unwrap_or(u64::MAX);
    let amount = Amount {
        count: whole(count),
        bytes: whole(bytes),
    };
    let to = (to < end).then_some(to);
    match spans.last_mut() {
        Some(last) if last.to == Some(from) && last.amount == amount => last.to = to,
        _ => spans.push(Span { from, to, amount }),
    }
}

fn finish(mut rows: Vec<TemporalRow>) -> Vec<TemporalRow> {
    rows.retain(|row| !row.spans.is_empty());
    for row in &mut rows {
        row.spans
            .sort_unstable_by_key(|span| (span.from, span.to.unwrap_or(u32::MAX)));
    }
    rows
}
