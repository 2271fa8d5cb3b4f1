//! The interpreter we are in: its entry points and its layout, found at run time.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use heaptide_cpython::{FrameFamily, Interpreter};
use heaptide_format::PythonAllocator;

use crate::real::find;
use crate::{early_stop, loader, switch};

/// `PyCFunction`
pub(crate) type Callable = unsafe extern "C" fn(*mut c_void, *mut c_void) -> *mut c_void;

struct Cell(core::cell::UnsafeCell<MaybeUninit<Interpreter>>);
// SAFETY: written once in `resolve`, before tracking starts; only read afterwards.
unsafe impl Sync for Cell {}

static INTERPRETER: Cell = Cell(core::cell::UnsafeCell::new(MaybeUninit::uninit()));
static RESOLVED: AtomicBool = AtomicBool::new(false);
static NONE: AtomicUsize = AtomicUsize::new(0);

/// The resolved interpreter.
///
/// # Safety
/// Tracking is on, so `resolve` has succeeded.
#[inline(always)]
pub(crate) unsafe fn get() -> &'static Interpreter {
    // SAFETY: the caller's promise.
    unsafe { (*INTERPRETER.0.get()).assume_init_ref() }
}

/// Is there no GIL, so that Python threads run truly at once? What is said of "the GIL held" elsewhere means there that the thread is
/// attached to the interpreter: others may be, too, and what is done so must bear it.
///
/// # Safety
/// As `get`.
pub(crate) unsafe fn is_without_gil() -> bool {
    // SAFETY: the caller's promise.
    unsafe { get() }.layout.family == FrameFamily::WithoutGil
}

/// Start and end of the interpreter's own code, where it starts threads without an audit event
/// (before 3.12); else zeroes.
static UNANNOUNCED: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// Is a thread that begins at `start` made by an interpreter that does not announce it, with the GIL
/// held by the caller?
pub(crate) fn starts_threads_unannounced(start: usize) -> bool {
    let [from, to] = [&UNANNOUNCED[0], &UNANNOUNCED[1]].map(|word| word.load(Ordering::Relaxed));
    // SAFETY: the range is set after `resolve` has succeeded.
    (from..to).contains(&start) && switch::is_on() && unsafe { get().holds_gil() }
}

/// Has there ever been more than one interpreter?
static SUBINTERPRETERS: AtomicBool = AtomicBool::new(false);

/// See [`SUBINTERPRETERS`].
#[inline(always)]
pub(crate) fn may_be_several() -> bool {
    SUBINTERPRETERS.load(Ordering::Relaxed)
}

/// A further interpreter is being made (or the first one, when this is heard so early; which costs
/// a little more per walk and is right all the same).
pub(crate) fn note_subinterpreter() {
    if RESOLVED.load(Ordering::Relaxed) {
        SUBINTERPRETERS.store(true, Ordering::Relaxed);
    }
}

/// Looks whether there is more than one interpreter now, for tracking that starts in the middle of a program.
///
/// # Safety
/// The GIL is held.
pub(crate) unsafe fn look_for_subinterpreters() {
    let (head, next) = (
        find(c"PyInterpreterState_Head"),
        find(c"PyInterpreterState_Next"),
    );
    if head.is_null() || next.is_null() {
        return SUBINTERPRETERS.store(true, Ordering::Relaxed);
    }
    // SAFETY: the functions have these types in every supported version.
    let several = unsafe {
        let head: unsafe extern "C" fn() -> *mut c_void = core::mem::transmute(head);
        let next: unsafe extern "C" fn(*mut c_void) -> *mut c_void = core::mem::transmute(next);
        let first = head();
        !first.is_null() && !next(first).is_null()
    };
    if several {
        SUBINTERPRETERS.store(true, Ordering::Relaxed);
    }
}

/// Is there an interpreter, be it one that is still being initialised (`Py_IsInitialized` says no while 3.15 imports
/// `site`)?
pub(crate) fn exists() -> bool {
    let function = find(c"PyInterpreterState_Head");
    if function.is_null() {
        return false;
    }
    // SAFETY: takes nothing and reads one variable, also before there is an interpreter.
    unsafe {
        let head: unsafe extern "C" fn() -> *mut c_void = core::mem::transmute(function);
        !head().is_null()
    }
}

/// Lets the GIL go; what comes back is for [`take_gil`].
///
/// # Safety
/// The GIL is held.
pub(crate) unsafe fn let_gil_go() -> *mut c_void {
    let function = find(c"PyEval_SaveThread");
    if function.is_null() {
        return core::ptr::null_mut();
    }
    // SAFETY: has had this type for ever.
    unsafe {
        let function: unsafe extern "C" fn() -> *mut c_void = core::mem::transmute(function);
        function()
    }
}

/// Takes the GIL again. A thread of an interpreter that is being finalised ends in here, before 3.14 by unwinding.
///
/// # Safety
/// `state` came from [`let_gil_go`] on this thread. No value that has something to drop lives in a caller up to the
/// interpreter.
pub(crate) unsafe fn take_gil(state: *mut c_void) {
    let function = find(c"PyEval_RestoreThread");
    if !state.is_null() && !function.is_null() {
        // SAFETY: has had this type for ever.
        unsafe {
            let function: unsafe extern "C-unwind" fn(*mut c_void) = core::mem::transmute(function);
            function(state);
        }
    }
}

/// Python's state of the calling thread, or null: no Python on this thread.
///
/// # Safety
/// As `get`.
#[inline(always)]
pub(crate) unsafe fn thread_state(interpreter: &Interpreter) -> *const u8 {
    // SAFETY: tracking ends before thread states are freed at finalisation.
    unsafe {
        if SUBINTERPRETERS.load(Ordering::Relaxed) {
            interpreter.thread_state()
        } else {
            interpreter.thread_state_of_only_interpreter()
        }
    }
}

/// Finds the entry points and the layout, once. `Ok` and `Err` both carry `PY_VERSION_HEX` (0 if unknown).
pub(crate) fn resolve() -> Result<u32, u32> {
    if RESOLVED.load(Ordering::Acquire) {
        // SAFETY: it was resolved.
        return Ok(unsafe { get() }.hexversion());
    }
    // SAFETY: called once, with the GIL, before tracking starts; `find` answers with addresses in
    // the interpreter that is running.
    unsafe {
        match Interpreter::resolve(&|name| find(name)) {
            Ok(interpreter) => {
                (*INTERPRETER.0.get()).write(interpreter);
                RESOLVED.store(true, Ordering::Release);
                let none = find(c"_Py_NoneStruct") as usize;
                NONE.store(none, Ordering::Relaxed);
                early_stop::prepare(&interpreter.layout, none);
                if interpreter.hexversion() < 0x030c_0000 {
                    let code = loader::code_around(find(c"PyThread_start_new_thread") as usize);
                    UNANNOUNCED[0].store(code.0, Ordering::Relaxed);
                    UNANNOUNCED[1].store(code.1, Ordering::Relaxed);
                }
                Ok(interpreter.hexversion())
            }
            Err(_) => Err(0),
        }
    }
}

/// What a forked child must know without asking: version, allocator and the version's text.
static KNOWN: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// Remembers what [`known`] says.
pub(crate) fn remember(version: u32, allocator: u32) {
    KNOWN[0].store(version as usize, Ordering::Relaxed);
    KNOWN[1].store(allocator as usize, Ordering::Relaxed);
    KNOWN[2].store(version_text().as_ptr() as usize, Ordering::Relaxed);
}

/// `PY_VERSION_HEX` and the allocator of the interpreter.
pub(crate) fn known() -> (u32, u32) {
    let word = |index: usize| KNOWN[index].load(Ordering::Relaxed) as u32;
    (word(0), word(1))
}

/// [`version_text`] as it was remembered.
pub(crate) fn version_text_known() -> &'static [u8] {
    let text = KNOWN[2].load(Ordering::Relaxed) as *const c_char;
    if text.is_null() {
        return b"";
    }
    // SAFETY: the start of a static C string of the interpreter, or of an empty one of ours.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

/// `sys.version`, as bytes.
pub(crate) fn version_text() -> &'static [u8] {
    let function = find(c"Py_GetVersion");
    if function.is_null() {
        return c"".to_bytes();
    }
    // SAFETY: `Py_GetVersion` takes nothing and returns a static C string.
    unsafe {
        let function: unsafe extern "C" fn() -> *const c_char = core::mem::transmute(function);
        CStr::from_ptr(function()).to_bytes()
    }
}

/// Which allocator the interpreter's objects use.
pub(crate) fn allocator() -> Option<PythonAllocator> {
    let function = find(c"_PyMem_GetCurrentAllocatorName");
    if function.is_null() {
        return None;
    }
    // SAFETY: takes nothing, returns null or a static C string.
    let name = unsafe {
        let function: unsafe extern "C" fn() -> *const c_char = core::mem::transmute(function);
        let name = function();
        if name.is_null() {
            return Some(PythonAllocator::Other);
        }
        CStr::from_ptr(name).to_bytes()
    };
    Some(match name {
        b"pymalloc" => PythonAllocator::Pymalloc,
        b"pymalloc_debug" => PythonAllocator::PymallocDebug,
        b"malloc" => PythonAllocator::Malloc,
        b"malloc_debug" => PythonAllocator::MallocDebug,
        b"mimalloc" => PythonAllocator::Mimalloc,
        b"mimalloc_debug" => PythonAllocator::MimallocDebug,
        _ => PythonAllocator::Other,
    })
}

/// Is the calling thread in the main interpreter? (Subinterpreters are cleared too.)
pub(crate) fn in_main_interpreter() -> bool {
    let (here, main) = (
        find(c"PyInterpreterState_Get"),
        find(c"PyInterpreterState_Main"),
    );
    if here.is_null() || main.is_null() {
        return true;
    }
    // SAFETY: both take nothing; the caller is in an audit hook, so there is a current interpreter.
    unsafe {
        let here: unsafe extern "C" fn() -> *mut c_void = core::mem::transmute(here);
        let main: unsafe extern "C" fn() -> *mut c_void = core::mem::transmute(main);
        here() == main()
    }
}

/// A new reference to `None`, for callables.
pub(crate) fn none() -> *mut c_void {
    let none = NONE.load(Ordering::Relaxed) as *mut c_void;
    let build = find(c"Py_IncRef");
    if !build.is_null() {
        // SAFETY: `Py_IncRef` takes any object; the GIL is held, since a callable is running.
        unsafe {
            let increment: unsafe extern "C" fn(*mut c_void) = core::mem::transmute(build);
            increment(none);
        }
    }
    none
}

/// `PyMethodDef`
#[repr(C)]
struct MethodDefinition {
    name: *const c_char,
    function: Callable,
    flags: c_int,
    documentation: *const c_char,
}

const METH_NOARGS: c_int = 4;

/// Registers `callable` with `atexit`. Handlers run in reverse order, so ours, the first, runs last.
///
/// # Safety
/// The GIL is held and the interpreter is initialised.
pub(crate) unsafe fn at_exit(callable: Callable) {
    let import = find(c"PyImport_ImportModule");
    let new_function = find(c"PyCFunction_NewEx");
    let get_attribute = find(c"PyObject_GetAttrString");
    let call = find(c"PyObject_CallFunctionObjArgs");
    let clear = find(c"PyErr_Clear");
    let release = find(c"Py_DecRef");
    if [import, new_function, get_attribute, call, clear, release]
        .iter()
        .any(|function| function.is_null())
    {
        return;
    }
    // SAFETY: the functions have these types in every supported version; references are released
    // once; a failure leaves at most an exception, which is cleared.
    unsafe {
        let import: unsafe extern "C" fn(*const c_char) -> *mut c_void =
            core::mem::transmute(import);
        let new_function: unsafe extern "C" fn(
            *mut MethodDefinition,
            *mut c_void,
            *mut c_void,
        ) -> *mut c_void = core::mem::transmute(new_function);
        let get_attribute: unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void =
            core::mem::transmute(get_attribute);
        let call: unsafe extern "C" fn(*mut c_void, ...) -> *mut c_void =
            core::mem::transmute(call);
        let clear: unsafe extern "C" fn() = core::mem::transmute(clear);
        let release: unsafe extern "C" fn(*mut c_void) = core::mem::transmute(release);
        // The interpreter keeps a pointer to the definition for as long as the function lives.
        let definition = Box::leak(Box::new(MethodDefinition {
            name: c"_end".as_ptr(),
            function: callable,
            flags: METH_NOARGS,
            documentation: core::ptr::null(),
        }));
        let module = import(c"atexit".as_ptr());
        if !module.is_null() {
            let register = get_attribute(module, c"register".as_ptr());
            let function = new_function(definition, core::ptr::null_mut(), core::ptr::null_mut());
            if !register.is_null() && !function.is_null() {
                let answer = call(register, function, core::ptr::null_mut::<c_void>());
                release(answer);
            }
            release(register);
            release(function);
            release(module);
        }
        clear();
    }
}
