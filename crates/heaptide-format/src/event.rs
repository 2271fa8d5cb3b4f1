//! Events: the compact streams of mode "all", and their encoder; see [`crate::Decoder`] for the way back.
//!
//! Each thread writes streams of its own, cut into chunks (one [`crate::SegmentKind::Events`] segment
//! each) that can be decoded alone. Chunks of all threads are put into one order by *turns*: see
//! [`Encoder::turn`]. Events refer to two small tables that encoder and decoder keep alike:
//! sites (stack node, allocator, size) and addresses.
//!
//! ```text
//! 1 s a ccccc   allocation   s: site known, a: address known
//!               site slot u8 [node zigzag delta, allocator u8, size]   address   [stamp]
//! 01  a ccccc   free         address   [stamp]
//! 00    ppppp   1 turn: delta   2 the last free did not happen [stamp]
//!               3 unmap: address, length [stamp]   4 the last unmap did not happen [stamp]
//! address       known: slot u8; else the zigzag delta to the last one so written, rotated right by
//!               4 bits: 4 bits in `ccccc` (with bit 4 set: the rest follows as a varint)
//! stamp         varint delta of the time stamp, in turns with odd numbers only
//! ```
//! Numbers are LEB128 varints.

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

const SITES: usize = 256;
const ADDRESSES: usize = 256;

pub(crate) const ALLOCATION: u8 = 0x80;
pub(crate) const SITE_KNOWN: u8 = 0x40;
pub(crate) const FREE: u8 = 0x40;
pub(crate) const ADDRESS_KNOWN: u8 = 0x20;
pub(crate) const MORE: u8 = 0x10;
pub(crate) const TURN: u8 = 1;
pub(crate) const FREE_UNDONE: u8 = 2;
pub(crate) const UNMAP: u8 = 3;
pub(crate) const UNMAP_UNDONE: u8 = 4;

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

/// Slot of an address in the table that both sides keep.
#[inline]
pub(crate) fn address_slot(rotated: u64) -> usize {
    (rotated.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
}

#[inline]
fn site_slot(site: Site) -> usize {
    let word = (u64::from(site.node) << 8 | u64::from(site.allocator))
        .wrapping_add(site.size.wrapping_mul(0xff51_afd7_ed55_8ccd));
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
}

#[inline]
const fn zigzag(value: u64) -> u64 {
    (value << 1) ^ (((value as i64) >> 63) as u64)
}

#[inline]
pub(crate) const fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// What both sides remember while they go through a chunk.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) sites: [Site; SITES],
    pub(crate) addresses: [u64; ADDRESSES],
    pub(crate) last_address: u64,
    pub(crate) last_node: u32,
    pub(crate) last_unmapped: u64,
    pub(crate) turn: u64,
    pub(crate) stamp: u64,
}

impl Memory {
    pub(crate) const fn new() -> Self {
        Self {
            sites: [Site {
                node: 0,
                allocator: 0,
                size: 0,
            }; SITES],
            addresses: [0; ADDRESSES],
            last_address: 0,
            last_node: 0,
            last_unmapped: 0,
            turn: 0,
            stamp: 0,
        }
    }
}

/// Writes events; one for each stream.
#[derive(Clone, Debug)]
pub struct Encoder {
    memory: Memory,
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
        }
    }

    /// A new chunk begins; its first event must be a turn.
    pub fn begin_chunk(&mut self) {
        let memory = &mut self.memory;
        memory.sites.fill(Site::default());
        memory.addresses.fill(0);
        memory.last_address = 0;
        memory.last_node = 0;
        memory.last_unmapped = 0;
        memory.turn = 0;
        memory.stamp = 0;
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
        let slot = site_slot(site);
        let known = &mut memory.sites[slot];
        let mut control = ALLOCATION;
        out.byte(slot as u8);
        if *known == site {
            control |= SITE_KNOWN;
        } else {
            *known = site;
            let delta = i64::from(site.node) - i64::from(memory.last_node);
            memory.last_node = site.node;
            out.varint(zigzag(delta as u64));
            out.byte(site.allocator);
            out.varint(site.size);
        }
        let control = control | memory.write_address(&mut out, address);
        out.bytes[0] = control;
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
        let control = FREE | memory.write_address(&mut out, address);
        out.bytes[0] = control;
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

    fn plain(&mut self, out: &mut [u8; MOST_EVENT_BYTES], control: u8, stamp: u64) -> usize {
        let mut out = Output {
            bytes: out,
            length: 0,
        };
        out.byte(control);
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
    /// Returns the bits for the control byte.
    #[inline(always)]
    fn write_address(&mut self, out: &mut Output<'_>, address: u64) -> u8 {
        let rotated = address.rotate_right(4);
        let slot = address_slot(rotated);
        let known = &mut self.addresses[slot];
        if *known == rotated && rotated != 0 {
            out.byte(slot as u8);
            return ADDRESS_KNOWN;
        }
        *known = rotated;
        let delta = zigzag(rotated.wrapping_sub(self.last_address));
        self.last_address = rotated;
        let low = (delta & 0x0f) as u8;
        if delta < 0x10 {
            return low;
        }
        out.varint(delta >> 4);
        low | MORE
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
        chunk.add(|encoder, out| encoder.turn(out, turn));
        for _ in 0..events {
            stamp += noise(&mut seed) % 5000;
            let kind = noise(&mut seed);
            let address = match kind >> 8 & 3 {
                0 => noise(&mut seed),
                1 => 0x7f00_0000_0000 + (noise(&mut seed) % 100) * 16,
                2 => noise(&mut seed) % 4096 * 16,
                _ => u64::MAX - noise(&mut seed) % 3,
            };
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
                    let site = Site {
                        node: (noise(&mut seed) >> (32 + kind % 31)) as u32,
                        allocator: (kind >> 16) as u8,
                        size: noise(&mut seed) >> (noise(&mut seed) % 64),
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
            let mut decoder = Decoder::new();
            let mut at = 0;
            let mut read = Vec::new();
            while let Some(event) = decoder.next(&bytes, &mut at).expect("well-formed") {
                read.push(event);
            }
            assert_eq!(read, expected);
            assert_eq!(at, bytes.len());
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

    fn told_in_runs(bytes: &[u8]) -> (Told, Result<(), BadEvent>) {
        let mut told = Told::default();
        let mut decoder = Decoder::new();
        let mut at = 0;
        loop {
            match decoder.next(bytes, &mut at) {
                Ok(Some(event)) => told.events.push(event),
                Ok(None) => return (told, Ok(())),
                Err(bad) => return (told, Err(bad)),
            }
            told.turn = decoder.turn();
            decoder.run(bytes, &mut at, &mut told);
        }
    }

    #[test]
    fn runs_are_what_single_steps_are() {
        let mut in_runs = 0;
        for seed in 1..400 {
            let (mut bytes, _) = random_chunk(seed, 300);
            if seed % 2 == 0 {
                let place = seed as usize * 7919 % bytes.len();
                bytes[place] ^= (seed % 255 + 1) as u8;
            }
            let mut decoder = Decoder::new();
            let mut at = 0;
            let mut events = Vec::new();
            let end = loop {
                match decoder.next(&bytes, &mut at) {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break Ok(()),
                    Err(bad) => break Err(bad),
                }
            };
            let (told, its_end) = told_in_runs(&bytes);
            assert_eq!(told.events, events, "seed {seed}");
            assert_eq!(its_end, end, "seed {seed}");
            in_runs += told.in_runs;
        }
        assert!(in_runs > 10_000, "{in_runs}");
    }

    #[test]
    fn any_bytes_end_somewhere() {
        for seed in 1..300 {
            let (mut bytes, _) = random_chunk(seed, 40);
            let place = seed as usize * 7 % bytes.len();
            bytes[place] ^= (seed % 255 + 1) as u8;
            bytes.truncate(bytes.len() - seed as usize % 5);
            let mut decoder = Decoder::new();
            let mut at = 0;
            let mut rounds = 0;
            while let Ok(Some(_)) = decoder.next(&bytes, &mut at) {
                rounds += 1;
                assert!(rounds <= bytes.len());
            }
        }
    }

    #[test]
    fn a_loop_costs_five_bytes_a_pair() {
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
        assert!(chunk.bytes.len() < 60_000, "{}", chunk.bytes.len());
    }
}
