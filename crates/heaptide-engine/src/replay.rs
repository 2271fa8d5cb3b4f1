//! From events to what is made of them: one pass in the order of the events.

use heaptide_capture::{Capture, WarningKind, Warnings};
use heaptide_format::Allocator;

use crate::accumulate::Threads;
use crate::counters::Counters;
use crate::heap::{Counts, Heap, Key, Ledger};
use crate::options::Progress;
use crate::profile::Entry;
use crate::stacks::{NodeMap, StackId};

/// So many events are read between two reports of progress.
const EVENTS_PER_PROGRESS: u32 = 1 << 16;

/// Goes through all events and samples of a capture.
pub(crate) fn replay<L: Ledger>(
    capture: &Capture,
    ledger: L,
    threshold: u32,
    mut progress: Option<&mut dyn FnMut(Progress)>,
    warnings: &mut Warnings,
) -> Heap<L> {
    let mut order = capture.events.in_order();
    let mut heap = Heap::new(ledger, order.streams(), threshold);
    let total = capture.events.bytes();
    let turn_of = |index: usize| {
        let sample = capture.samples.get(index);
        sample.map_or(u64::MAX, |sample| sample.turn)
    };
    let mut sample = 0;
    let mut sample_turn = turn_of(0);
    let mut left = EVENTS_PER_PROGRESS;
    while let Some(placed) = order.next() {
        while placed.moment.turn > sample_turn {
            heap.ledger.sample(sample);
            sample += 1;
            sample_turn = turn_of(sample);
        }
        heap.event(placed.stream, placed.thread, placed.event);
        left -= 1;
        if left == 0 {
            left = EVENTS_PER_PROGRESS;
            if let Some(report) = &mut progress {
                let done = order.bytes_read();
                report(Progress { done, total });
            }
        }
    }
    for index in sample..capture.samples.len() {
        heap.ledger.sample(index);
    }
    if let Some(report) = &mut progress {
        report(Progress { done: total, total });
    }
    warnings.append(order.into_warnings());
    heap
}

/// The figures of a whole run.
pub(crate) struct Replayed {
    pub(crate) entries: Vec<Entry>,
    pub(crate) counters: Counters,
    pub(crate) counts: Counts,
}

/// What the entries of a heap did, under the names that the capture has for stacks and threads.
pub(crate) fn replayed(
    heap: Heap<Counters>,
    nodes: &NodeMap,
    threads: &mut Threads,
    warnings: &mut Warnings,
) -> Replayed {
    let counts = heap.counts;
    let (counters, keys, _) = heap.into_survivors();
    let mut entries = Vec::with_capacity(keys.len());
    for (key, figures) in keys.iter().zip(counters.figures()) {
        let Some((stack, allocator)) = place_of(*key, nodes, warnings) else {
            continue;
        };
        entries.push(Entry {
            stack,
            allocator,
            thread: threads.index_of(key.thread, warnings),
            figures,
        });
    }
    Replayed {
        entries,
        counters,
        counts,
    }
}

/// The stack and the allocator of a key; `None` for an allocator that does not exist.
pub(crate) fn place_of(
    key: Key,
    nodes: &NodeMap,
    warnings: &mut Warnings,
) -> Option<(StackId, Allocator)> {
    let allocator = Allocator::from_raw(u32::from(key.allocator));
    if allocator.is_none() {
        warnings.add(WarningKind::DamagedEvents, None, || {
            format!(
                "events name allocator {}, which does not exist; they were left out",
                key.allocator
            )
        });
    }
    let allocator = allocator?;
    let stack = nodes.stack_of(key.node).unwrap_or_else(|| {
        warnings.add(WarningKind::DanglingReference, None, || {
            format!("events name stack {}, which is not there", key.node)
        });
        StackId::LOST
    });
    Some((stack, allocator))
}
