//! The entry points of a running interpreter, and whose stack the calling thread has.

use core::ffi::{CStr, c_char, c_ulong, c_void};
use core::mem;
use core::ptr;

use crate::frame::{pointer, read};
use crate::layout::{FrameFamily, Layout};
use crate::unsupported::Unsupported;

unsafe extern "C" {
    /// Async-signal-safe, allocates nothing, cannot fail.
    safe fn pthread_self() -> c_ulong;
}

type GetThreadState = unsafe extern "C" fn() -> *const u8;

/// A running interpreter: how it is laid out and where its few entry points are.
///
/// The entry points that are called read one variable each. They take no lock and allocate nothing.
#[derive(Clone, Copy, Debug)]
pub struct Interpreter {
    /// Where its fields are.
    pub layout: Layout,
    /// `PyThreadState_GetUnchecked` or `_PyThreadState_UncheckedGet`.
    attached: GetThreadState,
    /// `PyGILState_GetThisThreadState`.
    remembered: GetThreadState,
    /// Whether `attached` speaks of the calling thread (3.12 and later) or of whoever holds the GIL.
    attached_is_thread_local: bool,
    /// `PyCode_Type`.
    code_type: *mut u8,
}

// SAFETY: the pointers name functions and a static of the interpreter, which are the same for every thread and are never unloaded.
unsafe impl Send for Interpreter {}
// SAFETY: as above; nothing is written through them here.
unsafe impl Sync for Interpreter {}

impl Interpreter {
    /// Finds the entry points. `resolve` is `dlsym`: from a name to an address, or null.
    ///
    /// # Safety
    /// What `resolve` returns is null or that symbol of one and the same CPython, which stays loaded for ever. `_PyRuntime` from 3.13 on
    /// describes itself from the start, so the interpreter need not be initialised.
    ///
    /// # Errors
    /// When this is not a CPython that can be read.
    pub unsafe fn resolve(
        resolve: &dyn Fn(&CStr) -> *mut c_void,
    ) -> Result<Interpreter, Unsupported> {
        let symbol = |name: &'static CStr| match resolve(name) {
            address if address.is_null() => Err(Unsupported::MissingSymbol(name)),
            address => Ok(address),
        };
        // The functions first: a process that has none of them is not a broken Python but no Python.
        let attached = symbol(c"PyThreadState_GetUnchecked")
            .or_else(|_| symbol(c"_PyThreadState_UncheckedGet"))?;
        let remembered = symbol(c"PyGILState_GetThisThreadState")?;
        let code_type = symbol(c"PyCode_Type")?;
        let py_runtime = symbol(c"_PyRuntime")?;
        // SAFETY: a version symbol of CPython, as the caller promises.
        let hexversion = unsafe { hexversion(&symbol)? };
        // Only there when objects have two more pointers in their head. From 3.13 on the debug offsets tell.
        if hexversion < 0x030d_0000 && !resolve(c"_Py_AddToAllObjects").is_null() {
            return Err(Unsupported::TraceReferences);
        }
        Ok(Interpreter {
            // SAFETY: `_PyRuntime` of that very version.
            layout: unsafe { Layout::detect(hexversion, py_runtime.cast())? },
            // SAFETY: both take nothing and return a PyThreadState pointer, in every version.
            attached: unsafe { mem::transmute::<*mut c_void, GetThreadState>(attached) },
            // SAFETY: as above.
            remembered: unsafe { mem::transmute::<*mut c_void, GetThreadState>(remembered) },
            attached_is_thread_local: hexversion >= 0x030c_0000,
            code_type: code_type.cast(),
        })
    }

    /// `PY_VERSION_HEX` of the interpreter.
    #[must_use]
    pub fn hexversion(&self) -> u32 {
        self.layout.hexversion
    }

    /// The address of `PyCode_Type`.
    #[must_use]
    pub fn code_type(&self) -> *mut u8 {
        self.code_type
    }

    /// The `PyThreadState` whose frames are the calling thread's stack, or null: for a thread that never touched Python, for one that is not
    /// yet or no longer known to the interpreter, before initialisation and after finalisation.
    ///
    /// # Safety
    /// The interpreter's static data is relocated (the loader has run), and no finalisation is freeing thread states (see the crate's rules).
    #[inline]
    #[must_use]
    pub unsafe fn thread_state(&self) -> *const u8 {
        // SAFETY: the caller's promise, handed on.
        let attached = unsafe { self.attached_here() };
        if !attached.is_null() {
            return attached;
        }
        // The thread released the GIL, or has nothing to do with Python. The thread-specific value is set when a thread state is bound to the
        // thread and cleared before it is freed, by the thread itself; so what it points at is there, and stands still while we look.
        // SAFETY: takes nothing, reads one thread-specific value, and returns null while there is no interpreter.
        unsafe { (self.remembered)() }
    }

    /// As [`Interpreter::thread_state`], for a process that has only ever had one interpreter: up to 3.11 a thread's remembered state is its
    /// only one then, and nobody else's has to be looked at.
    ///
    /// # Safety
    /// As for [`Interpreter::thread_state`], and no subinterpreter was ever made.
    #[inline]
    #[must_use]
    pub unsafe fn thread_state_of_only_interpreter(&self) -> *const u8 {
        if self.attached_is_thread_local {
            // SAFETY: the caller's promise, handed on.
            return unsafe { self.thread_state() };
        }
        // SAFETY: as in `thread_state`.
        unsafe { (self.remembered)() }
    }

    /// Whether the calling thread holds the GIL.
    ///
    /// # Safety
    /// As for [`Interpreter::thread_state`].
    #[inline]
    #[must_use]
    pub unsafe fn holds_gil(&self) -> bool {
        // SAFETY: the caller's promise, handed on.
        !unsafe { self.attached_here() }.is_null()
    }

    /// The innermost frame of a thread state, or null. It need not be one to show.
    ///
    /// # Safety
    /// `tstate` is null or what [`Interpreter::thread_state`] returned on this thread just now.
    #[inline]
    #[must_use]
    pub unsafe fn top_frame(&self, tstate: *const u8) -> *const u8 {
        if tstate.is_null() {
            return ptr::null();
        }
        let thread = &self.layout.thread;
        // SAFETY: a live thread state (the caller) with its fields where the layout says.
        let frame = unsafe { pointer(tstate, thread.frame) };
        match self.layout.family {
            FrameFamily::V3_9 | FrameFamily::V3_13 | FrameFamily::WithoutGil => frame,
            // A thread state that is being made has no _PyCFrame yet.
            FrameFamily::V3_11 if frame.is_null() => frame,
            // SAFETY: it points at the _PyCFrame of the innermost evaluation on this thread's C stack, or at one inside the thread state.
            FrameFamily::V3_11 => unsafe { pointer(frame, thread.c_frame_current) },
        }
    }

    /// The thread state with which the calling thread holds the GIL, or null.
    ///
    /// # Safety
    /// As for [`Interpreter::thread_state`].
    #[inline]
    unsafe fn attached_here(&self) -> *const u8 {
        // SAFETY: takes nothing and reads one variable.
        let attached = unsafe { (self.attached)() };
        if self.attached_is_thread_local || attached.is_null() {
            return attached;
        }
        // Up to 3.11 this is the holder of the GIL, whoever that is. A thread state carries the thread's identifier from before it first
        // takes the GIL. When the holder is another thread, this reads memory that the holder may free: it lets go of the GIL first and frees
        // next, both after our load of the pointer. What is read then is stale but still mapped heap (a block of this size is not returned to the
        // system by itself), and cannot name us, since we live.
        // SAFETY: as just said.
        if unsafe { read::<c_ulong>(attached, self.layout.thread.thread_id) } == pthread_self() {
            attached
        } else {
            ptr::null()
        }
    }
}

/// # Safety
/// `symbol` finds the symbols of one CPython.
unsafe fn hexversion(
    symbol: &dyn Fn(&'static CStr) -> Result<*mut c_void, Unsupported>,
) -> Result<u32, Unsupported> {
    if let Ok(version) = symbol(c"Py_Version") {
        // SAFETY: `const unsigned long Py_Version`, since 3.11.
        let version = unsafe { version.cast::<c_ulong>().read() };
        return u32::try_from(version).map_err(|_| Unsupported::BadVersion);
    }
    type GetVersion = unsafe extern "C" fn() -> *const c_char;
    let get_version = symbol(c"Py_GetVersion")?;
    // SAFETY: takes nothing and returns a static text in every version. It formats that text, which is why it is only called here.
    let text = unsafe {
        let get_version = mem::transmute::<*mut c_void, GetVersion>(get_version);
        CStr::from_ptr(get_version())
    };
    parse_version(text.to_bytes()).ok_or(Unsupported::BadVersion)
}

/// `PY_VERSION_HEX` from the text of `Py_GetVersion`: `3.9.18 (main, …`, `3.10.0rc2 (…`, `3.9.2+ (…`.
fn parse_version(text: &[u8]) -> Option<u32> {
    let (major, rest) = parse_number(text)?;
    let (minor, rest) = parse_number(rest.strip_prefix(b".")?)?;
    let (micro, rest) = parse_number(rest.strip_prefix(b".")?)?;
    let (level, rest) = match rest {
        [b'a', rest @ ..] => (0xa, rest),
        [b'b', rest @ ..] => (0xb, rest),
        [b'r', b'c', rest @ ..] => (0xc, rest),
        _ => (0xf, rest),
    };
    let serial = if level == 0xf {
        0
    } else {
        parse_number(rest)?.0
    };
    Some(major << 24 | minor << 16 | micro << 8 | level << 4 | serial & 0xf)
}

/// A number of at most one byte, and what follows it.
fn parse_number(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(digits)?;
    if digits.is_empty() || digits.len() > 3 {
        return None;
    }
    let number = digits
        .iter()
        .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    (number <= 0xff).then_some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_parsed() {
        assert_eq!(
            parse_version(b"3.9.18 (main, Jan  1 2024, 00:00:00) \n[GCC 13]"),
            Some(0x0309_12f0)
        );
        assert_eq!(parse_version(b"3.10.0rc2 (default)"), Some(0x030a_00c2));
        assert_eq!(parse_version(b"3.9.2+ (default)"), Some(0x0309_02f0));
        assert_eq!(parse_version(b"3.10.0a7+"), Some(0x030a_00a7));
        for bad in [
            &b""[..],
            b"3",
            b"3.9",
            b"3..1",
            b"3.9.x",
            b"3.9.1b",
            b"3.9.9999",
            b"3.9.300",
            b"PyPy",
        ] {
            assert_eq!(parse_version(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_process_without_python_is_told_so() {
        // SAFETY: nothing resolves, so nothing is called.
        let result = unsafe { Interpreter::resolve(&|_| ptr::null_mut()) };
        assert_eq!(
            result.err(),
            Some(Unsupported::MissingSymbol(c"_PyThreadState_UncheckedGet"))
        );
    }
}
