//! Which part of memory the stack of the calling thread is.

use core::mem::MaybeUninit;

use heaptide_unwind::Stack;
use rustix::fs::{Mode, OFlags};

/// The stacks that a thread was last seen on: its own, that of its signal handlers, those of its coroutines.
pub(super) struct KnownStacks {
    stacks: [Stack; 4],
    next: usize,
}

impl KnownStacks {
    pub(super) const fn new() -> Self {
        Self {
            // SAFETY: empty.
            stacks: [unsafe { Stack::new(0, 0) }; 4],
            next: 0,
        }
    }
}

/// The mapping that holds the stack pointer of the calling thread; `None` where the kernel does not say.
///
/// A stack that grows (the main thread's) is asked for again when it has. One that was unmapped and mapped again with less room
/// is read beyond its end only if a frame leads there.
#[inline]
pub(super) fn around(known: &mut KnownStacks, stack_pointer: usize) -> Option<Stack> {
    let found = known
        .stacks
        .iter()
        .find(|stack| stack.contains(stack_pointer));
    match found {
        Some(stack) => Some(*stack),
        None => ask(known, stack_pointer),
    }
}

#[cold]
#[inline(never)]
fn ask(known: &mut KnownStacks, stack_pointer: usize) -> Option<Stack> {
    let (low, high) = mapping_around(stack_pointer)?;
    // SAFETY: a stack is mapped as long as a thread is on it.
    let stack = unsafe { Stack::new(low, high) };
    // The same one, grown: it takes the place of what it was.
    let place = known
        .stacks
        .iter()
        .position(|other| other.contains(high - 1))
        .unwrap_or_else(|| {
            known.next = (known.next + 1) % known.stacks.len();
            known.next
        });
    known.stacks[place] = stack;
    Some(stack)
}

/// Start and end of the mapping that holds an address, by `/proc/self/maps`.
fn mapping_around(address: usize) -> Option<(usize, usize)> {
    let maps = rustix::fs::open(
        c"/proc/self/maps",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 1024];
    let mut line = Line::new();
    loop {
        let (bytes, _) = rustix::io::read(&maps, &mut buffer).ok()?;
        if bytes.is_empty() {
            return None;
        }
        for &byte in &*bytes {
            if let Some((low, high)) = line.take(byte)
                && (low..high).contains(&address)
            {
                return Some((low, high));
            }
        }
    }
}

/// The numbers at the start of a line, read byte by byte: `low-high ` in hexadecimal.
struct Line {
    low: usize,
    number: usize,
    field: u8,
}

impl Line {
    const fn new() -> Self {
        Self {
            low: 0,
            number: 0,
            field: 0,
        }
    }

    fn take(&mut self, byte: u8) -> Option<(usize, usize)> {
        match (byte, self.field) {
            (b'\n', _) => *self = Self::new(),
            (b'-', 0) => {
                self.low = self.number;
                (self.number, self.field) = (0, 1);
            }
            (b' ', 1) => {
                self.field = 2;
                return Some((self.low, self.number));
            }
            (byte, 0 | 1) => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.number = self.number << 4 | digit as usize;
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_a_mapping_is() {
        let text =
            b"7ffc-8000 rw-p 00000000 00:00 0 [sta-ck]\nffffffffff600000-ffffffffff601000 --xp\n";
        let mut line = Line::new();
        let found: Vec<_> = text.iter().filter_map(|&byte| line.take(byte)).collect();
        assert_eq!(
            found,
            [
                (0x7ffc, 0x8000),
                (0xffff_ffff_ff60_0000, 0xffff_ffff_ff60_1000)
            ]
        );
    }

    #[test]
    fn stacks_are_found_and_remembered() {
        let here = 0u8;
        let address = (&raw const here).addr();
        let mut known = KnownStacks::new();
        let stack = around(&mut known, address).expect("a stack");
        assert!(stack.contains(address));
        assert_eq!(around(&mut known, address + 8), Some(stack));
        std::thread::spawn(move || {
            let there = 0u8;
            let other = around(&mut KnownStacks::new(), (&raw const there).addr());
            assert!(other.is_some_and(|other| !other.contains(address)));
        })
        .join()
        .expect("no panic");
    }
}
