//! Tracking that a program starts and stops itself: the functions that `libheaptide_agent.so` exports.
//!
//! ```text
//!          start                      stop                       all threads have left their hooks
//!   idle ─────────▶ tracking ──────────────────────▶ leaving ──────────────────────────────────────▶ idle
//!     │ cannot           │ disk full, a bug, exit        │ a thread does not leave: the next start looks again
//!     ▼                  ▼                               ▼
//!   idle               ended ── stop ──▶ as above      leaving
//!
//!   fork: the child is idle, or tracked in a capture of its own; one that was forked out of a hook is unusable.
//! ```
//!
//! Only these functions change the state, one at a time. See `docs/design/011-tracking-inside-a-program.md`.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicU32, Ordering};

use heaptide_format::{Identity, MetadataKey, PYTHON_ALLOCATORS, PythonAllocator};
use heaptide_recorder::ArmedError;
use rustix::io::Errno;

use crate::objects::Refused;
use crate::{
    RECORDER, code, family, guard, interpreter, loader, names, native, objects, python_allocators,
    real, sampler, search_path, server, start, switch, thread,
};

/// Changes when the functions do.
const ABI: u32 = 2;
/// `flags`: children that are forked are tracked too.
const FOLLOW_FORKS: u32 = 1;
/// Longest path of a capture, with its end.
const PATH_BYTES: usize = 4096;
/// How long stop waits for threads in hooks.
const PATIENCE_NS: u64 = 1_000_000_000;

/// What the functions answer, see the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
enum Code {
    Ok = 0,
    Already = 1,
    Supervised = 2,
    NotTracking = 3,
    Busy = 4,
    Config = 5,
    NoGil = 6,
    Unsupported = 7,
    Capture = 8,
    Foreign = 9,
    Resources = 10,
    Unusable = 11,
    EndedEarly = 12,
    OtherTracer = 13,
}

/// `struct heaptide_config`
#[repr(C)]
pub struct Config {
    bytes: u32,
    flags: u32,
    frames_below: u32,
    os_error: i32,
    path: *const c_char,
    cgroup_usage: *const c_char,
    cgroup_limit: *const c_char,
}

const IDLE: u32 = 0;
/// Somebody starts or stops.
const CHANGING: u32 = 1;
const TRACKING: u32 = 2;
/// Stopped, but a thread was still in a hook when we last looked.
const LEAVING: u32 = 3;
const UNUSABLE: u32 = 4;

static STATE: AtomicU32 = AtomicU32::new(IDLE);
/// The process in which tracking was started. Not the caller's in a child that no handler of ours has seen.
static OWNER: AtomicU32 = AtomicU32::new(0);

fn own_pid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get() as u32
}

/// Has this very process started tracking itself, and not yet stopped?
pub(crate) fn is_ours() -> bool {
    STATE.load(Ordering::Relaxed) != IDLE && OWNER.load(Ordering::Relaxed) == own_pid()
}

/// Is the state that of another process, whose copy this one is?
pub(crate) fn is_elsewhere() -> bool {
    let owner = OWNER.load(Ordering::Relaxed);
    owner != 0 && owner != own_pid()
}

/// Was tracking started from inside the program, here or in the process that has just been forked?
pub(crate) fn is_used() -> bool {
    OWNER.load(Ordering::Relaxed) != 0
}

/// In a forked child.
///
/// # Safety
/// The child still has one thread.
pub(crate) unsafe fn after_fork(usable: bool, followed: bool) {
    let state = match (usable, followed) {
        (false, _) => UNUSABLE,
        (true, true) => TRACKING,
        (true, false) => IDLE,
    };
    OWNER.store(own_pid(), Ordering::Relaxed);
    STATE.store(state, Ordering::Release);
}

/// Version of the interface.
#[unsafe(no_mangle)]
pub extern "C" fn heaptide_abi() -> u32 {
    ABI
}

/// Starts tracking.
///
/// # Safety
/// With the GIL; `config` is null or points to what its first field says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heaptide_start(config: *mut Config) -> i32 {
    // SAFETY: the caller's promise.
    let code = guard::catching(|| unsafe { start(config) });
    code.unwrap_or_else(|| {
        STATE.store(UNUSABLE, Ordering::Release);
        Code::Unusable
    }) as i32
}

/// Stops tracking. Lets the GIL go while it waits for threads that are in hooks.
///
/// # Safety
/// With the GIL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn heaptide_stop() -> i32 {
    // SAFETY: the caller's promise.
    let ended_early = match guard::catching(|| unsafe { begin_to_stop() }) {
        Some(Ok(ended_early)) => ended_early,
        Some(Err(code)) => return code as i32,
        None => return Code::Unusable as i32,
    };
    // SAFETY: the GIL is held, and nothing here has anything to drop.
    let left = unsafe {
        let python = interpreter::let_gil_go();
        let left = guard::catching(wait_for_threads).unwrap_or(false);
        interpreter::take_gil(python);
        left
    };
    // SAFETY: the caller's promise; `left` says that no thread is in a hook.
    if guard::catching(|| unsafe { complete_stop(left) }).is_none() {
        STATE.store(UNUSABLE, Ordering::Release);
        Code::Unusable as i32
    } else if ended_early {
        Code::EndedEarly as i32
    } else {
        Code::Ok as i32
    }
}

/// The Python objects that were made in the last stretch and were alive at its end, in that order: a list, which is
/// the caller's from here on. Null: that was not to be recorded, cannot be told, or was asked before.
///
/// # Safety
/// With the GIL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heaptide_survivors() -> *mut c_void {
    objects::take_survivors()
}

/// Where tracking stands.
#[unsafe(no_mangle)]
pub extern "C" fn heaptide_state() -> i32 {
    if is_supervised() {
        return 4;
    }
    if is_elsewhere() {
        return 0;
    }
    match STATE.load(Ordering::Acquire) {
        IDLE => 0,
        TRACKING if switch::is_on() => 1,
        TRACKING => 2,
        UNUSABLE => 5,
        _ => 3,
    }
}

/// From the next start on, serves the capture to whoever connects to a socket that listens, and to the first one, who
/// has connected. The descriptors are copied. With -1 three times: nothing is served after all.
///
/// # Safety
/// With the GIL. The descriptors are open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heaptide_serve(capture: c_int, listener: c_int, first: c_int) -> i32 {
    if is_supervised() {
        return Code::Supervised as i32;
    }
    match STATE.load(Ordering::Acquire) {
        IDLE | LEAVING => {}
        TRACKING => return Code::Already as i32,
        _ => return Code::Busy as i32,
    }
    let descriptors = [capture, listener, first];
    let wanted = descriptors.iter().all(|&number| number >= 0);
    match guard::catching(|| server::set(wanted.then_some(descriptors))) {
        Some(true) => Code::Ok as i32,
        _ => Code::Resources as i32,
    }
}

/// After stop: tells readers that tracking has ended, and waits until they have read: two seconds at most for one that does nothing, ten
/// for all. The GIL should be let go.
#[unsafe(no_mangle)]
pub extern "C" fn heaptide_farewell() {
    if matches!(STATE.load(Ordering::Acquire), IDLE | LEAVING) && !is_elsewhere() {
        guard::catching(server::finish);
    }
}

// ---- start ----------------------------------------------------------------------------------------

unsafe fn start(config: *mut Config) -> Code {
    // SAFETY: the caller's promise.
    let Some(path) = (unsafe { read(config) }) else {
        return Code::Config;
    };
    // SAFETY: `read` has found all of it to be there.
    let config = unsafe { &mut *config };
    config.os_error = 0;
    if is_supervised() {
        return Code::Supervised;
    }
    guard::silence_panics();
    if !interpreter::exists() || interpreter::resolve().is_err() {
        return Code::Unsupported;
    }
    // SAFETY: resolved.
    if !unsafe { interpreter::get().holds_gil() } {
        return Code::NoGil;
    }
    if thread::is_inside_hook() {
        return Code::Busy;
    }
    // SAFETY: the GIL is held.
    unsafe { objects::let_survivors_go() };
    if let Err(code) = claim() {
        return code;
    }
    OWNER.store(own_pid(), Ordering::Relaxed);
    // SAFETY: the GIL is held, and the state is ours alone to change.
    let code = unsafe { track(path, config) };
    if code != Code::Ok {
        family::stop_following();
        sampler::end();
        // SAFETY: the switch has been off all the time, so no thread has seen the recorder.
        unsafe {
            RECORDER.release();
            RECORDER.make_blank();
        }
    }
    let state = if code == Code::Ok { TRACKING } else { IDLE };
    STATE.store(state, Ordering::Release);
    code
}

/// The path, if the configuration is one that we know.
///
/// # Safety
/// As [`heaptide_start`].
unsafe fn read<'a>(config: *const Config) -> Option<&'a CStr> {
    // SAFETY: the caller's promise; no more is read than it says is there.
    unsafe {
        if config.is_null()
            || (&raw const (*config).bytes).read() as usize != size_of::<Config>()
            || (*config).flags & !FOLLOW_FORKS != 0
            || (*config).path.is_null()
        {
            return None;
        }
        let path = CStr::from_ptr((*config).path);
        let length = path.to_bytes().len();
        (path.to_bytes().starts_with(b"/") && length < PATH_BYTES).then_some(path)
    }
}

/// Does this process belong to `heaptide run`? Its copy of this library may be another file than ours; it is preloaded, so
/// it comes first.
fn is_supervised() -> bool {
    if start::is_supervised() {
        return true;
    }
    let found = real::find(c"heaptide_state");
    // What a name that we export means to ourselves is for the loader to say: the address is looked at instead.
    if found.is_null() || loader::is_own_code(found as usize) {
        return false;
    }
    // SAFETY: the name is ours, and so is the type.
    let state = unsafe { core::mem::transmute::<*mut c_void, extern "C" fn() -> i32>(found) };
    // That it tracks without a supervisor is as good a reason to keep out.
    matches!(state(), 1..=4)
}

/// Takes the right to change the state, where it is one to start from.
fn claim() -> Result<(), Code> {
    if is_elsewhere() {
        // A child that no handler of ours has seen (`clone`): whatever the parent was in the middle of may be.
        return Err(Code::Unusable);
    }
    loop {
        let now = STATE.load(Ordering::Acquire);
        match now {
            IDLE | LEAVING => {}
            TRACKING => return Err(Code::Already),
            UNUSABLE => return Err(Code::Unusable),
            _ => return Err(Code::Busy),
        }
        let exchanged = STATE.compare_exchange(now, CHANGING, Ordering::AcqRel, Ordering::Relaxed);
        if exchanged.is_err() {
            continue;
        }
        if now == LEAVING {
            // SAFETY: the switch is off, and there is a key.
            if !(unsafe { thread::leave() } && thread::all_have_left()) {
                STATE.store(LEAVING, Ordering::Release);
                return Err(Code::Busy);
            }
            // SAFETY: as just seen; the switch is off.
            unsafe { release() };
        }
        return Ok(());
    }
}

/// # Safety
/// The GIL is held, the recorder is blank, and nobody else starts or stops.
unsafe fn track(path: &CStr, config: &mut Config) -> Code {
    // SAFETY: the GIL is held, and the interpreter resolved.
    if !unsafe { start::prepare_late() } {
        return Code::Resources;
    }
    // SAFETY: the GIL is held.
    unsafe { interpreter::look_for_subinterpreters() };
    let identity = match RECORDER.start_armed(path.to_bytes(), own_pid()) {
        Ok(identity) => identity,
        Err(ArmedError::Foreign) => return Code::Foreign,
        Err(ArmedError::File(error)) => {
            config.os_error = error.raw_os_error();
            return Code::Capture;
        }
    };
    // SAFETY: the GIL is held, tracking is off, and nobody else starts it.
    unsafe { search_path::read() };
    if note_facts(config).is_err() {
        config.os_error = Errno::NOSPC.raw_os_error();
        return Code::Capture;
    }
    if config.flags & FOLLOW_FORKS != 0 && !family::follow(path.to_bytes(), &identity) {
        return Code::Resources;
    }
    names::note_known_threads();
    // SAFETY: the paths are null or C strings, by the caller of `heaptide_start`.
    let cgroup = unsafe { [text(config.cgroup_usage), text(config.cgroup_limit)] };
    if !sampler::begin(identity.memory_interval_ms, cgroup) {
        return Code::Resources;
    }
    if identity.tracks_objects() {
        // SAFETY: the GIL is held, and tracking is off.
        match unsafe { objects::begin() } {
            Ok(()) => {}
            Err(Refused::Unsupported) => return Code::Unsupported,
            Err(Refused::OtherTracer) => return Code::OtherTracer,
            Err(Refused::Failed) => return Code::Resources,
        }
    }
    // SAFETY: the GIL is held; what comes next cannot fail.
    unsafe { switch_on(&identity) };
    Code::Ok
}

/// # Safety
/// As [`track`].
unsafe fn switch_on(identity: &Identity) {
    // SAFETY: resolved.
    let version = unsafe { interpreter::get() }.hexversion();
    let allocator = interpreter::allocator().unwrap_or(PythonAllocator::Unknown) as u32;
    interpreter::remember(version, allocator);
    loader::look_for_other_allocators();
    loader::patch_newcomers();
    native::begin();
    RECORDER.tracking_begins(
        version,
        allocator,
        rustix::thread::gettid().as_raw_nonzero().get() as u32,
    );
    thread::alone_for_now();
    // A parent's may still be there in a forked child.
    // SAFETY: the GIL is held, and tracking is off.
    unsafe { python_allocators::remove() };
    if identity.options & PYTHON_ALLOCATORS != 0 {
        // SAFETY: the GIL is held.
        unsafe { python_allocators::install() };
    }
    switch::turn_on(identity.options);
    if identity.tracks_objects() {
        switch::turn_objects_on();
    }
}

fn note_facts(config: &Config) -> Result<(), heaptide_recorder::Stop> {
    RECORDER.metadata(MetadataKey::PythonVersion, interpreter::version_text())?;
    RECORDER.metadata(MetadataKey::SearchPath, search_path::known())?;
    let mut digits = [0u8; 10];
    let mut at = digits.len();
    let mut left = config.frames_below;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    RECORDER.metadata(MetadataKey::FramesBelow, &digits[at..])
}

/// # Safety
/// Null or a C string that stays while it is used.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

// ---- stop -----------------------------------------------------------------------------------------

/// Switches everything off. Says whether tracking had ended before.
///
/// # Safety
/// The GIL is held.
unsafe fn begin_to_stop() -> Result<bool, Code> {
    if is_supervised() {
        return Err(Code::Supervised);
    }
    if is_elsewhere() {
        return Err(Code::NotTracking);
    }
    if thread::is_inside_hook() {
        return Err(Code::Busy);
    }
    match STATE.compare_exchange(TRACKING, CHANGING, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(IDLE | LEAVING) => return Err(Code::NotTracking),
        Err(UNUSABLE) => return Err(Code::Unusable),
        Err(_) => return Err(Code::Busy),
    }
    switch::turn_off();
    // SAFETY: the GIL is held.
    unsafe { python_allocators::remove() };
    // SAFETY: as above, and all the time since the switch went off.
    unsafe { objects::end(true) };
    Ok(!family::is_pending() && RECORDER.has_stopped())
}

/// Waits until no thread is in a hook. Without the GIL: a hook may wait for that.
fn wait_for_threads() -> bool {
    sampler::end();
    let begun = monotonic_ns();
    let mut entered = true;
    loop {
        // SAFETY: the switch is off, and there is a key, or tracking would not have started.
        if entered && unsafe { thread::leave() } {
            entered = false;
        }
        if !entered && thread::all_have_left() {
            return true;
        }
        if monotonic_ns().saturating_sub(begun) > PATIENCE_NS {
            return false;
        }
        rustix::thread::sched_yield();
    }
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec as u64)
}

/// # Safety
/// The GIL is held, the switch is off; `left`: no thread is in a hook.
unsafe fn complete_stop(left: bool) {
    loader::restore_all();
    start::exec_is_over();
    RECORDER.tracking_ends();
    family::stop_following();
    if left {
        // SAFETY: the caller's promise.
        unsafe { release() };
    }
    let state = if left { IDLE } else { LEAVING };
    STATE.store(state, Ordering::Release);
}

/// Gives back all that belongs to the capture that has ended.
///
/// # Safety
/// The switch is off, and no thread is in a hook.
unsafe fn release() {
    names::forget_all();
    // SAFETY: the caller's promise, passed on.
    unsafe {
        thread::release();
        native::release();
        code::release();
        RECORDER.release();
        RECORDER.make_blank();
    }
}
