//! Threads: a number for each, and a slot of counters for each that lives.

use core::sync::atomic::{AtomicU32, Ordering};

use heaptide_format::{HISTOGRAM_BINS, SegmentKind, Slot, THREAD_OVERFLOW, Thread, histogram_bin};

use crate::file::{CaptureFile, Stop, unix_ns};
use crate::pool::Pool;

/// Cells a thread remembers; direct mapped.
const CACHE_ENTRIES: usize = 512;
/// Free slots that are remembered; a slot beyond that is not used again.
const MOST_FREE: usize = 4096;

/// What one thread needs to record. Made by [`crate::Recorder::thread_start`]; only its thread uses it.
#[derive(Debug)]
pub struct ThreadRecord {
    pub(crate) thread: u32,
    pub(crate) slot_number: u32,
    pub(crate) slot: *mut Slot,
    /// Several threads share this record's number, so each event takes a lock.
    pub(crate) shared: bool,
    pub(crate) events: u32,
    pub(crate) cold_lookups: u32,
    /// The last two allocations, newest first, for temporary blocks (threshold 1).
    pub(crate) recent: [(u64, u32); 2],
    pub(crate) cache: [CacheEntry; CACHE_ENTRIES],
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheEntry {
    pub(crate) word: u64,
    pub(crate) cell: u32,
}

impl ThreadRecord {
    /// Number of this thread in the capture.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.thread
    }

    #[inline]
    pub(crate) fn cache_entry(&mut self, word: u64) -> &mut CacheEntry {
        let position = (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55) as usize;
        &mut self.cache[position % CACHE_ENTRIES]
    }

    #[inline]
    pub(crate) fn note_recent(&mut self, address: u64, cell: u32) {
        self.recent[1] = self.recent[0];
        self.recent[0] = (address, cell);
    }

    /// Was this block one of the last two allocations of this thread? Forgets it.
    #[inline]
    pub(crate) fn was_recent(&mut self, address: u64, cell: u32) -> bool {
        for entry in &mut self.recent {
            if *entry == (address, cell) {
                *entry = (0, 0);
                return true;
            }
        }
        false
    }

    /// Counts in the slot. The slot has one writer (or the lock of the shared thread is held).
    #[inline]
    pub(crate) fn count(&mut self, counter: impl FnOnce(*mut Slot) -> *mut u64, amount: u64) {
        let counter = counter(self.slot);
        // SAFETY: the closure picks a field of our slot, which stays mapped; volatile, because the
        // page is shared with readers in other processes.
        unsafe { counter.write_volatile(counter.read().wrapping_add(amount)) };
    }

    #[inline]
    pub(crate) fn count_size(&mut self, bytes: u64) {
        let bin = histogram_bin(bytes).min(HISTOGRAM_BINS - 1);
        // SAFETY: the bin is in range and the slot is ours.
        self.count(
            |slot| unsafe { (&raw mut (*slot).histogram).cast::<u64>().add(bin) },
            1,
        );
    }

    /// An event that could not be recorded because it happened inside a hook.
    #[cold]
    pub fn count_missed_reentrant(&mut self) {
        // SAFETY: a field of our slot.
        self.count(|slot| unsafe { &raw mut (*slot).missed_reentrant }, 1);
    }

    /// Adds the measured cost of one event.
    #[cold]
    pub fn count_time(&mut self, nanoseconds: u64) {
        // SAFETY: fields of our slot.
        self.count(|slot| unsafe { &raw mut (*slot).timed_events }, 1);
        // SAFETY: as above.
        self.count(|slot| unsafe { &raw mut (*slot).timed_ns }, nanoseconds);
    }
}

pub(crate) struct Threads {
    threads: Pool<Thread, 8, 256>,
    slots: Pool<Slot, 4, 256>,
    free: [AtomicU32; MOST_FREE],
    free_count: AtomicU32,
}

impl Threads {
    pub(crate) const fn new() -> Self {
        Self {
            threads: Pool::new(SegmentKind::Threads),
            slots: Pool::new(SegmentKind::Slots),
            free: [const { AtomicU32::new(0) }; MOST_FREE],
            free_count: AtomicU32::new(0),
        }
    }

    /// Makes the shared thread and its slot: both number 0. Under the growth lock, once.
    pub(crate) fn start(&self, file: &CaptureFile) -> Result<(), Stop> {
        self.slots.push(file, empty_slot(THREAD_OVERFLOW))?;
        self.threads.push(
            file,
            Thread {
                thread_id: 0,
                slot: 0,
                first_seen_unix_ns: 0,
                os_name: [0; 16],
                python_name: [0; 96],
            },
        )?;
        Ok(())
    }

    /// Under the growth lock.
    pub(crate) fn register(
        &self,
        file: &CaptureFile,
        thread_id: u32,
        os_name: [u8; 16],
    ) -> Result<ThreadRecord, Stop> {
        let number = self.threads.len();
        let full = number >= self.threads.capacity();
        let slot = if full {
            None
        } else {
            self.take_slot(file, number)?
        };
        let (thread, slot_number) = match slot {
            Some(slot) => {
                let thread = Thread {
                    thread_id,
                    slot,
                    first_seen_unix_ns: unix_ns(),
                    os_name,
                    python_name: [0; 96],
                };
                self.threads.push(file, thread)?;
                (number, slot)
            }
            None => {
                if let Some(own) = file.own() {
                    own.overflow_threads.fetch_add(1, Ordering::Relaxed);
                }
                (THREAD_OVERFLOW, 0)
            }
        };
        Ok(ThreadRecord {
            thread,
            slot_number,
            // SAFETY: the number was just taken from the pool.
            slot: unsafe { self.slots.get(slot_number) },
            shared: thread == THREAD_OVERFLOW,
            events: 0,
            cold_lookups: 0,
            recent: [(0, 0); 2],
            cache: [CacheEntry { word: 0, cell: 0 }; CACHE_ENTRIES],
        })
    }

    fn take_slot(&self, file: &CaptureFile, thread: u32) -> Result<Option<u32>, Stop> {
        let free = self.free_count.load(Ordering::Relaxed);
        if free > 0 {
            self.free_count.store(free - 1, Ordering::Relaxed);
            let slot = self.free[(free - 1) as usize % MOST_FREE].load(Ordering::Relaxed);
            // SAFETY: free slots were given out before; its last thread is gone.
            unsafe { (&raw mut (*self.slots.get(slot)).thread).write_volatile(thread) };
            return Ok(Some(slot));
        }
        self.slots.push(file, empty_slot(thread))
    }

    /// Under the growth lock. The slot's counters stay: they are sums over all its threads.
    pub(crate) fn unregister(&self, record: &ThreadRecord) {
        let free = self.free_count.load(Ordering::Relaxed);
        if !record.shared && (free as usize) < MOST_FREE {
            self.free[free as usize].store(record.slot_number, Ordering::Relaxed);
            self.free_count.store(free + 1, Ordering::Relaxed);
        }
    }

    /// Stores a thread's Python name, cut at a code point. Under the growth lock.
    pub(crate) fn name(&self, thread: u32, name: &[u8]) {
        if thread == THREAD_OVERFLOW || thread >= self.threads.len() {
            return;
        }
        let mut field = [0u8; 96];
        let mut length = name.len().min(field.len() - 1);
        while length > 0 && length < name.len() && name[length] & 0xc0 == 0x80 {
            length -= 1;
        }
        field[..length].copy_from_slice(&name[..length]);
        // SAFETY: the thread exists; the name is only written here, under the lock.
        unsafe { (&raw mut (*self.threads.get(thread)).python_name).write_volatile(field) };
    }
}

const fn empty_slot(thread: u32) -> Slot {
    Slot {
        thread,
        reserved0: 0,
        allocations: 0,
        deallocations: 0,
        missed_reentrant: 0,
        unknown_frees: 0,
        missed_frees: 0,
        timed_events: 0,
        timed_ns: 0,
        reserved: [0; 8],
        histogram: [0; HISTOGRAM_BINS],
        reserved1: [0; 48],
    }
}
