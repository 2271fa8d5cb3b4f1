//! Builds without the GIL: each thread specialises a copy of the byte code of its own, so an instruction is an address in one of several.
//!
//! A code object has an array of its copies, by the number that the interpreter gives to each thread state; number zero is the byte code within the
//! code object itself. The array is replaced by a larger one when a thread with a higher number comes, and the old one is freed when all threads
//! that are *attached* to the interpreter have passed a safe point since. A thread that is detached (it has "released the GIL") is not waited
//! for: there the array is read with a system call that fails where a load would crash, and not believed if it was replaced meanwhile.
//!
//! The copies themselves stay for as long as the code object and the thread state with their number are there. A frame of another number is
//! met in one place only: a generator that another thread has run, between its being pushed and its first instruction.

use core::ffi::{c_int, c_ulong, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::Layout;
use crate::frame::{CODE_UNIT, RawFrame, pointer, read};

/// `_Py_THREAD_ATTACHED`
const ATTACHED: i32 = 1;
/// Offset of `entries` in `_PyCodeArray`; the first word is their number.
const ENTRIES: usize = 8;
/// How many times an array that is being replaced is read again.
const MOST_READS: u32 = 8;

/// Whose copies are the calling thread's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The thread state: its address and its number, which together are no other's of the same interpreter, ever.
    pub identity: (usize, u64),
    /// The number of its copies.
    pub copy: u32,
    /// Is the thread attached to the interpreter? Then what others replace stays until it passes a safe point.
    pub attached: bool,
}

impl Holder {
    /// # Safety
    /// `state` is what [`crate::Interpreter::thread_state`] returned on this thread just now, not null; `layout` is that of its interpreter, which
    /// is one without the GIL.
    #[inline(always)]
    #[must_use]
    pub unsafe fn of(layout: &Layout, state: *const u8) -> Self {
        let copies = &layout.copies;
        // SAFETY: a live thread state (the caller) with its fields where the table says. Its status is written by others only while it is
        // detached, and never to "attached".
        unsafe {
            Self {
                identity: (state.addr(), read::<u64>(state, copies.thread_number)),
                copy: read::<u32>(state, copies.of_thread),
                attached: read::<i32>(state, copies.thread_status) == ATTACHED,
            }
        }
    }
}

/// As [`crate::last_instruction`]; -1, too, where the copy cannot be told.
///
/// # Safety
/// The three come from one frame that is on the calling thread's stack; `ATTACHED_NOW`: the thread is attached.
#[inline(always)]
pub(crate) unsafe fn last_instruction<const ATTACHED_NOW: bool>(
    layout: &Layout,
    code: *const u8,
    instruction: usize,
    copy: u32,
) -> i32 {
    // SAFETY: the caller's promise, handed on; the frame holds the code object.
    unsafe {
        let Some(byte_code) = byte_code::<ATTACHED_NOW>(layout, code, copy) else {
            return -1;
        };
        let offset = instruction.wrapping_sub(byte_code);
        let length = read::<usize>(code, layout.copies.code_units).saturating_mul(CODE_UNIT);
        if offset < length {
            i32::try_from(offset).unwrap_or(i32::MAX)
        } else {
            -1
        }
    }
}

/// Whether the byte code has come so far that the frame is shown whoever owns it. Yes, where the copy cannot be told.
///
/// # Safety
/// As `last_instruction`; `raw` was read from the frame, and has code.
#[inline(always)]
pub(crate) unsafe fn is_traceable<const ATTACHED_NOW: bool>(
    layout: &Layout,
    raw: &RawFrame,
) -> bool {
    // SAFETY: as in `last_instruction`.
    unsafe {
        let Some(byte_code) = byte_code::<ATTACHED_NOW>(layout, raw.code, raw.copy) else {
            return true;
        };
        let first = read::<i32>(raw.code, layout.code.first_traceable) as isize as usize;
        raw.instruction >= byte_code.wrapping_add(first.wrapping_mul(CODE_UNIT))
    }
}

/// Address of a copy of the byte code.
///
/// # Safety
/// `code` is a live code object; `ATTACHED_NOW`: the calling thread is attached.
#[inline(always)]
unsafe fn byte_code<const ATTACHED_NOW: bool>(
    layout: &Layout,
    code: *const u8,
    copy: u32,
) -> Option<usize> {
    if copy == 0 {
        return Some(code.addr() + layout.code.instructions as usize);
    }
    if !ATTACHED_NOW {
        // SAFETY: the caller's promise.
        return unsafe { byte_code_from_afar(layout, code, copy) };
    }
    // SAFETY: the array was there when the pointer was read, and stays until this thread passes a safe point.
    unsafe {
        let array: *const u8 = core::ptr::with_exposed_provenance(array_of(layout, code));
        if array.is_null() || copy as usize >= read::<usize>(array, 0) {
            return None;
        }
        let entry = pointer(
            array.add(copy as usize * size_of::<usize>()),
            ENTRIES as u32,
        )
        .addr();
        (entry != 0).then_some(entry)
    }
}

/// As `byte_code`, where the array may go at any instant.
///
/// # Safety
/// `code` is a live code object.
#[cold]
#[inline(never)]
unsafe fn byte_code_from_afar(layout: &Layout, code: *const u8, copy: u32) -> Option<usize> {
    for _ in 0..MOST_READS {
        // SAFETY: the caller's promise.
        let array = unsafe { array_of(layout, code) };
        // Arrays only grow, so there is an entry of that number. (If there is none all the same, what is read is no address near the instruction.)
        let entry = checked_read::<1>(array + ENTRIES + copy as usize * size_of::<usize>());
        // SAFETY: as above.
        if unsafe { array_of(layout, code) } == array {
            // It had not been replaced when it was read, hence not freed.
            return entry.and_then(|[entry]| (entry != 0).then_some(entry));
        }
    }
    None
}

/// # Safety
/// `code` is a live code object.
#[inline(always)]
unsafe fn array_of(layout: &Layout, code: *const u8) -> usize {
    // SAFETY: the field lies there, is aligned, and others write it with a release.
    unsafe {
        let place = code.add(layout.copies.of_code as usize).cast_mut();
        AtomicUsize::from_ptr(place.cast()).load(Ordering::Acquire)
    }
}

unsafe extern "C" {
    safe fn getpid() -> c_int;
    safe fn __errno_location() -> *mut c_int;
    fn process_vm_readv(
        pid: c_int,
        local: *const Slice,
        local_count: c_ulong,
        remote: *const Slice,
        remote_count: c_ulong,
        flags: c_ulong,
    ) -> isize;
}

/// `struct iovec`
#[repr(C)]
struct Slice {
    start: *mut c_void,
    bytes: usize,
}

/// Some words at `address`, or nothing if they cannot be read. `errno` stays as it is.
#[must_use]
pub fn checked_read<const WORDS: usize>(address: usize) -> Option<[usize; WORDS]> {
    let mut words = [0usize; WORDS];
    let bytes = size_of_val(&words);
    let local = Slice {
        start: words.as_mut_ptr().cast(),
        bytes,
    };
    let remote = Slice {
        start: core::ptr::without_provenance_mut(address),
        bytes,
    };
    // SAFETY: the kernel checks the remote side; the local side is our array. errno is put back.
    let read = unsafe {
        let errno = __errno_location();
        let before = *errno;
        let read = process_vm_readv(getpid(), &raw const local, 1, &raw const remote, 1, 0);
        *errno = before;
        read
    };
    (read == bytes as isize).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A code object with two copies and as many words of byte code, and the array of its copies.
    struct Code {
        layout: Layout,
        object: [usize; 31],
        array: [usize; 5],
    }

    impl Code {
        fn new() -> Box<Self> {
            let layout = Layout::table_without_gil(0x030e_00f0).unwrap();
            let mut code = Box::new(Self {
                layout,
                object: [0; 31],
                array: [4, 0, 0x1000, 0, 0x3000],
            });
            code.object[layout.copies.code_units as usize / 8] = 6;
            code.object[layout.copies.of_code as usize / 8] =
                code.array.as_ptr().expose_provenance();
            // The first traceable instruction is the third.
            code.object[layout.code.first_traceable as usize / 8] = 2;
            code
        }

        fn address(&self) -> *const u8 {
            self.object.as_ptr().cast()
        }

        fn last(&self, instruction: usize, copy: u32) -> i32 {
            // SAFETY: looks like a code object, and nobody changes it.
            unsafe {
                let attached =
                    last_instruction::<true>(&self.layout, self.address(), instruction, copy);
                let detached =
                    last_instruction::<false>(&self.layout, self.address(), instruction, copy);
                assert_eq!(attached, detached);
                attached
            }
        }
    }

    #[test]
    fn an_instruction_is_an_offset_in_its_own_copy() {
        let code = Code::new();
        let own = code.address().addr() + code.layout.code.instructions as usize;
        assert_eq!(code.last(own + 4, 0), 4);
        assert_eq!(code.last(0x1000, 1), 0);
        assert_eq!(code.last(0x100a, 1), 10);
        assert_eq!(code.last(0x3006, 3), 6);
        assert_eq!(code.last(0x100c, 1), -1, "behind its end");
        assert_eq!(code.last(0x0ffe, 1), -1, "before its start");
        assert_eq!(code.last(0x1002, 2), -1, "a copy that was cleared");
        assert_eq!(code.last(0x1002, u32::MAX), -1, "no number");
        // SAFETY: as in `Code::last`.
        let beyond = unsafe { last_instruction::<true>(&code.layout, code.address(), 0x1002, 4) };
        assert_eq!(beyond, -1, "a number beyond the array");
    }

    #[test]
    fn frames_are_shown_by_their_own_copy() {
        let code = Code::new();
        let shown = |instruction, copy| {
            let raw = RawFrame {
                previous: core::ptr::null(),
                code: code.address(),
                instruction,
                owner: 0,
                copy,
            };
            // SAFETY: as in `Code::last`.
            unsafe { is_traceable::<true>(&code.layout, &raw) }
        };
        assert!(!shown(0x1002, 1));
        assert!(shown(0x1004, 1));
        assert!(!shown(0x3002, 3));
        assert!(shown(0x3004, 3));
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        let words = [1usize, 2, 3];
        assert_eq!(checked_read(words.as_ptr().addr()), Some(words));
        assert_eq!(checked_read::<1>(8), None);
    }
}
