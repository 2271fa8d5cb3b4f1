//! The history of a heap, kept event by event: lifetimes, and what was held at the peak of each interval.
//!
//! The peak of an interval costs the same as that of a whole run: each interval begins a new maximum at the
//! level it finds. What an entry held at the peak of an interval is settled when the entry is next touched, for
//! that interval and for all since, in which it did not change.

use heaptide_capture::Capture;
use rustc_hash::FxHashMap;

use crate::counters::{Held, Level};
use crate::figures::Amount;
use crate::heap::{Ledger, Share};

/// An entry, and what it held at the peaks that are not written down yet.
struct Track {
    held: Held,
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

/// The [`Ledger`] of a history.
pub(crate) struct Intervals {
    /// Every so many samples an interval ends.
    pub(crate) stride: usize,
    /// Since the present interval began.
    level: Level,
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
            level: Level::default(),
            closed: Vec::new(),
            tracks: Vec::new(),
            runs: Vec::new(),
            lives: FxHashMap::default(),
        }
    }

    fn close(&mut self) {
        self.closed.push(self.level);
        self.level.peak = self.level.bytes;
        self.level.epoch += 1;
    }

    /// Before a change of an entry.
    #[inline(always)]
    fn touch(&mut self, entry: u32) -> &mut Held {
        // Intervals begin new epochs.
        if self.tracks[entry as usize].held.epoch != self.level.epoch {
            self.settle_and_touch(entry);
        }
        &mut self.tracks[entry as usize].held
    }

    #[inline(never)]
    fn settle_and_touch(&mut self, entry: u32) {
        self.settle(entry);
        self.tracks[entry as usize].held.touch(self.level.epoch);
    }

    #[inline(never)]
    fn end_life(&mut self, life: Life, share: Share) {
        self.lives.entry(life).or_default().add(Amount {
            count: share.count,
            bytes: share.bytes,
        });
    }

    /// Writes down what an entry held at the peaks of all intervals that are past.
    fn settle(&mut self, entry: u32) {
        let now = self.closed.len() as u32;
        let track = &mut self.tracks[entry as usize];
        if track.interval == now {
            return;
        }
        let last = track.interval;
        let at_peak = track.held.at_peak(&self.closed[last as usize]);
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
            settled(last + 1, track.held.live());
        }
    }

    /// The last interval ends here.
    pub(crate) fn finish(mut self) -> History {
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
        History {
            closed: self.closed,
            runs: self.runs,
            lives: self.lives,
        }
    }
}

impl Ledger for Intervals {
    fn add_entry(&mut self) {
        let interval = self.interval();
        self.tracks.push(Track {
            held: Held::nothing(self.level.epoch),
            interval,
            run_start: interval,
            run: Amount::default(),
        });
    }

    #[inline(always)]
    fn allocated(&mut self, entry: u32, bytes: u64) {
        self.touch(entry).gain(bytes);
        self.level.rise(bytes);
    }

    #[inline(always)]
    fn freed(&mut self, entry: u32, share: Share, _temporary: bool) {
        self.level.fall(share.bytes);
        self.touch(entry).give_back(share);
        let now = self.interval();
        if share.born != now {
            self.end_life((entry, share.born, now), share);
        }
    }

    fn unfreed(&mut self, entry: u32, share: Share, _temporary: bool, freed: u32) {
        self.touch(entry).take_back(share);
        self.level.rise(share.bytes);
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
        if index.is_multiple_of(self.stride) {
            self.close();
        }
    }
}
