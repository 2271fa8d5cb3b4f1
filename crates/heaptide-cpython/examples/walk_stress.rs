//! What the allocation test (`tests/live_walk.rs`) preloads into an interpreter: walks the stack at every `malloc`, as the agent does, and
//! checks what can be checked there without running Python.
//!
//! With `PYTHONMALLOC=malloc` that is every object made: frames half built, threads being born and dying, collections, destructors.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use heaptide_cpython::{
    Interpreter, LineTableForm, first_local, last_instruction, read_code, read_frame, read_str,
    resolve_position,
};

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void;
}

type OfFrame = unsafe extern "C" fn(*const u8) -> c_int;

struct Subject {
    interpreter: Interpreter,
    form: LineTableForm,
    /// The interpreter's own reading of a frame, where it exports one that changes nothing.
    line_of: Option<OfFrame>,
    instruction_of: Option<OfFrame>,
}

static SUBJECT: OnceLock<Subject> = OnceLock::new();
static IS_ACTIVE: AtomicBool = AtomicBool::new(false);
static WALKS: AtomicU64 = AtomicU64::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);
static HIDDEN: AtomicU64 = AtomicU64::new(0);
static COMPARED: AtomicU64 = AtomicU64::new(0);
static WITHOUT_GIL: AtomicU64 = AtomicU64::new(0);
static WITHOUT_STATE: AtomicU64 = AtomicU64::new(0);
static FAILURES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Starts walking. Returns 0, or 1 if this is no interpreter that can be read.
///
/// # Safety
/// Called from Python.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heaptide_stress_start() -> c_int {
    // SAFETY: a null handle is RTLD_DEFAULT, and the name ends with a zero.
    let symbol = |name: &CStr| unsafe { dlsym(ptr::null_mut(), name.as_ptr()) };
    // SAFETY: the process is one Python, which stays loaded.
    let Ok(interpreter) = (unsafe { Interpreter::resolve(&symbol) }) else {
        return 1;
    };
    let Some(form) = LineTableForm::for_version(interpreter.hexversion()) else {
        return 1;
    };
    // 3.11 has none, and that of 3.9 and 3.10 takes the frames that are walked there.
    let line_of = if interpreter.hexversion() < 0x030b_0000 {
        symbol(c"PyFrame_GetLineNumber")
    } else {
        symbol(c"PyUnstable_InterpreterFrame_GetLine")
    };
    let instruction_of = symbol(c"PyUnstable_InterpreterFrame_GetLasti");
    // SAFETY: functions from a frame to an int, or null.
    let (line_of, instruction_of) = unsafe {
        (
            mem::transmute::<*mut c_void, Option<OfFrame>>(line_of),
            mem::transmute::<*mut c_void, Option<OfFrame>>(instruction_of),
        )
    };
    SUBJECT.get_or_init(|| Subject {
        interpreter,
        form,
        line_of,
        instruction_of,
    });
    IS_ACTIVE.store(true, Relaxed);
    0
}

/// Stops, and writes the seven counters.
///
/// # Safety
/// `counters` has room for them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heaptide_stress_stop(counters: *mut u64) {
    IS_ACTIVE.store(false, Relaxed);
    for (index, counter) in [
        &WALKS,
        &FRAMES,
        &HIDDEN,
        &COMPARED,
        &WITHOUT_GIL,
        &WITHOUT_STATE,
        &FAILURES,
    ]
    .into_iter()
    .enumerate()
    {
        // SAFETY: the caller's promise.
        unsafe { counters.add(index).write(counter.load(Relaxed)) };
    }
}

/// # Safety
/// As of `malloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    at_allocation();
    // SAFETY: the C library's own.
    unsafe { __libc_malloc(size) }
}

/// # Safety
/// As of `calloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    at_allocation();
    // SAFETY: the C library's own.
    unsafe { __libc_calloc(count, size) }
}

/// # Safety
/// As of `realloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    at_allocation();
    // SAFETY: the C library's own.
    unsafe { __libc_realloc(block, size) }
}

fn at_allocation() {
    if !IS_ACTIVE.load(Relaxed) || IS_INSIDE.replace(true) {
        return;
    }
    if let Some(subject) = SUBJECT.get() {
        // SAFETY: an allocation, on this thread, while the interpreter runs.
        if !unsafe { walk(subject) } {
            FAILURES.fetch_add(1, Relaxed);
        }
    }
    IS_INSIDE.set(false);
}

/// Walks the stack and tells whether all of it made sense.
///
/// # Safety
/// Called at an allocation.
unsafe fn walk(subject: &Subject) -> bool {
    let interpreter = &subject.interpreter;
    let layout = &interpreter.layout;
    let (mut frames, mut hidden) = (0_u64, 0_u64);
    let mut makes_sense = true;
    // SAFETY: this thread's own state and frames, at an allocation.
    unsafe {
        let tstate = interpreter.thread_state();
        WALKS.fetch_add(1, Relaxed);
        WITHOUT_GIL.fetch_add(u64::from(!interpreter.holds_gil()), Relaxed);
        WITHOUT_STATE.fetch_add(u64::from(tstate.is_null()), Relaxed);
        let mut frame = interpreter.top_frame(tstate);
        while !frame.is_null() {
            let view = read_frame(layout, frame);
            if view.code.is_null() {
                hidden += 1;
            } else {
                frames += 1;
                makes_sense &= view
                    .code
                    .add(layout.object.type_ as usize)
                    .cast::<*mut u8>()
                    .read()
                    == interpreter.code_type();
                // The inner frames are the ones that change: they are looked at closely.
                if makes_sense && frames <= 2 {
                    makes_sense &= look_closely(
                        subject,
                        frame,
                        view.code,
                        last_instruction(layout, view.code, view.instruction, view.copy),
                    );
                }
            }
            frame = view.previous;
        }
    }
    FRAMES.fetch_add(frames, Relaxed);
    HIDDEN.fetch_add(hidden, Relaxed);
    makes_sense
}

/// # Safety
/// A frame of this thread that is shown, and its code object.
unsafe fn look_closely(
    subject: &Subject,
    frame: *const u8,
    code: *const u8,
    instruction: i32,
) -> bool {
    let layout = &subject.interpreter.layout;
    // SAFETY: the caller's promise; the interpreter's functions only read the frame.
    unsafe {
        let Some(view) = read_code(layout, code) else {
            return false;
        };
        let position =
            resolve_position(subject.form, view.line_table, view.first_line, instruction);
        if let Some(line_of) = subject.line_of {
            COMPARED.fetch_add(1, Relaxed);
            if position.line != u32::try_from(line_of(frame)).ok() {
                return false;
            }
        }
        if subject
            .instruction_of
            .is_some_and(|instruction_of| instruction_of(frame) != instruction)
        {
            return false;
        }
        let local = first_local(layout, frame);
        let _ = read_str(layout, local);
        true
    }
}
