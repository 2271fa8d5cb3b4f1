//! Files of what was live at the peak and at the end (`--aggregate`), header versions 10 to 13.

use crate::events::read_code;
use crate::header::{Header, NEW_EVENTS};
use crate::input::{Input, Problem, Result};
use crate::translation::{Kind, Standing, Translation};

pub(crate) fn read(
    input: &mut Input,
    header: &Header,
    translation: &mut Translation,
) -> Result<()> {
    let new = header.version >= NEW_EVENTS;
    let mut native_frame = 0;
    let mut instruction = 0;
    let mut first_line = 0;
    loop {
        match input.byte()? {
            1 => {
                let time = input.u64()?;
                let resident = input.u64()?;
                let heap = input.u64()?;
                translation.sample(time, resident, heap);
            }
            2 => read_standing(input, new, translation)?,
            3 => {
                let frame = if new { input.varint()? } else { input.u64()? };
                let parent = if new {
                    input.varint()?
                } else {
                    u64::from(u32::from_le_bytes(input.array()?))
                };
                translation.define_stack(frame, parent);
            }
            4 if new => {
                let number = input.varint()?;
                let code = input.varint()?;
                let offset = input.signed()?;
                let is_entry = input.byte()? != 0;
                translation.define_frame(number, code, offset, is_entry);
            }
            4 => {
                let number = input.u64()?;
                let function = input.text()?;
                let file = input.text()?;
                let line = i32::from_le_bytes(input.array()?);
                let is_entry = input.byte()? != 0;
                translation.define_code(number, &function, &file, line, &[]);
                translation.define_frame(number, number, 0, is_entry);
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
            13 if new => {
                let address = input.varint()? << 3;
                let native = match header.native {
                    true => input.varint()?,
                    false => 0,
                };
                translation.survivor(address, native)?;
            }
            14 if new => read_code(input, &mut first_line, translation)?,
            15 => return Ok(()),
            _ => return Err(Problem::Damaged("a record of a kind that is not known")),
        }
    }
}

/// What one stack, thread and allocator held: a structure of C, 72 bytes.
fn read_standing(input: &mut Input, new: bool, translation: &mut Translation) -> Result<()> {
    let thread = input.u64()?;
    let allocator = input.array::<8>()?[0];
    let native_frame = input.u64()?;
    let stack = input.u64()?;
    let generation = input.u64()?;
    let peak_count = input.u64()?;
    let live_count = input.u64()?;
    let peak_bytes = input.u64()?;
    let live_bytes = input.u64()?;
    let kind = if new {
        Kind::of(allocator)?
    } else {
        Kind::of_legacy(allocator)?
    };
    translation.standing(
        thread,
        stack,
        (native_frame, generation),
        kind,
        Standing {
            peak_count,
            live_count,
            peak_bytes,
            live_bytes,
        },
    )
}
