//! The fields of events, and where they are taken from.
//!
//! As they are written, the fields of an event stand one after the other. In packed blocks those of one sort
//! stand together, in a column: like stands beside like, and compresses several times better.
//! [`crate::Decoder`] reads either form: it says which field it wants next, and [`Fields`] knows where that is.

use crate::decoder::{BAD, BadEvent, CUT, Decoder, without_slots};
use crate::event::{Event, Moment};

/// How many columns there are.
pub const COLUMNS: usize = 10;

/// What a column holds. Numbers are as they stand in the events, varints with all their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Column {
    /// The first byte of every event, without what it says of slots, and the second one of rare events.
    Control = 0,
    /// Slots of known sites, two bytes each.
    Site = 1,
    /// Deltas of stack nodes.
    Node = 2,
    /// Allocators.
    Allocator = 3,
    /// Sizes.
    Size = 4,
    /// Slots of known addresses, two bytes each.
    AddressSlot = 5,
    /// Deltas of new addresses.
    Address = 6,
    /// Deltas of turns.
    Turn = 7,
    /// Deltas of time stamps.
    Stamp = 8,
    /// Addresses and lengths of unmapped ranges.
    Unmapped = 9,
}

/// A source of fields.
pub trait Fields {
    /// The control byte of the next event, which stays; `None` at the end.
    fn next_control(&self) -> Option<u8>;
    /// Takes the control byte that [`Fields::next_control`] told.
    fn take_control(&mut self);
    /// Takes a byte.
    ///
    /// # Errors
    /// There is none.
    fn byte(&mut self, column: Column) -> Result<u8, BadEvent>;
    /// Takes a slot if it is wanted, else tells anything. Its upper bits may be those of the control byte.
    ///
    /// # Errors
    /// It is wanted and not there.
    fn slot_if(&mut self, column: Column, high: u8, wanted: bool) -> Result<u16, BadEvent>;
    /// Takes a varint.
    ///
    /// # Errors
    /// There is none, or it has no end.
    #[inline(always)]
    fn number(&mut self, column: Column) -> Result<u64, BadEvent> {
        varint(|| self.byte(column))
    }
}

/// Puts a varint together.
fn varint(mut next: impl FnMut() -> Result<u8, BadEvent>) -> Result<u64, BadEvent> {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let byte = next()?;
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

/// The varint at the start of a word, and its length; `None` when it does not end in the word.
#[inline(always)]
fn varint_in(word: u64) -> Option<(u64, usize)> {
    if word & 0x8080 != 0x8080 {
        // One byte or two, without a branch between them: they follow one another without a pattern.
        let second = word >> 7 & 1;
        let value = word & 0x7f | word >> 1 & 0x3f80 & second.wrapping_neg();
        return Some((value, 1 + second as usize));
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

/// Eight bytes from a place on.
#[inline(always)]
fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*word))
}

/// Events as they were written.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Written<'a> {
    /// From a place in the bytes of a chunk on, which is not its head.
    #[must_use]
    pub const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// The place of the next field.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }
}

impl Fields for Written<'_> {
    #[inline(always)]
    fn next_control(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline(always)]
    fn take_control(&mut self) {
        self.at += 1;
    }

    #[inline(always)]
    fn byte(&mut self, _column: Column) -> Result<u8, BadEvent> {
        let byte = *self.bytes.get(self.at).ok_or(CUT)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline(always)]
    fn slot_if(&mut self, _column: Column, high: u8, wanted: bool) -> Result<u16, BadEvent> {
        let low = self.bytes.get(self.at).copied().unwrap_or(0);
        let next = self.at + usize::from(wanted);
        if next > self.bytes.len() {
            return Err(CUT);
        }
        self.at = next;
        Ok(u16::from(high) << 8 | u16::from(low))
    }

    #[inline(always)]
    fn number(&mut self, column: Column) -> Result<u64, BadEvent> {
        if let Some((value, length)) = word_at(self.bytes, self.at).and_then(varint_in) {
            self.at += length;
            return Ok(value);
        }
        cold_number(self, column)
    }
}

#[cold]
#[inline(never)]
fn cold_number(fields: &mut impl Fields, column: Column) -> Result<u64, BadEvent> {
    varint(|| fields.byte(column))
}

/// Tells the bytes of the columns of a chunk's events one by one, and the events. `None`: these are no events of this
/// version, or they end in the middle of one.
///
/// Control bytes of which a part is that of a slot would differ from event to event without a pattern; so slots
/// are whole in their columns, and the lowest of those control bytes stands for all.
pub fn sort_fields(
    events: &[u8],
    tell: impl FnMut(Column, u8),
    mut hear: impl FnMut(Moment, Event),
) -> Option<()> {
    let mut fields = Told {
        written: Written::new(events, 0),
        tell,
    };
    let mut decoder = Decoder::new();
    while let Some((moment, event)) = decoder.next(&mut fields).ok()? {
        hear(moment, event);
    }
    Some(())
}

/// Events as they were written, of which all that is taken is told.
struct Told<'a, T> {
    written: Written<'a>,
    tell: T,
}

impl<T: FnMut(Column, u8)> Fields for Told<'_, T> {
    fn next_control(&self) -> Option<u8> {
        self.written.next_control()
    }

    fn take_control(&mut self) {
        if let Some(control) = self.written.next_control() {
            (self.tell)(Column::Control, without_slots(control));
            self.written.take_control();
        }
    }

    fn byte(&mut self, column: Column) -> Result<u8, BadEvent> {
        let byte = self.written.byte(column)?;
        (self.tell)(column, byte);
        Ok(byte)
    }

    fn slot_if(&mut self, column: Column, high: u8, wanted: bool) -> Result<u16, BadEvent> {
        let slot = self.written.slot_if(column, high, wanted)?;
        if wanted {
            for byte in slot.to_le_bytes() {
                (self.tell)(column, byte);
            }
        }
        Ok(slot)
    }
}

/// Where the columns of a chunk begin and end in the bytes of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColumnPlaces {
    /// The next byte of each column.
    pub at: [usize; COLUMNS],
    /// The end of each column.
    pub ends: [usize; COLUMNS],
}

/// Events in columns.
#[derive(Clone, Copy, Debug)]
pub struct InColumns<'a> {
    bytes: &'a [u8],
    places: ColumnPlaces,
}

impl<'a> InColumns<'a> {
    /// Columns in the bytes of a block. Reading is fast where at least eight bytes follow upon the last column.
    #[must_use]
    pub const fn new(bytes: &'a [u8], places: ColumnPlaces) -> Self {
        Self { bytes, places }
    }

    /// Where it goes on.
    #[must_use]
    pub const fn places(&self) -> ColumnPlaces {
        self.places
    }

    /// Takes bytes of a column: all of them are there, or nothing happens.
    #[inline(always)]
    fn take(&mut self, column: Column, count: usize) -> Result<(), BadEvent> {
        let column = column as usize;
        let next = self.places.at[column] + count;
        if next > self.places.ends[column] {
            return Err(CUT);
        }
        self.places.at[column] = next;
        Ok(())
    }
}

impl Fields for InColumns<'_> {
    #[inline(always)]
    fn next_control(&self) -> Option<u8> {
        let at = self.places.at[Column::Control as usize];
        if at >= self.places.ends[Column::Control as usize] {
            return None;
        }
        self.bytes.get(at).copied()
    }

    #[inline(always)]
    fn take_control(&mut self) {
        self.places.at[Column::Control as usize] += 1;
    }

    #[inline(always)]
    fn byte(&mut self, column: Column) -> Result<u8, BadEvent> {
        let byte = self.bytes.get(self.places.at[column as usize]).copied();
        self.take(column, 1)?;
        Ok(byte.unwrap_or(0))
    }

    #[inline(always)]
    fn slot_if(&mut self, column: Column, _high: u8, wanted: bool) -> Result<u16, BadEvent> {
        let at = self.places.at[column as usize];
        let slot = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        self.take(column, usize::from(wanted) * 2)?;
        Ok(slot.map_or(0, |slot| u16::from_le_bytes(*slot)))
    }

    #[inline(always)]
    fn number(&mut self, column: Column) -> Result<u64, BadEvent> {
        let word = word_at(self.bytes, self.places.at[column as usize]);
        if let Some((value, length)) = word.and_then(varint_in) {
            self.take(column, length)?;
            return Ok(value);
        }
        cold_number(self, column)
    }
}
