//! The names that `threading` gives to threads, learnt without touching `threading`.
//!
//! CPython audits the start of a thread: in the *starting* thread, with the bound method
//! `Thread._bootstrap` as argument. There the `Thread` object and its name can be read with the GIL
//! held. The *new* thread's outermost frame is that method, and its first local is the same object:
//! so at its first walk the new thread finds its name by comparing two addresses.

use core::ffi::{c_char, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

use heaptide_cpython::{Layout, first_local};
use heaptide_recorder::SpinLock;

use crate::RECORDER;
use crate::real::find;
use crate::thread::{ThreadState, Turn};

/// Threads that have been started and have not allocated yet; the oldest goes first.
const MOST_PENDING: usize = 128;
const LONGEST_NAME: usize = 96;

#[derive(Clone, Copy)]
struct Pending {
    thread_object: usize,
    name: [u8; LONGEST_NAME],
    length: usize,
}

struct Starting {
    pending: [Pending; MOST_PENDING],
    next: usize,
}

static STARTING: SpinLock<Starting> = SpinLock::new(Starting {
    pending: [Pending {
        thread_object: 0,
        name: [0; LONGEST_NAME],
        length: 0,
    }; MOST_PENDING],
    next: 0,
});

static METHOD_TYPE: AtomicUsize = AtomicUsize::new(0);
static METHOD_SELF: AtomicUsize = AtomicUsize::new(0);
static GENERIC_GET: AtomicUsize = AtomicUsize::new(0);
static TUPLE_ITEM: AtomicUsize = AtomicUsize::new(0);
static TUPLE_SIZE: AtomicUsize = AtomicUsize::new(0);
static AS_UTF8: AtomicUsize = AtomicUsize::new(0);
static CLEAR: AtomicUsize = AtomicUsize::new(0);
static RELEASE: AtomicUsize = AtomicUsize::new(0);
static NAME_ATTRIBUTE: AtomicUsize = AtomicUsize::new(0);

/// Finds what [`thread_is_being_started`] needs. With the GIL, before tracking begins.
pub(crate) fn prepare() {
    for (slot, name) in [
        (&METHOD_TYPE, c"PyMethod_Type"),
        (&METHOD_SELF, c"PyMethod_Self"),
        (&GENERIC_GET, c"PyObject_GenericGetAttr"),
        (&TUPLE_ITEM, c"PyTuple_GetItem"),
        (&TUPLE_SIZE, c"PyTuple_Size"),
        (&AS_UTF8, c"PyUnicode_AsUTF8AndSize"),
        (&CLEAR, c"PyErr_Clear"),
        (&RELEASE, c"Py_DecRef"),
    ] {
        let function = find(name);
        if function.is_null() {
            return;
        }
        slot.store(function as usize, Ordering::Relaxed);
    }
    let intern = find(c"PyUnicode_InternFromString");
    if !intern.is_null() {
        // SAFETY: takes a C string, returns a new reference or null; the GIL is held.
        let attribute = unsafe {
            let intern: unsafe extern "C" fn(*const c_char) -> *mut c_void =
                core::mem::transmute(intern);
            intern(c"_name".as_ptr())
        };
        NAME_ATTRIBUTE.store(attribute as usize, Ordering::Release);
    }
}

/// A thread is about to be started. What we allocate here is not the program's: the turn keeps it
/// out of the figures.
///
/// # Safety
/// `arguments` is the tuple of the audit event, and the GIL is held.
pub(crate) unsafe fn thread_is_being_started(arguments: *mut c_void) {
    let attribute = NAME_ATTRIBUTE.load(Ordering::Acquire) as *mut c_void;
    if attribute.is_null() || arguments.is_null() {
        return;
    }
    let Some(_turn) = Turn::begin() else { return };
    // SAFETY: `prepare` found all functions (the attribute is stored last); they have these types in
    // every supported version. Only exact bound methods are looked at, and only by the generic
    // lookup, so no code of the program runs.
    unsafe {
        let function = |slot: &AtomicUsize| slot.load(Ordering::Relaxed);
        let tuple_size: unsafe extern "C" fn(*mut c_void) -> isize =
            core::mem::transmute(function(&TUPLE_SIZE));
        let tuple_item: unsafe extern "C" fn(*mut c_void, isize) -> *mut c_void =
            core::mem::transmute(function(&TUPLE_ITEM));
        let method_self: unsafe extern "C" fn(*mut c_void) -> *mut c_void =
            core::mem::transmute(function(&METHOD_SELF));
        let generic_get: unsafe extern "C" fn(*mut c_void, *mut c_void) -> *mut c_void =
            core::mem::transmute(function(&GENERIC_GET));
        let as_utf8: unsafe extern "C" fn(*mut c_void, *mut isize) -> *const u8 =
            core::mem::transmute(function(&AS_UTF8));
        let clear: unsafe extern "C" fn() = core::mem::transmute(function(&CLEAR));
        let release: unsafe extern "C" fn(*mut c_void) = core::mem::transmute(function(&RELEASE));
        if tuple_size(arguments) < 1 {
            return clear();
        }
        let target = tuple_item(arguments, 0);
        if target.is_null() || type_of(target) != function(&METHOD_TYPE) {
            return clear();
        }
        let thread_object = method_self(target);
        let name = generic_get(thread_object, attribute);
        if !name.is_null() {
            let mut length = 0isize;
            let text = as_utf8(name, &raw mut length);
            if !text.is_null() {
                note(
                    thread_object as usize,
                    core::slice::from_raw_parts(text, length as usize),
                );
            }
            release(name);
        }
        clear();
    }
}

fn note(thread_object: usize, name: &[u8]) {
    let mut starting = STARTING.lock();
    let next = starting.next;
    starting.next = (next + 1) % MOST_PENDING;
    let pending = &mut starting.pending[next];
    let length = name.len().min(LONGEST_NAME);
    pending.name[..length].copy_from_slice(&name[..length]);
    pending.length = length;
    pending.thread_object = thread_object;
}

/// Names the calling thread, if its outermost frame says which `Thread` it is.
#[cold]
pub(crate) fn name_thread(state: &mut ThreadState, layout: &Layout) {
    state.named = true;
    let Some(frame) = state.memo.outermost_frame() else {
        return;
    };
    // SAFETY: the frame has just been walked and this thread stands still.
    let first = unsafe { first_local(layout, frame) } as usize;
    if first == 0 {
        return;
    }
    let found = {
        let mut starting = STARTING.lock();
        starting
            .pending
            .iter_mut()
            .find(|pending| pending.thread_object == first)
            .map(|pending| {
                pending.thread_object = 0;
                *pending
            })
    };
    if let Some(pending) = found {
        RECORDER.thread_name(&state.record, &pending.name[..pending.length]);
    }
}

/// `Py_TYPE`
///
/// # Safety
/// `object` is a live object of a build with the GIL.
unsafe fn type_of(object: *mut c_void) -> usize {
    // SAFETY: `ob_type` follows the reference count, a word.
    unsafe { object.cast::<usize>().add(1).read() }
}
