//! Reads the streams that [`crate::Encoder`] writes.

use crate::event::{
    ADDRESS_KNOWN, ALLOCATION, Event, FREE, FREE_UNDONE, MORE, Memory, Moment, SITE_KNOWN, Site,
    TURN, UNMAP, UNMAP_UNDONE, address_slot, turn_is_shared, unzigzag,
};

/// Reads the events of one chunk.
#[derive(Clone, Debug)]
pub struct Decoder {
    memory: Memory,
}

/// What is at a place of a chunk is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadEvent {
    /// The bytes end in the middle of an event.
    pub cut_short: bool,
}

const CUT: BadEvent = BadEvent { cut_short: true };
const BAD: BadEvent = BadEvent { cut_short: false };

/// Takes bytes from the front.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    #[inline(always)]
    fn byte(&mut self) -> Result<u8, BadEvent> {
        let byte = *self.bytes.get(self.at).ok_or(CUT)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, BadEvent> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        self.long_varint(first)
    }

    #[inline]
    fn long_varint(&mut self, first: u8) -> Result<u64, BadEvent> {
        let mut value = u64::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(BAD);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
            if shift > 63 {
                return Err(BAD);
            }
        }
    }
}

/// Takes the events of a [`Decoder::run`].
pub trait Receiver {
    /// A block or a mapping was made.
    fn allocated(&mut self, address: u64, site: &Site);
    /// A block is given back.
    fn freed(&mut self, address: u64);
}

/// What a [`Decoder::run`] looks at for one event, and more than it can have: a control byte, a slot, an
/// allocator and three numbers of at most eight bytes.
type Window = [u8; 40];

/// Eight bytes from a place on, of which there are 32.
#[inline(always)]
fn word_at(window: &Window, at: usize) -> u64 {
    // The mask changes nothing; it tells the compiler that the place exists.
    let at = at & 31;
    let bytes = window[at..at + 8].first_chunk();
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The varint at the start of a word, and its length; `None` when it does not end in the word.
///
/// All lengths beyond two take the same way, since they follow one another without a pattern.
#[inline(always)]
fn varint_in(word: u64) -> Option<(u64, usize)> {
    if word & 0x80 == 0 {
        return Some((word & 0x7f, 1));
    }
    if word & 0x8000 == 0 {
        return Some((word & 0x7f | word >> 1 & 0x3f80, 2));
    }
    let ends = !word & 0x8080_8080_8080_8080;
    if ends == 0 {
        return None;
    }
    let length = (ends.trailing_zeros() as usize >> 3) + 1;
    let up_to_end = ends ^ (ends - 1);
    let sevens = word & up_to_end & 0x7f7f_7f7f_7f7f_7f7f;
    let fourteens = sevens & 0x007f_007f_007f_007f | (sevens & 0x7f00_7f00_7f00_7f00) >> 1;
    let twenty_eights =
        fourteens & 0x0000_3fff_0000_3fff | (fourteens & 0x3fff_0000_3fff_0000) >> 2;
    let value = twenty_eights & 0x0fff_ffff | (twenty_eights & 0x0fff_ffff_0000_0000) >> 4;
    Some((value, length))
}

impl Decoder {
    /// At the start of a chunk's events, behind its header.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            memory: Memory::new(),
        }
    }

    /// The next event at `at` of `bytes`, which moves on; `None` at the end.
    ///
    /// # Errors
    /// The bytes are no event; `at` then stays where it was.
    #[inline]
    pub fn next(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
    ) -> Result<Option<(Moment, Event)>, BadEvent> {
        let mut input = Input { bytes, at: *at };
        loop {
            if input.at >= bytes.len() {
                *at = input.at;
                return Ok(None);
            }
            let control = input.byte()?;
            let memory = &mut self.memory;
            let event = if control & ALLOCATION != 0 {
                let slot = input.byte()?;
                if control & SITE_KNOWN == 0 {
                    let delta = unzigzag(input.varint()?) as i64;
                    let node = i64::from(memory.last_node).wrapping_add(delta);
                    let node = u32::try_from(node).map_err(|_| BAD)?;
                    let allocator = input.byte()?;
                    let size = input.varint()?;
                    memory.last_node = node;
                    memory.sites[usize::from(slot)] = Site {
                        node,
                        allocator,
                        size,
                    };
                }
                Event::Allocated {
                    address: memory.read_address(control, &mut input)?,
                    site: memory.sites[usize::from(slot)],
                }
            } else if control & FREE != 0 {
                Event::Freed {
                    address: memory.read_address(control, &mut input)?,
                }
            } else {
                match control {
                    TURN => {
                        memory.turn = memory.turn.wrapping_add(input.varint()?);
                        memory.stamp = 0;
                        *at = input.at;
                        continue;
                    }
                    FREE_UNDONE => Event::FreeUndone,
                    UNMAP => {
                        let delta = unzigzag(input.varint()?);
                        memory.last_unmapped = memory.last_unmapped.wrapping_add(delta);
                        Event::Unmapped {
                            address: memory.last_unmapped.rotate_left(12),
                            length: input.varint()?.rotate_left(12),
                        }
                    }
                    UNMAP_UNDONE => Event::UnmapUndone,
                    _ => return Err(BAD),
                }
            };
            let mut moment = Moment {
                turn: memory.turn,
                stamp: 0,
            };
            if turn_is_shared(memory.turn) {
                memory.stamp = memory.stamp.wrapping_add(input.varint()?);
                moment.stamp = memory.stamp;
            }
            *at = input.at;
            return Ok(Some((moment, event)));
        }
    }
}

impl Decoder {
    /// The turn of the last event.
    #[must_use]
    #[inline]
    pub const fn turn(&self) -> u64 {
        self.memory.turn
    }

    /// Hands over events as long as they are plain allocations and frees of one turn that is not shared, which
    /// nearly all are, and stops at any other, at damage, or near the end of `bytes`: [`Decoder::next`] goes on.
    #[inline]
    pub fn run(&mut self, bytes: &[u8], at: &mut usize, receiver: &mut impl Receiver) {
        if turn_is_shared(self.memory.turn) {
            return;
        }
        let mut rest = bytes.get(*at..).unwrap_or_default();
        while let Some(window) = rest.first_chunk() {
            let length = self.step(window, receiver);
            if length == 0 {
                break;
            }
            // No event is longer than the window.
            rest = rest.get(length..).unwrap_or_default();
        }
        *at = bytes.len() - rest.len();
    }

    /// One event, and its length; zero, and nothing has happened, when it is not for this way.
    #[inline(always)]
    fn step(&mut self, window: &Window, receiver: &mut impl Receiver) -> usize {
        let memory = &mut self.memory;
        let mut here = 0;
        let word = word_at(window, here);
        let control = word as u8;
        if control & (ALLOCATION | FREE) == 0 {
            return 0;
        }
        here += 1;
        let mut fresh = None;
        let slot = usize::from((word >> 8) as u8);
        if control & ALLOCATION != 0 {
            here += 1;
            if control & SITE_KNOWN == 0 {
                let Some((delta, length)) = varint_in(word >> 16 | 0x8080 << 48) else {
                    return 0;
                };
                here += length;
                let node = i64::from(memory.last_node).wrapping_add(unzigzag(delta) as i64);
                let Ok(node) = u32::try_from(node) else {
                    return 0;
                };
                let rest = word_at(window, here);
                let Some((size, length)) = varint_in(rest >> 8 | 0x80 << 56) else {
                    return 0;
                };
                here += 1 + length;
                fresh = Some(Site {
                    node,
                    allocator: rest as u8,
                    size,
                });
            }
        }
        let word = word_at(window, here);
        let rotated = if control & ADDRESS_KNOWN != 0 {
            here += 1;
            memory.addresses[usize::from(word as u8)]
        } else {
            let mut delta = u64::from(control & 0x0f);
            if control & MORE != 0 {
                let Some((high, length)) = varint_in(word) else {
                    return 0;
                };
                here += length;
                delta |= high << 4;
            }
            let rotated = memory.last_address.wrapping_add(unzigzag(delta));
            memory.last_address = rotated;
            memory.addresses[address_slot(rotated)] = rotated;
            rotated
        };
        let address = rotated.rotate_left(4);
        if control & ALLOCATION == 0 {
            receiver.freed(address);
            return here;
        }
        let known = &mut memory.sites[slot];
        if let Some(site) = fresh {
            memory.last_node = site.node;
            *known = site;
        }
        receiver.allocated(address, known);
        here
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    #[inline(always)]
    fn read_address(&mut self, control: u8, input: &mut Input<'_>) -> Result<u64, BadEvent> {
        if control & ADDRESS_KNOWN != 0 {
            let slot = usize::from(input.byte()?);
            return Ok(self.addresses[slot].rotate_left(4));
        }
        let mut delta = u64::from(control & 0x0f);
        if control & MORE != 0 {
            let high = input.varint()?;
            if high >> 60 != 0 {
                return Err(BAD);
            }
            delta |= high << 4;
        }
        let rotated = self.last_address.wrapping_add(unzigzag(delta));
        self.last_address = rotated;
        self.addresses[address_slot(rotated)] = rotated;
        Ok(rotated.rotate_left(4))
    }
}
