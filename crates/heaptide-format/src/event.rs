//! Events: the compact streams of mode "all", and their encoder; see [`crate::Decoder`] for the way back.
//!
//! Each thread writes streams of its own, cut into chunks (one [`crate::SegmentKind::Events`] segment
//! each) that can be decoded alone. Chunks of all threads are put into one order by *turns*: see
//! [`Encoder::turn`]. Events refer to what encoder and decoder both remember of the chunk: sites (stack node,
//! allocator, size), which site followed which, addresses.
//!
//! ```text
//! control byte  28 m + c: m says what happens and how its site is told, c how its address is; from 252 on others
//! m  0          free            address, stamp
//!    1          allocation      address, stamp: the site that followed last time
//!    2          allocation      size, address, stamp: stack node and allocator of the last allocation
//!    3          allocation      node (zigzag delta, doubled, plus 1 if followed by an allocator u8), size, address, stamp
//!    4 to 8     allocation      u8, address, stamp: the site in slot 256 (m - 4) + u8
//! c  0 to 15    u8: the address in slot 256 c + u8
//!    16         the obvious address: of the stream's last free for an allocation, of its last allocation for a free
//!    17         10 less than the zigzag delta to the last address so told, rotated right by 4 bits
//!    18 to 27   that delta, 0 to 9
//! 252           turn: delta
//! 253           u8: 1 the last free did not happen, 2 unmap: address, length, 3 the last unmap did not happen; stamp
//! stamp         delta of the time stamp, in turns with odd numbers only
//! ```
//! Numbers are LEB128 varints. The slot of a site and of an address follow from themselves: [`site_slot`],
//! [`address_place`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Head of every chunk, counted in its committed bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ChunkHeader {
    /// Number of the stream; a stream is written by one thread.
    pub stream: u32,
    /// Number of the chunk in its stream, from 0 without gaps.
    pub sequence: u32,
    /// Number of the thread.
    pub thread: u32,
    /// Bytes of its events in a [`crate::PackedBlock`], else zero.
    pub event_bytes: u32,
}

/// Size of a [`ChunkHeader`].
pub const CHUNK_HEADER_BYTES: usize = 16;
const _: () = assert!(size_of::<ChunkHeader>() == CHUNK_HEADER_BYTES);

/// No event is longer; an encoder wants this much room.
pub const MOST_EVENT_BYTES: usize = 64;

/// A site is known by two numbers: one of five control bytes, and a byte.
pub(crate) const SITES: usize = 5 * 256;
/// Likewise one of sixteen control bytes, and a byte.
pub(crate) const ADDRESSES: usize = 16 * 256;

/// Control bytes of one sort, one for each way to tell an address.
pub(crate) const ADDRESS_CODES: u8 = 28;
pub(crate) const FREE: u8 = 0;
pub(crate) const SITE_EXPECTED: u8 = 1;
pub(crate) const SITE_OF_ANOTHER_SIZE: u8 = 2;
pub(crate) const SITE_NEW: u8 = 3;
pub(crate) const SITE_KNOWN: u8 = 4;

pub(crate) const ADDRESS_OBVIOUS: u8 = 16;
pub(crate) const ADDRESS_FAR: u8 = 17;
pub(crate) const ADDRESS_NEAR: u8 = 18;
/// Deltas below this one are in the control byte.
pub(crate) const FAR: u64 = 10;

pub(crate) const TURN: u8 = 252;
pub(crate) const RARE: u8 = 253;
/// No event of this version begins with this byte or a larger one.
pub(crate) const NOTHING: u8 = 254;
pub(crate) const FREE_UNDONE: u8 = 1;
pub(crate) const UNMAP: u8 = 2;
pub(crate) const UNMAP_UNDONE: u8 = 3;

/// What makes one allocation like another: where, by which function, how large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Site {
    /// Number of the stack node.
    pub node: u32,
    /// Raw [`crate::Allocator`]
    pub allocator: u8,
    /// Bytes asked for.
    pub size: u64,
}

/// One event of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A block or a mapping was made.
    Allocated {
        /// Its first byte.
        address: u64,
        /// Where, how, how much.
        site: Site,
    },
    /// A block is given back.
    Freed {
        /// Its first byte.
        address: u64,
    },
    /// The last [`Event::Freed`] of this stream did not happen (a `realloc` failed).
    FreeUndone,
    /// All mappings within a range of addresses end there.
    Unmapped {
        /// First byte, on a page.
        address: u64,
        /// Bytes, whole pages.
        length: u64,
    },
    /// The last [`Event::Unmapped`] of this stream did not happen.
    UnmapUndone,
}

/// Where an event stands among those of all threads: first by turn, then by stamp, then as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// The turn. An even one belongs to one stream alone.
    pub turn: u64,
    /// Time stamp counter in odd turns, zero in even ones.
    pub stamp: u64,
}

/// Does this turn belong to several streams at once?
#[must_use]
#[inline]
pub const fn turn_is_shared(turn: u64) -> bool {
    turn & 1 == 1
}

/// The next turn after `turn` that one stream (or the sampler) has for itself.
#[must_use]
#[inline]
pub const fn next_own_turn(turn: u64) -> u64 {
    (turn | 1).wrapping_add(1)
}

/// The next turn after `turn` that several streams share.
#[must_use]
#[inline]
pub const fn next_shared_turn(turn: u64) -> u64 {
    turn.wrapping_add(1) | 1
}

/// Addresses of more bits (rotated) are not remembered: those of no block that is aligned to 16 bytes.
const ADDRESS_BITS: u32 = 44;
const ADDRESS_MASK: u64 = (1 << ADDRESS_BITS) - 1;
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

/// Slot of a site in the table that both sides keep.
#[inline(always)]
pub(crate) const fn site_slot(word: u64) -> usize {
    let mixed = word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    ((mixed * SITES as u64) >> 32) as usize
}

#[inline]
const fn zigzag(value: u64) -> u64 {
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
    /// The last address that was told as a delta; this one and the next two are rotated.
    pub(crate) last_address: u64,
    pub(crate) last_allocated: u64,
    pub(crate) last_freed: u64,
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

/// Writes events; one for each stream.
#[derive(Clone, Debug)]
pub struct Encoder {
    memory: Memory,
    /// There may be something to forget at the start of the next chunk. Not in one that is all zero bytes, as a thread's
    /// is at first: its memory has no pages yet, and is not to get them for a chunk of a few events.
    used: bool,
}

/// Where the encoder puts its bytes.
struct Output<'a> {
    bytes: &'a mut [u8; MOST_EVENT_BYTES],
    length: usize,
}

impl Output<'_> {
    #[inline(always)]
    fn byte(&mut self, byte: u8) {
        // The mask never changes anything; it tells the compiler that the place exists.
        self.bytes[self.length & (MOST_EVENT_BYTES - 1)] = byte;
        self.length += 1;
    }

    #[inline(always)]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }
}

impl Encoder {
    /// For a chunk that has nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            memory: Memory::new(),
            used: true,
        }
    }

    /// A new chunk begins; its first event must be a turn.
    pub fn begin_chunk(&mut self) {
        if self.used {
            self.memory.forget();
        }
        self.used = true;
    }

    /// The events that follow belong to `turn`.
    ///
    /// Turns are numbers from one counter in the header. A thread that finds the counter as it left
    /// it goes on with its turn; else it takes the next. So a turn is a run of events of one thread,
    /// and an event that happened before another has a turn that is not later. In a *shared* turn
    /// (odd) several threads record at once and each event carries a time stamp.
    #[inline]
    pub fn turn(&mut self, out: &mut [u8; MOST_EVENT_BYTES], turn: u64) -> usize {
        let mut out = Output {
            bytes: out,
            length: 0,
        };
        out.byte(TURN);
        out.varint(turn.wrapping_sub(self.memory.turn));
        self.memory.turn = turn;
        self.memory.stamp = 0;
        out.length
    }

    /// A block was allocated. `stamp` counts in shared turns only.
    #[inline]
    pub fn allocated(
        &mut self,
        out: &mut [u8; MOST_EVENT_BYTES],
        address: u64,
        site: Site,
        stamp: u64,
    ) -> usize {
        let memory = &mut self.memory;
        let mut out = Output {
            bytes: out,
            length: 1,
        };
        let rotated = address.rotate_right(4);
        let sort = memory.write_site(&mut out, site);
        let code = memory.write_address(&mut out, rotated, memory.last_freed);
        memory.last_allocated = rotated;
        out.bytes[0] = sort + code;
        memory.write_stamp(&mut out, stamp);
        out.length
    }

    /// A block is given back.
    #[inline]
    pub fn freed(&mut self, out: &mut [u8; MOST_EVENT_BYTES], address: u64, stamp: u64) -> usize {
        let memory = &mut self.memory;
        let mut out = Output {
            bytes: out,
            length: 1,
        };
        let rotated = address.rotate_right(4);
        let code = memory.write_address(&mut out, rotated, memory.last_allocated);
        memory.last_freed = rotated;
        out.bytes[0] = FREE * ADDRESS_CODES + code;
        memory.write_stamp(&mut out, stamp);
        out.length
    }

    /// The last free of this stream did not happen.
    pub fn free_undone(&mut self, out: &mut [u8; MOST_EVENT_BYTES], stamp: u64) -> usize {
        self.plain(out, FREE_UNDONE, stamp)
    }

    /// The mappings in a range end there.
    pub fn unmapped(
        &mut self,
        out: &mut [u8; MOST_EVENT_BYTES],
        address: u64,
        length: u64,
        stamp: u64,
    ) -> usize {
        let mut out = Output {
            bytes: out,
            length: 0,
        };
        out.byte(RARE);
        out.byte(UNMAP);
        let place = address.rotate_right(12);
        out.varint(zigzag(place.wrapping_sub(self.memory.last_unmapped)));
        self.memory.last_unmapped = place;
        out.varint(length.rotate_right(12));
        self.memory.write_stamp(&mut out, stamp);
        out.length
    }

    /// The last unmap of this stream did not happen.
    pub fn unmap_undone(&mut self, out: &mut [u8; MOST_EVENT_BYTES], stamp: u64) -> usize {
        self.plain(out, UNMAP_UNDONE, stamp)
    }

    fn plain(&mut self, out: &mut [u8; MOST_EVENT_BYTES], kind: u8, stamp: u64) -> usize {
        let mut out = Output {
            bytes: out,
            length: 0,
        };
        out.byte(RARE);
        out.byte(kind);
        self.memory.write_stamp(&mut out, stamp);
        out.length
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// Returns the first control byte of the sort of allocation that it is.
    #[inline(always)]
    fn write_site(&mut self, out: &mut Output<'_>, site: Site) -> u8 {
        let place = place_of(site.node, site.allocator);
        let last_place = core::mem::replace(&mut self.place, place);
        if let Some(word) = site_word(place, site.size) {
            let expected = self.expected_slot();
            if self.site(usize::from(expected)) == word {
                self.slot = expected;
                return SITE_EXPECTED * ADDRESS_CODES;
            }
            let slot = site_slot(word);
            self.follow(slot);
            if self.site(slot) == word {
                out.byte(slot as u8);
                return SITE_KNOWN * ADDRESS_CODES + (slot >> 8) as u8 * ADDRESS_CODES;
            }
            self.keep_site(slot, word);
        }
        if place == last_place {
            out.varint(site.size);
            return SITE_OF_ANOTHER_SIZE * ADDRESS_CODES;
        }
        let delta = i64::from(site.node) - i64::from(last_place as u32);
        let changed = site.allocator != (last_place >> 32) as u8;
        out.varint(zigzag(delta as u64) << 1 | u64::from(changed));
        if changed {
            out.byte(site.allocator);
        }
        out.varint(site.size);
        SITE_NEW * ADDRESS_CODES
    }

    /// Returns what is to be added to the control byte.
    #[inline(always)]
    fn write_address(&mut self, out: &mut Output<'_>, rotated: u64, obvious: u64) -> u8 {
        if rotated == obvious {
            return ADDRESS_OBVIOUS;
        }
        if let Some((slot, half)) = address_place(rotated) {
            // The mask never changes anything; it tells the compiler that the place exists.
            let known = &mut self.addresses[slot & (ADDRESSES - 1)];
            if *known == half {
                out.byte(slot as u8);
                return (slot >> 8) as u8;
            }
            *known = half;
        }
        let delta = zigzag(rotated.wrapping_sub(self.last_address));
        self.last_address = rotated;
        if delta < FAR {
            return ADDRESS_NEAR + delta as u8;
        }
        out.varint(delta - FAR);
        ADDRESS_FAR
    }

    #[inline(always)]
    fn write_stamp(&mut self, out: &mut Output<'_>, stamp: u64) {
        if turn_is_shared(self.turn) {
            out.varint(stamp.wrapping_sub(self.stamp));
            self.stamp = stamp;
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::columns::{COLUMNS, ColumnPlaces, Fields, InColumns, Written, sort_fields};
    use crate::decoder::{BadEvent, Decoder, Receiver};
    use std::vec::Vec;

    /// A chunk under construction.
    struct Chunk {
        encoder: Encoder,
        bytes: Vec<u8>,
    }

    impl Chunk {
        fn add(&mut self, write: impl FnOnce(&mut Encoder, &mut [u8; MOST_EVENT_BYTES]) -> usize) {
            let mut out = [0; MOST_EVENT_BYTES];
            let length = write(&mut self.encoder, &mut out);
            assert!(length <= MOST_EVENT_BYTES);
            self.bytes.extend_from_slice(&out[..length]);
        }
    }

    /// Numbers that look random, the same each time.
    fn noise(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    }

    fn random_chunk(seed: u64, events: usize) -> (Vec<u8>, Vec<(Moment, Event)>) {
        let mut seed = seed;
        let mut chunk = Chunk {
            encoder: Encoder::new(),
            bytes: Vec::new(),
        };
        let mut expected = Vec::new();
        let mut turn = noise(&mut seed) >> 20;
        let mut stamp = noise(&mut seed) >> 8;
        let mut sites = [Site::default(); 20];
        let mut round = 0;
        let mut last_address = 0;
        chunk.add(|encoder, out| encoder.turn(out, turn));
        for _ in 0..events {
            stamp += noise(&mut seed) % 5000;
            let kind = noise(&mut seed);
            let address = match kind >> 8 & 7 {
                0 => noise(&mut seed),
                1..4 => 0x7f00_0000_0000 + (noise(&mut seed) % 100) * 16,
                4 => noise(&mut seed) % 4096 * 16,
                5 | 6 => last_address,
                _ => u64::MAX - noise(&mut seed) % 3,
            };
            last_address = address;
            let event = match kind % 16 {
                0 => {
                    turn = if kind & 256 == 0 {
                        next_own_turn(turn)
                    } else {
                        next_shared_turn(turn)
                    };
                    chunk.add(|encoder, out| encoder.turn(out, turn));
                    continue;
                }
                1 => {
                    chunk.add(|encoder, out| encoder.free_undone(out, stamp));
                    Event::FreeUndone
                }
                2 => {
                    let length = noise(&mut seed);
                    chunk.add(|encoder, out| encoder.unmapped(out, address, length, stamp));
                    Event::Unmapped { address, length }
                }
                3 => {
                    chunk.add(|encoder, out| encoder.unmap_undone(out, stamp));
                    Event::UnmapUndone
                }
                4..9 => {
                    chunk.add(|encoder, out| encoder.freed(out, address, stamp));
                    Event::Freed { address }
                }
                _ => {
                    // Half of them from a few; some in a round, so that one tells the next.
                    let number = noise(&mut seed);
                    let site = &mut sites[(number >> 8) as usize % 20];
                    let site = match number % 8 {
                        0..3 => *site,
                        3 | 4 => {
                            round += 1;
                            sites[round % 5]
                        }
                        5 => {
                            site.size = noise(&mut seed) >> (noise(&mut seed) % 64);
                            *site
                        }
                        _ => {
                            *site = Site {
                                node: (noise(&mut seed) >> (32 + kind % 31)) as u32,
                                allocator: (kind >> 16) as u8,
                                size: noise(&mut seed) >> (noise(&mut seed) % 64),
                            };
                            *site
                        }
                    };
                    chunk.add(|encoder, out| encoder.allocated(out, address, site, stamp));
                    Event::Allocated { address, site }
                }
            };
            let moment = Moment {
                turn,
                stamp: if turn_is_shared(turn) { stamp } else { 0 },
            };
            expected.push((moment, event));
        }
        (chunk.bytes, expected)
    }

    #[test]
    fn what_was_written_is_read() {
        for seed in 1..200 {
            let (bytes, expected) = random_chunk(seed, 500);
            let mut fields = Written::new(&bytes, 0);
            assert_eq!(told(&mut fields), (expected, Ok(())));
            assert_eq!(fields.at(), bytes.len());
        }
    }

    #[test]
    fn half_an_address_and_its_slot_are_the_address() {
        let mut seed = 7;
        let mut slots = std::vec![0; ADDRESSES];
        for _ in 0..40_000 {
            let rotated = noise(&mut seed) & ADDRESS_MASK;
            let (slot, half) = address_place(rotated).expect("short enough");
            assert_eq!(address_in(slot, half), rotated);
            slots[slot] += 1;
        }
        assert!(slots.iter().all(|&count| count < 40));
        assert_eq!(address_place(ADDRESS_MASK + 1), None);
        // Neighbours do not share slots: blocks of one arena, and pages.
        for stride in [1, 2, 4, 256] {
            let mut slots: Vec<usize> = (0..2000)
                .filter_map(|n| Some(address_place(0x7f0_0000_0000 + n * stride)?.0))
                .collect();
            slots.sort_unstable();
            slots.dedup();
            assert!(slots.len() > 1500, "{stride}: {}", slots.len());
        }
    }

    #[test]
    fn a_word_is_its_site() {
        let mut seed = 3;
        for _ in 0..1000 {
            let site = Site {
                node: noise(&mut seed) as u32,
                allocator: noise(&mut seed) as u8,
                size: noise(&mut seed) >> 40,
            };
            let word = site_word(place_of(site.node, site.allocator), site.size);
            let word = word.expect("small enough");
            assert_eq!(site_in(word), site);
            assert_eq!(place_in(word), place_of(site.node, site.allocator));
            assert!(site_slot(word) < SITES);
        }
        assert_eq!(site_word(0, 1 << 24), None);
    }

    /// All that single steps give, and how it ends.
    fn told(fields: &mut impl Fields) -> (Vec<(Moment, Event)>, Result<(), BadEvent>) {
        let mut decoder = Decoder::new();
        let mut events = Vec::new();
        loop {
            match decoder.next(fields) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => return (events, Ok(())),
                Err(bad) => return (events, Err(bad)),
            }
        }
    }

    /// What a [`Decoder::run`] gives, and [`Decoder::next`] where it stops.
    #[derive(Default)]
    struct Told {
        turn: u64,
        events: Vec<(Moment, Event)>,
        in_runs: usize,
    }

    impl Told {
        fn tell(&mut self, event: Event) {
            let turn = self.turn;
            self.events.push((Moment { turn, stamp: 0 }, event));
            self.in_runs += 1;
        }
    }

    impl Receiver for Told {
        fn allocated(&mut self, address: u64, site: &Site) {
            let site = *site;
            self.tell(Event::Allocated { address, site });
        }

        fn freed(&mut self, address: u64) {
            self.tell(Event::Freed { address });
        }
    }

    fn told_in_runs<F: Fields + Copy>(fields: &mut F) -> (Told, Result<(), BadEvent>) {
        let mut told = Told::default();
        let mut decoder = Decoder::new();
        loop {
            match decoder.next(fields) {
                Ok(Some(event)) => told.events.push(event),
                Ok(None) => return (told, Ok(())),
                Err(bad) => return (told, Err(bad)),
            }
            told.turn = decoder.turn();
            if let Err(bad) = decoder.run(fields, &mut told) {
                return (told, Err(bad));
            }
        }
    }

    /// Damages every second chunk.
    fn damaged(seed: u64, mut bytes: Vec<u8>) -> Vec<u8> {
        if seed.is_multiple_of(2) {
            let place = seed as usize * 7919 % bytes.len();
            bytes[place] ^= (seed % 255 + 1) as u8;
        }
        bytes
    }

    #[test]
    fn runs_are_what_single_steps_are() {
        let mut in_runs = 0;
        for seed in 1..400 {
            let bytes = damaged(seed, random_chunk(seed, 300).0);
            let (events, end) = told(&mut Written::new(&bytes, 0));
            let (told, its_end) = told_in_runs(&mut Written::new(&bytes, 0));
            assert_eq!(told.events, events, "seed {seed}");
            assert_eq!(its_end, end, "seed {seed}");
            in_runs += told.in_runs;
        }
        assert!(in_runs > 10_000, "{in_runs}");
    }

    /// The columns of a chunk, side by side in other bytes.
    fn sorted(bytes: &[u8]) -> Option<(Vec<u8>, ColumnPlaces)> {
        let mut columns: [Vec<u8>; COLUMNS] = Default::default();
        sort_fields(bytes, |column, byte| columns[column as usize].push(byte))?;
        let mut all = std::vec![0xff; 3];
        let mut places = ColumnPlaces::default();
        for (number, column) in columns.iter().enumerate() {
            places.at[number] = all.len();
            all.extend_from_slice(column);
            places.ends[number] = all.len();
        }
        Some((all, places))
    }

    #[test]
    fn columns_are_what_was_written() {
        let (mut good, mut bad, mut in_runs) = (0, 0, 0);
        for seed in 1..400 {
            let bytes = damaged(seed, random_chunk(seed, 300).0);
            let (events, end) = told(&mut Written::new(&bytes, 0));
            let Some((mut all, places)) = sorted(&bytes) else {
                assert!(end.is_err(), "seed {seed}");
                bad += 1;
                continue;
            };
            assert_eq!(end, Ok(()));
            let length = all.len();
            assert!(length <= 2 * bytes.len() + 3);
            // With and without room for eight bytes behind the last column.
            for room in [0, 8] {
                all.resize(length + room, 0);
                let mut fields = InColumns::new(&all, places);
                assert_eq!(told(&mut fields), (events.clone(), Ok(())), "seed {seed}");
                assert_eq!(fields.places().at, places.ends);
                let mut fields = InColumns::new(&all, places);
                let (told, its_end) = told_in_runs(&mut fields);
                assert_eq!(told.events, events, "seed {seed}");
                assert_eq!((its_end, fields.places().at), (Ok(()), places.ends));
                in_runs += told.in_runs;
            }
            good += 1;
        }
        assert!(good > 200 && bad > 20, "{good} {bad}");
        assert!(in_runs > 10_000, "{in_runs}");
    }

    #[test]
    fn every_column_counts_and_ends_where_it_ends() {
        let (bytes, _) = random_chunk(11, 2000);
        let (all, places) = sorted(&bytes).expect("events");
        let (events, _) = told(&mut InColumns::new(&all, places));
        for column in 0..COLUMNS {
            assert!(places.ends[column] - places.at[column] > 10, "{column}");
            let mut moved = places;
            moved.at[column] += 1;
            assert!(told(&mut InColumns::new(&all, moved)).0 != events);
            let mut cut = places;
            cut.ends[column] -= 1;
            let (read, end) = told(&mut InColumns::new(&all, cut));
            let (in_runs, its_end) = told_in_runs(&mut InColumns::new(&all, cut));
            assert!(read.len() < events.len() && events.starts_with(&read));
            assert_eq!((&in_runs.events, its_end), (&read, end));
            // Without a control byte there is no further event, else one is cut short.
            assert_eq!(end.is_ok(), column == 0, "{column}");
        }
    }

    #[test]
    fn any_bytes_end_somewhere_and_alike() {
        let mut seed = 5;
        for round in 1..300 {
            let (mut bytes, _) = random_chunk(round, 40);
            if round % 3 == 0 {
                bytes
                    .iter_mut()
                    .for_each(|byte| *byte = noise(&mut seed) as u8);
            } else {
                let place = round as usize * 7 % bytes.len();
                bytes[place] ^= (round % 255 + 1) as u8;
                bytes.truncate(bytes.len() - round as usize % 5);
            }
            let (events, end) = told(&mut Written::new(&bytes, 0));
            assert!(events.len() <= bytes.len());
            let (told_again, its_end) = told_in_runs(&mut Written::new(&bytes, 0));
            assert_eq!((told_again.events, its_end), (events, end));
            // The same bytes as columns that begin, end and overlap anywhere, even outside.
            let mut places = ColumnPlaces::default();
            for column in 0..COLUMNS {
                places.at[column] = noise(&mut seed) as usize % (bytes.len() + 20);
                places.ends[column] = noise(&mut seed) as usize % (bytes.len() + 20);
            }
            let (events, end) = told(&mut InColumns::new(&bytes, places));
            assert!(events.len() <= bytes.len() + 20);
            let (told_again, its_end) = told_in_runs(&mut InColumns::new(&bytes, places));
            assert_eq!((told_again.events, its_end), (events, end));
        }
    }

    #[test]
    fn a_loop_costs_four_bytes_a_pair() {
        let mut chunk = Chunk {
            encoder: Encoder::new(),
            bytes: Vec::new(),
        };
        chunk.add(|encoder, out| encoder.turn(out, 2));
        for round in 0..10_000u64 {
            let address = 0x5555_0000_1000 + round % 50 * 0x230;
            let site = Site {
                node: 70_000 + (round % 3) as u32,
                allocator: 6,
                size: 512,
            };
            chunk.add(|encoder, out| encoder.allocated(out, address, site, 0));
            chunk.add(|encoder, out| encoder.freed(out, address, 0));
        }
        assert!(chunk.bytes.len() < 41_000, "{}", chunk.bytes.len());
    }
}
