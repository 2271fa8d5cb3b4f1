//! What each thread carries, its guard, its birth and its end.

use core::ffi::c_void;
use core::sync::atomic::{AtomicU32, Ordering, compiler_fence};

use heaptide_format::StopReason;
use heaptide_recorder::{Mapping, SpinLock, Stop, ThreadRecord};

use crate::walk::Memo;
use crate::{RECORDER, family, switch, tls};

/// A thread's state, behind its thread-local word. The word is null for a thread not seen yet and
/// [`CLOSED`] while its state is being made or after it was given back.
pub(crate) struct ThreadState {
    /// What the thread is in the middle of. A signal handler that lands in between sees it too.
    activity: Activity,
    pub(crate) record: ThreadRecord,
    pub(crate) memo: Memo,
    /// Of whole walks, where those that end early are checked.
    pub(crate) whole: Memo,
    /// Counts events, to time one in so many.
    pub(crate) tick: u32,
    /// Has the Python name been looked for?
    pub(crate) named: bool,
    exit_rounds: u32,
    next_free: *mut ThreadState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Activity {
    Program,
    RealCall,
    Recording,
}

/// The word of a thread that records nothing.
const CLOSED: *mut ThreadState = core::ptr::without_provenance_mut(1);

/// States whose threads are gone.
static FREE: SpinLock<FreeList> = SpinLock::new(FreeList(core::ptr::null_mut()));
struct FreeList(*mut ThreadState);
// SAFETY: the list is only reached through the lock.
unsafe impl Send for FreeList {}

/// `PTHREAD_DESTRUCTOR_ITERATIONS` of glibc and musl.
const EXIT_ROUNDS: u32 = 4;
static EXIT_KEY: AtomicU32 = AtomicU32::new(u32::MAX);

/// The right to record, for the length of one hook.
pub(crate) struct Turn {
    state: *mut ThreadState,
}

impl Turn {
    /// The calling thread's turn; `None` when tracking is off or the thread is inside a hook already.
    /// Cost: three loads and a store.
    #[inline(always)]
    pub(crate) fn begin() -> Option<Self> {
        if !switch::is_on() {
            return None;
        }
        // SAFETY: the word is this thread's own; beyond CLOSED it points to this thread's state.
        unsafe {
            let state = *tls::word();
            if state as usize > CLOSED as usize {
                if (*state).activity == Activity::Program {
                    (*state).activity = Activity::RealCall;
                    // What follows must not move before the store: a signal handler may come between.
                    compiler_fence(Ordering::SeqCst);
                    // A signal handler before the store may have forked: in the child the state is not
                    // ours any more, and nobody could see that we were about to use it.
                    if tls::word().read_volatile() == state {
                        return Some(Self { state });
                    }
                    return None;
                }
                nested(state);
                return None;
            }
        }
        first_turn()
    }

    /// The real call is over, ours begins.
    #[inline(always)]
    pub(crate) fn state(&mut self) -> &mut ThreadState {
        // SAFETY: `begin` made this the only turn of the thread that owns the state.
        let state = unsafe { &mut *self.state };
        state.activity = Activity::Recording;
        compiler_fence(Ordering::SeqCst);
        state
    }

    /// Back to a real call, after recording what goes before it.
    #[inline(always)]
    pub(crate) fn real_call(&mut self) {
        compiler_fence(Ordering::SeqCst);
        // SAFETY: as in `state`.
        unsafe { (*self.state).activity = Activity::RealCall };
    }
}

impl Drop for Turn {
    #[inline(always)]
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        // SAFETY: as in `Turn::state`.
        unsafe { (*self.state).activity = Activity::Program };
    }
}

/// A call from inside a hook: part of the real call (an allocator that maps memory), or of a signal
/// handler that interrupted our recording; the latter is an event we miss, and say so.
#[cold]
#[inline(never)]
unsafe fn nested(state: *mut ThreadState) {
    // SAFETY: the state is the calling thread's; the counter is bumped by plain stores, which the
    // interrupted recording on the same thread never does to this counter.
    unsafe {
        if (*state).activity == Activity::Recording {
            (*state).record.count_missed_reentrant();
        }
    }
}

#[cold]
#[inline(never)]
fn first_turn() -> Option<Turn> {
    // SAFETY: the word is this thread's own. CLOSED keeps a signal handler from doing the same.
    unsafe {
        let word = tls::word();
        if !(*word).is_null() {
            return None;
        }
        *word = CLOSED;
        compiler_fence(Ordering::SeqCst);
        if !family::ready() {
            return None;
        }
        let state = match make_state() {
            Ok(Some(state)) => state,
            Ok(None) => return None,
            Err(Stop) => {
                switch::turn_off();
                return None;
            }
        };
        meet_company(state);
        (*state).activity = Activity::RealCall;
        compiler_fence(Ordering::SeqCst);
        *word = state;
        watch_exit(state);
        Some(Turn { state })
    }
}

/// The state of the calling thread, made in place: its record is larger than what a thread with the
/// smallest stack has to spare.
fn make_state() -> Result<Option<*mut ThreadState>, Stop> {
    let thread_id = rustix::thread::gettid().as_raw_nonzero().get() as u32;
    let reused = {
        let mut free = FREE.lock();
        let reused = free.0;
        if !reused.is_null() {
            // SAFETY: states on the list belong to nobody.
            free.0 = unsafe { (*reused).next_free };
        }
        reused
    };
    let is_new = reused.is_null();
    let state = if is_new {
        let Some(memory) = Mapping::new(size_of::<ThreadState>()) else {
            return Ok(None);
        };
        memory.leak()
    } else {
        reused
    };
    // SAFETY: the state is nobody else's; every field is written before the state is used.
    unsafe {
        RECORDER.thread_start(&raw mut (*state).record, thread_id, os_name())?;
        if is_new {
            (&raw mut (*state).memo).write(Memo::new());
            (&raw mut (*state).whole).write(Memo::new());
        }
        (*state).memo.forget();
        (*state).whole.forget();
        (&raw mut (*state).activity).write(Activity::RealCall);
        (&raw mut (*state).tick).write(0);
        (&raw mut (*state).named).write(false);
        (&raw mut (*state).exit_rounds).write(0);
        (&raw mut (*state).next_free).write(core::ptr::null_mut());
    }
    Ok(Some(state))
}

/// The kernel's name of the calling thread.
fn os_name() -> [u8; 16] {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes. `prctl` cannot fail here, so errno stays.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// Prepares for [`exited`]. Early: the first 32 keys need no allocation to be set.
pub(crate) fn make_exit_key() {
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: `exited` is a valid destructor for as long as we are mapped, which is for ever.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(exited)) } == 0 && key < 32 {
        EXIT_KEY.store(key, Ordering::Relaxed);
    }
}

fn watch_exit(state: *mut ThreadState) {
    let key = EXIT_KEY.load(Ordering::Relaxed);
    if key != u32::MAX {
        // SAFETY: the key was made by `make_exit_key`; below 32 this stores into the thread's own block.
        unsafe { libc::pthread_setspecific(key, state.cast()) };
    }
}

/// The thread that records alone, and whether others have joined it.
static LONE: SpinLock<Lone> = SpinLock::new(Lone {
    thread: core::ptr::null(),
    company: true,
});
struct Lone {
    thread: *const ThreadState,
    company: bool,
}
// SAFETY: the state stays mapped for ever, and only its `activity` is looked at, by volatile loads.
unsafe impl Send for Lone {}

/// Lets the calling thread record without locked instructions until a second thread comes, if the
/// kernel can make other threads see that it has come (`membarrier`).
pub(crate) fn alone_for_now() {
    let command = libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
    // SAFETY: registers an intention, nothing else. We are in no hook, so errno may change.
    if unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } != 0 {
        return;
    }
    let mut lone = LONE.lock();
    // SAFETY: tracking has not been switched on; `meet_company` keeps the promise.
    unsafe { RECORDER.alone() };
    lone.company = false;
}

/// How many times a newcomer yields to a lone thread in the middle of an event: seconds, for what
/// takes less than a microsecond.
const PATIENCE: u32 = 5_000_000;

/// Before a thread records its first event: if another has been alone so far, it is told, and the
/// event it may be in the middle of is waited for.
fn meet_company(newcomer: *const ThreadState) {
    let mut lone = LONE.lock();
    if lone.company {
        return;
    }
    if lone.thread.is_null() {
        lone.thread = newcomer;
        return;
    }
    lone.company = true;
    RECORDER.company();
    // After this every running thread has passed a full barrier: either the lone thread sees that
    // it is not alone, or we see that it is in an event.
    let command = libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED;
    // SAFETY: registered in `alone_for_now`; it cannot fail then, so errno stays.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    let in_an_event = || {
        // SAFETY: the state stays mapped for ever; its thread may change it, hence volatile.
        let activity = unsafe { (&raw const (*lone.thread).activity).read_volatile() };
        activity == Activity::Recording
    };
    let mut rounds = 0u32;
    while switch::is_on() && in_an_event() {
        rustix::thread::sched_yield();
        rounds += 1;
        if rounds == PATIENCE {
            // A signal handler has jumped out of the event (`siglongjmp`): it will never end.
            switch::turn_off();
            RECORDER.file().stop(StopReason::Internal, 0);
        }
    }
    compiler_fence(Ordering::SeqCst);
}

/// At a thread's end. Other destructors may free after this one, so the state is kept through the
/// rounds that the C library grants and only given back in the last.
unsafe extern "C" fn exited(state: *mut c_void) {
    let state: *mut ThreadState = state.cast();
    // SAFETY: the value of the key is this thread's state, and the thread still runs.
    unsafe {
        if *tls::word() != state {
            return;
        }
        (*state).exit_rounds += 1;
        if (*state).exit_rounds < EXIT_ROUNDS {
            watch_exit(state);
            return;
        }
        *tls::word() = CLOSED;
        compiler_fence(Ordering::SeqCst);
        if switch::is_on() {
            RECORDER.thread_end(&mut (*state).record);
        }
        let mut free = FREE.lock();
        (*state).next_free = free.0;
        free.0 = state;
    }
}

/// What tells the calling thread's identity here from that of others: its state, or 0 for none yet.
pub(crate) fn identity() -> usize {
    // SAFETY: the word is this thread's own.
    unsafe { (*tls::word()).addr() }
}

/// Is the calling thread in the middle of an event, so that we are in a signal handler above it?
pub(crate) fn is_inside_hook() -> bool {
    // SAFETY: the word is this thread's own; beyond CLOSED it points to this thread's state. While a state is
    // being made the word is CLOSED, and so it is after it was given back.
    unsafe {
        let state = *tls::word();
        state == CLOSED || (!state.is_null() && (*state).activity != Activity::Program)
    }
}

/// In a forked child that is recorded anew: this thread is one that has not been seen, and there is no
/// other.
///
/// # Safety
/// The child still has one thread, which is in no hook.
pub(crate) unsafe fn after_fork() {
    // SAFETY: the caller's promise. The state is given back as at a thread's end; a list that was being
    // changed is not believed.
    unsafe {
        let torn = FREE.reopen();
        LONE.reopen();
        let state = core::mem::replace(&mut *tls::word(), core::ptr::null_mut());
        let mut free = FREE.lock();
        if torn {
            free.0 = core::ptr::null_mut();
        }
        if state as usize > CLOSED as usize {
            (*state).next_free = free.0;
            free.0 = state;
        }
    }
    *LONE.lock() = Lone {
        thread: core::ptr::null(),
        company: true,
    };
}

/// In a forked child: this thread starts from nothing.
pub(crate) fn forget_in_child() {
    // SAFETY: the word is this thread's own. CLOSED: a child records nothing.
    unsafe {
        let state = core::mem::replace(&mut *tls::word(), CLOSED);
        if state as usize > CLOSED as usize && (*state).activity != Activity::Program {
            RECORDER.cover_stream(&(*state).record);
        }
    }
}
