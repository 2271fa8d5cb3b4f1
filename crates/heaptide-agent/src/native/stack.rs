//! Which part of memory the stack of the calling thread is.
//!
//! A thread's own stack stays mapped for as long as the thread is there, so it is asked for once. Other stacks (of signal handlers,
//! of coroutines) come and go: of these only what is mapped at this moment is believed, and not far.

use core::mem::MaybeUninit;

use heaptide_unwind::Stack;
use rustix::fs::{Mode, OFlags};

/// How much of a stack that is not the thread's own is looked at, where that is mapped: so much, or less.
const FOREIGN_BYTES: [usize; 5] = [256 << 10, 64 << 10, 16 << 10, 8 << 10, 4 << 10];
const PAGE: usize = 4096;
/// How often the kernel is asked while the answer is another stack than the thread's own.
const MOST_QUESTIONS: u8 = 16;
/// A stack of the main thread that has grown is asked for again if it is not further off.
const GROWTH: usize = 64 << 20;

/// The stack that a thread was given when it began.
pub(super) struct OwnStack {
    stack: Stack,
    low: usize,
    high: usize,
    questions: u8,
}

impl OwnStack {
    pub(super) const fn new() -> Self {
        Self {
            // SAFETY: empty.
            stack: unsafe { Stack::new(0, 0) },
            low: 0,
            high: 0,
            questions: 0,
        }
    }
}

/// The stack that the calling thread is on.
#[inline]
pub(super) fn around(own: &mut OwnStack, stack_pointer: usize) -> Option<Stack> {
    if own.low <= stack_pointer && stack_pointer < own.high {
        return Some(own.stack);
    }
    another(own, stack_pointer)
}

#[cold]
#[inline(never)]
fn another(own: &mut OwnStack, stack_pointer: usize) -> Option<Stack> {
    let may_be_own = own.high == 0 && own.questions < MOST_QUESTIONS
        || stack_pointer < own.low && own.low - stack_pointer < GROWTH && own.is_of_main_thread();
    if may_be_own {
        own.questions = own.questions.saturating_add(1);
        if let Some((low, high)) = mapping_around(stack_pointer)
            && let Some(high) = end_of_own(low, high, stack_pointer)
        {
            // SAFETY: the thread is on it for as long as it lives.
            own.stack = unsafe { Stack::new(low, high) };
            (own.low, own.high) = (low, high);
            return Some(own.stack);
        }
    }
    let low = stack_pointer & !(PAGE - 1);
    let high = (FOREIGN_BYTES.iter())
        .map(|bytes| low.saturating_add(*bytes))
        .find(|&high| is_mapped(low, high))?;
    // SAFETY: mapped just now; the thread stands still while it is looked at.
    Some(unsafe { Stack::new(stack_pointer, high) })
}

impl OwnStack {
    fn is_of_main_thread(&self) -> bool {
        (self.low..self.high).contains(&main_stack())
    }
}

/// Where the own stack of the calling thread ends, if the mapping that holds its stack pointer is that.
fn end_of_own(low: usize, high: usize, stack_pointer: usize) -> Option<usize> {
    // The C library keeps what belongs to a thread at the end of its stack.
    let thread = thread_pointer();
    if (stack_pointer..high).contains(&thread) {
        return Some(thread);
    }
    (low..high).contains(&main_stack()).then_some(high)
}

/// An address at the outer end of the main thread's stack, by which the kernel has told the name of the program.
fn main_stack() -> usize {
    // SAFETY: takes and keeps nothing.
    (unsafe { libc::getauxval(libc::AT_EXECFN) }) as usize
}

fn thread_pointer() -> usize {
    // SAFETY: takes and keeps nothing. It is the address of the thread's descriptor.
    (unsafe { libc::pthread_self() }) as usize
}

/// Are all pages of a range mapped? `low` begins one.
pub(super) fn is_mapped(low: usize, high: usize) -> bool {
    let mut pages = [0u8; 64];
    let low = low & !(PAGE - 1);
    let mut at = low;
    while at < high {
        let bytes = (high - at).min(pages.len() * PAGE);
        // SAFETY: writes a byte for each page, of which there are no more than places. Around the C library, so `errno` stays.
        let result = unsafe { mincore(at, bytes, pages.as_mut_ptr()) };
        if result != 0 {
            return false;
        }
        at += bytes;
    }
    low < high
}

/// The system call itself.
#[cfg(target_arch = "x86_64")]
unsafe fn mincore(start: usize, bytes: usize, pages: *mut u8) -> isize {
    let result: isize;
    // SAFETY: the caller's promise; the kernel keeps all other registers.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") libc::SYS_mincore as isize => result,
            in("rdi") start,
            in("rsi") bytes,
            in("rdx") pages,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Nobody asks.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn mincore(_start: usize, _bytes: usize, _pages: *mut u8) -> isize {
    -1
}

/// Start and end of the mapping that holds an address, by `/proc/self/maps`.
fn mapping_around(address: usize) -> Option<(usize, usize)> {
    let maps = rustix::fs::open(
        c"/proc/self/maps",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    // Small: it is on a stack that may have little room.
    let mut buffer = [MaybeUninit::<u8>::uninit(); 256];
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
    fn the_own_stack_is_found_once_and_others_by_what_is_mapped() {
        let here = 0u8;
        let address = (&raw const here).addr();
        let mut own = OwnStack::new();
        let stack = around(&mut own, address).expect("a stack");
        assert!(stack.contains(address) && own.high > address);
        assert_eq!(around(&mut own, address - 8), Some(stack));
        assert_eq!(own.questions, 1);
        let memory = heaptide_recorder::Mapping::new(3 * PAGE).expect("memory");
        let start = memory.as_ptr::<u8>().addr();
        assert!(is_mapped(start, start + 3 * PAGE));
        for pages in 1..=3 {
            let inside = start + 3 * PAGE - pages * PAGE + 16;
            let other = around(&mut own, inside).expect("it is mapped");
            assert!(other.contains(inside) && other != stack);
        }
        drop(memory);
        assert!(!is_mapped(start, start + PAGE));
        std::thread::spawn(move || {
            let there = 0u8;
            let mut other = OwnStack::new();
            let found = around(&mut other, (&raw const there).addr()).expect("a stack");
            assert!(!found.contains(address) && other.high != 0);
        })
        .join()
        .expect("no panic");
    }
}
