//! The names that `threading` gives to threads, learnt without touching `threading`.
//!
//! CPython audits the start of a thread (3.12 and later): in the *starting* thread, with the bound
//! method `Thread._bootstrap` as argument. There the `Thread` object and its name can be read with the
//! GIL held. Before 3.12 the same method is found in what the interpreter passes to
//! `pthread_create`, which is a place just as safe. The *new* thread's outermost frame is that method, and its first local is the same object:
//! so at its first walk the new thread finds its name by comparing two addresses.

use core::ffi::{c_char, c_void};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use heaptide_cpython::{Layout, checked_read, first_local};
use heaptide_recorder::SpinLock;

use crate::real::find;
use crate::thread::{ThreadState, Turn};
use crate::{RECORDER, interpreter};

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

/// In a forked child: the threads that were about to start are not here.
///
/// # Safety
/// The child still has one thread, which does not hold our lock.
pub(crate) unsafe fn after_fork() {
    // SAFETY: the caller's promise.
    unsafe { STARTING.reopen() };
    let mut starting = STARTING.lock();
    for pending in &mut starting.pending {
        pending.thread_object = 0;
    }
}

/// Tracking has ended: who was about to start is no matter any more.
pub(crate) fn forget_all() {
    let mut starting = STARTING.lock();
    for pending in &mut starting.pending {
        pending.thread_object = 0;
    }
}

/// Have names been noted of threads that were there before?
static KNOWN: AtomicBool = AtomicBool::new(false);
/// Marks an entry that is found by the kernel's id of the thread. No object is at such an address.
const BY_THREAD_ID: usize = 1 << (usize::BITS - 1);

/// Notes the names of the threads that `threading` knows already, for tracking that starts in the middle of a
/// program. With the GIL, before the switch is on; what goes wrong leaves threads without a name.
pub(crate) fn note_known_threads() {
    if NAME_ATTRIBUTE.load(Ordering::Acquire) == 0 {
        return;
    }
    let names = [
        c"PyImport_GetModule",
        c"PyObject_GetAttrString",
        c"PyDict_Next",
        c"PyLong_AsLong",
        c"PyUnicode_FromString",
    ];
    let functions = names.map(|name| find(name) as usize);
    if functions.contains(&0) {
        return;
    }
    KNOWN.store(true, Ordering::Relaxed);
    let [get_module, get_attribute, next, as_long, text] = functions;
    // SAFETY: the functions have these types in every supported version; the GIL is held; references are
    // released once, borrowed ones are not kept, and no code of the program runs between two steps through the
    // dictionary (attributes of `Thread` are plain ones, looked up by the generic function).
    unsafe {
        let get_module: unsafe extern "C" fn(*mut c_void) -> *mut c_void =
            core::mem::transmute(get_module);
        let get_attribute: unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void =
            core::mem::transmute(get_attribute);
        let next: unsafe extern "C" fn(
            *mut c_void,
            *mut isize,
            *mut *mut c_void,
            *mut *mut c_void,
        ) -> i32 = core::mem::transmute(next);
        let as_long: unsafe extern "C" fn(*mut c_void) -> core::ffi::c_long =
            core::mem::transmute(as_long);
        let text: unsafe extern "C" fn(*const c_char) -> *mut c_void = core::mem::transmute(text);
        let function = |slot: &AtomicUsize| slot.load(Ordering::Relaxed);
        let clear: unsafe extern "C" fn() = core::mem::transmute(function(&CLEAR));
        let release: unsafe extern "C" fn(*mut c_void) = core::mem::transmute(function(&RELEASE));
        let generic_get: unsafe extern "C" fn(*mut c_void, *mut c_void) -> *mut c_void =
            core::mem::transmute(function(&GENERIC_GET));
        let module_name = text(c"threading".as_ptr());
        let id_name = text(c"_native_id".as_ptr());
        let module = if module_name.is_null() || id_name.is_null() {
            core::ptr::null_mut()
        } else {
            // Not imported here: whoever has no `threading` has no threads of its own.
            get_module(module_name)
        };
        if !module.is_null() {
            let active = own_copy(get_attribute(module, c"_active".as_ptr()), release);
            let mut position = 0;
            let (mut key, mut thread) = (core::ptr::null_mut(), core::ptr::null_mut());
            while is_dictionary(active)
                && next(active, &raw mut position, &raw mut key, &raw mut thread) != 0
            {
                let id = generic_get(thread, id_name);
                if !id.is_null() {
                    let number = as_long(id);
                    if let Ok(number @ 1..) = usize::try_from(number) {
                        note_name_of(thread, number | BY_THREAD_ID);
                    }
                    release(id);
                }
            }
            if !active.is_null() {
                release(active);
            }
            release(module);
        }
        for object in [module_name, id_name] {
            if !object.is_null() {
                release(object);
            }
        }
        clear();
    }
}

/// Without the GIL others change a dictionary while somebody goes through it: a copy in its place, which is made under the dictionary's lock.
///
/// # Safety
/// As [`is_dictionary`]; the reference is ours, and `release` lets it go.
unsafe fn own_copy(
    dictionary: *mut c_void,
    release: unsafe extern "C" fn(*mut c_void),
) -> *mut c_void {
    let copy = find(c"PyDict_Copy");
    // SAFETY: the caller's promise; the function has had this type for ever.
    unsafe {
        if !interpreter::is_without_gil() || copy.is_null() || !is_dictionary(dictionary) {
            return dictionary;
        }
        let copy: unsafe extern "C" fn(*mut c_void) -> *mut c_void = core::mem::transmute(copy);
        let own = copy(dictionary);
        release(dictionary);
        own
    }
}

/// Is it a plain dictionary?
///
/// # Safety
/// `object` is a live object, or null; the interpreter is resolved.
unsafe fn is_dictionary(object: *mut c_void) -> bool {
    let dictionary = find(c"PyDict_Type") as usize;
    // SAFETY: the caller's promise.
    !object.is_null() && dictionary != 0 && unsafe { type_of(object) } == dictionary
}

/// Names a thread that is met for the first time, if `threading` knew it when tracking started.
pub(crate) fn name_known_thread(state: *mut ThreadState, thread_id: u32) {
    if !KNOWN.load(Ordering::Relaxed) {
        return;
    }
    if let Some(pending) = take(thread_id as usize | BY_THREAD_ID) {
        // SAFETY: the state is the calling thread's own, and its record is there.
        unsafe {
            (*state).named = true;
            RECORDER.thread_name(&(*state).record, &pending.name[..pending.length]);
        }
    }
}

/// A thread is about to be started (the audit event of 3.12 and later).
///
/// # Safety
/// `arguments` is the tuple of the audit event, and the GIL is held.
pub(crate) unsafe fn thread_is_being_started(arguments: *mut c_void) {
    if NAME_ATTRIBUTE.load(Ordering::Acquire) == 0 || arguments.is_null() {
        return;
    }
    let Some(_turn) = Turn::begin() else { return };
    // SAFETY: `prepare` found all functions (the attribute is stored last); they have these types in
    // every supported version.
    unsafe {
        let function = |slot: &AtomicUsize| slot.load(Ordering::Relaxed);
        let tuple_size: unsafe extern "C" fn(*mut c_void) -> isize =
            core::mem::transmute(function(&TUPLE_SIZE));
        let tuple_item: unsafe extern "C" fn(*mut c_void, isize) -> *mut c_void =
            core::mem::transmute(function(&TUPLE_ITEM));
        if tuple_size(arguments) < 1 {
            return;
        }
        let target = tuple_item(arguments, 0);
        if !target.is_null() && type_of(target) == function(&METHOD_TYPE) {
            note_method(target);
        }
    }
}

/// Notes the name of the `Thread` whose bound method is `target`. What we allocate here is not the
/// program's: the caller's turn keeps it out of the figures.
///
/// # Safety
/// `target` is a bound method, the GIL is held, and `prepare` has found everything. Only the generic
/// lookup is used, so no code of the program runs.
unsafe fn note_method(target: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe {
        let function = |slot: &AtomicUsize| slot.load(Ordering::Relaxed);
        let method_self: unsafe extern "C" fn(*mut c_void) -> *mut c_void =
            core::mem::transmute(function(&METHOD_SELF));
        let thread_object = method_self(target);
        note_name_of(thread_object, thread_object as usize);
        let clear: unsafe extern "C" fn() = core::mem::transmute(function(&CLEAR));
        clear();
    }
}

/// Notes the name of a `Thread` under `key`. May leave an exception.
///
/// # Safety
/// As `note_method`, of the thread object.
unsafe fn note_name_of(thread_object: *mut c_void, key: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let function = |slot: &AtomicUsize| slot.load(Ordering::Relaxed);
        let generic_get: unsafe extern "C" fn(*mut c_void, *mut c_void) -> *mut c_void =
            core::mem::transmute(function(&GENERIC_GET));
        let as_utf8: unsafe extern "C" fn(*mut c_void, *mut isize) -> *const u8 =
            core::mem::transmute(function(&AS_UTF8));
        let release: unsafe extern "C" fn(*mut c_void) = core::mem::transmute(function(&RELEASE));
        let attribute = NAME_ATTRIBUTE.load(Ordering::Acquire) as *mut c_void;
        let name = generic_get(thread_object, attribute);
        if !name.is_null() {
            let mut length = 0isize;
            let text = as_utf8(name, &raw mut length);
            if !text.is_null() {
                note(key, core::slice::from_raw_parts(text, length as usize));
            }
            release(name);
        }
    }
}

/// A C thread is about to be made, in 3.11 or earlier, where no audit event says so: the interpreter
/// passes `{ function, &{ interpreter, method, … } }` to its new thread. Other users of the same
/// entry point pass what they like, so every step is a checked read.
pub(crate) fn thread_is_being_created(argument: *mut c_void) {
    if NAME_ATTRIBUTE.load(Ordering::Acquire) == 0 {
        return;
    }
    let words = checked_read::<2>;
    let method = || {
        let [_function, start] = words(argument as usize)?;
        let [_interpreter, method] = words(start)?;
        let [_references, kind] = words(method)?;
        (kind == METHOD_TYPE.load(Ordering::Relaxed)).then_some(method as *mut c_void)
    };
    if let Some(method) = method() {
        // SAFETY: an object whose type is the method type; the caller holds the GIL.
        unsafe { note_method(method) };
    }
}

fn note(thread_object: usize, name: &[u8]) {
    let mut starting = STARTING.lock();
    // A thread that ended without a single allocation has left its entry; its address may be another's.
    let same = starting
        .pending
        .iter()
        .position(|pending| pending.thread_object == thread_object);
    let next = same.unwrap_or(starting.next);
    if same.is_none() {
        starting.next = (next + 1) % MOST_PENDING;
    }
    let pending = &mut starting.pending[next];
    let length = name.len().min(LONGEST_NAME);
    pending.name[..length].copy_from_slice(&name[..length]);
    pending.length = length;
    pending.thread_object = thread_object;
}

/// Names the calling thread, if its outermost frame says which `Thread` it is.
#[cold]
pub(crate) fn name_thread(state: &mut ThreadState, layout: &Layout) {
    // At first there may be nothing but the interpreter's own entry frame.
    let Some(frame) = state.memo.outermost_frame() else {
        return;
    };
    state.named = true;
    // SAFETY: the frame has just been walked and this thread stands still.
    let first = unsafe { first_local(layout, frame) } as usize;
    if first == 0 {
        return;
    }
    if let Some(pending) = take(first) {
        RECORDER.thread_name(&state.record, &pending.name[..pending.length]);
    }
}

/// The entry of `key`, which is not needed any more.
fn take(key: usize) -> Option<Pending> {
    let mut starting = STARTING.lock();
    let pending = starting
        .pending
        .iter_mut()
        .find(|pending| pending.thread_object == key)?;
    pending.thread_object = 0;
    Some(*pending)
}

/// `Py_TYPE`
///
/// # Safety
/// `object` is a live object, and the interpreter is resolved.
unsafe fn type_of(object: *mut c_void) -> usize {
    // SAFETY: the caller's promise; every object has its type there.
    unsafe {
        let offset = interpreter::get().layout.object.type_ as usize;
        object.cast::<u8>().add(offset).cast::<usize>().read()
    }
}
