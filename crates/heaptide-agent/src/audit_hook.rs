//! The audit hook's place in the interpreter, and its removal in time.
//!
//! CPython keeps hooks in a list whose entries it allocates when a hook is added and frees when it
//! finalises, each time with the raw allocator of that moment. We add ours before the interpreter
//! exists; if the user then asks for debug allocators (`PYTHONMALLOC=debug`, `-X dev`), the entry is
//! freed by another allocator than it came from, and that aborts the process. So the entry is taken
//! out of the list just before, and left alone.
//!
//! Where the list begins differs between versions, so it is looked for: it is the one word of
//! `_PyRuntime` that holds the address of the entry.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::python_allocators::{Access, Functions, RAW};
use crate::real::find;

/// Present in CPython 3.8 and later; its absence means: not a CPython.
pub(crate) const ADD: &CStr = c"PySys_AddAuditHook";
/// `PySys_AddAuditHook`
pub(crate) type Add = unsafe extern "C" fn(Hook, *mut c_void) -> c_int;
/// `Py_AuditHookFunction`
pub(crate) type Hook = unsafe extern "C" fn(*const c_char, *mut c_void, *mut c_void) -> c_int;

/// The entry: address of the next one, the hook, its data.
static ENTRY: AtomicUsize = AtomicUsize::new(0);
/// The word that holds its address.
static PLACE: AtomicUsize = AtomicUsize::new(0);

/// Adds `hook`, and notes where.
///
/// # Safety
/// In the constructor, before the interpreter exists and while the process has one thread.
pub(crate) unsafe fn add(add: Add, hook: Hook) {
    let runtime = find(c"_PyRuntime");
    let Some(access) = Access::find().filter(|_| !runtime.is_null()) else {
        // SAFETY: the caller's promise.
        unsafe { add(hook, core::ptr::null_mut()) };
        return;
    };
    // SAFETY: both functions may be called before the interpreter is initialised; the allocator is
    // put back as it was; nobody else runs meanwhile.
    unsafe {
        let original = access.get(RAW);
        let watched = Functions {
            context: (&raw const original).cast_mut().cast(),
            malloc: watched_malloc,
            ..original
        };
        access.set(RAW, watched);
        add(hook, core::ptr::null_mut());
        access.set(RAW, original);
        find_place(runtime.cast());
    }
}

/// Adds `hook` to an interpreter that runs, at the end of the list. It may be refused by another hook, which leaves
/// no exception; then threads that are started later have no names, and forks are not announced.
///
/// # Safety
/// The GIL is held.
pub(crate) unsafe fn add_late(add: Add, hook: Hook) {
    // SAFETY: the caller's promise. Who allocates the entry is who will free it.
    let failed = unsafe { add(hook, core::ptr::null_mut()) } != 0;
    let clear = find(c"PyErr_Clear");
    if failed && !clear.is_null() {
        // SAFETY: takes nothing; the GIL is held.
        unsafe {
            let clear: unsafe extern "C" fn() = core::mem::transmute(clear);
            clear();
        }
    }
}

/// The allocator's own `malloc`, and a note of the last block.
unsafe extern "C" fn watched_malloc(original: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: `add` passes the original allocator as context.
    unsafe {
        let original = &*original.cast::<Functions>();
        let block = (original.malloc)(original.context, size);
        ENTRY.store(block as usize, Ordering::Relaxed);
        block
    }
}

/// # Safety
/// `runtime` is `_PyRuntime`, and nobody writes to it.
unsafe fn find_place(runtime: *mut usize) {
    let entry = ENTRY.load(Ordering::Relaxed);
    let words = heaptide_elf::symbol_bytes(runtime as usize, b"_PyRuntime") / size_of::<usize>();
    if entry == 0 {
        return;
    }
    for position in 0..words {
        // SAFETY: inside the object that the symbol names.
        unsafe {
            let place = runtime.add(position);
            if place.read() == entry {
                PLACE.store(place as usize, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// Takes our entry out of the list. When CPython says that it is about to free the list.
pub(crate) fn unlink() {
    let (place, entry) = (
        PLACE.load(Ordering::Relaxed) as *mut usize,
        ENTRY.load(Ordering::Relaxed),
    );
    if place.is_null() {
        return;
    }
    // SAFETY: the word lies in `_PyRuntime`, the entry is still allocated, and the GIL is held. Ours was
    // the first hook, so the list begins with it unless somebody has changed it.
    unsafe {
        if place.read() == entry {
            place.write((entry as *const usize).read());
        }
    }
}
