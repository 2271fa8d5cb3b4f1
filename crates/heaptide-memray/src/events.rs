//! Files of every event, header versions 12 and 13.
//!
//! A token tells the kind of a record by its highest set bit:
//! ```text
//! 1 pppp aaa   allocation      01 iiiii e   frame pushed       001 pppp c   object made or gone
//! 0001 nnnn    frames popped   0000 kkkk    another record, by its number
//! ```

use crate::header::Header;
use crate::input::{Input, Problem, Result};
use crate::translation::{Kind, Translation};

const FREE: u8 = 5;
const PYMALLOC_FREE: u8 = 1;

/// The addresses that were written in full lately, the last one first.
struct Lately {
    addresses: [u64; 15],
    first: usize,
    /// An eighth of the last one.
    last: u64,
}

impl Lately {
    fn address(&mut self, input: &mut Input, place: u8) -> Result<u64> {
        let count = self.addresses.len();
        if usize::from(place) < count {
            return Ok(self.addresses[(self.first + usize::from(place)) % count]);
        }
        let address = input.next_of(&mut self.last)? << 3;
        self.first = (self.first + count - 1) % count;
        self.addresses[self.first] = address;
        Ok(address)
    }
}

pub(crate) fn read(
    input: &mut Input,
    header: &Header,
    translation: &mut Translation,
) -> Result<()> {
    let mut lately = Lately {
        addresses: [0; 15],
        first: 0,
        last: 0,
    };
    let mut native_frame = 0;
    let mut instruction = 0;
    let mut first_line = 0;
    loop {
        let token = input.byte()?;
        match token.leading_zeros() {
            0 => {
                let address = lately.address(input, token >> 3 & 15)?;
                let allocator = match token & 7 {
                    0 => input.byte()?,
                    known => known,
                };
                let allocates = allocator != FREE && allocator != PYMALLOC_FREE;
                let (mut size, mut native) = (0, 0);
                if allocates {
                    if header.native {
                        native = input.next_of(&mut native_frame)?;
                    }
                    size = input.varint()?;
                }
                translation.event(Kind::of(allocator)?, address, size, native)?;
            }
            1 => {
                let code = input.varint()?;
                let offset = input.signed()?;
                translation.push(code, offset, token & 1 == 1);
            }
            2 => {
                let address = lately.address(input, token >> 1 & 15)?;
                let made = token & 1 == 1;
                let native = match header.native && made {
                    true => input.next_of(&mut native_frame)?,
                    false => 0,
                };
                translation.object(made, address, native)?;
            }
            3 => translation.pop(u64::from(token & 15) + 1),
            _ => match token {
                1 => return Ok(()),
                2 => {
                    let resident = input.varint()?;
                    let since_start = input.varint()?;
                    let time = header.start_ms.saturating_add(since_start);
                    translation.sample(time, resident, 0);
                }
                5 => {
                    let instruction = input.next_of(&mut instruction)?;
                    let parent = input.next_of(&mut native_frame)?;
                    translation.native_frame(instruction, parent);
                }
                6 => translation.mappings(),
                7 => translation.module(input)?,
                8 => translation.segment(input)?,
                10 => {
                    let name = input.text()?;
                    translation.name_thread(&name);
                }
                12 => {
                    let thread = input.u64()?;
                    translation.switch(thread)?;
                }
                14 => read_code(input, &mut first_line, translation)?,
                0 => return Err(Problem::Ends),
                _ => return Err(Problem::Damaged("a record of a kind that is not known")),
            },
        }
    }
}

/// A code object, as versions 12 and 13 have it in both forms.
pub(crate) fn read_code(
    input: &mut Input,
    first_line: &mut u64,
    translation: &mut Translation,
) -> Result<()> {
    let number = input.varint()?;
    let function = input.text()?;
    let file = input.text()?;
    let first = input.next_of(first_line)? as i32;
    let length = input.varint()?;
    let table = input.bytes(length)?;
    translation.define_code(number, &function, &file, first, &table);
    Ok(())
}
