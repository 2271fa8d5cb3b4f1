//! The counters of a profile, kept event by event.

use heaptide_format::{HISTOGRAM_BINS, HeapWord, histogram_bin};

use crate::figures::{Amount, Figures};
use crate::heap::{Ledger, Share};

/// The heap as a whole: how far it is below its maximum, and how often it has left it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Level(pub(crate) HeapWord);

impl Level {
    pub(crate) fn bytes(self) -> u64 {
        self.0.peak_bytes.saturating_sub(self.0.headroom)
    }

    #[inline]
    pub(crate) fn rise(&mut self, bytes: u64) {
        let excess = bytes.saturating_sub(self.0.headroom);
        self.0.headroom = self.0.headroom.saturating_sub(bytes);
        self.0.peak_bytes = self.0.peak_bytes.saturating_add(excess);
    }

    #[inline]
    pub(crate) fn fall(&mut self, bytes: u64) {
        if self.0.headroom == 0 && bytes > 0 {
            self.0.epoch += 1;
        }
        self.0.headroom = self.0.headroom.saturating_add(bytes);
    }
}

/// What an entry holds, and what it held when the heap last left its maximum.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub(crate) live: Amount,
    /// `live` when `epoch` began.
    at_peak: Amount,
    /// The heap's epoch when the entry was last touched.
    pub(crate) epoch: u64,
}

impl Held {
    /// Nothing, made in this epoch.
    pub(crate) fn nothing(epoch: u64) -> Self {
        Self {
            epoch,
            ..Self::default()
        }
    }

    /// Before a change: what it is now is what it was when the heap left its maximum.
    #[inline]
    pub(crate) fn touch(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.at_peak = self.live;
        }
    }

    /// What it held at the last instant at which a heap in this state was at its largest.
    #[inline]
    pub(crate) fn at_peak(&self, heap: &HeapWord) -> Amount {
        if heap.headroom != 0 && self.epoch == heap.epoch {
            self.at_peak
        } else {
            self.live
        }
    }

    #[inline]
    pub(crate) fn grow(&mut self, count: u64, bytes: u64) {
        self.live.count = self.live.count.wrapping_add(count);
        self.live.bytes = self.live.bytes.wrapping_add(bytes);
    }

    #[inline]
    pub(crate) fn shrink(&mut self, count: u64, bytes: u64) {
        self.live.count = self.live.count.wrapping_sub(count);
        self.live.bytes = self.live.bytes.wrapping_sub(bytes);
    }
}

/// Counters of one (stack, allocator, thread).
struct Counter {
    held: Held,
    allocated: Amount,
    temporary: Amount,
}

/// The [`Ledger`] of a profile.
pub(crate) struct Counters {
    pub(crate) level: Level,
    pub(crate) histogram: [u64; HISTOGRAM_BINS],
    /// The heap at each of the capture's samples, bytes.
    pub(crate) sample_heap: Vec<u64>,
    counters: Vec<Counter>,
}

impl Counters {
    pub(crate) const fn new() -> Self {
        Self {
            level: Level(HeapWord {
                headroom: 0,
                epoch: 0,
                peak_bytes: 0,
            }),
            histogram: [0; HISTOGRAM_BINS],
            sample_heap: Vec::new(),
            counters: Vec::new(),
        }
    }

    /// What each entry did, in their order.
    pub(crate) fn figures(&self) -> impl Iterator<Item = Figures> {
        self.counters.iter().map(|counter| Figures {
            allocated: counter.allocated,
            live: counter.held.live,
            peak: counter.held.at_peak(&self.level.0),
            temporary: counter.temporary,
        })
    }
}

impl Ledger for Counters {
    fn add_entry(&mut self) {
        self.counters.push(Counter {
            held: Held::nothing(self.level.0.epoch),
            allocated: Amount::default(),
            temporary: Amount::default(),
        });
    }

    #[inline]
    fn allocated(&mut self, entry: u32, bytes: u64) {
        let counter = &mut self.counters[entry as usize];
        counter.held.touch(self.level.0.epoch);
        counter.held.grow(1, bytes);
        counter.allocated.add(Amount { count: 1, bytes });
        self.level.rise(bytes);
        self.histogram[histogram_bin(bytes).min(HISTOGRAM_BINS - 1)] += 1;
    }

    #[inline]
    fn freed(&mut self, entry: u32, share: Share) {
        self.level.fall(share.bytes);
        let counter = &mut self.counters[entry as usize];
        counter.held.touch(self.level.0.epoch);
        counter.held.shrink(share.count, share.bytes);
    }

    fn unfreed(&mut self, entry: u32, share: Share, _freed: u32) {
        let counter = &mut self.counters[entry as usize];
        counter.held.touch(self.level.0.epoch);
        counter.held.grow(share.count, share.bytes);
        self.level.rise(share.bytes);
    }

    #[inline]
    fn temporary(&mut self, entry: u32, bytes: u64) {
        let temporary = &mut self.counters[entry as usize].temporary;
        temporary.add(Amount { count: 1, bytes });
    }

    fn not_temporary(&mut self, entry: u32, bytes: u64) {
        let temporary = &mut self.counters[entry as usize].temporary;
        temporary.count = temporary.count.saturating_sub(1);
        temporary.bytes = temporary.bytes.saturating_sub(bytes);
    }

    #[inline]
    fn interval(&self) -> u32 {
        0
    }

    fn sample(&mut self, _index: usize) {
        self.sample_heap.push(self.level.bytes());
    }
}
