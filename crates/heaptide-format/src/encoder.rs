//! Writes the streams that [`crate::Decoder`] reads; what the bytes mean is in `event.rs`.

use crate::event::{
    ADDRESS_CODES, ADDRESS_FAR, ADDRESS_NEAR, ADDRESS_OBVIOUS, FAR, FREE, FREE_UNDONE,
    MOST_EVENT_BYTES, OBJECT, RARE, SITE_EXPECTED, SITE_KNOWN, SITE_NEW, SITE_OF_ANOTHER_SIZE,
    Site, TURN, UNMAP, UNMAP_UNDONE, turn_is_shared,
};
use crate::memory::{
    ADDRESSES, Memory, address_place, object_site, place_of, site_slot, site_word, zigzag,
};

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

    /// A Python object was made. `type_name` is the number of a string, or [`crate::NO_STRING`].
    #[inline]
    pub fn object_made(
        &mut self,
        out: &mut [u8; MOST_EVENT_BYTES],
        address: u64,
        node: u32,
        type_name: u32,
        stamp: u64,
    ) -> usize {
        let memory = &mut self.memory;
        let mut out = Output {
            bytes: out,
            length: 2,
        };
        let rotated = address.rotate_right(4);
        let sort = memory.write_site(&mut out, object_site(node, type_name));
        let code = memory.write_address(&mut out, rotated, memory.last_gone);
        memory.last_made = rotated;
        out.bytes[0] = OBJECT;
        out.bytes[1] = sort + code;
        memory.write_stamp(&mut out, stamp);
        out.length
    }

    /// A Python object is destroyed.
    #[inline]
    pub fn object_gone(
        &mut self,
        out: &mut [u8; MOST_EVENT_BYTES],
        address: u64,
        stamp: u64,
    ) -> usize {
        let memory = &mut self.memory;
        let mut out = Output {
            bytes: out,
            length: 2,
        };
        let rotated = address.rotate_right(4);
        let code = memory.write_address(&mut out, rotated, memory.last_made);
        memory.last_gone = rotated;
        out.bytes[0] = OBJECT;
        out.bytes[1] = FREE * ADDRESS_CODES + code;
        memory.write_stamp(&mut out, stamp);
        out.length
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
