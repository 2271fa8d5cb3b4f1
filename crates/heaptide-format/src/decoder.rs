//! Reads the streams that [`crate::Encoder`] writes.

use crate::columns::{Column, Fields};
use crate::event::{
    ADDRESS_CODES, ADDRESS_FAR, ADDRESS_NEAR, ADDRESS_OBVIOUS, Event, FAR, FREE, FREE_UNDONE,
    Moment, NOTHING, OBJECT, RARE, SITE_EXPECTED, SITE_KNOWN, SITE_OF_ANOTHER_SIZE, Site, TURN,
    UNMAP, UNMAP_UNDONE, turn_is_shared,
};
use crate::memory::{
    ADDRESSES, Memory, address_in, address_place, place_in, place_of, site_in, site_slot,
    site_word, unzigzag,
};

/// Reads the events of one chunk. After an error it is of no further use.
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

pub(crate) const CUT: BadEvent = BadEvent { cut_short: true };
pub(crate) const BAD: BadEvent = BadEvent { cut_short: false };

/// Takes the events of a [`Decoder::run`].
pub trait Receiver {
    /// A block or a mapping was made.
    fn allocated(&mut self, address: u64, site: &Site);
    /// A block is given back.
    fn freed(&mut self, address: u64);
    /// May another event follow at once?
    #[inline(always)]
    fn has_room(&self) -> bool {
        true
    }
}

/// What a control byte says, but for turns and rare events: the sort of the event, and how its address is told.
const SORTS: [(u8, u8); 256] = {
    let mut sorts = [(0, 0); 256];
    let mut control = 0;
    while control < 256 {
        let byte = control as u8;
        sorts[control] = (byte / ADDRESS_CODES, byte % ADDRESS_CODES);
        control += 1;
    }
    sorts
};

/// The control byte for a slot of any number.
pub(crate) const fn without_slots(control: u8) -> u8 {
    if control >= TURN {
        return control;
    }
    let (sort, code) = SORTS[control as usize];
    let sort = if sort > SITE_KNOWN { SITE_KNOWN } else { sort };
    let code = if code < ADDRESS_OBVIOUS { 0 } else { code };
    sort * ADDRESS_CODES + code
}

impl Decoder {
    /// At the start of a chunk's events, behind its header.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            memory: Memory::new(),
        }
    }

    /// Begins another chunk.
    pub fn begin_chunk(&mut self) {
        self.memory.forget();
    }

    /// The turn of the last event.
    #[must_use]
    #[inline]
    pub const fn turn(&self) -> u64 {
        self.memory.turn
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// What comes next is no event.
    #[inline]
    pub fn next(&mut self, fields: &mut impl Fields) -> Result<Option<(Moment, Event)>, BadEvent> {
        while let Some(control) = fields.next_control() {
            fields.take_control();
            let memory = &mut self.memory;
            let event = match control {
                TURN => {
                    memory.turn = memory.turn.wrapping_add(fields.number(Column::Turn)?);
                    memory.stamp = 0;
                    continue;
                }
                RARE => match fields.byte(Column::Control)? {
                    FREE_UNDONE => Event::FreeUndone,
                    UNMAP => {
                        let delta = unzigzag(fields.number(Column::Unmapped)?);
                        memory.last_unmapped = memory.last_unmapped.wrapping_add(delta);
                        Event::Unmapped {
                            address: memory.last_unmapped.rotate_left(12),
                            length: fields.number(Column::Unmapped)?.rotate_left(12),
                        }
                    }
                    UNMAP_UNDONE => Event::UnmapUndone,
                    _ => return Err(BAD),
                },
                OBJECT => memory.object(fields)?,
                NOTHING.. => return Err(BAD),
                _ => match memory.plain(control, fields)? {
                    (address, Some(site)) => Event::Allocated { address, site },
                    (address, None) => Event::Freed { address },
                },
            };
            let mut moment = Moment {
                turn: memory.turn,
                stamp: 0,
            };
            if turn_is_shared(memory.turn) {
                let delta = fields.number(Column::Stamp)?;
                memory.stamp = memory.stamp.wrapping_add(delta);
                moment.stamp = memory.stamp;
            }
            return Ok(Some((moment, event)));
        }
        Ok(None)
    }

    /// Hands over events as long as they are plain allocations and frees of one turn that is not shared, which
    /// nearly all are, and the receiver has room. It stops before any other: [`Decoder::next`] goes on.
    ///
    /// # Errors
    /// What comes next is no event.
    #[inline]
    pub fn run<F: Fields + Copy>(
        &mut self,
        fields: &mut F,
        receiver: &mut impl Receiver,
    ) -> Result<(), BadEvent> {
        if turn_is_shared(self.memory.turn) {
            return Ok(());
        }
        // A copy of our own can live in registers.
        let mut here = *fields;
        while receiver.has_room()
            && let Some(control) = here.next_control()
        {
            if control >= TURN {
                break;
            }
            here.take_control();
            match self.memory.plain(control, &mut here)? {
                (address, Some(site)) => receiver.allocated(address, &site),
                (address, None) => receiver.freed(address),
            }
        }
        *fields = here;
        Ok(())
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An allocation or a free: its address, and the site if it is an allocation.
    #[inline(always)]
    fn plain(
        &mut self,
        control: u8,
        fields: &mut impl Fields,
    ) -> Result<(u64, Option<Site>), BadEvent> {
        let (sort, code) = SORTS[usize::from(control)];
        if sort == FREE {
            let rotated = self.read_address(code, self.last_allocated, fields)?;
            self.last_freed = rotated;
            return Ok((rotated.rotate_left(4), None));
        }
        let site = self.read_site(sort, fields)?;
        let rotated = self.read_address(code, self.last_freed, fields)?;
        self.last_allocated = rotated;
        Ok((rotated.rotate_left(4), Some(site)))
    }

    /// An event of an object, of which the first byte is taken.
    fn object(&mut self, fields: &mut impl Fields) -> Result<Event, BadEvent> {
        let control = fields.next_control().ok_or(CUT)?;
        if control >= TURN {
            return Err(BAD);
        }
        fields.take_control();
        let (sort, code) = SORTS[usize::from(control)];
        if sort == FREE {
            let rotated = self.read_address(code, self.last_made, fields)?;
            self.last_gone = rotated;
            let address = rotated.rotate_left(4);
            return Ok(Event::ObjectGone { address });
        }
        let site = self.read_site(sort, fields)?;
        let rotated = self.read_address(code, self.last_gone, fields)?;
        self.last_made = rotated;
        Ok(Event::ObjectMade {
            address: rotated.rotate_left(4),
            node: site.node,
            // As `object_site` has it; what it has not made is no name.
            type_name: u32::try_from(site.size).unwrap_or(0).wrapping_sub(1),
        })
    }

    #[inline(always)]
    fn read_site(&mut self, sort: u8, fields: &mut impl Fields) -> Result<Site, BadEvent> {
        if sort >= SITE_KNOWN || sort == SITE_EXPECTED {
            // No branch between the two: programs take them in turns.
            let known = sort >= SITE_KNOWN;
            let told = fields.slot_if(Column::Site, sort.wrapping_sub(SITE_KNOWN), known)?;
            let slot = if known { told } else { self.expected_slot() };
            let slot = usize::from(slot);
            self.follow(slot);
            let word = self.site(slot);
            self.place = place_in(word);
            return Ok(site_in(word));
        }
        if sort != SITE_OF_ANOTHER_SIZE {
            let told = fields.number(Column::Node)?;
            let delta = unzigzag(told >> 1) as i64;
            let node = i64::from(self.place as u32).wrapping_add(delta);
            let node = u32::try_from(node).map_err(|_| BAD)?;
            let allocator = if told & 1 == 0 {
                (self.place >> 32) as u8
            } else {
                fields.byte(Column::Allocator)?
            };
            self.place = place_of(node, allocator);
        }
        let size = fields.number(Column::Size)?;
        if let Some(word) = site_word(self.place, size) {
            let slot = site_slot(word);
            self.follow(slot);
            self.keep_site(slot, word);
        }
        Ok(Site {
            size,
            ..site_in(self.place)
        })
    }

    /// An address, rotated.
    #[inline(always)]
    fn read_address(
        &mut self,
        code: u8,
        obvious: u64,
        fields: &mut impl Fields,
    ) -> Result<u64, BadEvent> {
        if code <= ADDRESS_OBVIOUS {
            // No branch between the two, as above.
            let known = code < ADDRESS_OBVIOUS;
            let told = fields.slot_if(Column::AddressSlot, code, known)?;
            let slot = usize::from(told) & (ADDRESSES - 1);
            let remembered = address_in(slot, self.addresses[slot]);
            return Ok(if known { remembered } else { obvious });
        }
        let delta = if code == ADDRESS_FAR {
            fields.number(Column::Address)?.wrapping_add(FAR)
        } else {
            u64::from(code - ADDRESS_NEAR)
        };
        let rotated = self.last_address.wrapping_add(unzigzag(delta));
        self.last_address = rotated;
        if let Some((slot, half)) = address_place(rotated) {
            self.addresses[slot & (ADDRESSES - 1)] = half;
        }
        Ok(rotated)
    }
}
