//! Parts of functions that lie elsewhere.
//!
//! Compilers put what seldom runs apart, away from the rest of its function and, in a file without `.symtab`, without a name. Its
//! unwind information says from where to where such a part goes; and as it belongs to a function, it jumps into the middle of that.
//! Nothing else does.

use std::ops::Range;

use gimli::{BaseAddresses, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, UnwindSection};
use object::{Architecture, Object, ObjectSection};

use crate::elf_file::ElfFile;

/// Larger parts are not looked through.
const MOST_BYTES: u64 = 1 << 20;
/// So many jumps into a function say that a part is of it, if they are more than all others together: what looks like a jump may be in
/// the middle of another instruction. Two of these were seen to agree; the parts that matter are large and have hundreds.
const FEWEST_JUMPS: usize = 8;

/// The range of addresses that unwind information has in one piece around an address.
fn piece_around(object: &object::File<'_>, address: u64) -> Option<Range<u64>> {
    let header = object.section_by_name(".eh_frame_hdr")?;
    let frames = object.section_by_name(".eh_frame")?;
    let bases = BaseAddresses::default()
        .set_eh_frame_hdr(header.address())
        .set_eh_frame(frames.address());
    let header = EhFrameHdr::new(header.data().ok()?, LittleEndian);
    let header = header.parse(&bases, size_of::<u64>() as u8).ok()?;
    let section = EhFrame::from(EndianSlice::new(frames.data().ok()?, LittleEndian));
    let entry = header.table()?.lookup(address, &bases).ok()?;
    let offset = entry.direct().ok()?.checked_sub(frames.address())?;
    let offset = usize::try_from(offset).ok()?;
    let entry = section
        .fde_from_offset(&bases, offset.into(), EhFrame::cie_from_offset)
        .ok()?;
    let start = entry.initial_address();
    let end = start.checked_add(entry.len())?;
    (start..end).contains(&address).then_some(start..end)
}

/// Where the jumps of a piece of code lead that leave it, as far as they say so themselves.
fn jumps(code: &[u8], piece: Range<u64>) -> impl Iterator<Item = u64> {
    (0..code.len()).filter_map(move |place| {
        // `jmp`, and the conditional ones, by four bytes.
        let (length, offset) = match code[place..] {
            [0x0f, 0x80..=0x8f, a, b, c, d, ..] => (6, [a, b, c, d]),
            [0xe9, a, b, c, d, ..] => (5, [a, b, c, d]),
            _ => return None,
        };
        let offset = i32::from_le_bytes(offset);
        let next = piece.start.wrapping_add(place as u64 + length);
        let target = next.wrapping_add_signed(i64::from(offset));
        (!piece.contains(&target)).then_some(target)
    })
}

/// An address inside the function that the unnamed code at `address` is a part of. `function_around` knows where the functions with
/// names begin.
pub(crate) fn function_of_part(
    file: &ElfFile,
    address: u64,
    function_around: impl Fn(u64) -> Option<u64>,
) -> Option<u64> {
    let object = file.parse().ok()?;
    if object.architecture() != Architecture::X86_64 {
        return None;
    }
    let piece = piece_around(&object, address)?;
    let bytes = piece.end - piece.start;
    if bytes > MOST_BYTES {
        return None;
    }
    let code = object
        .sections()
        .find_map(|section| section.data_range(piece.start, bytes).ok().flatten())?;
    let mut functions: Vec<u64> = jumps(code, piece)
        // To its start a function is called, also by a jump.
        .filter_map(|target| function_around(target).filter(|start| *start != target))
        .collect();
    functions.sort_unstable();
    let most = functions
        .chunk_by(|one, next| one == next)
        .max_by_key(|same| same.len())?;
    let is_clear = most.len() >= FEWEST_JUMPS && 2 * most.len() > functions.len();
    is_clear.then_some(most[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_are_found_that_leave_a_piece() {
        let mut code = vec![0x90; 40];
        // To 0x1000 + 10 + 5 + 0x100, to 0x1000 + 20 + 6 - 0x200, and one that stays.
        code[10..15].copy_from_slice(&[0xe9, 0x00, 0x01, 0x00, 0x00]);
        code[20..26].copy_from_slice(&[0x0f, 0x84, 0x00, 0xfe, 0xff, 0xff]);
        code[30..35].copy_from_slice(&[0xe9, 0x02, 0x00, 0x00, 0x00]);
        let found: Vec<u64> = jumps(&code, 0x1000..0x1028).collect();
        assert_eq!(found, [0x110f, 0xe1a]);
    }
}
