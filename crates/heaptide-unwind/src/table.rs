//! The rules that were found, by the address at which a frame goes on.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use crate::Rule;

/// A power of two.
const ENTRIES: usize = 1 << 15;
/// How many entries an address may stand away from where it would be.
const REACH: usize = 16;
const EMPTY: usize = 0;
const REMOVED: usize = 1;

/// Which object an address is in, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

const ADDRESS_BITS: u32 = 40;
/// So many objects have numbers.
const MOST_OBJECTS: u32 = (1 << (u64::BITS - ADDRESS_BITS)) - 2;

impl Place {
    /// None that is known.
    pub const UNKNOWN: Self = Self(u64::MAX);
    /// In this library itself.
    pub const OWN: Self = Self(u64::MAX - 1);

    /// An address in an object, less its base; [`Place::UNKNOWN`] where the numbers are too large.
    #[must_use]
    pub const fn new(object: u32, address: u64) -> Self {
        if object < MOST_OBJECTS && address >> ADDRESS_BITS == 0 {
            Self((object as u64) << ADDRESS_BITS | address)
        } else {
            Self::UNKNOWN
        }
    }

    /// Number of the object, and the address less its base; `None` where there is nothing to tell.
    #[must_use]
    #[inline(always)]
    pub const fn get(self) -> Option<(u32, u64)> {
        if self.0 >= Self::OWN.0 {
            return None;
        }
        let address = self.0 & ((1 << ADDRESS_BITS) - 1);
        Some(((self.0 >> ADDRESS_BITS) as u32, address))
    }
}

/// What there is to know of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// How a frame there leads to its caller's.
    pub rule: Rule,
    /// Where it is.
    pub place: Place,
}

#[repr(C)]
struct Entry {
    address: AtomicUsize,
    rule: AtomicU64,
    place: AtomicU64,
}

/// A table in memory that begins as zeroes: anybody may look up, one at a time may change.
///
/// Where there is no room for one more, another goes.
#[repr(C)]
pub struct RuleTable {
    entries: [Entry; ENTRIES],
}

impl RuleTable {
    /// What is known of an address.
    #[inline(always)]
    pub fn find(&self, address: usize) -> Option<Known> {
        if address <= REMOVED {
            return None;
        }
        let start = Self::start(address);
        for distance in 0..REACH {
            let entry = &self.entries[(start + distance) % ENTRIES];
            // Acquire: what belongs to the address was stored before it.
            match entry.address.load(Ordering::Acquire) {
                EMPTY => return None,
                found if found == address => {
                    let rule = entry.rule.load(Ordering::Relaxed);
                    let place = entry.place.load(Ordering::Relaxed);
                    // An entry may be taken for another address. Acquire fence: whoever sees words of that sees its address.
                    fence(Ordering::Acquire);
                    if entry.address.load(Ordering::Relaxed) != address {
                        return None;
                    }
                    return Some(Known {
                        rule: Rule::from_bits(rule),
                        place: Place(place),
                    });
                }
                _ => {}
            }
        }
        None
    }

    /// Keeps what is known of an address that was not found. One thread at a time.
    pub fn insert(&self, address: usize, known: Known) {
        if address <= REMOVED {
            return;
        }
        let start = Self::start(address);
        let place = |distance: usize| &self.entries[(start + distance) % ENTRIES];
        let is_free =
            |entry: &&Entry| matches!(entry.address.load(Ordering::Relaxed), EMPTY | REMOVED);
        let free = (0..REACH).map(place).find(is_free);
        let entry = free.unwrap_or_else(|| {
            let other = place(address / 2 % REACH);
            other.address.store(REMOVED, Ordering::Relaxed);
            other
        });
        // Whoever sees words of this address sees that the entry is no other's any more.
        fence(Ordering::Release);
        entry.rule.store(known.rule.to_bits(), Ordering::Relaxed);
        entry.place.store(known.place.0, Ordering::Relaxed);
        entry.address.store(address, Ordering::Release);
    }

    /// Forgets the addresses for which `is_gone` holds. One thread at a time.
    pub fn forget(&self, is_gone: impl Fn(usize) -> bool) {
        for entry in &self.entries {
            let address = entry.address.load(Ordering::Relaxed);
            if address > REMOVED && is_gone(address) {
                entry.address.store(REMOVED, Ordering::Relaxed);
            }
        }
    }

    /// Neighbours stay neighbours: functions that call one another mostly lie together.
    #[inline(always)]
    const fn start(address: usize) -> usize {
        (address ^ address >> 15) % ENTRIES
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn table() -> Box<RuleTable> {
        let words = vec![0u64; size_of::<RuleTable>() / size_of::<u64>()].into_boxed_slice();
        // SAFETY: as large as a table and aligned as its words; zeroes are a valid one.
        unsafe { Box::from_raw(Box::into_raw(words).cast()) }
    }

    fn known(number: usize) -> Known {
        Known {
            rule: Rule {
                cfa_offset: number as i32,
                ..Rule::BY_FRAME_POINTER
            },
            place: Place::new(number as u32 % 300, number as u64 * 3),
        }
    }

    #[test]
    fn what_was_kept_is_found_and_what_was_forgotten_is_not() {
        let table = table();
        let addresses: Vec<usize> = (0..4000).map(|number| 0x5555_0000 + number * 5).collect();
        for &address in &addresses {
            assert_eq!(table.find(address), None);
            table.insert(address, known(address));
        }
        for &address in &addresses {
            assert_eq!(table.find(address), Some(known(address)));
            assert_eq!(table.find(address + 1), None);
        }
        table.forget(|address| address % 2 == 0);
        for &address in &addresses {
            let expected = (address % 2 == 1).then(|| known(address));
            assert_eq!(table.find(address), expected);
            if address % 2 == 0 {
                table.insert(address, known(address + 7));
                assert_eq!(table.find(address), Some(known(address + 7)));
            }
        }
    }

    #[test]
    fn a_full_table_has_room_for_what_comes() {
        let table = table();
        let address = |number: usize| 0x7f00_0000_0000 + number * 0x1003;
        for number in 0..10 * ENTRIES {
            table.insert(address(number), known(number));
            assert_eq!(table.find(address(number)), Some(known(number)));
        }
        let kept = (0..10 * ENTRIES).filter(|&number| {
            let found = table.find(address(number));
            assert!(found.is_none() || found == Some(known(number)));
            found.is_some()
        });
        assert_eq!(kept.count(), ENTRIES);
    }

    #[test]
    fn marks_of_entries_are_no_addresses() {
        let table = table();
        table.insert(2, known(2));
        table.forget(|address| address == 2);
        for address in [EMPTY, REMOVED] {
            table.insert(address, known(5));
            assert_eq!(table.find(address), None);
        }
    }

    #[test]
    fn places_say_what_was_put_in() {
        for (object, address) in [(0, 0), (7, 0x1234), (MOST_OBJECTS - 1, (1 << 40) - 1)] {
            assert_eq!(Place::new(object, address).get(), Some((object, address)));
        }
        for place in [
            Place::UNKNOWN,
            Place::OWN,
            Place::new(MOST_OBJECTS, 0),
            Place::new(0, 1 << 40),
        ] {
            assert_eq!(place.get(), None);
        }
    }
}
