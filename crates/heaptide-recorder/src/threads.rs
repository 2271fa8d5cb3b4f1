//! Threads: a number for each, and a slot of counters for each that lives.

use core::sync::atomic::{AtomicU32, Ordering};

use heaptide_format::{HISTOGRAM_BINS, SegmentKind, Slot, THREAD_OVERFLOW, Thread, histogram_bin};

use crate::events::Stream;
use crate::file::{CaptureFile, Stop, unix_ns};
use crate::pool::Pool;

/// Cells a thread remembers; direct mapped.
const CACHE_ENTRIES: usize = 512;
/// Free slots that are remembered; a slot beyond that is not used again.
const MOST_FREE: usize = 4096;
/// So many threads get a number of their own. From then on a new thread continues under the number
/// of one that has ended, if there is one, so that a program that starts threads without end does
/// not make cells without end.
const OWN_NUMBERS: u32 = 256;

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
    pub(crate) stream: Stream,
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

    /// In a forked child: chunks of events do not come along.
    pub fn forget_stream(&mut self) {
        self.stream.forget();
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

    /// Makes the record at `record`, in place: a thread may have 16 KiB of stack, of which a copy
    /// would take half. Under the growth lock.
    ///
    /// # Safety
    /// `record` is valid for writes and nobody uses it.
    pub(crate) unsafe fn register(
        &self,
        file: &CaptureFile,
        record: *mut ThreadRecord,
        thread_id: u32,
        os_name: [u8; 16],
    ) -> Result<(), Stop> {
        let (thread, slot_number) = match self.take_free() {
            Some((thread, slot)) if self.threads.len() >= OWN_NUMBERS => {
                self.count_shared(file);
                (thread, slot)
            }
            free => self.own_number(file, free.map(|(_, slot)| slot), thread_id, os_name)?,
        };
        // SAFETY: the caller's promise; the slot's number was given out by the pool. Zeroes are an
        // empty cache, field by field so that nothing is copied.
        unsafe {
            (&raw mut (*record).thread).write(thread);
            (&raw mut (*record).slot_number).write(slot_number);
            (&raw mut (*record).slot).write(self.slots.get(slot_number));
            (&raw mut (*record).shared).write(thread == THREAD_OVERFLOW);
            (&raw mut (*record).events).write(0);
            (&raw mut (*record).cold_lookups).write(0);
            (&raw mut (*record).recent).write([(0, 0); 2]);
            (&raw mut (*record).stream).write_bytes(0, 1);
            (&raw mut (*record).cache).write_bytes(0, 1);
            (&raw mut (*self.slots.get(slot_number)).thread).write_volatile(thread);
        }
        Ok(())
    }

    /// A number of its own for a new thread, and the slot `free` or a new one; the shared number when
    /// there can be no more.
    fn own_number(
        &self,
        file: &CaptureFile,
        free: Option<u32>,
        thread_id: u32,
        os_name: [u8; 16],
    ) -> Result<(u32, u32), Stop> {
        let number = self.threads.len();
        let room = number < self.threads.capacity();
        let slot = match free {
            _ if !room => None,
            Some(slot) => Some(slot),
            None => self.slots.push(file, empty_slot(number))?,
        };
        let Some(slot) = slot else {
            self.count_shared(file);
            return Ok((THREAD_OVERFLOW, 0));
        };
        let thread = Thread {
            thread_id,
            slot,
            first_seen_unix_ns: unix_ns(),
            os_name,
            python_name: [0; 96],
        };
        self.threads.push(file, thread)?;
        Ok((number, slot))
    }

    fn count_shared(&self, file: &CaptureFile) {
        if let Some(own) = file.own() {
            own.overflow_threads.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number and slot of a thread that has ended.
    fn take_free(&self) -> Option<(u32, u32)> {
        let free = self.free_count.load(Ordering::Relaxed);
        let last = free.checked_sub(1)?;
        self.free_count.store(last, Ordering::Relaxed);
        let slot = self.free[last as usize % MOST_FREE].load(Ordering::Relaxed);
        // SAFETY: free slots were given out before; the thread is the last that had it.
        let thread = unsafe { (&raw const (*self.slots.get(slot)).thread).read() };
        Some((thread, slot))
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
        let named = unsafe { (&raw const (*self.threads.get(thread)).python_name[0]).read() } != 0;
        if named {
            // A number that goes on under another thread keeps the name of its first.
            return;
        }
        // SAFETY: as above.
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
