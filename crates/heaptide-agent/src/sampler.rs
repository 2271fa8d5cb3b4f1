//! A thread of our own that samples memory, where no supervisor does it from outside, and serves readers (`server`).
//!
//! It blocks every signal that can be blocked, is never recorded, knows nothing of Python, and uses system calls only:
//! no allocation, no lock. It is gone before a process forks, so that a child never finds half of it, and so that
//! Python, which counts threads after a fork, does not count it. It comes back afterwards: at the next audit event, or
//! when the interpreter gets to its pending calls.

use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use heaptide_recorder::{SampleTable, Seen, SpinLock};
use heaptide_serve::Kept;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};

use crate::real::find;
use crate::{RECORDER, family, guard, server, switch, thread};

/// Set and woken when the thread is to end.
static END: AtomicU32 = AtomicU32::new(0);
/// The kernel's number of the thread, or of the last one.
static THREAD_ID: AtomicI32 = AtomicI32::new(0);
static CONTROL: SpinLock<Control> = SpinLock::new(Control {
    thread: None,
    work: None,
    wake: [None, None],
});
/// There is to be a thread, and there is none.
static PAUSED: AtomicBool = AtomicBool::new(false);

struct Control {
    thread: Option<libc::pthread_t>,
    /// What the thread goes on with; taken by it while it runs.
    work: Option<Work>,
    /// The ends of a pipe. The thread takes the first one, and wakes up where it waits for readers when the other is closed.
    wake: [Option<Kept>; 2],
}

struct Work {
    table: SampleTable,
    interval_ns: u64,
    statm: Option<Kept>,
    /// Usage and limit.
    cgroup: [Option<Kept>; 2],
    /// The clock of the capture never goes back.
    started: (u64, u64),
}

const STATM: &CStr = c"/proc/self/statm";
/// Far more than it takes; then somebody else has the number by now.
const MOST_YIELDS: u32 = 10_000;
const STACK_BYTES: usize = 128 << 10;
const NANOSECONDS: u64 = 1_000_000_000;

/// Starts the thread, with the files that tell usage and limit of the memory cgroup. Before the switch is on. An interval
/// of zero: no samples. `false`: there can be no thread.
pub(crate) fn begin(interval_ms: u32, cgroup: [Option<&CStr>; 2]) -> bool {
    PAUSED.store(false, Ordering::Relaxed);
    let mut control = CONTROL.lock();
    control.work = Work::new(interval_ms, cgroup);
    !control.has_something_to_do() || control.spawn()
}

/// Ends the thread and waits for it: for one sample at most. Nothing happens where there is none.
pub(crate) fn end() {
    PAUSED.store(false, Ordering::Relaxed);
    let thread = CONTROL.lock().take_thread();
    stop_thread(thread);
    drop(CONTROL.lock().work.take());
}

/// Before a fork. (Whoever forks in a signal handler may have interrupted one of these functions; then the thread
/// stays.)
pub(crate) fn pause() {
    let thread = CONTROL
        .try_lock()
        .and_then(|mut control| control.take_thread());
    if stop_thread(thread) {
        PAUSED.store(true, Ordering::Relaxed);
    }
}

/// After a fork, in the parent. The GIL may be held or not.
pub(crate) fn resume_soon() {
    if !PAUSED.load(Ordering::Relaxed) {
        return;
    }
    let function = find(c"Py_AddPendingCall");
    if !function.is_null() {
        type Pending = unsafe extern "C" fn(*mut c_void) -> c_int;
        // SAFETY: has had this type for ever, and may be called with and without the GIL. If its list is full the
        // next audit event will do.
        unsafe {
            let add: unsafe extern "C" fn(Pending, *mut c_void) -> c_int =
                core::mem::transmute(function);
            add(pending, core::ptr::null_mut());
        }
    }
}

unsafe extern "C" fn pending(_nothing: *mut c_void) -> c_int {
    resume();
    0
}

/// In a forked child that is tracked: samples begin when it has a capture.
///
/// # Safety
/// The child still has one thread.
pub(crate) unsafe fn after_fork(tracked: bool) {
    // SAFETY: the caller's promise. A thread that held the lock is not here.
    unsafe {
        CONTROL.reopen();
        server::after_fork();
    }
    let mut control = CONTROL.lock();
    control.thread = None;
    control.wake = [None, None];
    drop(control.work.take());
    PAUSED.store(tracked, Ordering::Relaxed);
}

/// Starts the thread again that was paused. Now and then, with the GIL; costs a load.
#[inline]
pub(crate) fn resume() {
    if PAUSED.load(Ordering::Relaxed) {
        resume_paused();
    }
}

#[cold]
fn resume_paused() {
    if family::is_pending() || !switch::is_on() || !PAUSED.swap(false, Ordering::Relaxed) {
        return;
    }
    let mut control = CONTROL.lock();
    // Whoever ends tracking switches it off, and then waits for this lock.
    if !switch::is_on() {
        return;
    }
    if control.work.is_none() {
        control.work = Work::new(family::interval(), [None, None]);
    }
    if control.has_something_to_do() && control.thread.is_none() {
        control.spawn();
    }
}

impl Control {
    fn has_something_to_do(&self) -> bool {
        self.work.is_some() || server::is_open()
    }

    /// `false`: there can be no thread.
    fn spawn(&mut self) -> bool {
        if server::is_open() {
            let ends = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
            let kept = |end: OwnedFd| Kept::copy_of(end.as_fd()).ok();
            self.wake = ends.map_or([None, None], |(read, write)| [kept(read), kept(write)]);
        }
        self.thread = spawn();
        self.thread.is_some()
    }

    fn take_thread(&mut self) -> Option<(libc::pthread_t, Option<Kept>)> {
        let thread = self.thread.take()?;
        Some((thread, self.wake[1].take()))
    }
}

fn stop_thread(thread: Option<(libc::pthread_t, Option<Kept>)>) -> bool {
    let Some((thread, wake)) = thread else {
        return false;
    };
    END.store(1, Ordering::Release);
    drop(wake);
    // SAFETY: wakes whoever waits on our own word. The thread was made by `spawn` and not waited for.
    unsafe {
        let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        libc::syscall(libc::SYS_futex, END.as_ptr(), operation, 1);
        libc::pthread_join(thread, core::ptr::null_mut());
    }
    await_kernel();
    true
}

/// A thread is joined a moment before the kernel stops counting it, and CPython warns of a fork with threads by that
/// count.
fn await_kernel() {
    let thread = rustix::process::Pid::from_raw(THREAD_ID.load(Ordering::Relaxed));
    let mut rounds = 0;
    while rounds < MOST_YIELDS && rustix::process::getpgid(thread).is_ok() {
        rustix::thread::sched_yield();
        rounds += 1;
    }
}

/// A thread with every signal blocked. Those that the C library keeps for itself cannot be, and must not: `setuid`
/// reaches all threads by one.
fn spawn() -> Option<libc::pthread_t> {
    END.store(0, Ordering::Release);
    let made = |stack: Option<usize>| {
        let mut made = core::mem::MaybeUninit::uninit();
        let mut attributes = core::mem::MaybeUninit::uninit();
        // SAFETY: the attributes are initialised before they are used, and destroyed; `run` has the type that is asked
        // for and lives for ever; the mask is put back.
        unsafe {
            libc::pthread_attr_init(attributes.as_mut_ptr());
            if let Some(stack) = stack {
                libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack);
            }
            let mut all = core::mem::MaybeUninit::uninit();
            let mut before = core::mem::MaybeUninit::uninit();
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            let failed = libc::pthread_create(
                made.as_mut_ptr(),
                attributes.as_ptr(),
                run,
                core::ptr::null_mut(),
            );
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), core::ptr::null_mut());
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
            (failed == 0).then(|| made.assume_init())
        }
    };
    // Libraries with much thread-local memory do not fit into a small stack.
    made(Some(STACK_BYTES)).or_else(|| made(None))
}

extern "C" fn run(_nothing: *mut c_void) -> *mut c_void {
    thread::never_records();
    let number = rustix::thread::gettid().as_raw_nonzero().get();
    THREAD_ID.store(number, Ordering::Relaxed);
    // SAFETY: names the calling thread.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"heaptide".as_ptr()) };
    // Whoever starts us holds the lock, and lets it go.
    let (mut work, wake) = {
        let mut control = CONTROL.lock();
        (control.work.take(), control.wake[0].take())
    };
    let mut last = clock(rustix::time::ClockId::Monotonic);
    while work.is_some() || server::is_open() {
        let interval = work.as_ref().map_or(NANOSECONDS, |work| work.interval_ns);
        let since = clock(rustix::time::ClockId::Monotonic).saturating_sub(last);
        let rest = interval.saturating_sub(since);
        if !wait(rest, wake.as_ref()) {
            break;
        }
        let now = clock(rustix::time::ClockId::Monotonic);
        if now.saturating_sub(last) < interval {
            continue;
        }
        last = now;
        if let Some(work) = work.as_mut().filter(|_| switch::is_on()) {
            work.take_sample();
        }
    }
    CONTROL.lock().work = work;
    core::ptr::null_mut()
}

/// Waits, and serves readers meanwhile. Whether the thread is to go on.
fn wait(nanoseconds: u64, wake: Option<&Kept>) -> bool {
    if server::is_open() {
        if guard::catching(|| server::turn(wake, nanoseconds)).is_none() {
            server::give_up();
        }
        return END.load(Ordering::Acquire) == 0;
    }
    sleep(nanoseconds)
}

/// Whether the thread is to go on.
fn sleep(nanoseconds: u64) -> bool {
    let time = libc::timespec {
        tv_sec: (nanoseconds / NANOSECONDS) as i64,
        tv_nsec: (nanoseconds % NANOSECONDS) as i64,
    };
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: our own word, and a time that outlives the call.
    unsafe { libc::syscall(libc::SYS_futex, END.as_ptr(), operation, 0, &raw const time) };
    END.load(Ordering::Acquire) == 0
}

impl Work {
    /// `None` where there is nothing to do, or nowhere to put it.
    fn new(interval_ms: u32, cgroup: [Option<&CStr>; 2]) -> Option<Self> {
        if interval_ms == 0 {
            return None;
        }
        // SAFETY: there is one thread that samples, and it ends before the recorder is released.
        let table = unsafe { RECORDER.sample_table() }?;
        Some(Self {
            table,
            interval_ns: u64::from(interval_ms) * 1_000_000,
            statm: open(STATM),
            cgroup: cgroup.map(|path| path.and_then(open)),
            started: (
                clock(rustix::time::ClockId::Realtime),
                clock(rustix::time::ClockId::Monotonic),
            ),
        })
    }

    fn take_sample(&mut self) {
        let pages = number(&mut self.statm, 1, Some(STATM)).unwrap_or(0);
        let files = self.cgroup.each_mut();
        let [usage, limit] = files.map(|file| number(file, 0, None).unwrap_or(0));
        let (unix, monotonic) = self.started;
        let elapsed = clock(rustix::time::ClockId::Monotonic).saturating_sub(monotonic);
        let seen = Seen {
            unix_ns: unix + elapsed,
            resident_bytes: pages * rustix::param::page_size() as u64,
            cgroup_bytes: if limit == 0 { 0 } else { usage },
            cgroup_limit_bytes: limit,
        };
        if pages != 0 {
            // SAFETY: the capture is open for as long as this thread runs.
            let thinned = unsafe { RECORDER.sample(&mut self.table, seen) };
            if thinned {
                self.interval_ns = self.interval_ns.saturating_mul(2);
            }
        }
    }
}

/// Under a number that keeps out of the way.
fn open(path: &CStr) -> Option<Kept> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let low = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    Kept::copy_of(low.as_fd()).ok()
}

/// The number at `position` of the words in the file. A file that is lost is opened `again`, or given up.
fn number(file: &mut Option<Kept>, position: usize, again: Option<&CStr>) -> Option<u64> {
    if !file.as_ref()?.is_ours() {
        *file = again.and_then(open);
    }
    let mut text = [0u8; 128];
    let length = rustix::io::pread(file.as_ref()?, &mut text, 0).ok()?;
    let word = text[..length]
        .split(u8::is_ascii_whitespace)
        .nth(position)?;
    core::str::from_utf8(word).ok()?.parse().ok()
}

fn clock(id: rustix::time::ClockId) -> u64 {
    let now = rustix::time::clock_gettime(id);
    (now.tv_sec as u64)
        .wrapping_mul(NANOSECONDS)
        .wrapping_add(now.tv_nsec as u64)
}
