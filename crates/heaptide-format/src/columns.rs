//! The fields of events sorted into columns: like stands beside like, and compresses several times better
//! than the events in their order do.
//!
//! One walk over the grammar of [`crate::event`] serves both directions: it knows which field comes
//! next, and a [`Mover`] moves that field from the events to its column or back.

use crate::event::{
    ADDRESS_KNOWN, ALLOCATION, FREE, FREE_UNDONE, MORE, SITE_KNOWN, TURN, UNMAP, UNMAP_UNDONE,
};
use crate::turn_is_shared;

/// How many columns there are.
pub const COLUMNS: usize = 10;

/// What a column holds. Numbers are as they stand in the events, varints with all their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Column {
    /// The first byte of every event.
    Control = 0,
    /// Slots of sites.
    Site = 1,
    /// Deltas of stack nodes.
    Node = 2,
    /// Allocators.
    Allocator = 3,
    /// Sizes.
    Size = 4,
    /// Slots of known addresses.
    AddressSlot = 5,
    /// The rest of the deltas of new addresses.
    Address = 6,
    /// Deltas of turns.
    Turn = 7,
    /// Deltas of time stamps.
    Stamp = 8,
    /// Addresses and lengths of unmapped ranges.
    Unmapped = 9,
}

/// Moves the events' fields, one byte at a time.
pub trait Mover {
    /// Is there another event?
    fn more(&self) -> bool;
    /// Moves the next byte, which belongs to `column`, and tells it. `None`: there is none, or no room.
    fn byte(&mut self, column: Column) -> Option<u8>;
    /// Moves the bytes of the next varint, whatever it says. `None`: as above, or it has no end.
    #[inline(always)]
    fn number(&mut self, column: Column) -> Option<()>
    where
        Self: Sized,
    {
        varint(self, column).map(|_| ())
    }
}

/// Moves the events of one chunk, without its head. `None`: these are no events of this version, or they end
/// in the middle of one.
pub fn move_events(mover: &mut impl Mover) -> Option<()> {
    let mut turn = 0u64;
    while mover.more() {
        let control = mover.byte(Column::Control)?;
        if control & ALLOCATION != 0 {
            mover.byte(Column::Site)?;
            if control & SITE_KNOWN == 0 {
                mover.number(Column::Node)?;
                mover.byte(Column::Allocator)?;
                mover.number(Column::Size)?;
            }
            address(mover, control)?;
        } else if control & FREE != 0 {
            address(mover, control)?;
        } else {
            match control {
                TURN => {
                    turn = turn.wrapping_add(varint(mover, Column::Turn)?);
                    continue;
                }
                UNMAP => {
                    mover.number(Column::Unmapped)?;
                    mover.number(Column::Unmapped)?;
                }
                FREE_UNDONE | UNMAP_UNDONE => {}
                _ => return None,
            }
        }
        if turn_is_shared(turn) {
            mover.number(Column::Stamp)?;
        }
    }
    Some(())
}

#[inline(always)]
fn address(mover: &mut impl Mover, control: u8) -> Option<()> {
    if control & ADDRESS_KNOWN != 0 {
        mover.byte(Column::AddressSlot)?;
    } else if control & MORE != 0 {
        mover.number(Column::Address)?;
    }
    Some(())
}

/// Moves a varint and tells its value.
#[inline(always)]
pub fn varint(mover: &mut impl Mover, column: Column) -> Option<u64> {
    let mut value = 0u64;
    let mut shift = 0;
    while shift < 64 {
        let byte = mover.byte(column)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
    None
}
