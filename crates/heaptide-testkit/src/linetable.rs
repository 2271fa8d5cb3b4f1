//! Makes location tables as CPython 3.11 and later have them (`Objects/locations.md` of CPython
//! describes the form).

/// Column of every instruction of a synthetic function.
pub const COLUMN: u32 = 4;
/// End column of every instruction of a synthetic function.
pub const END_COLUMN: u32 = 20;

/// Code unit `n` (byte offset `2 * n`) is on line `first_line + n`.
#[must_use]
pub fn one_instruction_a_line(lines: u32) -> Vec<u8> {
    const LONG_FORM: u8 = 14;
    let mut table = Vec::new();
    for index in 0..lines {
        // The entry covers one code unit.
        table.push(0x80 | LONG_FORM << 3);
        push_signed(&mut table, i32::from(index > 0));
        push_varint(&mut table, 0);
        push_varint(&mut table, COLUMN + 1);
        push_varint(&mut table, END_COLUMN + 1);
    }
    table
}

fn push_varint(table: &mut Vec<u8>, mut value: u32) {
    while value >= 0x40 {
        table.push(0x40 | (value & 0x3F) as u8);
        value >>= 6;
    }
    table.push(value as u8);
}

fn push_signed(table: &mut Vec<u8>, value: i32) {
    let sign = u32::from(value < 0);
    push_varint(table, value.unsigned_abs() << 1 | sign);
}
