//! Files of every event, header versions 10 and 11: the kind of a record in the low half of its token, flags
//! in the high half.

use rustc_hash::FxHashSet;

use crate::header::Header;
use crate::input::{Input, Problem, Result};
use crate::translation::{Kind, Translation};

const FREE: u8 = 2;
const PYMALLOC_FREE: u8 = 15;

pub(crate) fn read(
    input: &mut Input,
    header: &Header,
    translation: &mut Translation,
) -> Result<()> {
    let mut address = 0;
    let mut native_frame = 0;
    let mut instruction = 0;
    let mut frame = 0;
    let mut line = 0;
    // The frames that the interpreter was not entered for.
    let mut inner = FxHashSet::default();
    loop {
        let token = input.byte()?;
        let flags = token >> 4;
        match token & 15 {
            0 if flags == 1 => return Ok(()),
            0 => return Err(Problem::Ends),
            kind @ (1 | 2) => {
                let address = input.next_of(&mut address)?;
                let with_native = kind == 2;
                let size = if with_native || (flags != FREE && flags != PYMALLOC_FREE) {
                    input.varint()?
                } else {
                    0
                };
                let native = match with_native {
                    true => input.next_of(&mut native_frame)?,
                    false => 0,
                };
                translation.event(Kind::of_legacy(flags)?, address, size, native)?;
            }
            3 => {
                let number = input.next_of(&mut frame)?;
                let function = input.text()?;
                let file = input.text()?;
                let line = input.next_of(&mut line)? as i32;
                translation.define_code(number, &function, &file, line, &[]);
                if header.native && flags & 1 != 0 {
                    inner.insert(number);
                }
            }
            4 => {
                let number = input.next_of(&mut frame)?;
                translation.push(number, 0, !inner.contains(&number));
            }
            5 => {
                let instruction = input.next_of(&mut instruction)?;
                let parent = input.next_of(&mut native_frame)?;
                translation.native_frame(instruction, parent);
            }
            6 => translation.mappings(),
            7 => translation.module(input)?,
            8 => translation.segment(input)?,
            9 => translation.pop(u64::from(flags) + 1),
            10 => {
                let name = input.text()?;
                translation.name_thread(&name);
            }
            11 => {
                let resident = input.varint()?;
                let since_start = input.varint()?;
                translation.sample(header.start_ms.saturating_add(since_start), resident, 0);
            }
            12 => {
                let thread = input.u64()?;
                translation.switch(thread)?;
            }
            _ => return Err(Problem::Damaged("a record of a kind that is not known")),
        }
    }
}
