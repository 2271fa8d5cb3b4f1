//! From events to what is made of them: one pass in the order of the events.

use heaptide_capture::{Capture, EventVisitor, WarningKind, Warnings};
use heaptide_format::{Allocator, Event, Moment, Receiver, Sample, Site};

use crate::accumulate::Threads;
use crate::counters::Counters;
use crate::heap::{Counts, Heap, Key, Ledger};
use crate::options::Progress;
use crate::profile::Entry;
use crate::stacks::{NodeMap, StackId};

/// Lets a heap live through the events of a capture, and its samples among them.
struct Player<'a, 'p, L> {
    heap: Heap<L>,
    samples: &'a [Sample],
    next_sample: usize,
    /// The turn of that sample.
    sample_turn: u64,
    progress: Option<&'p mut dyn FnMut(Progress)>,
    total_bytes: u64,
}

impl<L: Ledger> Player<'_, '_, L> {
    #[cold]
    fn pass_samples(&mut self, turn: u64) {
        while turn > self.sample_turn {
            self.pass_sample();
        }
    }

    fn pass_sample(&mut self) {
        self.heap.ledger.sample(self.next_sample);
        self.next_sample += 1;
        self.sample_turn = turn_of(self.samples, self.next_sample);
    }
}

/// The turn of a sample; beyond the last one there is none.
fn turn_of(samples: &[Sample], index: usize) -> u64 {
    samples.get(index).map_or(u64::MAX, |sample| sample.turn)
}

impl<L: Ledger> Receiver for Player<'_, '_, L> {
    #[inline(always)]
    fn allocated(&mut self, address: u64, site: &Site) {
        self.heap.allocate(address, site);
    }

    #[inline(always)]
    fn freed(&mut self, address: u64) {
        self.heap.free(address);
    }
}

impl<L: Ledger> EventVisitor for Player<'_, '_, L> {
    #[inline]
    fn place(&mut self, moment: Moment, stream: usize, thread: u32) {
        if moment.turn > self.sample_turn {
            self.pass_samples(moment.turn);
        }
        self.heap.enter(stream, thread);
    }

    fn rare(&mut self, event: Event) {
        self.heap.event(event);
    }

    fn read(&mut self, bytes: u64) {
        if let Some(report) = &mut self.progress {
            report(Progress {
                done: bytes,
                total: self.total_bytes,
            });
        }
    }
}

/// Goes through all events and samples of a capture.
pub(crate) fn replay<L: Ledger>(
    capture: &Capture,
    ledger: L,
    threshold: u32,
    progress: Option<&mut dyn FnMut(Progress)>,
    warnings: &mut Warnings,
) -> Heap<L> {
    let order = capture.events.in_order();
    let total_bytes = capture.events.bytes();
    let mut player = Player {
        heap: Heap::new(ledger, order.streams(), threshold),
        samples: &capture.samples,
        next_sample: 0,
        sample_turn: turn_of(&capture.samples, 0),
        progress,
        total_bytes,
    };
    warnings.append(order.visit(&mut player));
    while player.next_sample < capture.samples.len() {
        player.pass_sample();
    }
    player.read(total_bytes);
    player.heap
}

/// The figures of a whole run.
pub(crate) struct Replayed {
    pub(crate) entries: Vec<Entry>,
    pub(crate) counters: Counters,
    pub(crate) counts: Counts,
}

/// What the entries of a heap did, under the names that the capture has for stacks and threads.
pub(crate) fn replayed(
    counters: Counters,
    counts: Counts,
    keys: &[Key],
    nodes: &NodeMap,
    threads: &mut Threads,
    warnings: &mut Warnings,
) -> Replayed {
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
