//! Reports of a stretch of time.

use std::ops::RangeInclusive;

use heaptide_engine::{Amount, Entry, Figures, Profile, Temporal};
use heaptide_format::HISTOGRAM_BINS;
use rustc_hash::FxHashMap;

use crate::threads::count_anew;

/// Makes a profile one of a range of intervals: *peak* becomes what was held at the peak within them,
/// *live* what was allocated in them and is alive at their end. What was allocated in total, what was temporary
/// and how large allocations were is not known by time and becomes zero.
pub fn keep_interval(profile: &mut Profile, temporal: &Temporal, range: &RangeInclusive<usize>) {
    let mut figures: FxHashMap<u32, Figures> = FxHashMap::default();
    let mut put = |amounts: Vec<(u32, Amount)>, of: fn(&mut Figures) -> &mut Amount| {
        for (key, amount) in amounts {
            of(figures.entry(key).or_default()).add(amount);
        }
    };
    put(temporal.held_at_peak(range.clone()), |figures| {
        &mut figures.peak
    });
    put(
        temporal.allocated_in_and_alive_at_end(range.clone()),
        |figures| &mut figures.live,
    );
    let keys = temporal.keys.iter().enumerate();
    profile.entries = keys
        .filter_map(|(index, key)| {
            Some(Entry {
                stack: key.stack,
                allocator: key.allocator,
                thread: key.thread,
                figures: *figures.get(&(index as u32))?,
            })
        })
        .collect();
    profile.histogram = [0; HISTOGRAM_BINS];
    count_anew(profile);
}
