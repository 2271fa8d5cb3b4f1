//! The table of live blocks: by address, open, in one piece of memory.
//!
//! A program hands out the same addresses again and again. So a block that is freed keeps its place, marked as
//! dead: the next one at that address finds it at the first look, and nothing is ever moved. When too few empty
//! places are left the table is built anew without the dead, larger if there is need: memory is proportional to
//! what was live at once, and the work for that is spread over the addresses that have been new since.

use crate::heap::Block;

/// As the entry of a block: nothing was ever here, and a search ends.
const EMPTY: u32 = u32::MAX;
/// As the entry of a block: the block that was here has been freed.
const DEAD: u32 = u32::MAX - 1;

const FEWEST_PLACES: usize = 1 << 10;
/// A table of a MiB, which is near to the processor.
const MOST_NEAR_PLACES: usize = 1 << 15;

/// How many places of a table may be taken. Up to three of four, as memory counts; in small ones half of them,
/// so that nearly every search ends where it begins.
const fn most_used(places: usize) -> usize {
    if places <= MOST_NEAR_PLACES {
        places / 2
    } else {
        places / 4 * 3
    }
}

/// Half a cache line.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Place {
    address: u64,
    block: Block,
}

const NOTHING: Place = Place {
    address: 0,
    block: Block::with_entry(EMPTY),
};

/// See the module.
pub(crate) struct LiveTable {
    places: Vec<Place>,
    /// The upper bits of the hash are the first place to look at.
    shift: u32,
    /// Places that are not empty: the living and the dead.
    used: usize,
    most_used: usize,
    live: usize,
}

impl LiveTable {
    pub(crate) fn new() -> Self {
        Self::of(FEWEST_PLACES)
    }

    fn of(places: usize) -> Self {
        Self {
            places: vec![NOTHING; places],
            shift: u64::BITS - places.trailing_zeros(),
            used: 0,
            most_used: most_used(places),
            live: 0,
        }
    }

    /// The place of an address: the one that has it, or else the empty one where a search for it ends.
    #[inline(always)]
    fn find(&self, address: u64) -> usize {
        let mask = self.places.len() - 1;
        let mut at = (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize;
        loop {
            // The mask changes nothing at first; after the last place comes the first one.
            let place = &self.places[at & mask];
            if place.address == address || place.block.entry == EMPTY {
                return at & mask;
            }
            at += 1;
        }
    }

    /// Puts a block at an address, and gives the one that was there and lives.
    #[inline(always)]
    pub(crate) fn insert(&mut self, address: u64, block: Block) -> Option<Block> {
        let at = self.find(address);
        let place = &mut self.places[at];
        let entry = place.block.entry;
        if entry < DEAD {
            return Some(std::mem::replace(&mut place.block, block));
        }
        *place = Place { address, block };
        self.live += 1;
        if entry == EMPTY {
            self.used += 1;
            if self.used > self.most_used {
                self.build_anew();
            }
        }
        None
    }

    /// Takes a block out.
    #[inline(always)]
    pub(crate) fn remove(&mut self, address: u64) -> Option<Block> {
        let at = self.find(address);
        let block = &mut self.places[at].block;
        let removed = *block;
        if removed.entry >= DEAD {
            return None;
        }
        block.entry = DEAD;
        self.live -= 1;
        Some(removed)
    }

    /// All live blocks.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Block> {
        let blocks = self.places.iter().map(|place| &place.block);
        blocks.filter(|block| block.entry < DEAD)
    }

    #[cold]
    #[inline(never)]
    fn build_anew(&mut self) {
        // Half of what may be taken is free for new addresses then.
        let mut places = FEWEST_PLACES;
        while most_used(places) < 2 * self.live {
            places *= 2;
        }
        let mut table = Self::of(places);
        for place in &self.places {
            if place.block.entry < DEAD {
                let at = table.find(place.address);
                table.places[at] = *place;
            }
        }
        (table.used, table.live) = (self.live, self.live);
        *self = table;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustc_hash::FxHashMap;

    #[test]
    fn it_is_a_map() {
        let mut table = LiveTable::new();
        let mut model: FxHashMap<u64, u32> = FxHashMap::default();
        let mut random = 1u64;
        for round in 0..400_000u32 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Waves: the table grows and shrinks, and addresses come back.
            let most = if round / 50_000 % 2 == 0 { 300 } else { 30_000 };
            let address = match random % 50 {
                0 => random,
                1 => 0,
                _ => (random >> 20) % most * 16,
            };
            if random >> 60 < 9 {
                let old = table.insert(address, Block::with_entry(round));
                let expected = model.insert(address, round);
                assert_eq!(old.map(|block| block.entry), expected);
            } else {
                let old = table.remove(address).map(|block| block.entry);
                assert_eq!(old, model.remove(&address));
            }
            assert_eq!(table.live, model.len());
        }
        let mut left: Vec<u32> = table.blocks().map(|block| block.entry).collect();
        let mut expected: Vec<u32> = model.into_values().collect();
        left.sort_unstable();
        expected.sort_unstable();
        assert_eq!(left, expected);
    }

    #[test]
    fn its_size_follows_what_is_live_not_what_ever_was() {
        let mut table = LiveTable::new();
        for address in 0..3_000_000u64 {
            assert!(table.insert(address * 16, Block::with_entry(1)).is_none());
            if address >= 2000 {
                assert!(table.remove((address - 2000) * 16).is_some());
            }
        }
        assert!(table.places.len() <= 8192, "{}", table.places.len());
    }
}
