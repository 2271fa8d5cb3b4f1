//! The counters of a profile, kept event by event.

use heaptide_format::{HISTOGRAM_BINS, HeapWord, histogram_bin};

use crate::figures::{Amount, Figures};
use crate::heap::{Ledger, Share};

/// The heap as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Level {
    /// Bytes now.
    pub(crate) bytes: u64,
    /// The most there were.
    pub(crate) peak: u64,
    /// How often the heap has left its maximum.
    pub(crate) epoch: u64,
}

impl Level {
    /// In the form that captures have it.
    pub(crate) const fn word(self) -> HeapWord {
        HeapWord {
            headroom: self.peak - self.bytes,
            epoch: self.epoch,
            peak_bytes: self.peak,
        }
    }

    #[inline(always)]
    pub(crate) fn rise(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.peak = self.peak.max(self.bytes);
    }

    #[inline(always)]
    pub(crate) fn fall(&mut self, bytes: u64) {
        if self.bytes == self.peak && bytes > 0 {
            self.epoch += 1;
        }
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// What an entry has gained and given back, and what it held when the heap last left its maximum.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub(crate) gained: Amount,
    given_back: Amount,
    /// What it held when `epoch` began.
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

    /// What it holds now.
    #[inline(always)]
    pub(crate) const fn live(&self) -> Amount {
        Amount {
            count: self.gained.count.wrapping_sub(self.given_back.count),
            bytes: self.gained.bytes.wrapping_sub(self.given_back.bytes),
        }
    }

    /// Before a change: what it is now is what it was when the heap left its maximum.
    #[inline(always)]
    pub(crate) fn touch(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.at_peak = self.live();
        }
    }

    /// What it held at the last instant at which a heap in this state was at its largest.
    #[inline]
    pub(crate) fn at_peak(&self, heap: &Level) -> Amount {
        if heap.bytes != heap.peak && self.epoch == heap.epoch {
            self.at_peak
        } else {
            self.live()
        }
    }

    #[inline(always)]
    pub(crate) fn gain(&mut self, bytes: u64) {
        self.gained.count = self.gained.count.wrapping_add(1);
        self.gained.bytes = self.gained.bytes.wrapping_add(bytes);
    }

    #[inline(always)]
    pub(crate) fn give_back(&mut self, share: Share) {
        self.given_back.count = self.given_back.count.wrapping_add(share.count);
        self.given_back.bytes = self.given_back.bytes.wrapping_add(share.bytes);
    }

    pub(crate) fn take_back(&mut self, share: Share) {
        self.given_back.count = self.given_back.count.wrapping_sub(share.count);
        self.given_back.bytes = self.given_back.bytes.wrapping_sub(share.bytes);
    }
}

/// Counters of one (stack, allocator, thread).
struct Counter {
    held: Held,
    temporary: Amount,
}

/// The [`Ledger`] of a profile.
pub(crate) struct Counters {
    pub(crate) level: Level,
    /// Allocations by the number of leading zeros of their sizes.
    sizes: [u64; u64::BITS as usize + 1],
    /// The heap at each of the capture's samples, bytes.
    pub(crate) sample_heap: Vec<u64>,
    counters: Vec<Counter>,
}

impl Counters {
    pub(crate) const fn new() -> Self {
        Self {
            level: Level {
                bytes: 0,
                peak: 0,
                epoch: 0,
            },
            sizes: [0; u64::BITS as usize + 1],
            sample_heap: Vec::new(),
            counters: Vec::new(),
        }
    }

    /// What an entry has and had.
    #[inline(always)]
    pub(crate) fn held(&self, entry: u32) -> &Held {
        &self.counters[entry as usize].held
    }

    /// The largest the heap was, bytes, and what each entry held then, when others have found it out.
    pub(crate) fn set_peak(&mut self, bytes: u64, held: &[Amount]) {
        self.level.peak = bytes;
        for (counter, &at_peak) in self.counters.iter_mut().zip(held) {
            counter.held.at_peak = at_peak;
            counter.held.epoch = self.level.epoch;
        }
    }

    /// Allocations by size, see [`heaptide_format::histogram_bounds`].
    pub(crate) fn histogram(&self) -> [u64; HISTOGRAM_BINS] {
        let mut histogram = [0; HISTOGRAM_BINS];
        for (zeros, count) in (0..).zip(self.sizes) {
            let size = u64::MAX.checked_shr(zeros).unwrap_or(0);
            histogram[histogram_bin(size)] += count;
        }
        histogram
    }

    /// What each entry did, in their order.
    pub(crate) fn figures(&self) -> impl Iterator<Item = Figures> {
        self.counters.iter().map(|counter| Figures {
            allocated: counter.held.gained,
            live: counter.held.live(),
            peak: counter.held.at_peak(&self.level),
            temporary: counter.temporary,
        })
    }
}

impl Ledger for Counters {
    fn add_entry(&mut self) {
        self.counters.push(Counter {
            held: Held::nothing(self.level.epoch),
            temporary: Amount::default(),
        });
    }

    #[inline(always)]
    fn allocated(&mut self, entry: u32, bytes: u64) {
        let held = &mut self.counters[entry as usize].held;
        held.touch(self.level.epoch);
        held.gain(bytes);
        self.level.rise(bytes);
        self.sizes[bytes.leading_zeros() as usize] += 1;
    }

    #[inline(always)]
    fn freed(&mut self, entry: u32, share: Share, temporary: bool) {
        self.level.fall(share.bytes);
        let counter = &mut self.counters[entry as usize];
        counter.held.touch(self.level.epoch);
        counter.held.give_back(share);
        // No branch: temporary blocks and others come without a pattern.
        let temporary = u64::from(temporary);
        let sum = &mut counter.temporary;
        sum.count = sum.count.wrapping_add(temporary);
        let bytes = share.bytes & temporary.wrapping_neg();
        sum.bytes = sum.bytes.wrapping_add(bytes);
    }

    fn unfreed(&mut self, entry: u32, share: Share, temporary: bool, _freed: u32) {
        let counter = &mut self.counters[entry as usize];
        counter.held.touch(self.level.epoch);
        counter.held.take_back(share);
        if temporary {
            counter.temporary.count = counter.temporary.count.wrapping_sub(1);
            counter.temporary.bytes = counter.temporary.bytes.wrapping_sub(share.bytes);
        }
        self.level.rise(share.bytes);
    }

    #[inline(always)]
    fn interval(&self) -> u32 {
        0
    }

    fn sample(&mut self, _index: usize) {
        self.sample_heap.push(self.level.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_the_bins_that_recorders_count_them_in() {
        let mut counters = Counters::new();
        counters.add_entry();
        let mut expected = [0; HISTOGRAM_BINS];
        let powers = (0..u64::BITS).map(|bit| 1u64 << bit);
        let around = powers.flat_map(|power| [power - 1, power, power | 1]);
        for size in around.chain([u64::MAX]) {
            counters.allocated(0, size);
            expected[histogram_bin(size)] += 1;
        }
        assert_eq!(counters.histogram(), expected);
    }
}
