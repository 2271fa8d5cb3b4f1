//! The cells: who writes which, and the few stores an event makes.

use core::sync::atomic::{AtomicU32, Ordering};

use heaptide_format::{Allocator, Cell, CellKind, SegmentKind};

use crate::file::{CaptureFile, Stop};
use crate::hash::mix;
use crate::index::Index;
use crate::pool::Pool;
use crate::stacks::CHAIN;

/// What a cell is found by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// Stack node, or allocating cell.
    pub(crate) target: u32,
    pub(crate) thread: u32,
    pub(crate) allocator: u32,
    pub(crate) kind: u32,
}

impl Key {
    #[inline]
    pub(crate) fn own(node: u32, allocator: Allocator, thread: u32) -> Self {
        Self {
            target: node,
            thread,
            allocator: allocator as u32,
            kind: CellKind::Own as u32,
        }
    }

    #[inline]
    pub(crate) fn remote(cell: u32, allocator: u32, thread: u32) -> Self {
        Self {
            target: cell,
            thread,
            allocator,
            kind: CellKind::Remote as u32,
        }
    }

    /// All that a thread's cache needs, in one word: the thread is the cache's owner.
    #[inline]
    pub(crate) fn cache_word(self) -> u64 {
        u64::from(self.target) << 16 | u64::from(self.allocator) << 8 | u64::from(self.kind)
    }

    #[inline]
    fn hash(self) -> u64 {
        mix(
            u64::from(self.target) << 32 | u64::from(self.thread),
            u64::from(self.allocator) << 8 | u64::from(self.kind),
        )
    }
}

pub(crate) struct Cells {
    cells: Pool<Cell, 10, 4096>,
    index: Index,
}

impl Cells {
    pub(crate) const fn new() -> Self {
        Self {
            cells: Pool::new(SegmentKind::Cells),
            index: Index::new(),
        }
    }

    /// Address of cell `number`, which this pool gave out.
    ///
    /// # Safety
    /// `number` came from `find` or `make`.
    #[inline]
    pub(crate) unsafe fn get(&self, number: u32) -> *mut Cell {
        // SAFETY: the caller's promise is the pool's.
        unsafe { self.cells.get(number) }
    }

    /// The cell for `key`. `chain` is that of the key's stack node; remote cells have none.
    pub(crate) fn find(&self, key: Key, chain: Option<&AtomicU32>) -> Option<u32> {
        let mut length = CHAIN;
        if let Some(first) = chain {
            length = 0;
            let mut next = first.load(Ordering::Acquire);
            while next != 0 {
                if self.key_of(next - 1) == key {
                    return Some(next - 1);
                }
                next = self.link_of(next - 1).load(Ordering::Acquire);
                length += 1;
            }
        }
        if length < CHAIN {
            return None;
        }
        self.index
            .find(key.hash(), |number| self.key_of(number) == key)
    }

    /// The cell for `key`, made if need be; `Ok(None)` when there can be no more. Under the growth lock.
    pub(crate) fn make(
        &self,
        file: &CaptureFile,
        key: Key,
        chain: Option<&AtomicU32>,
    ) -> Result<Option<u32>, Stop> {
        if let Some(found) = self.find(key, chain) {
            return Ok(Some(found));
        }
        let cell = Cell {
            target: key.target,
            thread: key.thread,
            allocator: key.allocator,
            kind: key.kind,
            ..Cell::default()
        };
        let Some(number) = self.cells.push(file, cell)? else {
            return Ok(None);
        };
        let mut place = chain;
        let mut length = 0;
        while let Some(link) = place {
            match link.load(Ordering::Relaxed) {
                0 => {
                    // Release pairs with the Acquire in `find`: the cell is whole.
                    link.store(number + 1, Ordering::Release);
                    return Ok(Some(number));
                }
                next => place = Some(self.link_of(next - 1)),
            }
            length += 1;
            if length == CHAIN {
                break;
            }
        }
        self.index
            .insert(file, key.hash(), number, |other| self.key_of(other).hash())?;
        Ok(Some(number))
    }

    /// The chain goes through the cells' working field.
    #[inline]
    fn link_of(&self, number: u32) -> &AtomicU32 {
        // SAFETY: the number is a cell's; the field is only used as this atomic.
        unsafe { AtomicU32::from_ptr((&raw mut (*self.cells.get(number)).writer_link).cast()) }
    }

    fn key_of(&self, number: u32) -> Key {
        // SAFETY: numbers in the index were given out by the pool; the key fields never change.
        let cell = unsafe { self.cells.get(number) };
        // SAFETY: as above; raw reads, because the counters beside the key belong to another thread.
        unsafe {
            Key {
                target: (*cell).target,
                thread: (*cell).thread,
                allocator: (*cell).allocator,
                kind: (*cell).kind,
            }
        }
    }
}

/// The stores of an event into a cell that the calling thread owns. Volatile: they must reach the
/// shared page, in this order, whatever the optimiser thinks of a page nobody here reads back.
pub(crate) struct CellWriter(pub(crate) *mut Cell);

macro_rules! field {
    ($cell:expr, $name:ident) => {
        &raw mut (*$cell).$name
    };
}

macro_rules! add {
    ($cell:expr, $name:ident, $amount:expr) => {
        field!($cell, $name).write_volatile(field!($cell, $name).read().wrapping_add($amount))
    };
}

impl CellWriter {
    /// Enters `epoch`: what the cell holds now is what it held when the epoch began.
    ///
    /// # Safety
    /// For this and all methods here: the cell is live and only this thread writes it.
    #[inline]
    unsafe fn enter(&self, epoch: u64) {
        let cell = self.0;
        // SAFETY: the caller's promise.
        unsafe {
            if field!(cell, epoch).read() != epoch {
                let count = field!(cell, allocated_count)
                    .read()
                    .wrapping_sub(field!(cell, freed_count).read());
                let bytes = field!(cell, allocated_bytes)
                    .read()
                    .wrapping_sub(field!(cell, freed_bytes).read());
                field!(cell, peak_count).write_volatile(count as i64);
                field!(cell, peak_bytes).write_volatile(bytes as i64);
                release_fence();
                field!(cell, epoch).write_volatile(epoch);
                release_fence();
            }
        }
    }

    /// # Safety
    /// See `enter`.
    #[inline]
    pub(crate) unsafe fn allocated(&self, epoch: u64, bytes: u64) {
        // SAFETY: the caller's promise.
        unsafe {
            self.enter(epoch);
            add!(self.0, allocated_count, 1);
            add!(self.0, allocated_bytes, bytes);
        }
    }

    /// # Safety
    /// See `enter`.
    #[inline]
    pub(crate) unsafe fn freed(&self, epoch: u64, count: u64, bytes: u64) {
        // SAFETY: the caller's promise.
        unsafe {
            self.enter(epoch);
            add!(self.0, freed_count, count);
            add!(self.0, freed_bytes, bytes);
        }
    }

    /// # Safety
    /// See `enter`.
    #[inline]
    pub(crate) unsafe fn temporary(&self, count: u64, bytes: u64) {
        // SAFETY: the caller's promise.
        unsafe {
            add!(self.0, temporary_count, count);
            add!(self.0, temporary_bytes, bytes);
        }
    }
}

/// Orders the stores around it. On x86-64 only for the compiler: stores are never reordered there.
#[inline(always)]
fn release_fence() {
    core::sync::atomic::fence(core::sync::atomic::Ordering::Release);
}
