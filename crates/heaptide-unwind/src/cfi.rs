//! From call frame information to rules.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, Operation, Register,
    RegisterRule, UnwindContext, UnwindContextStorage, UnwindExpression, UnwindSection, X86_64,
};

use crate::Rule;
use crate::rule::{Base, Saved};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Where a loaded object has its unwind information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnwindInfo {
    /// Address of `.eh_frame_hdr` (`PT_GNU_EH_FRAME`).
    pub header: usize,
    /// Start of the mapped segment that holds it, and `.eh_frame`, too.
    pub start: usize,
    /// End of that segment.
    pub end: usize,
}

/// Room for what real code has: rules of a few registers, and states put aside once or twice.
struct InPlace;

impl UnwindContextStorage<usize> for InPlace {
    type Rules = [(Register, RegisterRule<usize>); 32];
    type Stack = [gimli::UnwindTableRow<usize, Self>; 6];
}

/// Finds rules. Large (some 10 kB), so that nothing else needs room for it.
pub struct Finder(UnwindContext<usize, InPlace>);

impl Default for Finder {
    fn default() -> Self {
        Self::new()
    }
}

impl Finder {
    /// A finder that has found nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(UnwindContext::new_in())
    }

    /// The rule of the frame that goes on at an address; `None` where the object says nothing of it, or what cannot be
    /// followed.
    ///
    /// # Safety
    /// The bytes from `info.start` to `info.end` can be read.
    #[must_use]
    pub unsafe fn rule(&mut self, info: &UnwindInfo, address: usize) -> Option<Rule> {
        if !(info.start <= info.header && info.header < info.end) {
            return None;
        }
        // A call may be the last instruction of its function.
        let address = address.wrapping_sub(1) as u64;
        // SAFETY: the caller's promise.
        let bytes = |start: usize| unsafe {
            let start_pointer = core::ptr::with_exposed_provenance::<u8>(start);
            Bytes::new(
                core::slice::from_raw_parts(start_pointer, info.end - start),
                LittleEndian,
            )
        };
        let bases = BaseAddresses::default().set_eh_frame_hdr(info.header as u64);
        let header = EhFrameHdr::from(bytes(info.header))
            .parse(&bases, size_of::<usize>() as u8)
            .ok()?;
        let section_start = header.eh_frame_ptr().direct().ok()? as usize;
        if !(info.start <= section_start && section_start < info.end) {
            return None;
        }
        let bases = bases.set_eh_frame(section_start as u64);
        let mut section = EhFrame::from(bytes(section_start));
        section.set_address_size(size_of::<usize>() as u8);
        let entry = header.table()?.lookup(address, &bases).ok()?;
        let offset = (entry.direct().ok()? as usize).checked_sub(section_start)?;
        let entry = section
            .fde_from_offset(&bases, offset.into(), EhFrame::cie_from_offset)
            .ok()?;
        if !entry.contains(address) {
            return None;
        }
        if entry.is_signal_trampoline() {
            return Some(Rule {
                base: Base::Signal,
                ..Rule::END
            });
        }
        let return_address = entry.cie().return_address_register();
        let row = entry
            .unwind_info_for_address(&section, &bases, &mut self.0, address)
            .ok()?;
        match row.register(return_address) {
            // Of the outermost function of a thread.
            Some(RegisterRule::Undefined) => return Some(Rule::END),
            Some(RegisterRule::Offset(-8)) => {}
            _ => return None,
        }
        let (base, cfa_offset) = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => match *register {
                X86_64::RSP => (Base::StackPointer, *offset),
                X86_64::RBP => (Base::FramePointer, *offset),
                _ => return None,
            },
            CfaRule::Expression(expression) => match frame_pointer_and(expression, &section)? {
                (offset, true) => (Base::WordAtFramePointer, offset),
                (offset, false) => (Base::FramePointer, offset),
            },
        };
        let (saved, saved_offset) = match row.register(X86_64::RBP) {
            None | Some(RegisterRule::SameValue) => (Saved::Kept, 0),
            Some(RegisterRule::Offset(offset)) => (Saved::AtCfa, offset),
            Some(RegisterRule::Expression(expression)) => {
                match frame_pointer_and(&expression, &section) {
                    Some((offset, false)) => (Saved::AtFramePointer, offset),
                    _ => (Saved::Lost, 0),
                }
            }
            _ => (Saved::Lost, 0),
        };
        Some(Rule {
            base,
            saved,
            saved_offset: whole_words(saved_offset)?,
            cfa_offset: i32::try_from(cfa_offset).ok()?,
        })
    }
}

/// An offset in words, if it is one.
fn whole_words(offset: i64) -> Option<i16> {
    const WORD: i64 = size_of::<usize>() as i64;
    (offset % WORD == 0).then(|| i16::try_from(offset / WORD).ok())?
}

/// What is added to `rbp` in an expression that does no more, or takes the word there (true).
fn frame_pointer_and(
    expression: &UnwindExpression<usize>,
    section: &EhFrame<Bytes<'_>>,
) -> Option<(i64, bool)> {
    let encoding = gimli::Encoding {
        address_size: size_of::<usize>() as u8,
        format: gimli::Format::Dwarf32,
        version: 4,
    };
    let mut operations = expression.get(section).ok()?.operations(encoding);
    let Operation::RegisterOffset {
        register: X86_64::RBP,
        offset,
        ..
    } = operations.next().ok()??
    else {
        return None;
    };
    match operations.next().ok()? {
        None => Some((offset, false)),
        Some(Operation::Deref {
            size: 8,
            space: false,
            ..
        }) => operations.next().ok()?.is_none().then_some((offset, true)),
        Some(_) => None,
    }
}
