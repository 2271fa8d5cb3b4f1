//! The table of live blocks: by address, open, in one piece of memory.
//!
//! A program hands out the same addresses again and again. So a block that is freed keeps its place, marked as
//! dead, for the next one at that address. A new block stands where the search for it begins: whatever was there,
//! living or dead, changes places with it. So addresses that come back often, and young blocks, which are freed
//! soonest, are found at the first look, and what is only kept is out of their way.
//!
//! When too few empty places are left the table is built anew without the dead, larger if there is need: memory is
//! proportional to what was live at once, and the work for that is spread over the addresses that have been new since.

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
        }
    }

    /// Where the search for an address begins.
    #[inline(always)]
    fn home(&self, address: u64) -> usize {
        (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    /// The place where the search for an address begins, which is the address's own from now on, or empty when the
    /// table does not have it.
    #[inline(always)]
    fn at_home(&mut self, address: u64) -> &mut Place {
        let home = self.home(address);
        let place = &self.places[home];
        if place.address != address && place.block.entry != EMPTY {
            // All places between the two are taken, so what stood here is found there.
            let at = self.find_from(home, address);
            self.places.swap(home, at);
        }
        &mut self.places[home]
    }

    /// The place of an address: the one that has it, or else the empty one where a search for it ends.
    #[inline(always)]
    fn find(&self, address: u64) -> usize {
        let home = self.home(address);
        if self.places[home].address == address {
            return home;
        }
        self.find_from(home, address)
    }

    /// The same, for a search that has come as far as a place.
    #[inline(always)]
    fn find_from(&self, mut at: usize, address: u64) -> usize {
        let mask = self.places.len() - 1;
        loop {
            // After the last place comes the first one.
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
        let place = self.at_home(address);
        let entry = place.block.entry;
        if entry < DEAD {
            return Some(std::mem::replace(&mut place.block, block));
        }
        *place = Place { address, block };
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
        let live = self.blocks().count();
        let mut places = FEWEST_PLACES;
        while most_used(places) < 2 * live {
            places *= 2;
        }
        let mut table = Self::of(places);
        for place in &self.places {
            if place.block.entry < DEAD {
                let at = table.find(place.address);
                table.places[at] = *place;
            }
        }
        table.used = live;
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
                let (places, used) = (table.places.len(), table.used);
                let old = table.insert(address, Block::with_entry(round));
                let built_anew = table.places.len() != places || table.used < used;
                if !built_anew {
                    let home = &table.places[table.home(address)];
                    assert_eq!((home.address, home.block.entry), (address, round));
                }
                let expected = model.insert(address, round);
                assert_eq!(old.map(|block| block.entry), expected);
            } else {
                let old = table.remove(address).map(|block| block.entry);
                assert_eq!(old, model.remove(&address));
            }
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
