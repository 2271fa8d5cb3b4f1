//! How a frame leads to its caller's.

use crate::{Registers, Stack};

/// How the canonical frame address (CFA, what `rsp` is in the caller) is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Base {
    /// There is no caller, or nobody knows.
    End = 0,
    /// `rsp` and an offset.
    StackPointer = 1,
    /// `rbp` and an offset.
    FramePointer = 2,
    /// It is in the word at `rbp` and an offset: functions that align their stack.
    WordAtFramePointer = 3,
    /// What the kernel has put aside when it called a signal handler: a `ucontext_t` at `rsp`.
    Signal = 4,
}

/// What becomes of `rbp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Saved {
    /// It is the caller's.
    Kept = 0,
    /// The caller's is in the word at the CFA and an offset.
    AtCfa = 1,
    /// The caller's is in the word at `rbp` and an offset.
    AtFramePointer = 2,
    /// Nobody knows the caller's.
    Lost = 3,
}

/// How the frame that goes on at some address leads to its caller's. The return address is in the word before the CFA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(crate) base: Base,
    pub(crate) saved: Saved,
    /// In words.
    pub(crate) saved_offset: i16,
    pub(crate) cfa_offset: i32,
}

const WORD: usize = size_of::<usize>();

/// Offsets into the `ucontext_t` of Linux on x86-64: of `rbp`, `rsp` and `rip`.
const SIGNAL_FRAME_POINTER: usize = 120;
const SIGNAL_STACK_POINTER: usize = 160;
const SIGNAL_INSTRUCTION: usize = 168;

impl Rule {
    /// The frame has no caller, or none that is known.
    pub const END: Self = Self {
        base: Base::End,
        saved: Saved::Lost,
        saved_offset: 0,
        cfa_offset: 0,
    };

    /// `push rbp; mov rbp, rsp`
    pub const BY_FRAME_POINTER: Self = Self {
        base: Base::FramePointer,
        saved: Saved::AtCfa,
        saved_offset: -2,
        cfa_offset: 16,
    };

    /// The caller's registers; `None` where there is no caller, or it cannot be.
    #[must_use]
    #[inline(always)]
    pub fn apply(self, frame: &Registers, stack: &Stack) -> Option<Registers> {
        let offset = self.cfa_offset as isize as usize;
        let cfa = match self.base {
            Base::StackPointer => frame.stack_pointer.wrapping_add(offset),
            Base::FramePointer => frame.frame_pointer.wrapping_add(offset),
            Base::WordAtFramePointer => stack.word(frame.frame_pointer.wrapping_add(offset))?,
            Base::End => return None,
            Base::Signal => return interrupted(frame, stack),
        };
        // Outwards only, so every walk ends.
        if cfa <= frame.stack_pointer {
            return None;
        }
        let instruction = stack.word(cfa.wrapping_sub(WORD))?;
        let saved_offset = (self.saved_offset as isize as usize).wrapping_mul(WORD);
        let frame_pointer = match self.saved {
            Saved::Kept => frame.frame_pointer,
            Saved::AtCfa => stack.word(cfa.wrapping_add(saved_offset))?,
            Saved::AtFramePointer => stack.word(frame.frame_pointer.wrapping_add(saved_offset))?,
            Saved::Lost => 0,
        };
        (instruction != 0).then_some(Registers {
            instruction,
            stack_pointer: cfa,
            frame_pointer,
        })
    }

    pub(crate) const fn to_bits(self) -> u64 {
        self.base as u64
            | (self.saved as u64) << 8
            | (self.saved_offset as u16 as u64) << 16
            | (self.cfa_offset as u32 as u64) << 32
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self {
            base: match bits as u8 {
                1 => Base::StackPointer,
                2 => Base::FramePointer,
                3 => Base::WordAtFramePointer,
                4 => Base::Signal,
                _ => Base::End,
            },
            saved: match (bits >> 8) as u8 {
                0 => Saved::Kept,
                1 => Saved::AtCfa,
                2 => Saved::AtFramePointer,
                _ => Saved::Lost,
            },
            saved_offset: (bits >> 16) as i16,
            cfa_offset: (bits >> 32) as i32,
        }
    }
}

/// What a signal has interrupted, if it is on the same stack.
#[cold]
fn interrupted(frame: &Registers, stack: &Stack) -> Option<Registers> {
    let word = |offset: usize| stack.word(frame.stack_pointer.wrapping_add(offset));
    let stack_pointer = word(SIGNAL_STACK_POINTER)?;
    // The instruction is about to be executed. One byte on it is like a return address, before which one looks.
    let instruction = word(SIGNAL_INSTRUCTION)?.wrapping_add(1);
    let frame_pointer = word(SIGNAL_FRAME_POINTER)?;
    (stack_pointer > frame.stack_pointer && stack.contains(stack_pointer)).then_some(Registers {
        instruction,
        stack_pointer,
        frame_pointer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_what_its_bits_say() {
        for base in [
            Base::End,
            Base::StackPointer,
            Base::FramePointer,
            Base::WordAtFramePointer,
            Base::Signal,
        ] {
            for saved in [
                Saved::Kept,
                Saved::AtCfa,
                Saved::AtFramePointer,
                Saved::Lost,
            ] {
                for saved_offset in [0, -2, 7, i16::MIN, i16::MAX] {
                    for cfa_offset in [0, 8, -8, i32::MIN, i32::MAX] {
                        let rule = Rule {
                            base,
                            saved,
                            saved_offset,
                            cfa_offset,
                        };
                        assert_eq!(Rule::from_bits(rule.to_bits()), rule);
                    }
                }
            }
        }
    }

    #[test]
    fn rules_lead_outwards_and_stay_inside_the_stack() {
        let words = [0usize, 11, 22, 33, 44, 55];
        let start = words.as_ptr().expose_provenance();
        // SAFETY: the words of an array that lives on.
        let stack = unsafe { Stack::new(start, start + size_of_val(&words)) };
        let frame = Registers {
            instruction: 1,
            stack_pointer: start,
            frame_pointer: start + 16,
        };
        let by = |base, cfa_offset, saved, saved_offset| Rule {
            base,
            saved,
            saved_offset,
            cfa_offset,
        };
        let caller = |instruction, stack_pointer, frame_pointer| {
            Some(Registers {
                instruction,
                stack_pointer,
                frame_pointer,
            })
        };
        let kept = by(Base::StackPointer, 16, Saved::Kept, 0);
        assert_eq!(
            kept.apply(&frame, &stack),
            caller(11, start + 16, start + 16)
        );
        let popped = by(Base::StackPointer, 40, Saved::AtCfa, -3);
        assert_eq!(popped.apply(&frame, &stack), caller(44, start + 40, 22));
        assert_eq!(
            Rule::BY_FRAME_POINTER.apply(&frame, &stack),
            caller(33, start + 32, 22)
        );
        let lost = by(Base::FramePointer, 32, Saved::Lost, 0);
        assert_eq!(lost.apply(&frame, &stack), caller(55, start + 48, 0));
        // No return address, no progress, beyond the end, not aligned.
        for (offset, base) in [
            (8, Base::StackPointer),
            (0, Base::StackPointer),
            (-8, Base::StackPointer),
            (56, Base::StackPointer),
            (20, Base::StackPointer),
            (i32::MAX, Base::FramePointer),
            (i32::MIN, Base::FramePointer),
            (0, Base::WordAtFramePointer),
            (0, Base::Signal),
            (0, Base::End),
        ] {
            assert_eq!(
                by(base, offset, Saved::Kept, 0).apply(&frame, &stack),
                None,
                "{offset} {base:?}"
            );
        }
        let beyond = by(Base::StackPointer, 16, Saved::AtCfa, 100);
        assert_eq!(beyond.apply(&frame, &stack), None);
    }
}
