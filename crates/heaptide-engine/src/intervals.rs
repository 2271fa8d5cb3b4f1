//! The history of a heap, kept event by event: lifetimes, and what was held at the peak of each interval.
//!
//! The peak of an interval costs the same as that of a whole run: each interval begins a new maximum at the
//! level it finds. What an entry held at the peak of an interval is settled when the entry is next touched, for
//! that interval and for all since, in which it did not change.

use heaptide_capture::Capture;
use rustc_hash::FxHashMap;

use crate::counters::{Counters, Level};
use crate::figures::Amount;
use crate::heap::{Ledger, Share};

/// What an entry held at the peaks that are not written down yet.
struct Track {
    /// The interval in which it was last touched; peaks before it are settled.
    interval: u32,
    /// What it held at the peaks of the settled intervals from here on.
    run_start: u32,
    run: Amount,
}

/// What an entry held at the peaks of consecutive intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) entry: u32,
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) amount: Amount,
}

/// An entry, the interval of birth and that of death.
pub(crate) type Life = (u32, u32, u32);

/// The [`Ledger`] of a history, and of the profile of the whole run.
pub(crate) struct Intervals {
    /// Every so many samples an interval ends.
    pub(crate) stride: usize,
    /// Their level is that of the present interval.
    counters: Counters,
    /// The first epoch of the present interval.
    first_epoch: u64,
    /// How each of the past intervals ended.
    closed: Vec<Level>,
    tracks: Vec<Track>,
    runs: Vec<Run>,
    lives: FxHashMap<Life, Amount>,
}

/// What [`Intervals`] found.
pub(crate) struct History {
    /// The heap at the end of each interval.
    pub(crate) closed: Vec<Level>,
    pub(crate) runs: Vec<Run>,
    pub(crate) lives: FxHashMap<Life, Amount>,
}

impl Intervals {
    /// With at most `max_records` boundaries.
    pub(crate) fn of(capture: &Capture, max_records: usize) -> Self {
        // Intervals are counted in 32 bits.
        let most = max_records.clamp(1, u32::MAX as usize / 2);
        Self {
            stride: capture.samples.len().div_ceil(most).max(1),
            counters: Counters::new(),
            first_epoch: 0,
            closed: Vec::new(),
            tracks: Vec::new(),
            runs: Vec::new(),
            lives: FxHashMap::default(),
        }
    }

    fn close(&mut self) {
        let level = &mut self.counters.level;
        self.closed.push(*level);
        level.peak = level.bytes;
        level.epoch += 1;
        self.first_epoch = level.epoch;
    }

    /// Before a change of an entry.
    #[inline(always)]
    fn before_change(&mut self, entry: u32) {
        if self.counters.held(entry).epoch < self.first_epoch {
            self.settle(entry);
        }
    }

    #[inline(never)]
    fn end_life(&mut self, life: Life, share: Share) {
        self.lives.entry(life).or_default().add(Amount {
            count: share.count,
            bytes: share.bytes,
        });
    }

    /// Writes down what an entry held at the peaks of all intervals that are past.
    #[inline(never)]
    fn settle(&mut self, entry: u32) {
        let now = self.closed.len() as u32;
        let track = &mut self.tracks[entry as usize];
        if track.interval == now {
            return;
        }
        let last = track.interval;
        let held = self.counters.held(entry);
        let at_peak = held.at_peak(&self.closed[last as usize]);
        track.interval = now;
        let mut settled = |from: u32, amount: Amount| {
            if amount == track.run {
                return;
            }
            if from > track.run_start && !track.run.is_zero() {
                self.runs.push(Run {
                    entry,
                    from: track.run_start,
                    to: from,
                    amount: track.run,
                });
            }
            track.run_start = from;
            track.run = amount;
        };
        settled(last, at_peak);
        if last + 1 < now {
            settled(last + 1, held.live());
        }
    }

    /// The last interval ends here. Gives what the profile of the whole run has besides.
    pub(crate) fn finish(mut self) -> (Counters, History) {
        self.close();
        let end = self.closed.len() as u32;
        for entry in 0..self.tracks.len() as u32 {
            self.settle(entry);
            let track = &self.tracks[entry as usize];
            if !track.run.is_zero() {
                self.runs.push(Run {
                    entry,
                    from: track.run_start,
                    to: end,
                    amount: track.run,
                });
            }
        }
        self.lives.retain(|_, amount| !amount.is_zero());
        let history = History {
            closed: self.closed,
            runs: self.runs,
            lives: self.lives,
        };
        let at_peak = history.at_peak(self.tracks.len());
        self.counters.set_peak(history.peak_bytes(), &at_peak);
        (self.counters, history)
    }
}

impl History {
    /// The largest the heap ever was, bytes.
    fn peak_bytes(&self) -> u64 {
        self.closed
            .iter()
            .map(|level| level.peak)
            .max()
            .unwrap_or(0)
    }

    /// What each of so many entries held at the peak of the whole run: that of the last interval in which the heap
    /// was as large as ever.
    fn at_peak(&self, entries: usize) -> Vec<Amount> {
        let peak = self.peak_bytes();
        let last = self.closed.iter().rposition(|level| level.peak == peak);
        let mut amounts = vec![Amount::default(); entries];
        for run in &self.runs {
            if last.is_some_and(|last| (run.from as usize..run.to as usize).contains(&last)) {
                amounts[run.entry as usize] = run.amount;
            }
        }
        amounts
    }
}

impl Ledger for Intervals {
    fn add_entry(&mut self) {
        self.counters.add_entry();
        let interval = self.interval();
        self.tracks.push(Track {
            interval,
            run_start: interval,
            run: Amount::default(),
        });
    }

    #[inline(always)]
    fn allocated(&mut self, entry: u32, bytes: u64) {
        self.before_change(entry);
        self.counters.allocated(entry, bytes);
    }

    #[inline(always)]
    fn freed(&mut self, entry: u32, share: Share, temporary: bool) {
        self.before_change(entry);
        self.counters.freed(entry, share, temporary);
        let now = self.interval();
        if share.born != now {
            self.end_life((entry, share.born, now), share);
        }
    }

    fn unfreed(&mut self, entry: u32, share: Share, temporary: bool, freed: u32) {
        self.before_change(entry);
        self.counters.unfreed(entry, share, temporary, freed);
        if let Some(amount) = self.lives.get_mut(&(entry, share.born, freed)) {
            amount.count = amount.count.saturating_sub(share.count);
            amount.bytes = amount.bytes.saturating_sub(share.bytes);
        }
    }

    #[inline]
    fn interval(&self) -> u32 {
        self.closed.len() as u32
    }

    fn sample(&mut self, index: usize) {
        self.counters.sample(index);
        if index.is_multiple_of(self.stride) {
            self.close();
        }
    }
}
