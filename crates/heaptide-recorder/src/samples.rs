//! The table of memory samples of a process that takes them itself.
//!
//! As the supervisor writes it (`heaptide-session`, `samples.rs`), by stores instead of writes: a table that is full
//! loses every second sample in place, and a slot is overwritten in three steps (its time becomes zero, the rest
//! changes, its new time), so that a reader finds true samples only, whenever the process dies.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use heaptide_format::{
    HEADER_BYTES, SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, Sample, SegmentHeader, SegmentKind,
    next_own_turn,
};

use crate::file::CaptureFile;
use crate::recorder::Recorder;

/// What the sampler has seen of the process from outside, so to speak.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// Resident set, bytes.
    pub resident_bytes: u64,
    /// Usage of the memory cgroup, bytes.
    pub cgroup_bytes: u64,
    /// Its limit, bytes.
    pub cgroup_limit_bytes: u64,
}

/// The writer of the table. One at a time.
#[derive(Debug)]
pub struct SampleTable {
    first: NonNull<Sample>,
    committed: NonNull<AtomicU64>,
    capacity: usize,
    /// Slots in use; those behind them, up to what was committed, hold samples that were kept or dropped.
    used: usize,
    most_used: usize,
}

// SAFETY: the table lies in the mapping of the capture; whoever has the value is its only writer.
unsafe impl Send for SampleTable {}

impl Recorder {
    /// The table of samples that the capture was made with, empty; `None` where it has none.
    ///
    /// # Safety
    /// Nobody else writes samples, and the value is not used after [`Recorder::release`].
    #[must_use]
    pub unsafe fn sample_table(&self) -> Option<SampleTable> {
        // SAFETY: the caller's promise.
        unsafe { SampleTable::find(&self.file) }
    }

    /// Adds a sample. Returns whether the table was thinned out for it, upon which the caller should double its
    /// interval.
    ///
    /// # Safety
    /// The capture that the table belongs to is open.
    pub unsafe fn sample(&self, table: &mut SampleTable, seen: Seen) -> bool {
        // SAFETY: the file is open.
        let heap_bytes = unsafe { self.file.heap() }.bytes();
        let turn = if self.holds_events() {
            // SAFETY: as above.
            take_turn(unsafe { self.file.turn() })
        } else {
            0
        };
        if let Some(lifecycle) = self.file.lifecycle() {
            lifecycle
                .heartbeat_unix_ns
                .store(seen.unix_ns, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe {
            table.push(Sample {
                unix_ns: seen.unix_ns,
                resident_bytes: seen.resident_bytes,
                heap_bytes,
                cgroup_bytes: seen.cgroup_bytes,
                cgroup_limit_bytes: seen.cgroup_limit_bytes,
                turn,
            })
        }
    }
}

/// The sampler's turn, which places the sample among the events.
fn take_turn(counter: &AtomicU64) -> u64 {
    let mut now = counter.load(Ordering::Acquire);
    while now != 0 {
        let next = next_own_turn(now);
        match counter.compare_exchange_weak(now, next, Ordering::SeqCst, Ordering::Acquire) {
            Ok(_) => return next,
            Err(other) => now = other,
        }
    }
    0
}

impl SampleTable {
    /// # Safety
    /// As [`Recorder::sample_table`].
    unsafe fn find(file: &CaptureFile) -> Option<Self> {
        let (base, mapped) = file.first_window()?;
        let mut at = HEADER_BYTES;
        while at + SEGMENT_HEADER_BYTES <= mapped {
            // SAFETY: inside the first window, on a page; a header is plain data.
            let segment = unsafe { base.add(at) };
            // SAFETY: as above.
            let header = unsafe { segment.cast::<SegmentHeader>().read() };
            if header.magic != SEGMENT_MAGIC {
                return None;
            }
            let capacity = usize::try_from(header.capacity).ok()?;
            let end = at.checked_add(capacity)?;
            if capacity < SEGMENT_HEADER_BYTES || end > mapped {
                return None;
            }
            if header.kind == SegmentKind::Samples as u32 {
                let slots = (capacity - SEGMENT_HEADER_BYTES) / size_of::<Sample>();
                let committed = core::mem::offset_of!(SegmentHeader, committed);
                // SAFETY: both are inside the segment, and aligned to 8 bytes as it is.
                let (first, committed) = unsafe {
                    (
                        segment.add(SEGMENT_HEADER_BYTES).cast(),
                        segment.add(committed).cast(),
                    )
                };
                return (slots >= 2).then_some(Self {
                    first,
                    committed,
                    capacity: slots,
                    used: 0,
                    most_used: 0,
                });
            }
            at = end;
        }
        None
    }

    /// # Safety
    /// The mapping is there.
    unsafe fn push(&mut self, sample: Sample) -> bool {
        let full = self.used == self.capacity;
        // SAFETY: the caller's promise; slots stay below `capacity`, and nobody else writes them.
        unsafe {
            if full {
                self.thin();
            }
            if self.used < self.most_used {
                self.overwrite(self.used, sample);
            } else {
                self.slot(self.used).write_volatile(sample);
                self.most_used = self.used + 1;
                // Release: a reader that sees the length sees the sample.
                self.committed.as_ref().store(
                    (self.most_used * size_of::<Sample>()) as u64,
                    Ordering::Release,
                );
            }
        }
        self.used += 1;
        full
    }

    /// Keeps every second sample: slot `i` takes sample `2i`.
    unsafe fn thin(&mut self) {
        let kept = self.used.div_ceil(2);
        for slot in 1..kept {
            // SAFETY: `2 * slot < used`.
            unsafe {
                let sample = self.slot(2 * slot).read();
                self.overwrite(slot, sample);
            }
        }
        self.used = kept;
    }

    unsafe fn overwrite(&mut self, slot: usize, sample: Sample) {
        let place = self.slot(slot);
        // SAFETY: the slot is ours. Release stores keep the three steps in order.
        unsafe {
            let time = AtomicU64::from_ptr(&raw mut (*place).unix_ns);
            time.store(0, Ordering::Release);
            core::sync::atomic::fence(Ordering::Release);
            (&raw mut (*place).resident_bytes).write_volatile(sample.resident_bytes);
            (&raw mut (*place).heap_bytes).write_volatile(sample.heap_bytes);
            (&raw mut (*place).cgroup_bytes).write_volatile(sample.cgroup_bytes);
            (&raw mut (*place).cgroup_limit_bytes).write_volatile(sample.cgroup_limit_bytes);
            (&raw mut (*place).turn).write_volatile(sample.turn);
            time.store(sample.unix_ns, Ordering::Release);
        }
    }

    fn slot(&self, slot: usize) -> *mut Sample {
        debug_assert!(slot < self.capacity);
        self.first.as_ptr().wrapping_add(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    /// What a reader makes of the committed slots.
    fn read(bytes: &[Sample], committed: u64) -> BTreeSet<u64> {
        let slots = committed as usize / size_of::<Sample>();
        let times: BTreeSet<u64> = bytes[..slots]
            .iter()
            .filter(|sample| sample.unix_ns != 0)
            .map(|sample| {
                assert_eq!(sample.resident_bytes, sample.unix_ns * 3, "never taken");
                assert_eq!(sample.turn, sample.unix_ns * 5, "never taken");
                sample.unix_ns
            })
            .collect();
        times
    }

    #[test]
    fn a_full_table_keeps_every_second_sample_and_the_last() {
        for capacity in [2usize, 3, 8, 9, 16] {
            let mut slots: Vec<Sample> = (0..capacity).map(|_| Sample::default()).collect();
            let mut committed = AtomicU64::new(0);
            let mut table = SampleTable {
                first: NonNull::new(slots.as_mut_ptr()).unwrap(),
                committed: NonNull::from(&mut committed),
                capacity,
                used: 0,
                most_used: 0,
            };
            let (mut time, mut step) = (0, 1);
            for _ in 0..capacity * 20 {
                time += step;
                let sample = Sample {
                    unix_ns: time,
                    resident_bytes: time * 3,
                    turn: time * 5,
                    ..Sample::default()
                };
                // SAFETY: the vector is as long as the table believes.
                if unsafe { table.push(sample) } {
                    step *= 2;
                }
                let seen = read(&slots, committed.load(Ordering::Relaxed));
                assert!(seen.contains(&1) && seen.contains(&time));
                // Evenly spaced: no gap is wider than the present step, but for the last.
                let times: Vec<u64> = seen.into_iter().collect();
                assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= step));
            }
            assert!(step >= 8);
        }
    }
}
