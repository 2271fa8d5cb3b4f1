//! From events to entries: one pass, memory proportional to live blocks and distinct stacks.
//!
//! The meanings are those of the recorder's counters, event by event, so that a program gives the
//! same figures in both modes.

use std::collections::BTreeMap;

use heaptide_capture::{Capture, PlacedEvent, WarningKind, Warnings};
use heaptide_format::{Allocator, Event, HISTOGRAM_BINS, HeapWord, Site, histogram_bin};
use rustc_hash::FxHashMap;

use crate::accumulate::Threads;
use crate::figures::{Amount, Figures};
use crate::profile::Entry;
use crate::stacks::{NodeMap, StackId};

/// What a replay found.
pub(crate) struct Replayed {
    pub(crate) entries: Vec<Entry>,
    pub(crate) heap: HeapWord,
    pub(crate) histogram: [u64; HISTOGRAM_BINS],
    pub(crate) allocations: u64,
    pub(crate) deallocations: u64,
    pub(crate) unknown_frees: u64,
    pub(crate) missed_frees: u64,
    /// The heap at each of the capture's samples.
    pub(crate) sample_heap: Vec<u64>,
}

/// Who made a block, and its size.
#[derive(Clone, Copy)]
struct Live {
    entry: u32,
    size: u64,
}

/// Counters of one (stack, allocator, thread).
struct Counters {
    site: (u32, u8),
    thread: u32,
    allocated: Amount,
    live: Amount,
    temporary: Amount,
    /// `live` when the heap last left its maximum, if `epoch` is the heap's.
    at_peak: Amount,
    epoch: u64,
}

/// A mapped range; mappings are cut by partial unmaps.
#[derive(Clone, Copy)]
struct Range {
    end: u64,
    entry: u32,
    mapping: u32,
}

/// What was taken out of a range.
struct Piece {
    start: u64,
    range: Range,
    /// Nothing is left of the mapping.
    last: bool,
}

/// What a stream did last, to take it back.
#[derive(Default)]
struct Stream {
    recent: [(u64, u32); 2],
    freed: Option<Freed>,
    unmapped: Vec<Piece>,
}

struct Freed {
    address: u64,
    block: Option<Live>,
    recent: [(u64, u32); 2],
}

struct Replay {
    counters: Vec<Counters>,
    by_key: FxHashMap<(u32, u8, u32), u32>,
    live: FxHashMap<u64, Live>,
    ranges: BTreeMap<u64, Range>,
    /// Ranges left of each mapping.
    mappings: Vec<u32>,
    streams: Vec<Stream>,
    heap: HeapWord,
    histogram: [u64; HISTOGRAM_BINS],
    allocations: u64,
    deallocations: u64,
    unknown_frees: u64,
    missed_frees: u64,
}

/// Goes through all events.
pub(crate) fn replay(
    capture: &Capture,
    nodes: &NodeMap,
    threads: &mut Threads,
    warnings: &mut Warnings,
) -> Replayed {
    let mut order = capture.events.in_order();
    let mut replay = Replay {
        counters: Vec::new(),
        by_key: FxHashMap::default(),
        live: FxHashMap::default(),
        ranges: BTreeMap::new(),
        mappings: Vec::new(),
        streams: Vec::new(),
        heap: HeapWord::default(),
        histogram: [0; HISTOGRAM_BINS],
        allocations: 0,
        deallocations: 0,
        unknown_frees: 0,
        missed_frees: 0,
    };
    replay.streams.resize_with(order.streams(), Stream::default);
    let mut sample_heap = Vec::with_capacity(capture.samples.len());
    let next_sample = |done: usize| {
        capture
            .samples
            .get(done)
            .map_or(u64::MAX, |sample| sample.turn)
    };
    let mut sample_turn = next_sample(0);
    for placed in &mut order {
        while placed.moment.turn > sample_turn {
            sample_heap.push(replay.live_bytes());
            sample_turn = next_sample(sample_heap.len());
        }
        replay.event(&placed);
    }
    sample_heap.resize(capture.samples.len(), replay.live_bytes());
    warnings.append(order.into_warnings());
    replay.finish(sample_heap, nodes, threads, warnings)
}

impl Replay {
    fn live_bytes(&self) -> u64 {
        self.heap.peak_bytes.saturating_sub(self.heap.headroom)
    }

    #[inline]
    fn event(&mut self, placed: &PlacedEvent) {
        let stream = placed.stream;
        match placed.event {
            Event::Allocated { address, site } => {
                let entry = self.entry(site, placed.thread);
                let mapped = u32::from(site.allocator) == Allocator::Mmap as u32;
                if mapped {
                    self.unmap(stream, address, site.size);
                }
                self.count_allocated(entry, site.size);
                if mapped {
                    self.map(address, site.size, entry);
                } else {
                    let block = Live {
                        entry,
                        size: site.size,
                    };
                    if let Some(old) = self.live.insert(address, block) {
                        self.missed_frees += 1;
                        self.count_freed(old.entry, 1, old.size);
                        self.deallocations += 1;
                    }
                }
                let recent = &mut self.streams[stream].recent;
                recent[1] = recent[0];
                recent[0] = (address, entry);
            }
            Event::Freed { address } => self.free(stream, address),
            Event::FreeUndone => self.undo_free(stream),
            Event::Unmapped { address, length } => self.unmap(stream, address, length),
            Event::UnmapUndone => self.undo_unmap(stream),
        }
    }

    #[inline]
    fn entry(&mut self, site: Site, thread: u32) -> u32 {
        let next = self.counters.len() as u32;
        let key = (site.node, site.allocator, thread);
        let entry = *self.by_key.entry(key).or_insert(next);
        if entry == next {
            self.counters.push(Counters {
                site: (site.node, site.allocator),
                thread,
                allocated: Amount::default(),
                live: Amount::default(),
                temporary: Amount::default(),
                at_peak: Amount::default(),
                epoch: self.heap.epoch,
            });
        }
        entry
    }

    /// Brings an entry into the heap's epoch: what it is now is what it was at the peak.
    #[inline]
    fn touch(&mut self, entry: u32) -> &mut Counters {
        let counters = &mut self.counters[entry as usize];
        if counters.epoch != self.heap.epoch {
            counters.epoch = self.heap.epoch;
            counters.at_peak = counters.live;
        }
        counters
    }

    #[inline]
    fn grow(&mut self, entry: u32, count: u64, bytes: u64) {
        let counters = self.touch(entry);
        counters.live.count = counters.live.count.wrapping_add(count);
        counters.live.bytes = counters.live.bytes.wrapping_add(bytes);
        let excess = bytes.saturating_sub(self.heap.headroom);
        self.heap.headroom = self.heap.headroom.saturating_sub(bytes);
        self.heap.peak_bytes = self.heap.peak_bytes.saturating_add(excess);
    }

    #[inline]
    fn count_allocated(&mut self, entry: u32, bytes: u64) {
        self.grow(entry, 1, bytes);
        self.counters[entry as usize]
            .allocated
            .add(Amount { count: 1, bytes });
        self.histogram[histogram_bin(bytes).min(HISTOGRAM_BINS - 1)] += 1;
        self.allocations += 1;
    }

    #[inline]
    fn count_freed(&mut self, entry: u32, count: u64, bytes: u64) {
        if self.heap.headroom == 0 && bytes > 0 {
            self.heap.epoch += 1;
        }
        self.heap.headroom = self.heap.headroom.saturating_add(bytes);
        let counters = self.touch(entry);
        counters.live.count = counters.live.count.wrapping_sub(count);
        counters.live.bytes = counters.live.bytes.wrapping_sub(bytes);
    }

    /// Was this one of the last two allocations of the stream? Forgets it.
    #[inline]
    fn was_recent(&mut self, stream: usize, address: u64, entry: u32) -> bool {
        for recent in &mut self.streams[stream].recent {
            if *recent == (address, entry) {
                *recent = (0, 0);
                return true;
            }
        }
        false
    }

    #[inline]
    fn free(&mut self, stream: usize, address: u64) {
        let recent = self.streams[stream].recent;
        let block = self.live.remove(&address);
        match block {
            Some(block) => {
                if self.was_recent(stream, address, block.entry) {
                    self.counters[block.entry as usize].temporary.add(Amount {
                        count: 1,
                        bytes: block.size,
                    });
                }
                self.count_freed(block.entry, 1, block.size);
                self.deallocations += 1;
            }
            None => self.unknown_frees += 1,
        }
        self.streams[stream].freed = Some(Freed {
            address,
            block,
            recent,
        });
    }

    fn undo_free(&mut self, stream: usize) {
        let Some(freed) = self.streams[stream].freed.take() else {
            return;
        };
        let Some(block) = freed.block else {
            self.unknown_frees -= 1;
            return;
        };
        let was_temporary = freed.recent != self.streams[stream].recent;
        self.streams[stream].recent = freed.recent;
        if was_temporary {
            let temporary = &mut self.counters[block.entry as usize].temporary;
            temporary.count = temporary.count.saturating_sub(1);
            temporary.bytes = temporary.bytes.saturating_sub(block.size);
        }
        self.grow(block.entry, 1, block.size);
        self.deallocations -= 1;
        self.live.insert(freed.address, block);
    }

    fn map(&mut self, start: u64, bytes: u64, entry: u32) {
        let end = start.saturating_add(bytes);
        if start >= end {
            return;
        }
        let mapping = self.mappings.len() as u32;
        self.mappings.push(1);
        self.ranges.insert(
            start,
            Range {
                end,
                entry,
                mapping,
            },
        );
    }

    /// Ends whatever is mapped in a range.
    fn unmap(&mut self, stream: usize, start: u64, bytes: u64) {
        let end = start.saturating_add(bytes);
        let mut pieces = Vec::new();
        // Ranges never overlap, so only the one before can reach into this one.
        let first = self.ranges.range(..=start).next_back();
        let mut at = first.map_or(start, |(&at, _)| at);
        while let Some((&from, &range)) = self.ranges.range(at..end).next() {
            at = range.end.max(from + 1).min(end);
            if range.end <= start {
                continue;
            }
            self.ranges.remove(&from);
            let left = &mut self.mappings[range.mapping as usize];
            *left -= 1;
            if from < start {
                *left += 1;
                let before = Range {
                    end: start,
                    ..range
                };
                self.ranges.insert(from, before);
            }
            if range.end > end {
                *left += 1;
                self.ranges.insert(end, range);
            }
            pieces.push(Piece {
                start: from.max(start),
                last: *left == 0,
                range: Range {
                    end: range.end.min(end),
                    ..range
                },
            });
        }
        for piece in &pieces {
            let (entry, bytes) = (piece.range.entry, piece.range.end - piece.start);
            if piece.last && self.was_recent(stream, piece.start, entry) {
                self.counters[entry as usize]
                    .temporary
                    .add(Amount { count: 1, bytes });
            }
            self.count_freed(entry, u64::from(piece.last), bytes);
            self.deallocations += u64::from(piece.last);
        }
        self.streams[stream].unmapped = pieces;
    }

    fn undo_unmap(&mut self, stream: usize) {
        for piece in std::mem::take(&mut self.streams[stream].unmapped) {
            let bytes = piece.range.end - piece.start;
            self.grow(piece.range.entry, u64::from(piece.last), bytes);
            self.deallocations = self.deallocations.saturating_sub(u64::from(piece.last));
            self.mappings[piece.range.mapping as usize] += 1;
            self.ranges.insert(piece.start, piece.range);
        }
    }

    fn finish(
        self,
        sample_heap: Vec<u64>,
        nodes: &NodeMap,
        threads: &mut Threads,
        warnings: &mut Warnings,
    ) -> Replayed {
        let mut entries = Vec::with_capacity(self.counters.len());
        for counters in &self.counters {
            let (node, allocator) = counters.site;
            let Some(allocator) = Allocator::from_raw(u32::from(allocator)) else {
                warnings.add(WarningKind::DamagedEvents, None, || {
                    format!("events name allocator {allocator}, which does not exist; they were left out")
                });
                continue;
            };
            let stack = nodes.stack_of(node).unwrap_or_else(|| {
                warnings.add(WarningKind::DanglingReference, None, || {
                    format!("events name stack {node}, which is not there")
                });
                StackId::LOST
            });
            let past = self.heap.headroom != 0 && counters.epoch == self.heap.epoch;
            entries.push(Entry {
                stack,
                allocator,
                thread: threads.index_of(counters.thread, warnings),
                figures: Figures {
                    allocated: counters.allocated,
                    live: counters.live,
                    peak: if past {
                        counters.at_peak
                    } else {
                        counters.live
                    },
                    temporary: counters.temporary,
                },
            });
        }
        Replayed {
            entries,
            heap: self.heap,
            histogram: self.histogram,
            allocations: self.allocations,
            deallocations: self.deallocations,
            unknown_frees: self.unknown_frees,
            missed_frees: self.missed_frees,
            sample_heap,
        }
    }
}
