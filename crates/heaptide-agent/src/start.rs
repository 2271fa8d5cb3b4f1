//! From "loaded" to "tracking" and to its end.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};

use heaptide_format::{MetadataKey, PYTHON_ALLOCATORS, PythonAllocator, StopReason};
use heaptide_recorder::SpinLock;

use crate::interpreter;
use crate::session::{self, Session};
use crate::{
    RECORDER, audit_hook, code, family, fork, guard, inside, loader, names, native, objects,
    python_allocators, real, sampler, search_path, server, switch, thread,
};

static SESSION: SpinLock<Option<Session>> = SpinLock::new(None);
static BEGUN: AtomicBool = AtomicBool::new(false);
static EXEC_ASKED: AtomicBool = AtomicBool::new(false);
static SUPERVISED: AtomicBool = AtomicBool::new(false);

/// Does this process belong to `heaptide run`?
pub(crate) fn is_supervised() -> bool {
    SUPERVISED.load(Ordering::Relaxed)
}

/// The constructor's work: find out whether this process is ours, and if it is a CPython, ask it to
/// tell us when the program starts.
pub(crate) fn loaded() {
    if interpreter::exists() {
        // Loaded late: whoever did it will say what he wants (`inside`).
        return;
    }
    let session = Session::read();
    family::read();
    if session.is_none() && !family::follows_children() {
        return;
    }
    let add_hook = real::find(audit_hook::ADD);
    let pid = rustix::process::getpid().as_raw_nonzero().get() as u32;
    if add_hook.is_null() {
        // Not a CPython (yet): the process may become one by exec, so the environment stays.
        return;
    }
    session::remove_traces(family::follows_children());
    let session = match session {
        Some(session) if session.pid == pid => session,
        _ if family::follows_children() => Session::of_started(pid, family::options()),
        _ => return,
    };
    *SESSION.lock() = Some(session);
    SUPERVISED.store(true, Ordering::Relaxed);
    guard::silence_panics();
    // SAFETY: the symbol has had this type since CPython 3.8 and may be called before the
    // interpreter exists.
    unsafe {
        audit_hook::add(
            core::mem::transmute::<*mut c_void, audit_hook::Add>(add_hook),
            audit,
        );
    };
}

/// Called by CPython for every audited event, with the GIL.
pub(crate) unsafe extern "C" fn audit(
    event: *const c_char,
    arguments: *mut c_void,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: CPython passes a C string.
    let event = unsafe { CStr::from_ptr(event) }.to_bytes();
    // Whoever raises another event after it asked for exec is still here: the exec failed.
    if EXEC_ASKED.load(Ordering::Relaxed) && event != b"os.exec" && switch::is_on() {
        EXEC_ASKED.store(false, Ordering::Relaxed);
        RECORDER.exec_failed();
    }
    python_allocators::look_after();
    sampler::resume();
    // Most events are none of ours: look at one letter first.
    match event.first() {
        Some(b'c')
            if event.starts_with(b"cpython.run_") && !BEGUN.swap(true, Ordering::Relaxed) =>
        {
            guard::catching(begin);
        }
        Some(b'c')
            if event == b"cpython.PyInterpreterState_Clear"
                && interpreter::in_main_interpreter() =>
        {
            finish();
        }
        // Of another interpreter: a later one may have a thread state with the same address and number.
        Some(b'c') if event == b"cpython.PyInterpreterState_Clear" => code::next_generation(),
        Some(b'c') if event == b"cpython._PySys_ClearAuditHooks" => audit_hook::unlink(),
        Some(b'c') if event == b"cpython.PyInterpreterState_New" => {
            interpreter::note_subinterpreter();
        }
        Some(b'o') if event == b"os.exec" && switch::is_on() => {
            EXEC_ASKED.store(true, Ordering::Relaxed);
            RECORDER.exec_attempted();
        }
        Some(b'o') if (event == b"os.fork" || event == b"os.forkpty") && switch::is_on() => {
            fork::announced();
        }
        Some(b'_') if event.starts_with(b"_thread.start_") && switch::is_on() => {
            // SAFETY: the arguments are a tuple, and the GIL is held.
            guard::catching(|| unsafe { names::thread_is_being_started(arguments) });
        }
        _ => {}
    }
    0
}

/// The program is about to run. The GIL is held.
fn begin() {
    let Some(session) = SESSION.lock().take() else {
        return;
    };
    if session.pid != rustix::process::getpid().as_raw_nonzero().get() as u32 {
        return;
    }
    let opened = if session.path().is_empty() {
        family::create_for_started()
    } else {
        RECORDER.start(session.path(), session.node_budget)
    };
    if opened.is_err() {
        // The supervisor finds a capture that never started, or one that says why.
        RECORDER.file().stop(StopReason::MapFailed, 0);
        return;
    }
    let version = match interpreter::resolve() {
        Ok(version) => version,
        Err(version) => {
            RECORDER.tracking_begins(version, 0, 0);
            RECORDER.file().stop(StopReason::Unsupported, 0);
            return;
        }
    };
    let _ = RECORDER.metadata(MetadataKey::PythonVersion, interpreter::version_text());
    // All that needs the interpreter's own services comes before the first slot is patched, so that
    // none of it is counted as the program's.
    // SAFETY: the GIL is held, and this happens once.
    unsafe {
        interpreter::at_exit(finish_at_exit);
        search_path::read();
    }
    let _ = RECORDER.metadata(MetadataKey::SearchPath, search_path::known());
    names::prepare();
    code::watch_destruction();
    real::resolve();
    thread::make_exit_key(false);
    switch::protect_children();
    fork::watch();
    let allocator = interpreter::allocator().unwrap_or(PythonAllocator::Unknown);
    interpreter::remember(version, allocator as u32);
    loader::patch_newcomers();
    native::begin();
    RECORDER.tracking_begins(
        version,
        allocator as u32,
        rustix::thread::gettid().as_raw_nonzero().get() as u32,
    );
    thread::alone_for_now();
    if session.options & PYTHON_ALLOCATORS != 0 {
        // SAFETY: the GIL is held.
        unsafe { python_allocators::install() };
    }
    switch::turn_on(session.options);
    // The main thread gets the first number.
    family::name_main_thread();
}

/// What is done once for an interpreter that runs already, at the first start. `false`: there is no key for the
/// ends of threads.
///
/// # Safety
/// The GIL is held, [`interpreter::resolve`] has succeeded, and tracking is off.
pub(crate) unsafe fn prepare_late() -> bool {
    static PREPARED: AtomicBool = AtomicBool::new(false);
    if PREPARED.load(Ordering::Relaxed) {
        return true;
    }
    if !thread::make_exit_key(true) {
        return false;
    }
    let add_hook = real::find(audit_hook::ADD);
    if !add_hook.is_null() {
        // SAFETY: the symbol has had this type since CPython 3.8; the GIL is held.
        unsafe {
            audit_hook::add_late(
                core::mem::transmute::<*mut c_void, audit_hook::Add>(add_hook),
                audit,
            );
        }
    }
    // SAFETY: the GIL is held.
    unsafe { interpreter::at_exit(finish_at_exit) };
    names::prepare();
    code::watch_destruction();
    real::resolve();
    switch::protect_children();
    fork::watch();
    PREPARED.store(true, Ordering::Relaxed);
    true
}

/// Tracking ends for good, and the program goes on.
pub(crate) fn exec_is_over() {
    if EXEC_ASKED.swap(false, Ordering::Relaxed) {
        RECORDER.exec_failed();
    }
}

/// In a forked child: whatever the parent was about to become, the child has not asked for it.
///
/// # Safety
/// The child still has one thread.
pub(crate) unsafe fn after_fork() {
    EXEC_ASKED.store(false, Ordering::Relaxed);
}

/// Tracking ends as it should.
fn finish() {
    if inside::is_elsewhere() {
        return;
    }
    sampler::end();
    if switch::is_on() {
        switch::turn_off();
        if EXEC_ASKED.load(Ordering::Relaxed) {
            RECORDER.exec_failed();
        }
        // SAFETY: the GIL is held, in an audit hook as in a callable.
        unsafe { objects::end(false) };
        RECORDER.tracking_ends();
    }
    // SAFETY: the GIL is held, in an audit hook as in a callable.
    unsafe { python_allocators::remove() };
}

/// As a Python callable, run by `atexit` after the program's own handlers.
unsafe extern "C" fn finish_at_exit(_self: *mut c_void, _arguments: *mut c_void) -> *mut c_void {
    finish();
    if !inside::is_elsewhere() {
        // For two seconds at most, where nobody reads.
        server::finish();
    }
    interpreter::none()
}
