//! Hash index from a key to a record number: lock-free lookups, insertions under the growth lock.
//!
//! The slots live in a scratch segment of the capture, so that their pages can leave our resident
//! set. Keys are not stored: the records are the keys.

use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use heaptide_format::{SEGMENT_HEADER_BYTES, SegmentKind};

use crate::file::{CaptureFile, Stop};

const FIRST_SLOTS: u32 = 4096;

/// Start of a table's payload; the slots (record number + 1, or 0) follow.
#[repr(C)]
struct Table {
    mask: u32,
    used: AtomicU32,
}

pub(crate) struct Index {
    table: AtomicPtr<Table>,
}

impl Index {
    pub(crate) const fn new() -> Self {
        Self {
            table: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// The record with this hash for which `is_it` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let table = self.table.load(Ordering::Acquire);
        if table.is_null() {
            return None;
        }
        // SAFETY: a published table stays mapped for ever and has `mask + 1` slots; `& mask` keeps
        // the position inside. There is always an empty slot (load at most 60 %), so this ends.
        unsafe {
            let mask = (*table).mask;
            let slots = table.add(1).cast::<AtomicU32>();
            let mut position = hash as u32 & mask;
            loop {
                // Acquire pairs with the Release of `insert`: the record behind the number is whole.
                match (*slots.add(position as usize)).load(Ordering::Acquire) {
                    0 => return None,
                    number if is_it(number - 1) => return Some(number - 1),
                    _ => position = (position + 1) & mask,
                }
            }
        }
    }

    /// Adds a record that `find` did not find. Under the growth lock. `hash_of` gives the hash of
    /// any record already here, for when the table has to grow.
    pub(crate) fn insert(
        &self,
        file: &CaptureFile,
        hash: u64,
        number: u32,
        hash_of: impl Fn(u32) -> u64,
    ) -> Result<(), Stop> {
        let mut table = self.table.load(Ordering::Relaxed);
        // SAFETY: tables are only made and replaced here, under the lock; see `find` for the slots.
        unsafe {
            let full = table.is_null()
                || (*table).used.load(Ordering::Relaxed) >= ((*table).mask + 1) / 5 * 3;
            if full {
                let slots = if table.is_null() {
                    FIRST_SLOTS
                } else {
                    ((*table).mask + 1) * 2
                };
                let bigger = new_table(file, slots)?;
                if !table.is_null() {
                    let old = table.add(1).cast::<AtomicU32>();
                    for position in 0..=(*table).mask {
                        let entry = (*old.add(position as usize)).load(Ordering::Relaxed);
                        if entry != 0 {
                            place(bigger, hash_of(entry - 1), entry - 1);
                        }
                    }
                }
                // Readers still in the old table miss what comes now and ask again under the lock.
                self.table.store(bigger, Ordering::Release);
                table = bigger;
            }
            place(table, hash, number);
        }
        Ok(())
    }
}

/// # Safety
/// `table` is live and not full, and only this thread inserts.
unsafe fn place(table: *mut Table, hash: u64, number: u32) {
    // SAFETY: as in `Index::find`.
    unsafe {
        let mask = (*table).mask;
        let slots = table.add(1).cast::<AtomicU32>();
        let mut position = hash as u32 & mask;
        while (*slots.add(position as usize)).load(Ordering::Relaxed) != 0 {
            position = (position + 1) & mask;
        }
        (*slots.add(position as usize)).store(number + 1, Ordering::Release);
        (*table).used.fetch_add(1, Ordering::Relaxed);
    }
}

const fn table_bytes(slots: u32) -> usize {
    size_of::<Table>() + slots as usize * size_of::<AtomicU32>()
}

fn new_table(file: &CaptureFile, slots: u32) -> Result<*mut Table, Stop> {
    let segment = file.append(SegmentKind::Scratch, table_bytes(slots), 0, 0)?;
    // SAFETY: the payload is as long as asked for, zero, and nobody else's.
    unsafe {
        let table = segment.as_ptr().add(SEGMENT_HEADER_BYTES).cast::<Table>();
        (*table).mask = slots - 1;
        Ok(table)
    }
}
