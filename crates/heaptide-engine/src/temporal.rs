//! The history of a heap: what was held at the peak of any stretch of time, and what was allocated in it and
//! outlived it.
//!
//! The capture's samples cut time into intervals. With `n` boundaries there are `n + 1` intervals: interval
//! `i` ends at boundary `i`, the last one after the last boundary with the end of the capture.

use std::ops::RangeInclusive;

use heaptide_capture::{Capture, Warnings};
use heaptide_format::{Allocator, Sample};
use rustc_hash::FxHashMap;

use crate::figures::Amount;
use crate::heap::{Key, Share};
use crate::intervals::{History, Intervals};
use crate::options::{EngineError, TemporalOptions};
use crate::profile::Profile;
use crate::replay::{place_of, replay};
use crate::stacks::StackId;

/// A heap over time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Temporal {
    /// The boundaries, nanoseconds since the Unix epoch, increasing: the samples of the capture or every so
    /// many of them.
    pub times_unix_ns: Vec<u64>,
    /// Resident set size at each boundary.
    pub resident_bytes: Vec<u64>,
    /// Tracked heap at each boundary.
    pub heap_bytes: Vec<u64>,
    /// The largest the heap was in each interval, with the levels at its begin and end; one more than there are
    /// boundaries.
    pub peak_bytes: Vec<u64>,
    /// Who allocated, by the `key` of the lists below.
    pub keys: Vec<TemporalKey>,
    /// What outlived the interval it was allocated in, by key, birth and death.
    pub lifetimes: Vec<Lifetime>,
    /// What the keys held at the peaks of the intervals, by key and interval. Nothing is left out.
    pub at_peaks: Vec<AtPeak>,
}

/// The history of one process, of a group or alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessHistory {
    /// Its heap over time. Its boundaries are its own samples.
    pub temporal: Temporal,
    /// When tracking began, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// When it ended, or was last seen.
    pub end_unix_ns: u64,
}

impl ProcessHistory {
    /// The intervals that a stretch of time touches; `None` when the process was not there in it.
    #[must_use]
    pub fn intervals_within(
        &self,
        from_unix_ns: u64,
        to_unix_ns: u64,
    ) -> Option<RangeInclusive<usize>> {
        if to_unix_ns < self.start_unix_ns || from_unix_ns >= self.end_unix_ns {
            return None;
        }
        Some(self.temporal.intervals_touched(from_unix_ns, to_unix_ns))
    }
}

/// Who allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TemporalKey {
    /// Where, in the [`Profile`] the history was made with.
    pub stack: StackId,
    /// By which function.
    pub allocator: Allocator,
    /// Index into [`Profile::threads`].
    pub thread: u32,
}

/// Blocks that were allocated in one interval and freed in a later one, or never.
///
/// A mapping that is unmapped piece by piece is a lifetime for each piece: the last one has the count, the
/// others have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Index into [`Temporal::keys`].
    pub key: u32,
    /// The interval in which they were allocated, before the boundary of that number.
    pub allocated_before: u32,
    /// The interval in which they were freed, always a later one; `None`: they live.
    pub freed_before: Option<u32>,
    /// Blocks.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a key held at the peaks of consecutive intervals: each at the last instant at which the heap was at
/// its largest within the interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtPeak {
    /// Index into [`Temporal::keys`].
    pub key: u32,
    /// The first of these intervals.
    pub from: u32,
    /// The one after the last.
    pub to: u32,
    /// Blocks.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Temporal {
    /// Works the history of a capture out. `profile` is that capture's.
    ///
    /// Reads all events once; memory is proportional to what is live, to the distinct stacks, and to how often
    /// what a stack holds at the peak of an interval differs from the one before.
    ///
    /// # Errors
    /// [`EngineError::NoHistory`] when the capture has counters instead of events.
    pub fn new(
        capture: &Capture,
        profile: &Profile,
        options: TemporalOptions<'_>,
    ) -> Result<Self, EngineError> {
        if !capture.holds_events() {
            return Err(EngineError::NoHistory);
        }
        // The profile has told of everything that is wrong with the events.
        let mut told = Warnings::default();
        let ledger = Intervals::of(capture, options.max_records);
        let heap = replay(capture, ledger, 0, options.progress, &mut told);
        let survivors = heap.survivors();
        let stride = heap.ledger.stride;
        let (_, history) = heap.ledger.finish();
        let (keys, samples) = (&heap.keys, capture.samples.iter().step_by(stride));
        Ok(Self::of(profile, history, keys, survivors, samples))
    }

    /// From what a replay has found: the history, the keys of its entries and what was live at the end. The samples
    /// are those that were boundaries.
    pub(crate) fn of<'a>(
        profile: &Profile,
        mut history: History,
        keys: &[Key],
        survivors: Vec<(u32, Share)>,
        samples: impl Iterator<Item = &'a Sample>,
    ) -> Self {
        let mut told = Warnings::default();
        let threads: FxHashMap<u32, u32> = (profile.threads.iter().zip(0..))
            .map(|(thread, index)| (thread.number, index))
            .collect();
        let mut temporal = Self::default();
        // Keys of entries that have no place in the profile are left out, as there.
        let numbers: Vec<Option<u32>> = keys
            .iter()
            .map(|key| {
                let (stack, allocator) = place_of(*key, &profile.nodes, &mut told)?;
                temporal.keys.push(TemporalKey {
                    stack,
                    allocator,
                    thread: *threads.get(&key.thread)?,
                });
                Some((temporal.keys.len() - 1) as u32)
            })
            .collect();

        for (entry, share) in survivors {
            // Death at an interval that does not come stands for none.
            let life = (entry, share.born, u32::MAX);
            let amount = history.lives.entry(life).or_default();
            amount.add(Amount {
                count: share.count,
                bytes: share.bytes,
            });
        }
        let lifetimes = history.lives.iter().filter_map(|(life, amount)| {
            let &(entry, born, died) = life;
            Some(Lifetime {
                key: numbers[entry as usize]?,
                allocated_before: born,
                freed_before: (died != u32::MAX).then_some(died),
                count: amount.count,
                bytes: amount.bytes,
            })
        });
        temporal.lifetimes.extend(lifetimes);
        let died = |life: &Lifetime| life.freed_before.unwrap_or(u32::MAX);
        temporal
            .lifetimes
            .sort_unstable_by_key(|life| (life.key, life.allocated_before, died(life)));
        let at_peaks = history.runs.iter().filter_map(|run| {
            Some(AtPeak {
                key: numbers[run.entry as usize]?,
                from: run.from,
                to: run.to,
                count: run.amount.count,
                bytes: run.amount.bytes,
            })
        });
        temporal.at_peaks.extend(at_peaks);
        temporal
            .at_peaks
            .sort_unstable_by_key(|run| (run.key, run.from));

        for sample in samples {
            temporal.times_unix_ns.push(sample.unix_ns);
            temporal.resident_bytes.push(sample.resident_bytes);
        }
        temporal.peak_bytes = history.closed.iter().map(|level| level.peak).collect();
        let boundaries = history.closed.iter().take(temporal.times_unix_ns.len());
        temporal.heap_bytes = boundaries.map(|level| level.bytes).collect();
        temporal
    }

    /// How many intervals there are, which is one more than boundaries; they count from zero.
    #[must_use]
    pub fn intervals(&self) -> usize {
        self.peak_bytes.len()
    }

    /// The intervals that a stretch of time touches, at least one.
    #[must_use]
    pub fn intervals_touched(&self, from_unix_ns: u64, to_unix_ns: u64) -> RangeInclusive<usize> {
        let times = &self.times_unix_ns;
        let first = times.partition_point(|&time| time <= from_unix_ns);
        let last = times.partition_point(|&time| time < to_unix_ns);
        first..=last.max(first)
    }

    /// The interval of the peak within a range of intervals, and its bytes; of several the last one. What is
    /// not there of the range does not count; of nothing the peak is `(0, 0)`.
    #[must_use]
    pub fn peak_within(&self, range: RangeInclusive<usize>) -> (usize, u64) {
        let peaks = self.peak_bytes.iter().copied().enumerate();
        peaks
            .filter(|(interval, _)| range.contains(interval))
            .max_by_key(|&(_, bytes)| bytes)
            .unwrap_or_default()
    }

    /// What each key held at the peak within a range of intervals, by key; keys that held nothing are left
    /// out.
    #[must_use]
    pub fn held_at_peak(&self, range: RangeInclusive<usize>) -> Vec<(u32, Amount)> {
        let (peak, _) = self.peak_within(range);
        let held = |run: &&AtPeak| (run.from as usize..run.to as usize).contains(&peak);
        self.at_peaks
            .iter()
            .filter(held)
            .map(|run| {
                let amount = Amount {
                    count: run.count,
                    bytes: run.bytes,
                };
                (run.key, amount)
            })
            .collect()
    }

    /// What each key allocated within a range of intervals and had not freed at its end, by key; keys without
    /// any are left out.
    #[must_use]
    pub fn allocated_in_and_alive_at_end(
        &self,
        range: RangeInclusive<usize>,
    ) -> Vec<(u32, Amount)> {
        let mut alive: Vec<(u32, Amount)> = Vec::new();
        for life in &self.lifetimes {
            let outlives = |freed: u32| freed as usize > *range.end();
            if !range.contains(&(life.allocated_before as usize))
                || !life.freed_before.is_none_or(outlives)
            {
                continue;
            }
            let amount = Amount {
                count: life.count,
                bytes: life.bytes,
            };
            match alive.last_mut() {
                Some((key, sum)) if *key == life.key => sum.add(amount),
                _ => alive.push((life.key, amount)),
            }
        }
        alive
    }
}
