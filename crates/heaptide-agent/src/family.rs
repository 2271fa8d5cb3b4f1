//! The program's other processes: what was asked for, and the captures of children.
//!
//! `HEAPTIDE_FOLLOW=1;<what>;<mode>;<node budget>;<interval>;<options>;<root pid>;<group id>;<output>` with `what` 1 for
//! forks, 3 for started programs too, and 4 more for native stacks. See `docs/design/004-processes.md`.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use heaptide_elf::Hook;
use heaptide_format::{
    FEATURE_NATIVE_STACKS, FEATURE_NODE_STREAM, FORMAT_VERSION, HEADER_BYTES, Identity, MAGIC,
    MetadataKey, Origin, Outcome, PYTHON_OBJECTS,
};
use heaptide_recorder::{Mapping, Recorder, SpinLock};

use crate::thread::Turn;
use crate::{RECORDER, guard, interpreter, native, real, search_path, session, switch, thread};

const FORKS: u8 = 1;
const CHILDREN: u8 = 2;
const NATIVE_STACKS: u8 = 4;
/// As in the captures that the supervisor makes.
const TEMPORARY_THRESHOLD: u32 = 1;
/// Longer command lines are cut.
const LONGEST_TEXT: usize = 16 << 10;

/// What is to be followed; zero: nothing.
static WHAT: AtomicU8 = AtomicU8::new(0);
static PLAN: PlanCell = PlanCell(UnsafeCell::new(MaybeUninit::uninit()));
/// This process. Not the caller's in a `vfork` child, which has our memory.
static OWN_PID: AtomicU32 = AtomicU32::new(0);

/// Tracking is on and the capture is still to be made, by whoever has the first event.
static PENDING: AtomicBool = AtomicBool::new(false);
static MAKING: SpinLock<()> = SpinLock::new(());
static FORKED_UNIX_NS: AtomicU64 = AtomicU64::new(0);
static PARENT_PID: AtomicU32 = AtomicU32::new(0);

/// How many threads look at the plan right now, signal handlers of theirs included.
static READERS: AtomicU32 = AtomicU32::new(0);

struct PlanCell(UnsafeCell<MaybeUninit<Plan>>);
// SAFETY: written in the constructor, before there is a second thread, or while `WHAT` says that there is no plan
// and nobody reads one (`follow`).
unsafe impl Sync for PlanCell {}

struct Plan {
    mode: u32,
    node_budget: u32,
    interval: u32,
    options: u32,
    native_stacks: bool,
    root_pid: u32,
    group_id: [u8; 16],
    base: [u8; 4096],
    base_length: usize,
}

impl Plan {
    fn base(&self) -> &[u8] {
        &self.base[..self.base_length]
    }
}

/// What `read` makes of the plan, if there is one.
fn with_plan<T>(read: impl FnOnce(&Plan) -> T) -> Option<T> {
    // Either we see that the plan is gone, or who replaces it sees us.
    READERS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: `WHAT` says that the plan is there, and it does not change while it is read.
    let value = (WHAT.load(Ordering::SeqCst) != 0)
        .then(|| read(unsafe { (*PLAN.0.get()).assume_init_ref() }));
    READERS.fetch_sub(1, Ordering::Release);
    value
}

/// How many times whoever makes a plan yields to those who still read the last one: seconds, for a few system calls.
const PATIENCE: u32 = 1_000_000;

/// Forks are to be followed from now on: what children record, and beside which capture. `false` when the path is
/// too long, or a thread will not let go of the last plan.
pub(crate) fn follow(path: &[u8], identity: &Identity) -> bool {
    stop_following();
    let mut rounds = 0u32;
    while READERS.load(Ordering::SeqCst) != 0 {
        rounds += 1;
        if rounds == PATIENCE {
            return false;
        }
        rustix::thread::sched_yield();
    }
    // SAFETY: nobody reads the plan, nor will before `WHAT` is set. All-zero is a valid value of it.
    let plan = unsafe {
        PLAN.0.get().write(MaybeUninit::zeroed());
        (*PLAN.0.get()).assume_init_mut()
    };
    let Some(base) = plan.base.get_mut(..path.len()) else {
        return false;
    };
    base.copy_from_slice(path);
    plan.base_length = path.len();
    plan.mode = identity.mode;
    plan.node_budget = identity.stack_node_budget;
    plan.interval = identity.memory_interval_ms;
    // Whose objects would survive a child is not asked: they are those of its parent, for the most part.
    plan.options = identity.options & !PYTHON_OBJECTS;
    plan.native_stacks = identity.holds_native_stacks();
    plan.root_pid = identity.pid;
    plan.group_id = identity.group_id;
    OWN_PID.store(own_pid(), Ordering::Relaxed);
    WHAT.store(FORKS, Ordering::SeqCst);
    true
}

/// Nothing is followed any more.
pub(crate) fn stop_following() {
    WHAT.store(0, Ordering::SeqCst);
    PENDING.store(false, Ordering::Release);
}

/// In a forked child: nobody reads the plan.
pub(crate) fn nobody_reads() {
    READERS.store(0, Ordering::Relaxed);
}

/// Is the capture still to be made?
pub(crate) fn is_pending() -> bool {
    PENDING.load(Ordering::Acquire)
}

/// Interval of the memory samples that children take, milliseconds.
pub(crate) fn interval() -> u32 {
    with_plan(|plan| plan.interval).unwrap_or(0)
}

/// Reads what the supervisor asked for. In the constructor, once.
pub(crate) fn read() {
    let Some(text) = session::entries().find_map(|entry| entry.strip_prefix(session::FOLLOW))
    else {
        return;
    };
    if let Some((what, plan)) = parse(text) {
        // SAFETY: nobody reads the plan before `WHAT` is set.
        unsafe { (*PLAN.0.get()).write(plan) };
        OWN_PID.store(own_pid(), Ordering::Relaxed);
        WHAT.store(what, Ordering::Release);
    }
}

fn parse(text: &[u8]) -> Option<(u8, Plan)> {
    let mut fields = text.splitn(9, |byte| *byte == b';');
    if fields.next()? != b"1" {
        return None;
    }
    let mut number = || session::number(fields.next()?);
    let what = u8::try_from(number()?).ok()?;
    let (mode, node_budget, interval) = (number()?, number()?, number()?);
    let (options, root_pid) = (number()?, number()?);
    let digits = fields.next()?;
    let path = fields.next()?;
    let mut plan = Plan {
        mode,
        node_budget,
        interval,
        options,
        native_stacks: what & NATIVE_STACKS != 0,
        root_pid,
        group_id: [0; 16],
        base: [0; 4096],
        base_length: path.len(),
    };
    if digits.len() != 32 || !path.starts_with(b"/") {
        return None;
    }
    for (byte, pair) in plan.group_id.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    plan.base.get_mut(..path.len())?.copy_from_slice(path);
    (what & FORKS != 0).then_some((what & (FORKS | CHILDREN), plan))
}

/// Are forked children recorded?
pub(crate) fn follows_forks() -> bool {
    WHAT.load(Ordering::Relaxed) & FORKS != 0
}

/// Are programs recorded that this one starts?
pub(crate) fn follows_children() -> bool {
    WHAT.load(Ordering::Relaxed) & CHILDREN != 0
}

/// What else is to be recorded in programs that are followed, see `Identity::options`.
pub(crate) fn options() -> u32 {
    with_plan(|plan| plan.options).unwrap_or(0)
}

fn own_pid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get() as u32
}

/// Leaves out the hooks that only serve to follow processes, where none are followed.
pub(crate) fn only_when_following<const N: usize>(mut table: [Hook; N]) -> [Hook; N] {
    const OURS: [&str; 8] = [
        "waitpid", "wait", "wait3", "wait4", "waitid", "_exit", "execv", "execve",
    ];
    if !follows_forks() {
        for hook in table.iter_mut().filter(|hook| OURS.contains(&hook.name)) {
            hook.original = 0;
        }
    }
    table
}

// ---- forked children ------------------------------------------------------------------------------

/// In a forked child, when all state of the parent's recording is gone: from here on it is recorded, and
/// the capture is made by the first event, or now if the fork was `announced`.
pub(crate) fn begin_in_child(announced: bool) {
    PARENT_PID.store(
        OWN_PID.swap(own_pid(), Ordering::Relaxed),
        Ordering::Relaxed,
    );
    FORKED_UNIX_NS.store(unix_ns(), Ordering::Relaxed);
    // SAFETY: in a forked child with one thread, which is not in `make_pending`.
    unsafe { MAKING.reopen() };
    PENDING.store(true, Ordering::Release);
    thread::alone_for_now();
    switch::turn_on(options());
    if announced {
        name_main_thread();
    }
}

/// Whether events can be recorded: makes the capture if it is still to be made. At a thread's first event.
#[inline]
pub(crate) fn ready() -> bool {
    !PENDING.load(Ordering::Acquire) || make_pending()
}

#[cold]
fn make_pending() -> bool {
    let _one_at_a_time = MAKING.lock();
    if !PENDING.load(Ordering::Acquire) {
        return switch::is_on();
    }
    let made = keeping_errno(|| guard::catching(make_for_fork)).unwrap_or(false);
    if !made {
        switch::turn_off();
    }
    PENDING.store(false, Ordering::Release);
    made
}

fn make_for_fork() -> bool {
    let origin = (
        Origin::Forked,
        PARENT_PID.load(Ordering::Relaxed),
        FORKED_UNIX_NS.load(Ordering::Relaxed),
    );
    if create(origin).is_err() {
        return false;
    }
    native::begin_in_child();
    let (version, allocator) = interpreter::known();
    let _ = RECORDER.metadata(
        MetadataKey::PythonVersion,
        interpreter::version_text_known(),
    );
    let _ = RECORDER.metadata(MetadataKey::SearchPath, search_path::known());
    RECORDER.tracking_begins(
        version,
        allocator,
        rustix::thread::gettid().as_raw_nonzero().get() as u32,
    );
    true
}

// ---- any capture that we make ---------------------------------------------------------------------

/// Makes the capture of a program that a followed one has started. When it begins.
pub(crate) fn create_for_started() -> Result<(), rustix::io::Errno> {
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32);
    create((Origin::Started, parent, unix_ns()))
}

fn create(origin: (Origin, u32, u64)) -> Result<(), rustix::io::Errno> {
    with_plan(|plan| create_by(plan, origin)).unwrap_or(Err(rustix::io::Errno::INVAL))
}

fn create_by(
    plan: &Plan,
    (origin, parent_pid, origin_unix_ns): (Origin, u32, u64),
) -> Result<(), rustix::io::Errno> {
    let scratch = Mapping::new(LONGEST_TEXT).ok_or(rustix::io::Errno::NOMEM)?;
    // SAFETY: our own fresh memory, all zero; it is unmapped when `scratch` is dropped.
    let buffer = unsafe { core::slice::from_raw_parts_mut(scratch.as_ptr::<u8>(), LONGEST_TEXT) };
    // SAFETY: all-zero is a valid value of this plain data.
    let mut identity: Identity = unsafe { core::mem::zeroed() };
    identity.magic = MAGIC;
    identity.version = FORMAT_VERSION;
    identity.header_bytes = HEADER_BYTES as u32;
    identity.page_bytes = rustix::param::page_size() as u32;
    identity.mode = plan.mode;
    identity.pid = own_pid();
    identity.parent_pid = parent_pid;
    identity.created_unix_ns = unix_ns();
    identity.boot_id = boot_id(buffer);
    identity.pid_namespace = pid_namespace();
    identity.process_start_ticks = start_ticks(contents(c"/proc/self/stat", buffer)).unwrap_or(0);
    identity.sample_weight = 1;
    identity.memory_interval_ms = plan.interval;
    identity.temporary_threshold = TEMPORARY_THRESHOLD;
    identity.stack_node_budget = plan.node_budget;
    identity.options = plan.options;
    identity.required_features = FEATURE_NODE_STREAM;
    if plan.native_stacks {
        identity.required_features |= FEATURE_NATIVE_STACKS;
    }
    identity.group_id = plan.group_id;
    identity.origin = origin as u32;
    identity.origin_unix_ns = origin_unix_ns;
    identity.root_pid = plan.root_pid;
    identity.checksum = identity.expected_checksum();
    RECORDER.start_new(plan.base(), &identity)?;
    let writer = concat!("heaptide ", env!("CARGO_PKG_VERSION"));
    let _ = RECORDER.metadata(MetadataKey::Writer, writer.as_bytes());
    let line = contents(c"/proc/self/cmdline", buffer);
    let _ = RECORDER.metadata(MetadataKey::CommandLine, line);
    describe_place(buffer);
    Ok(())
}

/// Executable, working directory and host. What cannot be had is left out.
fn describe_place(buffer: &mut [u8]) {
    let note = |key, text: &[u8]| {
        let _ = RECORDER.metadata(key, text);
    };
    // SAFETY: the buffer is writable for the length given.
    let length = unsafe {
        libc::readlink(
            c"/proc/self/exe".as_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
        )
    };
    if let Some(text) = usize::try_from(length)
        .ok()
        .and_then(|end| buffer.get(..end))
    {
        note(MetadataKey::Executable, text);
    }
    // SAFETY: as above.
    let found = unsafe { libc::getcwd(buffer.as_mut_ptr().cast(), buffer.len()) };
    if !found.is_null()
        && let Ok(text) = CStr::from_bytes_until_nul(buffer)
    {
        note(MetadataKey::WorkingDirectory, text.to_bytes());
    }
    // SAFETY: as above.
    let failed = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), 256) };
    if failed == 0
        && let Ok(text) = CStr::from_bytes_until_nul(buffer)
    {
        note(MetadataKey::Hostname, text.to_bytes());
    }
}

/// The start of a small file.
fn contents<'a>(path: &CStr, buffer: &'a mut [u8]) -> &'a [u8] {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(path, flags, rustix::fs::Mode::empty()) else {
        return &[];
    };
    let length = rustix::io::read(&file, &mut *buffer).unwrap_or(0);
    &buffer[..length]
}

fn boot_id(buffer: &mut [u8]) -> [u8; 16] {
    let mut id = [0u8; 16];
    let text = contents(c"/proc/sys/kernel/random/boot_id", buffer);
    let mut digits = text
        .iter()
        .filter_map(|byte| char::from(*byte).to_digit(16));
    for byte in &mut id {
        match (digits.next(), digits.next()) {
            (Some(high), Some(low)) => *byte = (high << 4 | low) as u8,
            _ => return [0; 16],
        }
    }
    id
}

fn pid_namespace() -> u64 {
    rustix::fs::stat(c"/proc/self/ns/pid").map_or(0, |status| status.st_ino)
}

/// Field 22 of `/proc/PID/stat`; the name in field 2 may hold anything, so count from its parenthesis.
fn start_ticks(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 2;
    let field = stat
        .get(after_name..)?
        .split(|byte| *byte == b' ')
        .nth(22 - 3)?;
    core::str::from_utf8(field).ok()?.parse().ok()
}

fn unix_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    (now.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec as u64)
}

/// Runs what may call the C library, and puts `errno` back.
fn keeping_errno<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the address of this thread's errno is valid.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let value = work();
        *errno = before;
        value
    }
}

// ---- how processes end ----------------------------------------------------------------------------

/// A child was waited for: its capture, if it has one, learns how it ended.
#[cold]
fn note_end(pid: u32, outcome: Outcome, value: c_int) {
    with_plan(|plan| {
        heaptide_recorder::note_end(plan.base(), &plan.group_id, pid, outcome, value);
    });
}

fn note_status(pid: c_int, status: c_int) {
    if pid <= 0 {
        return;
    }
    if libc::WIFEXITED(status) {
        note_end(pid as u32, Outcome::Exited, libc::WEXITSTATUS(status));
    } else if libc::WIFSIGNALED(status) {
        note_end(pid as u32, Outcome::Signaled, libc::WTERMSIG(status));
    }
}

/// Where the real function puts the status: the caller's place, or ours if it does not want it.
fn place_or(place: *mut c_int, own: &mut c_int) -> *mut c_int {
    if place.is_null() { own } else { place }
}

pub(crate) unsafe extern "C" fn waitpid(pid: c_int, place: *mut c_int, options: c_int) -> c_int {
    let mut own = 0;
    let place = place_or(place, &mut own);
    // SAFETY: hooks are installed only for functions that were found; the arguments are the caller's, and
    // what succeeded has written the status. (The same holds for all hooks below.)
    unsafe {
        let found = real::waitpid::get()(pid, place, options);
        if found > 0 {
            note_status(found, *place);
        }
        found
    }
}

pub(crate) unsafe extern "C" fn wait(place: *mut c_int) -> c_int {
    let mut own = 0;
    let place = place_or(place, &mut own);
    // SAFETY: see `waitpid`.
    unsafe {
        let found = real::wait::get()(place);
        if found > 0 {
            note_status(found, *place);
        }
        found
    }
}

pub(crate) unsafe extern "C" fn wait3(
    place: *mut c_int,
    options: c_int,
    usage: *mut c_void,
) -> c_int {
    let mut own = 0;
    let place = place_or(place, &mut own);
    // SAFETY: see `waitpid`.
    unsafe {
        let found = real::wait3::get()(place, options, usage);
        if found > 0 {
            note_status(found, *place);
        }
        found
    }
}

pub(crate) unsafe extern "C" fn wait4(
    pid: c_int,
    place: *mut c_int,
    options: c_int,
    usage: *mut c_void,
) -> c_int {
    let mut own = 0;
    let place = place_or(place, &mut own);
    // SAFETY: see `waitpid`.
    unsafe {
        let found = real::wait4::get()(pid, place, options, usage);
        if found > 0 {
            note_status(found, *place);
        }
        found
    }
}

pub(crate) unsafe extern "C" fn waitid(
    kind: c_int,
    id: u32,
    place: *mut libc::siginfo_t,
    options: c_int,
) -> c_int {
    // SAFETY: see `waitpid`.
    let result = unsafe { real::waitid::get()(kind, id, place, options) };
    if result == 0 && !place.is_null() {
        // SAFETY: filled in by the kernel for a child; all zero when there was none.
        let (code, pid, status) =
            unsafe { ((*place).si_code, (*place).si_pid(), (*place).si_status()) };
        if pid > 0 {
            match code {
                libc::CLD_EXITED => note_end(pid as u32, Outcome::Exited, status),
                libc::CLD_KILLED | libc::CLD_DUMPED => {
                    note_end(pid as u32, Outcome::Signaled, status);
                }
                _ => {}
            }
        }
    }
    result
}

/// Is this process the one that is recorded, and not a `vfork` child in its memory?
fn is_recorded() -> bool {
    switch::is_on() && OWN_PID.load(Ordering::Relaxed) == own_pid()
}

pub(crate) unsafe extern "C" fn _exit(code: c_int) {
    // How the root ends is the supervisor's to tell.
    let root = with_plan(|plan| plan.root_pid).unwrap_or(0);
    if is_recorded() && own_pid() != root {
        note_end(own_pid(), Outcome::Exited, code & 0xff);
    }
    // SAFETY: see `waitpid`.
    unsafe { real::_exit::get()(code) }
}

/// Inside a turn: the capture stays where it is for as long. A child that has not made one yet has nothing to note,
/// and is not to make one by asking for a turn.
fn note_exec(note: impl FnOnce(&Recorder)) {
    if is_pending() {
        return;
    }
    if let Some(_turn) = Turn::begin() {
        note(&RECORDER);
    }
}

pub(crate) unsafe extern "C" fn execv(
    path: *const c_char,
    arguments: *const *const c_char,
) -> c_int {
    let recorded = is_recorded();
    if recorded {
        note_exec(Recorder::exec_attempted);
    }
    // SAFETY: see `waitpid`.
    let result = unsafe { real::execv::get()(path, arguments) };
    if recorded {
        note_exec(Recorder::exec_failed);
    }
    result
}

pub(crate) unsafe extern "C" fn execve(
    path: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    let recorded = is_recorded();
    if recorded {
        note_exec(Recorder::exec_attempted);
    }
    // SAFETY: see `waitpid`.
    let result = unsafe { real::execve::get()(path, arguments, environment) };
    if recorded {
        note_exec(Recorder::exec_failed);
    }
    result
}

/// The thread's turn names it: the one that forked is the child's main thread.
pub(crate) fn name_main_thread() {
    if let Some(mut turn) = Turn::begin() {
        let state = turn.state();
        state.named = true;
        RECORDER.thread_name(&state.record, b"MainThread");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read() {
        let text = b"1;3;2;1000;10;1;42;000102030405060708090a0b0c0d0e0f;/tmp/a;b.tide";
        let (what, plan) = parse(text).unwrap();
        assert_eq!(what, FORKS | CHILDREN);
        assert_eq!((plan.mode, plan.node_budget), (2, 1000));
        assert_eq!((plan.interval, plan.options, plan.root_pid), (10, 1, 42));
        assert_eq!(plan.group_id[15], 15);
        assert_eq!(plan.base(), b"/tmp/a;b.tide");
        for bad in [
            &b"2;3;2;1;1;0;42;000102030405060708090a0b0c0d0e0f;/a"[..],
            b"1;0;2;1;1;0;42;000102030405060708090a0b0c0d0e0f;/a",
            b"1;3;2;1;1;0;42;0001;/a",
            b"1;3;2;1;1;0;42;000102030405060708090a0b0c0d0e0f;a",
            b"1;3",
        ] {
            assert!(parse(bad).is_none());
        }
    }

    #[test]
    fn start_ticks_behind_an_odd_name() {
        let line = b"12 (a ) 1 (b)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21\n";
        assert_eq!(start_ticks(line), Some(987_654));
        assert_eq!(start_ticks(b"12 (a) S 1"), None);
    }
}
