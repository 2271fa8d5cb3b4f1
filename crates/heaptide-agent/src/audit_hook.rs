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

use crate::real::find;

/// Present in CPython 3.8 and later; its absence means: not a CPython.
pub(crate) const ADD: &CStr = c"PySys_AddAuditHook";
/// `PySys_AddAuditHook`
pub(crate) type Add = unsafe extern "C" fn(Hook, *mut c_void) -> c_int;
/// `Py_AuditHookFunction`
pub(crate) type Hook = unsafe extern "C" fn(*const c_char, *mut c_void, *mut c_void) -> c_int;

/// `PyMemAllocatorEx`
#[derive(Clone, Copy)]
#[repr(C)]
struct Allocator {
    context: *mut c_void,
    malloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    calloc: *mut c_void,
    realloc: *mut c_void,
    free: *mut c_void,
}

/// `PYMEM_DOMAIN_RAW`
const RAW: c_int = 0;
type SetAllocator = unsafe extern "C" fn(c_int, *mut Allocator);

/// The entry: address of the next one, the hook, its data.
static ENTRY: AtomicUsize = AtomicUsize::new(0);
/// The word that holds its address.
static PLACE: AtomicUsize = AtomicUsize::new(0);

/// Adds `hook`, and notes where.
///
/// # Safety
/// In the constructor, before the interpreter exists and while the process has one thread.
pub(crate) unsafe fn add(add: Add, hook: Hook) {
    let (get, set, runtime) = (
        find(c"PyMem_GetAllocator"),
        find(c"PyMem_SetAllocator"),
        find(c"_PyRuntime"),
    );
    if get.is_null() || set.is_null() || runtime.is_null() {
        // SAFETY: the caller's promise.
        unsafe { add(hook, core::ptr::null_mut()) };
        return;
    }
    // SAFETY: both functions may be called before the interpreter is initialised; the allocator is
    // put back as it was; nobody else runs meanwhile.
    unsafe {
        let get: SetAllocator = core::mem::transmute(get);
        let set: SetAllocator = core::mem::transmute(set);
        let mut original = core::mem::MaybeUninit::<Allocator>::uninit();
        get(RAW, original.as_mut_ptr());
        let mut original = original.assume_init();
        let mut watched = Allocator {
            context: (&raw mut original).cast(),
            malloc: watched_malloc,
            ..original
        };
        set(RAW, &raw mut watched);
        add(hook, core::ptr::null_mut());
        set(RAW, &raw mut original);
        find_place(runtime.cast());
    }
}

/// The allocator's own `malloc`, and a note of the last block.
unsafe extern "C" fn watched_malloc(original: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: `add` passes the original allocator as context.
    unsafe {
        let original = &*original.cast::<Allocator>();
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
