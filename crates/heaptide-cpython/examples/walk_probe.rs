//! What the live walk test (`tests/live_walk.rs`) loads into an interpreter: walks the calling thread's stack and writes down what it saw.
//!
//! The text has a head line `holds-gil thread-state-is-null line last-instruction`, the last two being what the interpreter's own functions say of
//! the innermost frame (or `-` without the GIL), and one line per frame, innermost first:
//! `name file qualified-name last-instruction line end-line column end-column first-line flags first-local`.
//! Strings are code points in hexadecimal, joined by full stops, after an `s`, so that any name comes through; `-` stands for "none".

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt::{Display, Write};
use std::ptr;
use std::sync::OnceLock;

use heaptide_cpython::{
    Family, Family39, Family311, Family313, FamilyWithoutGil, FrameFamily, Interpreter,
    LineTableForm, RawStr, first_local, last_instruction, read_code, read_frame, resolve_position,
};

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// # Safety
/// The process is a Python.
unsafe fn symbol(name: &CStr) -> *mut c_void {
    // SAFETY: a null handle is RTLD_DEFAULT, the name ends with a zero.
    unsafe { dlsym(ptr::null_mut(), name.as_ptr()) }
}

fn interpreter() -> Result<Interpreter, String> {
    static INTERPRETER: OnceLock<Result<Interpreter, String>> = OnceLock::new();
    INTERPRETER
        .get_or_init(|| {
            // SAFETY: the process is one Python, which stays loaded.
            unsafe { Interpreter::resolve(&|name| symbol(name)) }.map_err(|error| error.to_string())
        })
        .clone()
}

/// Walks the calling thread's stack and writes the text into `buffer`. Returns its length, or minus one if there is no room.
///
/// # Safety
/// Called from Python, with a buffer of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heaptide_walk_probe(buffer: *mut u8, size: usize) -> isize {
    // SAFETY: called from a Python.
    let text = unsafe { walk() }.unwrap_or_else(|error| format!("error {error}"));
    // SAFETY: the caller's buffer.
    unsafe { copy(&text, buffer, size) }
}

/// The same on a thread that Python has never heard of.
///
/// # Safety
/// As for [`heaptide_walk_probe`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heaptide_walk_probe_on_foreign_thread(
    buffer: *mut u8,
    size: usize,
) -> isize {
    // SAFETY: the process is a Python, and waits here.
    let walk = std::thread::spawn(|| unsafe { walk() });
    let text = walk
        .join()
        .expect("no panic")
        .unwrap_or_else(|error| format!("error {error}"));
    // SAFETY: the caller's buffer.
    unsafe { copy(&text, buffer, size) }
}

unsafe fn copy(text: &str, buffer: *mut u8, size: usize) -> isize {
    if text.len() > size {
        return -1;
    }
    // SAFETY: `size` bytes, as the caller says.
    unsafe { buffer.copy_from_nonoverlapping(text.as_ptr(), text.len()) };
    text.len() as isize
}

/// # Safety
/// Called on a thread of a process that is a Python, not in a free.
unsafe fn walk() -> Result<String, String> {
    let interpreter = interpreter()?;
    let layout = &interpreter.layout;
    // SAFETY: the interpreter is running.
    let (holds_gil, tstate) = unsafe { (interpreter.holds_gil(), interpreter.thread_state()) };
    let mut text = String::new();
    let (line, instruction) = if holds_gil {
        // SAFETY: Python called us, with the GIL.
        unsafe { said_of_the_innermost() }
    } else {
        (None, None)
    };
    writeln!(
        text,
        "{} {} {} {}",
        u8::from(holds_gil),
        u8::from(tstate.is_null()),
        or_dash(line),
        or_dash(instruction)
    )
    .unwrap();
    // SAFETY: this thread's own state and frames; no Python runs before the end of the walk.
    unsafe {
        let mut frame = interpreter.top_frame(tstate);
        while !frame.is_null() {
            let view = read_frame(layout, frame);
            let same = match layout.family {
                FrameFamily::V3_9 => Family39::read(layout, frame),
                FrameFamily::V3_11 => Family311::read(layout, frame),
                FrameFamily::V3_13 => Family313::read(layout, frame),
                FrameFamily::WithoutGil => FamilyWithoutGil::<true>::read(layout, frame),
            };
            if same != view {
                return Err("the generic reader disagrees".to_owned());
            }
            if !view.code.is_null() {
                let code_type = view
                    .code
                    .add(layout.object.type_ as usize)
                    .cast::<*mut u8>()
                    .read();
                if code_type != interpreter.code_type() {
                    return Err("not a code object".to_owned());
                }
                let code = read_code(layout, view.code).ok_or("unreadable code object")?;
                let instruction = last_instruction(layout, view.code, view.instruction, view.copy);
                let form = LineTableForm::for_version(interpreter.hexversion()).ok_or("no form")?;
                let position =
                    resolve_position(form, code.line_table, code.first_line, instruction);
                let (name, file_name, qualified_name) = (
                    string(code.name),
                    string(code.file_name),
                    or_dash(code.qualified_name.map(string)),
                );
                write!(
                    text,
                    "{name} {file_name} {qualified_name} {instruction} {} {}",
                    or_dash(position.line),
                    or_dash(position.end_line)
                )
                .unwrap();
                write!(
                    text,
                    " {} {}",
                    or_dash(position.column),
                    or_dash(position.end_column)
                )
                .unwrap();
                writeln!(
                    text,
                    " {} {} {}",
                    code.first_line,
                    code.flags,
                    first_local(layout, frame).addr()
                )
                .unwrap();
            }
            frame = view.previous;
        }
    }
    Ok(text)
}

/// The line and the last instruction of the innermost frame by the interpreter's own functions.
///
/// # Safety
/// The GIL is held, and Python is running.
unsafe fn said_of_the_innermost() -> (Option<i32>, Option<i32>) {
    type GetFrame = unsafe extern "C" fn() -> *mut c_void;
    type GetNumber = unsafe extern "C" fn(*mut c_void) -> c_int;
    // SAFETY: functions of the interpreter with these signatures; the last one came with 3.11.
    unsafe {
        let get_frame = std::mem::transmute::<*mut c_void, GetFrame>(symbol(c"PyEval_GetFrame"));
        let get_line =
            std::mem::transmute::<*mut c_void, GetNumber>(symbol(c"PyFrame_GetLineNumber"));
        let get_instruction =
            std::mem::transmute::<*mut c_void, Option<GetNumber>>(symbol(c"PyFrame_GetLasti"));
        let frame = get_frame();
        if frame.is_null() {
            (None, None)
        } else {
            (
                Some(get_line(frame)),
                get_instruction.map(|get_instruction| get_instruction(frame)),
            )
        }
    }
}

fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn string(text: RawStr<'_>) -> String {
    let points: Vec<_> = text
        .code_points()
        .map(|point| format!("{point:x}"))
        .collect();
    format!("s{}", points.join("."))
}
