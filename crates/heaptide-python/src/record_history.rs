//! Records that say when, as a history: what `TemporalAllocationRecord` has, of any class.

use heaptide_engine::{
    Amount, AtPeak, Figures, Lifetime, ProcessHistory, Profile, Temporal, TemporalKey,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::facts::{NANOSECONDS_PER_MILLISECOND, Snapshot};
use crate::record_reading::Reading;

/// One of a record's intervals, by the names of `Interval`.
#[derive(FromPyObject)]
struct When {
    #[pyo3(attribute("allocated_before_snapshot"))]
    from: u32,
    #[pyo3(attribute("deallocated_before_snapshot"))]
    to: Option<u32>,
    #[pyo3(attribute("n_allocations"))]
    count: u64,
    #[pyo3(attribute("n_bytes"))]
    bytes: u64,
}

/// A profile of the whole time, and the history. With the `peaks` of the intervals the records say who held what at
/// them; else when what was allocated was given back.
pub(crate) fn over_time(
    records: &Bound<'_, PyAny>,
    stacks: &Bound<'_, PyString>,
    snapshots: &[Snapshot],
    peaks: Option<Vec<u64>>,
) -> PyResult<(Profile, ProcessHistory)> {
    let intervals = snapshots.len() + 1;
    if let Some(peaks) = &peaks
        && peaks.len() != intervals
    {
        let text = format!(
            "high_water_mark_by_snapshot has {} values, and not one more than there are snapshots ({})",
            peaks.len(),
            snapshots.len()
        );
        return Err(PyValueError::new_err(text));
    }
    // The last one, as the peak of a program is the last instant at the maximum.
    let peak = peaks.as_ref().and_then(|peaks| {
        let peaks = peaks.iter().enumerate();
        peaks.max_by_key(|&(index, &bytes)| (bytes, index))
    });
    let peak = peak.map(|(index, _)| index as u32);
    let end = intervals as u32;
    let mut reading = Reading::new(stacks);
    let mut temporal = Temporal::default();
    for record in records.try_iter()? {
        let record = record?;
        let who = reading.who(&record)?;
        let key = temporal.keys.len() as u32;
        let mut whole = Amount::default();
        for when in record.getattr("intervals")?.try_iter()? {
            let When {
                from,
                to,
                count,
                bytes,
            } = when?.extract()?;
            check(from, to, end)?;
            let held = match peak {
                Some(peak) => from <= peak && to.is_none_or(|to| peak < to),
                None => to.is_none(),
            };
            if held {
                whole.add(Amount { count, bytes });
            }
            if peak.is_some() {
                temporal.at_peaks.push(AtPeak {
                    key,
                    from,
                    to: to.unwrap_or(end),
                    count,
                    bytes,
                });
            } else {
                temporal.lifetimes.push(Lifetime {
                    key,
                    allocated_before: from,
                    freed_before: to,
                    count,
                    bytes,
                });
            }
        }
        let mut figures = Figures::default();
        match peak {
            Some(_) => figures.peak = whole,
            None => figures.live = whole,
        }
        reading.add(who, &figures);
        let (stack, allocator, thread) = who;
        temporal.keys.push(TemporalKey {
            stack,
            allocator,
            thread,
        });
    }
    temporal.lifetimes.sort_by_key(|life| {
        (
            life.key,
            life.allocated_before,
            life.freed_before.unwrap_or(u32::MAX),
        )
    });
    temporal.at_peaks.sort_by_key(|run| (run.key, run.from));
    let times = snapshots
        .iter()
        .map(|&(ms, ..)| ms.saturating_mul(NANOSECONDS_PER_MILLISECOND));
    temporal.times_unix_ns = times.collect();
    temporal.resident_bytes = snapshots.iter().map(|&(_, resident, _)| resident).collect();
    temporal.heap_bytes = snapshots.iter().map(|&(.., heap)| heap).collect();
    temporal.peak_bytes = peaks.unwrap_or_else(|| largest_seen(&temporal.heap_bytes));
    let history = ProcessHistory {
        temporal,
        ..ProcessHistory::default()
    };
    Ok((reading.finish(), history))
}

/// Of intervals that nobody has looked into: what the snapshots before and after them have.
fn largest_seen(heap: &[u64]) -> Vec<u64> {
    let before = std::iter::once(0).chain(heap.iter().copied());
    let after = heap.iter().copied().chain([0]);
    before
        .zip(after)
        .map(|(before, after)| before.max(after))
        .collect()
}

fn check(from: u32, to: Option<u32>, end: u32) -> PyResult<()> {
    if from < end && to.is_none_or(|to| from < to && to < end) {
        return Ok(());
    }
    let to = to.map_or_else(|| "None".to_owned(), |to| to.to_string());
    let text = format!(
        "an interval from snapshot {from} to {to} is none of {} snapshots: give those of the same reader",
        end - 1
    );
    Err(PyValueError::new_err(text))
}
