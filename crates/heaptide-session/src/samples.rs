//! The table of memory samples in the capture: never larger than its segment, however long the
//! program runs, and valid for a reader at every moment.
//!
//! When the table is full every second sample is dropped in place and the caller doubles its
//! interval. Readers sort by time, drop samples of time zero, and keep one of those with equal
//! times. So a slot is overwritten in three stores:
//!
//! 1. its time becomes zero: readers skip it;
//! 2. the other fields;
//! 3. its new time.
//!
//! Killed between any two stores, the table holds true samples only.

use std::io;

use heaptide_format::{SEGMENT_HEADER_BYTES, Sample, SegmentHeader};
use zerocopy::IntoBytes;

/// How many samples the table holds.
pub const CAPACITY: usize = 4096;
/// Bytes of the samples alone.
pub(crate) const PAYLOAD_BYTES: usize = CAPACITY * size_of::<Sample>();

/// Where the segment is stored; offsets count from the segment's start.
pub trait Store {
    /// Stores `bytes` at `offset` before it returns.
    ///
    /// # Errors
    /// When the bytes may not have been stored.
    fn store(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// The writer of one table.
#[derive(Debug)]
pub struct SampleTable<S> {
    store: S,
    capacity: usize,
    /// What the slots before the next free one hold, in order of time.
    samples: Vec<Sample>,
    /// How many slots readers may look at. Never shrinks.
    committed: usize,
}

impl<S: Store> SampleTable<S> {
    /// A writer of an empty table with room for `capacity` samples (at least 2).
    pub fn new(store: S, capacity: usize) -> Self {
        Self {
            store,
            capacity: capacity.max(2),
            samples: Vec::new(),
            committed: 0,
        }
    }

    /// Adds a sample, later than all before. Returns whether the table was thinned out for it, upon
    /// which the caller should double its interval.
    ///
    /// # Errors
    /// When the store fails; the table stays readable.
    pub fn push(&mut self, sample: Sample) -> io::Result<bool> {
        let full = self.samples.len() == self.capacity;
        if full {
            self.thin()?;
        }
        let slot = self.samples.len();
        if slot < self.committed {
            self.overwrite(slot, sample)?;
        } else {
            self.store.store(slot_offset(slot), sample.as_bytes())?;
            self.committed = slot + 1;
            let committed = (self.committed * size_of::<Sample>()) as u64;
            let offset = std::mem::offset_of!(SegmentHeader, committed) as u64;
            self.store.store(offset, committed.as_bytes())?;
        }
        self.samples.push(sample);
        Ok(full)
    }

    /// Keeps every second sample. Slot `i` takes sample `2i`; what it held is either dropped for
    /// good or has been copied to slot `i/2` before.
    fn thin(&mut self) -> io::Result<()> {
        let kept = self.samples.len().div_ceil(2);
        for slot in 1..kept {
            let sample = self.samples[2 * slot];
            self.overwrite(slot, sample)?;
            self.samples[slot] = sample;
        }
        self.samples.truncate(kept);
        Ok(())
    }

    fn overwrite(&mut self, slot: usize, sample: Sample) -> io::Result<()> {
        let time = std::mem::offset_of!(Sample, unix_ns);
        let rest = time + size_of::<u64>();
        let offset = slot_offset(slot);
        self.store.store(offset + time as u64, 0u64.as_bytes())?;
        self.store
            .store(offset + rest as u64, &sample.as_bytes()[rest..])?;
        self.store
            .store(offset + time as u64, sample.unix_ns.as_bytes())
    }
}

const _: () = assert!(
    std::mem::offset_of!(Sample, unix_ns) == 0,
    "the time comes first in a sample"
);

fn slot_offset(slot: usize) -> u64 {
    (SEGMENT_HEADER_BYTES + slot * size_of::<Sample>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::rc::Rc;
    use zerocopy::FromBytes;

    /// Keeps the bytes, and what a reader would have seen after each store.
    #[derive(Clone)]
    struct Recorded(Rc<RefCell<State>>);
    struct State {
        bytes: Vec<u8>,
        seen: Vec<Vec<u64>>,
    }

    impl Store for Recorded {
        fn store(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            let mut state = self.0.borrow_mut();
            let offset = usize::try_from(offset).unwrap();
            state.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
            let seen = read(&state.bytes);
            state.seen.push(seen);
            Ok(())
        }
    }

    fn sample(time: u64) -> Sample {
        Sample {
            unix_ns: time,
            resident_bytes: time * 3,
            heap_bytes: time * 5,
            cgroup_bytes: time * 7,
            cgroup_limit_bytes: time * 11,
            turn: 0,
        }
    }

    /// The rule of the format. Panics on a sample that was never taken.
    fn read(bytes: &[u8]) -> Vec<u64> {
        let header = SegmentHeader::read_from_prefix(bytes).unwrap().0;
        let end = SEGMENT_HEADER_BYTES + usize::try_from(header.committed).unwrap();
        let mut samples: Vec<Sample> = bytes[SEGMENT_HEADER_BYTES..end]
            .chunks(size_of::<Sample>())
            .map(|chunk| Sample::read_from_bytes(chunk).unwrap())
            .collect();
        samples.retain(|sample| sample.unix_ns != 0);
        samples.sort_by_key(|sample| sample.unix_ns);
        samples.dedup_by_key(|sample| sample.unix_ns);
        for found in &samples {
            assert_eq!(
                *found,
                sample(found.unix_ns),
                "a sample that was never taken"
            );
        }
        samples.iter().map(|sample| sample.unix_ns).collect()
    }

    #[test]
    fn a_reader_at_any_store_sees_true_samples_and_all_that_are_kept() {
        for capacity in [2, 3, 8, 9, 16] {
            let empty = State {
                bytes: vec![0; SEGMENT_HEADER_BYTES + capacity * size_of::<Sample>()],
                seen: vec![],
            };
            let store = Recorded(Rc::new(RefCell::new(empty)));
            let mut table = SampleTable::new(store.clone(), capacity);
            let mut step = 1;
            let mut time = 0;
            for _ in 0..capacity * 20 {
                time += step;
                let before: BTreeSet<u64> =
                    table.samples.iter().map(|sample| sample.unix_ns).collect();
                store.0.borrow_mut().seen.clear();
                let thinned = table.push(sample(time)).unwrap();
                let after: BTreeSet<u64> =
                    table.samples.iter().map(|sample| sample.unix_ns).collect();
                for seen in &store.0.borrow().seen {
                    let seen: BTreeSet<u64> = seen.iter().copied().collect();
                    let kept = before.intersection(&after);
                    assert!(
                        kept.copied().collect::<BTreeSet<_>>().is_subset(&seen),
                        "a kept sample went missing"
                    );
                }
                assert!(
                    after.contains(&time) && after.contains(&1),
                    "first and last are always there"
                );
                if thinned {
                    step *= 2;
                }
            }
            assert!(step >= 1 << 3);
        }
    }

    #[test]
    fn a_full_table_says_so_once() {
        let empty = State {
            bytes: vec![0; SEGMENT_HEADER_BYTES + 4 * size_of::<Sample>()],
            seen: vec![],
        };
        let mut table = SampleTable::new(Recorded(Rc::new(RefCell::new(empty))), 4);
        let thinned: Vec<bool> = (1..=8)
            .map(|time| table.push(sample(time)).unwrap())
            .collect();
        assert_eq!(
            thinned,
            [false, false, false, false, true, false, true, false]
        );
    }
}
