//! The table of live blocks: address to (size, cell). Private memory; nobody needs it after death.
//!
//! Open addressing in 128 shards, by region of the address space: allocators give threads regions of
//! their own, so threads that do not share blocks do not share locks or cache lines either.
//! 16 bytes an entry, grown by two fifths at 72 % load, one shard at a time: 22 to 31 bytes per
//! live block.

use crate::hash::mix;
use crate::lock::SpinLock;
use crate::memory::Mapping;

const SHARDS: usize = 128;
/// Addresses that differ only in these bits are in one shard: regions of 4 MiB, smaller than the heap
/// of a thread (64 MiB in glibc) and small enough that a large heap spreads over all shards.
const REGION_BITS: u32 = 22;
const FIRST_ENTRIES: usize = 256;
/// Addresses have 48 bits here; the 16 above them hold the high part of the size.
const ADDRESS_BITS: u32 = 48;

/// A live block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) size: u64,
    pub(crate) cell: u32,
}

/// `address << 16 | size >> 32`, then `cell << 32 | size & 0xffff_ffff`. An address of 0 is an empty entry.
#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    address: u64,
    rest: u64,
}

impl Entry {
    #[inline]
    fn new(address: u64, live: Live) -> Self {
        Self {
            address: address << 16 | live.size >> 32,
            rest: u64::from(live.cell) << 32 | (live.size & 0xffff_ffff),
        }
    }
    #[inline]
    fn address(self) -> u64 {
        self.address >> 16
    }
    #[inline]
    fn live(self) -> Live {
        Live {
            size: (self.address & 0xffff) << 32 | (self.rest & 0xffff_ffff),
            cell: (self.rest >> 32) as u32,
        }
    }
}

/// The kernel has no memory for the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

#[repr(align(64))]
struct Shard(SpinLock<Entries>);

pub(crate) struct LiveTable {
    shards: [Shard; SHARDS],
}

struct Entries {
    memory: Option<Mapping>,
    capacity: usize,
    used: usize,
}

impl LiveTable {
    pub(crate) const fn new() -> Self {
        Self {
            shards: [const {
                Shard(SpinLock::new(Entries {
                    memory: None,
                    capacity: 0,
                    used: 0,
                }))
            }; SHARDS],
        }
    }

    /// Can this address be kept? (48 bits; larger ones do not come from malloc on any supported system.)
    #[inline]
    pub(crate) fn holds(address: u64) -> bool {
        address != 0 && address >> ADDRESS_BITS == 0
    }

    /// Notes a block; returns the block that was at this address and never freed, if any.
    ///
    /// # Safety
    /// `alone` only while one thread alone uses the table.
    #[inline]
    pub(crate) unsafe fn insert(
        &self,
        address: u64,
        live: Live,
        alone: bool,
    ) -> Result<Option<Live>, NoMemory> {
        let shard = &self.shards[shard_of(address)].0;
        let entry = Entry::new(address, live);
        if alone {
            // SAFETY: the caller's promise.
            return unsafe { shard.alone() }.insert(entry);
        }
        shard.lock().insert(entry)
    }

    /// Takes the block at `address` out.
    ///
    /// # Safety
    /// As `insert`.
    #[inline]
    pub(crate) unsafe fn remove(&self, address: u64, alone: bool) -> Option<Live> {
        let shard = &self.shards[shard_of(address)].0;
        if alone {
            // SAFETY: the caller's promise.
            return unsafe { shard.alone() }.remove(address);
        }
        shard.lock().remove(address)
    }

    /// Calls `each` for everything in the table, in no particular order.
    ///
    /// # Safety
    /// One thread alone uses the table meanwhile.
    pub(crate) unsafe fn for_each(&self, mut each: impl FnMut(u64, Live)) {
        for shard in &self.shards {
            // SAFETY: the caller's promise.
            let entries = unsafe { shard.0.alone() };
            for position in 0..entries.capacity {
                // SAFETY: `position` is below `capacity`.
                let entry = unsafe { *entries.at(position) };
                if entry.address != 0 {
                    each(entry.address(), entry.live());
                }
            }
        }
    }

    /// Forgets all blocks and gives the memory back.
    pub(crate) fn release(&self) {
        for shard in &self.shards {
            *shard.0.lock() = Entries {
                memory: None,
                capacity: 0,
                used: 0,
            };
        }
    }

    /// How many blocks there are.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().used).sum()
    }
}

#[inline]
fn shard_of(address: u64) -> usize {
    (mix(address >> REGION_BITS, 0) >> 57) as usize
}

/// Where an address belongs among `capacity` entries: a few neighbours are hashed to one place, side by side
/// on one cache line, for blocks made together are mostly freed together. So few, because small
/// objects are 32 bytes apart: where more neighbours than have room at their place crowd together, runs
/// of entries grow long. The hash is scaled, so any capacity will do.
#[inline]
fn home(address: u64, capacity: usize) -> usize {
    let group = (mix(address >> 7, 0) & 0xffff_ffff) as usize;
    let position = ((group * capacity) >> 32) + (address >> 5 & 3) as usize;
    if position < capacity {
        position
    } else {
        position - capacity
    }
}

impl Entries {
    #[inline]
    fn at(&self, position: usize) -> *mut Entry {
        debug_assert!(position < self.capacity);
        match &self.memory {
            // SAFETY: positions are below `capacity`, for which the mapping has room.
            Some(memory) => unsafe { memory.as_ptr::<Entry>().add(position) },
            None => core::ptr::null_mut(),
        }
    }

    #[inline]
    fn next(&self, position: usize) -> usize {
        if position + 1 == self.capacity {
            0
        } else {
            position + 1
        }
    }

    #[inline]
    fn insert(&mut self, entry: Entry) -> Result<Option<Live>, NoMemory> {
        if self.used * 25 >= self.capacity * 18 {
            self.grow()?;
        }
        let mut position = home(entry.address(), self.capacity);
        loop {
            // SAFETY: `position` is below `capacity`, which is not 0 after `grow`.
            let here = unsafe { &mut *self.at(position) };
            if here.address == 0 {
                *here = entry;
                self.used += 1;
                return Ok(None);
            }
            if here.address() == entry.address() {
                let old = here.live();
                *here = entry;
                return Ok(Some(old));
            }
            position = self.next(position);
        }
    }

    #[inline]
    fn remove(&mut self, address: u64) -> Option<Live> {
        if self.capacity == 0 {
            return None;
        }
        let mut position = home(address, self.capacity);
        let found = loop {
            // SAFETY: `position` is below `capacity`; at least a quarter of the entries are empty, so this ends.
            let here = unsafe { *self.at(position) };
            if here.address == 0 {
                return None;
            }
            if here.address() == address {
                break here.live();
            }
            position = self.next(position);
        };
        self.close_gap(position);
        self.used -= 1;
        Some(found)
    }

    /// Moves later entries of the run back over the hole, so that no tombstones are needed.
    #[inline]
    fn close_gap(&mut self, mut hole: usize) {
        let mut position = hole;
        loop {
            position = self.next(position);
            // SAFETY: both positions are below `capacity`.
            unsafe {
                let here = *self.at(position);
                if here.address == 0 {
                    (*self.at(hole)).address = 0;
                    return;
                }
                let home = home(here.address(), self.capacity);
                // It may move if its home does not lie strictly between the hole and itself.
                let from_home = self.distance(home, position);
                if from_home >= self.distance(hole, position) {
                    *self.at(hole) = here;
                    hole = position;
                }
            }
        }
    }

    #[inline]
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from {
            to - from
        } else {
            to + self.capacity - from
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) -> Result<(), NoMemory> {
        let capacity = if self.capacity == 0 {
            FIRST_ENTRIES
        } else {
            self.capacity + self.capacity * 2 / 5
        };
        let memory = Mapping::new(capacity * size_of::<Entry>()).ok_or(NoMemory)?;
        // Whole pages: use what the rounding gave.
        let capacity = memory.bytes() / size_of::<Entry>();
        let mut bigger = Self {
            memory: Some(memory),
            capacity,
            used: 0,
        };
        for position in 0..self.capacity {
            // SAFETY: `position` is below `capacity`.
            let entry = unsafe { *self.at(position) };
            if entry.address != 0 {
                bigger.insert(entry)?;
            }
        }
        *self = bigger;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn agrees_with_a_map_under_random_events() {
        let table = LiveTable::new();
        let mut model: HashMap<u64, Live> = HashMap::new();
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for step in 0..400_000u64 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let address = 0x7f00_0000_0000 + (state % 30_000) * 1024;
            if state & 0x1000_0000 == 0 || step < 20_000 {
                let live = Live {
                    size: state & 0xffff_ffff_ffff,
                    cell: step as u32,
                };
                // SAFETY: one thread.
                let replaced = unsafe { table.insert(address, live, state & 2 == 0) };
                assert_eq!(replaced, Ok(model.insert(address, live)));
            } else {
                // SAFETY: one thread.
                let removed = unsafe { table.remove(address, state & 2 == 0) };
                assert_eq!(removed, model.remove(&address));
            }
            assert!(step % 5000 != 0 || table.len() == model.len());
        }
        for (address, live) in model {
            // SAFETY: one thread.
            assert_eq!(unsafe { table.remove(address, false) }, Some(live));
        }
        assert_eq!(table.len(), 0);
    }
}
