//! What encoder and decoder both remember of a chunk, and where each site and each address has its place in it.

use crate::event::Site;

/// A site is known by two numbers: one of five control bytes, and a byte.
pub(crate) const SITES: usize = 5 * 256;
/// Likewise one of sixteen control bytes, and a byte.
pub(crate) const ADDRESSES: usize = 16 * 256;

/// Addresses of more bits (rotated) are not remembered: those of no block that is aligned to 16 bytes.
const ADDRESS_BITS: u32 = 44;
pub(crate) const ADDRESS_MASK: u64 = (1 << ADDRESS_BITS) - 1;
const ADDRESS_FACTOR: u64 = 0x9e3_779b_97f5;
const ADDRESS_INVERSE: u64 = inverse(ADDRESS_FACTOR);

/// The number that undoes a multiplication by an odd one, of whatever number of bits.
const fn inverse(factor: u64) -> u64 {
    // Newton: each round doubles the bits that are right, of which there are three at first.
    let mut inverse = factor;
    let mut round = 0;
    while round < 5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(factor.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
}

/// Slot of an address (rotated) in the table that both sides keep, and what is to be kept there: nothing is
/// lost, so half of an address is enough to know it.
#[inline(always)]
pub(crate) const fn address_place(rotated: u64) -> Option<(usize, u32)> {
    if rotated > ADDRESS_MASK {
        return None;
    }
    let mixed = rotated.wrapping_mul(ADDRESS_FACTOR) & ADDRESS_MASK;
    Some(((mixed >> 32) as usize, mixed as u32))
}

/// The address of which a slot keeps half.
#[inline(always)]
pub(crate) const fn address_in(slot: usize, half: u32) -> u64 {
    let mixed = (slot as u64) << 32 | half as u64;
    mixed.wrapping_mul(ADDRESS_INVERSE) & ADDRESS_MASK
}

/// Bits of a site in one word: node 32, allocator 8, size 24. Larger sizes are not remembered.
const SIZE_SHIFT: u32 = 40;
const SIZE_LIMIT: u64 = 1 << (u64::BITS - SIZE_SHIFT);
const PLACE_MASK: u64 = (1 << SIZE_SHIFT) - 1;

/// Node and allocator of a site.
#[inline(always)]
pub(crate) const fn place_of(node: u32, allocator: u8) -> u64 {
    node as u64 | (allocator as u64) << 32
}

/// Node and allocator of the site in a word.
#[inline(always)]
pub(crate) const fn place_in(word: u64) -> u64 {
    word & PLACE_MASK
}

/// The site in a word.
#[inline(always)]
pub(crate) const fn site_in(word: u64) -> Site {
    Site {
        node: word as u32,
        allocator: (word >> 32) as u8,
        size: word >> SIZE_SHIFT,
    }
}

/// A site in one word, if it can be remembered.
#[inline(always)]
pub(crate) const fn site_word(place: u64, size: u64) -> Option<u64> {
    if size < SIZE_LIMIT {
        Some(place | size << SIZE_SHIFT)
    } else {
        None
    }
}

/// What tells of an object that was made stands where an allocation has its site: the name of its type is in the
/// place of the size, and the allocator is none.
#[inline(always)]
pub(crate) const fn object_site(node: u32, type_name: u32) -> Site {
    Site {
        node,
        allocator: 0,
        // Number 0xffff_ffff, which is none, becomes 0.
        size: type_name.wrapping_add(1) as u64,
    }
}

/// Slot of a site in the table that both sides keep.
#[inline(always)]
pub(crate) const fn site_slot(word: u64) -> usize {
    let mixed = word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    ((mixed * SITES as u64) >> 32) as usize
}

#[inline]
pub(crate) const fn zigzag(value: u64) -> u64 {
    (value << 1) ^ (((value as i64) >> 63) as u64)
}

#[inline]
pub(crate) const fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// What both sides remember while they go through a chunk. All zero at its start.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// Sites as words.
    pub(crate) sites: [u64; SITES],
    /// The slot that followed upon each one last.
    pub(crate) followers: [u16; SITES],
    /// Halves of addresses.
    pub(crate) addresses: [u32; ADDRESSES],
    /// Slot of the last site that can be remembered.
    pub(crate) slot: u16,
    /// Node and allocator of the last allocation.
    pub(crate) place: u64,
    /// The last address that was told as a delta; this one and the next four are rotated.
    pub(crate) last_address: u64,
    pub(crate) last_allocated: u64,
    pub(crate) last_freed: u64,
    /// Of objects.
    pub(crate) last_made: u64,
    pub(crate) last_gone: u64,
    pub(crate) last_unmapped: u64,
    pub(crate) turn: u64,
    pub(crate) stamp: u64,
}

impl Memory {
    pub(crate) const fn new() -> Self {
        Self {
            sites: [0; SITES],
            followers: [0; SITES],
            addresses: [0; ADDRESSES],
            slot: 0,
            place: 0,
            last_address: 0,
            last_allocated: 0,
            last_freed: 0,
            last_made: 0,
            last_gone: 0,
            last_unmapped: 0,
            turn: 0,
            stamp: 0,
        }
    }

    /// In place: it is large.
    pub(crate) fn forget(&mut self) {
        self.sites.fill(0);
        self.followers.fill(0);
        self.addresses.fill(0);
        self.slot = 0;
        self.place = 0;
        self.last_address = 0;
        self.last_allocated = 0;
        self.last_freed = 0;
        self.last_made = 0;
        self.last_gone = 0;
        self.last_unmapped = 0;
        self.turn = 0;
        self.stamp = 0;
    }

    /// The slot that followed upon the last one the last time.
    #[inline(always)]
    pub(crate) fn expected_slot(&self) -> u16 {
        let follower = self.followers.get(usize::from(self.slot));
        follower.copied().unwrap_or(0)
    }

    /// The site that is in this slot is the last one now.
    #[inline(always)]
    pub(crate) fn follow(&mut self, slot: usize) {
        let slot = slot as u16;
        if let Some(follower) = self.followers.get_mut(usize::from(self.slot)) {
            *follower = slot;
        }
        self.slot = slot;
    }

    /// The site in a slot, as a word.
    #[inline(always)]
    pub(crate) fn site(&self, slot: usize) -> u64 {
        self.sites.get(slot).copied().unwrap_or(0)
    }

    /// Keeps a site that was not known.
    #[inline(always)]
    pub(crate) fn keep_site(&mut self, slot: usize, word: u64) {
        if let Some(site) = self.sites.get_mut(slot) {
            *site = word;
        }
    }
}
