//! The profile: what all reports are made of.

use heaptide_capture::{Capture, Warning, WarningKind, Warnings};
use heaptide_format::{Allocator, HISTOGRAM_BINS, HeapWord};

use crate::accumulate::{Accumulated, Threads, accumulate};
use crate::counters::Counters;
use crate::figures::Figures;
use crate::heap::{Counts, Key};
use crate::intervals::Intervals;
use crate::options::{EngineError, ProfileOptions};
use crate::replay::{Replayed, replay, replayed};
use crate::stacks::{NodeMap, StackId, Stacks, build_stacks};
use crate::temporal::Temporal;

/// Everything that reports need to know of the heap.
#[derive(Debug)]
pub struct Profile {
    /// Sums over all entries.
    pub totals: Totals,
    /// Stacks, frames, names.
    pub stacks: Stacks,
    /// One per (stack, allocator, thread), in the order of the capture.
    pub entries: Vec<Entry>,
    /// Threads, by [`Entry::thread`].
    pub threads: Vec<ThreadInfo>,
    /// Allocations by size, see [`heaptide_format::histogram_bounds`].
    pub histogram: [u64; HISTOGRAM_BINS],
    /// How far the figures may be off because of events that were under way.
    pub in_flight: InFlight,
    /// What the profiler cost and missed.
    pub own: OwnFigures,
    /// The heap as a whole at the end, or now.
    pub heap: HeapWord,
    /// The heap at each of the capture's samples, bytes; empty when the samples say it themselves.
    pub sample_heap: Vec<u64>,
    /// How many other allocations of its thread a temporary block may outlive.
    pub temporary_threshold: u32,
    /// What was wrong with the capture and could be worked around: the reader's and the engine's.
    pub warnings: Vec<Warning>,
    /// Which stack each node of the capture is.
    pub(crate) nodes: NodeMap,
    /// Are there deallocations among the events that did not happen?
    pub(crate) takes_back: bool,
}

/// What one stack, allocator and thread did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub stack: StackId,
    /// By which function.
    pub allocator: Allocator,
    /// Index of the allocating thread.
    pub thread: u32,
    /// How much; frees by other threads are taken off already.
    pub figures: Figures,
}

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadInfo {
    /// Its number in the capture.
    pub number: u32,
    /// Kernel thread id, zero when unknown.
    pub thread_id: u32,
    /// Its name in Python, else in the operating system.
    pub name: String,
}

/// Sums over all entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sums over all entries.
    pub figures: Figures,
    /// Deallocations recorded.
    pub deallocations: u64,
}

/// Differences between the entries and the heap word, which events under way explain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Entries with a figure below zero, which was set to zero.
    pub clamped_cells: u64,
    /// Cells written after the heap word was read.
    pub newer_cells: u64,
    /// Peak of the heap word minus the sum of the entries.
    pub peak_bytes: i64,
    /// Live bytes of the heap word minus the sum of the entries.
    pub live_bytes: i64,
}

/// What the profiler cost and missed, summed over all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnFigures {
    /// Allocations and deallocations recorded.
    pub events: u64,
    /// Events inside a hook, not recorded.
    pub missed_reentrant: u64,
    /// Deallocations of blocks that were not known.
    pub unknown_frees: u64,
    /// Blocks found at an address that was never freed.
    pub missed_frees: u64,
    /// Events whose own cost was measured.
    pub timed_events: u64,
    /// What those cost, nanoseconds.
    pub timed_ns: u64,
}

impl OwnFigures {
    /// What recording cost the program, estimated from the measured events; `None` without any.
    #[must_use]
    pub fn estimated_ns(&self) -> Option<u64> {
        let total = u128::from(self.timed_ns) * u128::from(self.events);
        let estimate = total.checked_div(u128::from(self.timed_events))?;
        Some(u64::try_from(estimate).unwrap_or(u64::MAX))
    }
}

impl Profile {
    /// Works a capture out, with the threshold of temporary blocks that it was recorded with.
    #[must_use]
    pub fn new(capture: &Capture) -> Self {
        Self::work_out(capture, ProfileOptions::default())
    }

    /// Works a capture out.
    ///
    /// # Errors
    /// [`EngineError::ThresholdNotRecorded`] when a capture of counters is asked for another threshold than it
    /// was recorded with; [`EngineError::TotalsUnknown`] when it is asked for temporary blocks and none were recorded.
    pub fn with(capture: &Capture, options: ProfileOptions<'_>) -> Result<Self, EngineError> {
        let recorded = capture.identity.temporary_threshold;
        if options.temporary_threshold.is_some() && !capture.identity.knows_totals() {
            return Err(EngineError::TotalsUnknown);
        }
        match options.temporary_threshold {
            Some(asked) if asked != recorded && !capture.holds_events() => {
                Err(EngineError::ThresholdNotRecorded { asked, recorded })
            }
            _ => Ok(Self::work_out(capture, options)),
        }
    }

    /// Works a capture and its history out, with at most `max_records` boundaries, in one pass over the events:
    /// the same as [`Profile::with`] and [`Temporal::new`], in less time. Only the epoch of the heap word is another:
    /// the boundaries count in it.
    ///
    /// # Errors
    /// [`EngineError::NoHistory`] when the capture has counters instead of events.
    pub fn with_history(
        capture: &Capture,
        options: ProfileOptions<'_>,
        max_records: usize,
    ) -> Result<(Self, Temporal), EngineError> {
        if !capture.holds_events() {
            return Err(EngineError::NoHistory);
        }
        let threshold = threshold_of(capture, &options);
        let mut work = Work::begin(capture);
        let ledger = Intervals::of(capture, max_records);
        let stride = ledger.stride;
        let heap = replay(
            capture,
            ledger,
            threshold,
            options.progress,
            &mut work.warnings,
        );
        let survivors = heap.survivors();
        let (counters, history) = heap.ledger.finish();
        let replayed = work.replayed(counters, heap.counts, &heap.keys);
        let profile = work.finish(capture, Some(replayed), threshold);
        let samples = capture.samples.iter().step_by(stride);
        let temporal = Temporal::of(&profile, history, &heap.keys, survivors, samples);
        Ok((profile, temporal))
    }

    fn work_out(capture: &Capture, options: ProfileOptions<'_>) -> Self {
        let threshold = threshold_of(capture, &options);
        let mut work = Work::begin(capture);
        let replayed = capture.holds_events().then(|| {
            let ledger = Counters::new();
            let heap = replay(
                capture,
                ledger,
                threshold,
                options.progress,
                &mut work.warnings,
            );
            work.replayed(heap.ledger, heap.counts, &heap.keys)
        });
        work.finish(capture, replayed, threshold)
    }
}

fn threshold_of(capture: &Capture, options: &ProfileOptions<'_>) -> u32 {
    let recorded = capture.identity.temporary_threshold;
    options.temporary_threshold.unwrap_or(recorded)
}

/// A profile under construction.
struct Work {
    warnings: Warnings,
    stacks: Stacks,
    nodes: NodeMap,
    threads: Threads,
    accumulated: Accumulated,
}

impl Work {
    fn begin(capture: &Capture) -> Self {
        let mut warnings = Warnings::from(capture.warnings.clone());
        let (stacks, nodes) = build_stacks(capture, &mut warnings);
        let mut threads = Threads::of(capture);
        let accumulated = accumulate(capture, &nodes, &mut threads, &mut warnings);
        Self {
            warnings,
            stacks,
            nodes,
            threads,
            accumulated,
        }
    }

    fn replayed(&mut self, counters: Counters, counts: Counts, keys: &[Key]) -> Replayed {
        let (threads, warnings) = (&mut self.threads, &mut self.warnings);
        replayed(counters, counts, keys, &self.nodes, threads, warnings)
    }

    fn finish(self, capture: &Capture, replayed: Option<Replayed>, threshold: u32) -> Profile {
        let Self {
            mut warnings,
            stacks,
            nodes,
            threads,
            accumulated,
        } = self;
        let mut entries = accumulated.entries;
        if let Some(replayed) = &replayed {
            entries.clone_from(&replayed.entries);
        }
        let mut totals = Totals::default();
        for entry in &entries {
            totals.figures.add(&entry.figures);
        }
        let mut histogram = [0u64; HISTOGRAM_BINS];
        let mut own = OwnFigures::default();
        for (_, slot) in capture.slots.iter() {
            totals.deallocations = totals.deallocations.saturating_add(slot.deallocations);
            let events = slot.allocations.saturating_add(slot.deallocations);
            own.events = own.events.saturating_add(events);
            own.missed_reentrant = own.missed_reentrant.saturating_add(slot.missed_reentrant);
            own.unknown_frees = own.unknown_frees.saturating_add(slot.unknown_frees);
            own.missed_frees = own.missed_frees.saturating_add(slot.missed_frees);
            own.timed_events = own.timed_events.saturating_add(slot.timed_events);
            own.timed_ns = own.timed_ns.saturating_add(slot.timed_ns);
            for (sum, count) in histogram.iter_mut().zip(slot.histogram) {
                *sum = sum.saturating_add(count);
            }
        }
        let mut heap = capture.heap;
        let mut sample_heap = Vec::new();
        let mut takes_back = false;
        if let Some(replayed) = replayed {
            let (counts, counters) = (replayed.counts, replayed.counters);
            totals.deallocations = counts.deallocations;
            own.events = counts.allocations.saturating_add(counts.deallocations);
            own.unknown_frees = counts.unknown_frees;
            own.missed_frees = counts.missed_frees;
            histogram = counters.histogram();
            heap = counters.level.word();
            sample_heap = counters.sample_heap;
            takes_back = counts.undone > 0;
        }
        let live_bytes = heap.peak_bytes.saturating_sub(heap.headroom);
        let in_flight = InFlight {
            clamped_cells: accumulated.clamped_cells,
            newer_cells: accumulated.in_flight_cells,
            peak_bytes: difference(heap.peak_bytes, totals.figures.peak.bytes),
            live_bytes: difference(live_bytes, totals.figures.live.bytes),
        };
        if in_flight != InFlight::default() {
            warnings.add(WarningKind::InFlight, None, || in_flight_text(&in_flight));
        }
        Profile {
            totals,
            stacks,
            entries,
            threads: threads.list,
            histogram,
            in_flight,
            own,
            heap,
            sample_heap,
            temporary_threshold: threshold,
            warnings: warnings.into_vec(),
            nodes,
            takes_back,
        }
    }
}

impl Profile {
    /// The stack that a node of the capture is; `None` where there is no such node.
    #[must_use]
    pub fn stack_of_node(&self, node: u32) -> Option<StackId> {
        self.nodes.stack_of(node)
    }

    /// Puts what a replay found where a capture with counters has it, for whoever looks there.
    pub fn complete(&self, capture: &mut Capture) {
        capture.heap = self.heap;
        for (sample, &heap) in capture.samples.iter_mut().zip(&self.sample_heap) {
            sample.heap_bytes = heap;
        }
    }
}

fn difference(left: u64, right: u64) -> i64 {
    let difference = i128::from(left) - i128::from(right);
    difference.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

fn in_flight_text(in_flight: &InFlight) -> String {
    format!(
        "events were under way: the heap as a whole differs from the sum of its stacks by {:+} bytes at the peak and \
         {:+} bytes live ({} figures below zero were set to zero)",
        in_flight.peak_bytes, in_flight.live_bytes, in_flight.clamped_cells
    )
}
