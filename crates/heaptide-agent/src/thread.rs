//! What each thread carries, its guard, its birth and its end.

use core::ffi::c_void;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering, compiler_fence, fence};

use heaptide_format::StopReason;
use heaptide_recorder::{Mapping, SpinLock, Stop, ThreadRecord};

use crate::native::NativeMemo;
use crate::walk::Memo;
use crate::{RECORDER, family, inside, names, switch, tls};

/// A thread's state, behind its thread-local word. The word is null for a thread not seen yet and
/// [`CLOSED`] while its state is being made or after it was given back.
pub(crate) struct ThreadState {
    /// What the thread is in the middle of. A signal handler that lands in between sees it too.
    activity: Activity,
    pub(crate) record: ThreadRecord,
    pub(crate) memo: Memo,
    /// Of whole walks, where those that end early are checked.
    pub(crate) whole: Memo,
    pub(crate) native: NativeMemo,
    /// Counts events, to time one in so many.
    pub(crate) tick: u32,
    /// The block that a request to Python's allocators gives back; 0 for one that gives nothing back.
    given_back: usize,
    /// A free within the request was recorded.
    freed_within: bool,
    /// Has the Python name been looked for?
    pub(crate) named: bool,
    exit_rounds: u32,
    next_free: *mut ThreadState,
    /// The word that leads here while this is the thread's state for the capture of now.
    word: *mut *mut ThreadState,
    /// Neighbours among the states of all threads that live.
    neighbours: [*mut ThreadState; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Activity {
    Program,
    RealCall,
    /// As `RealCall`, for a request to Python's allocators.
    PythonCall,
    Recording,
}

/// The word of a thread that records nothing.
const CLOSED: *mut ThreadState = core::ptr::without_provenance_mut(1);

/// What CPython's debug functions put in front of a block: two words.
const DEBUG_HEADER: usize = 16;

/// States whose threads are gone.
static FREE: SpinLock<FreeList> = SpinLock::new(FreeList(core::ptr::null_mut()));
struct FreeList(*mut ThreadState);
// SAFETY: the list is only reached through the lock.
unsafe impl Send for FreeList {}

/// States of threads that live, newest first, those with a word that is empty too.
static LIVING: SpinLock<FreeList> = SpinLock::new(FreeList(core::ptr::null_mut()));
/// Threads that are about to have a state for the capture of now.
static ENTERING: AtomicU32 = AtomicU32::new(0);

/// `PTHREAD_DESTRUCTOR_ITERATIONS` of glibc and musl.
const EXIT_ROUNDS: u32 = 4;
static EXIT_KEY: AtomicU32 = AtomicU32::new(NO_KEY);
const NO_KEY: u32 = u32::MAX;

/// The right to record, for the length of one hook.
pub(crate) struct Turn {
    state: *mut ThreadState,
    real_call: Activity,
}

impl Turn {
    /// The calling thread's turn; `None` when tracking is off or the thread is inside a hook already.
    /// Cost: three loads and a store.
    #[inline(always)]
    pub(crate) fn begin() -> Option<Self> {
        Self::begin_if(switch::is_on(), Activity::RealCall)
    }

    /// As [`Turn::begin`], for a request to Python's allocators that gives `block` back (null for none).
    #[inline(always)]
    pub(crate) fn begin_for_python(block: *mut c_void) -> Option<Self> {
        let turn = Self::begin_if(switch::is_on_for_python(), Activity::PythonCall)?;
        // SAFETY: the turn makes the state ours.
        unsafe {
            (*turn.state).given_back = block as usize;
            (*turn.state).freed_within = false;
        }
        Some(turn)
    }

    /// Has tracking gone on until now? Where it has not, frees of other threads have not been recorded for a while, and
    /// what a real call has just given us may be one of those blocks.
    #[inline(always)]
    pub(crate) fn goes_on(&self) -> bool {
        switch::is_on() && (self.real_call != Activity::PythonCall || switch::is_on_for_python())
    }

    /// Was a free recorded within the present request to Python's allocators?
    pub(crate) fn has_freed_within(&self) -> bool {
        // SAFETY: the turn makes the state ours. Other calls leave the word as the last request has left it.
        self.real_call == Activity::PythonCall && unsafe { (*self.state).freed_within }
    }

    #[inline(always)]
    fn begin_if(on: bool, real_call: Activity) -> Option<Self> {
        if !on {
            return None;
        }
        // SAFETY: the word is this thread's own; beyond CLOSED it points to this thread's state.
        unsafe {
            let state = *tls::word();
            if state as usize > CLOSED as usize {
                if (*state).activity == Activity::Program {
                    (*state).activity = real_call;
                    // What follows must not move before the store: a signal handler may come between.
                    compiler_fence(Ordering::SeqCst);
                    // A signal handler before the store may have forked: in the child the state is not
                    // ours any more, and nobody could see that we were about to use it.
                    // (Or tracking has ended, and waits for threads in hooks: see `leave`.)
                    if tls::word().read_volatile() == state {
                        return Some(Self { state, real_call });
                    }
                    (*state).activity = Activity::Program;
                    return None;
                }
                nested(state);
                return None;
            }
        }
        let state = first_turn(real_call)?;
        Some(Self { state, real_call })
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
        unsafe { (*self.state).activity = self.real_call };
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

/// Calls `record` for a free of `block` that comes from inside a request to Python's allocators and is not what that
/// request gives back: others keep memory there too, which they may have taken outside of any request
/// (the tables of `tracemalloc`). Only while requests are recorded.
#[cold]
#[inline(never)]
pub(crate) fn within_python(block: *mut c_void, record: impl FnOnce(&mut ThreadState)) {
    // SAFETY: the word is this thread's own; beyond CLOSED it points to this thread's state, which the request's
    // turn leaves alone during its real call.
    unsafe {
        let state = *tls::word();
        if state as usize <= CLOSED as usize || (*state).activity != Activity::PythonCall {
            return;
        }
        let in_front = (*state).given_back.wrapping_sub(block as usize);
        if in_front == 0 || in_front == DEBUG_HEADER {
            return;
        }
        (*state).freed_within = true;
        (*state).activity = Activity::Recording;
        compiler_fence(Ordering::SeqCst);
        record(&mut *state);
        compiler_fence(Ordering::SeqCst);
        (*state).activity = Activity::PythonCall;
    }
}

#[cold]
#[inline(never)]
fn first_turn(real_call: Activity) -> Option<*mut ThreadState> {
    // SAFETY: the word is this thread's own. CLOSED keeps a signal handler from doing the same.
    unsafe {
        let word = tls::word();
        // In one instruction: a signal handler comes before it or after it.
        let before = AtomicPtr::from_ptr(word).swap(CLOSED, Ordering::Relaxed);
        if before == CLOSED {
            return None;
        }
        if !before.is_null() {
            // A signal handler has been here since we looked. The turn that is asked for is none of its.
            *word = before;
            let turn = Turn::begin_if(switch::is_on(), real_call)?;
            return Some(ManuallyDrop::new(turn).state);
        }
        compiler_fence(Ordering::SeqCst);
        // Whoever ends tracking either sees that we are here, or we see that it has ended.
        ENTERING.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let turn = enter(word, real_call);
        ENTERING.fetch_sub(1, Ordering::Release);
        turn
    }
}

/// Gives the calling thread a state for the capture of now.
///
/// # Safety
/// `word` is the thread's own, and closed.
unsafe fn enter(word: *mut *mut ThreadState, real_call: Activity) -> Option<*mut ThreadState> {
    // SAFETY: the caller's promise; the state is this thread's own.
    unsafe {
        if !switch::is_on() {
            *word = core::ptr::null_mut();
            return None;
        }
        if !family::ready() {
            *word = core::ptr::null_mut();
            return None;
        }
        let state = match make_state(word) {
            Ok(Some(state)) => state,
            Ok(None) => return None,
            Err(Stop) => {
                switch::turn_off();
                *word = core::ptr::null_mut();
                return None;
            }
        };
        // It is among the living now, and must not stay there when the thread has ended.
        watch_exit(state);
        meet_company(state);
        if !switch::is_on() {
            // Tracking has ended, perhaps before the lone thread was through with its event.
            (*state).activity = Activity::Program;
            *word = core::ptr::null_mut();
            return None;
        }
        (*state).activity = real_call;
        compiler_fence(Ordering::SeqCst);
        *word = state;
        Some(state)
    }
}

/// The state that the calling thread has had since its first event, whatever captures came and went; null for
/// none yet.
fn own_state() -> *mut ThreadState {
    let key = EXIT_KEY.load(Ordering::Relaxed);
    if key == NO_KEY {
        return core::ptr::null_mut();
    }
    // SAFETY: the key was made by `make_exit_key`; its value is null or this thread's state.
    unsafe { libc::pthread_getspecific(key).cast() }
}

/// The state of the calling thread, made in place: its record is larger than what a thread with the
/// smallest stack has to spare.
fn make_state(word: *mut *mut ThreadState) -> Result<Option<*mut ThreadState>, Stop> {
    let thread_id = rustix::thread::gettid().as_raw_nonzero().get() as u32;
    let own = own_state();
    let reused = if own.is_null() {
        let mut free = FREE.lock();
        let reused = free.0;
        if !reused.is_null() {
            // SAFETY: states on the list belong to nobody.
            free.0 = unsafe { (*reused).next_free };
        }
        reused
    } else {
        own
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
            (&raw mut (*state).native).write(NativeMemo::new());
        }
        (*state).memo.forget();
        (*state).whole.forget();
        (*state).native.forget();
        (&raw mut (*state).activity).write(Activity::RealCall);
        (&raw mut (*state).tick).write(0);
        (&raw mut (*state).given_back).write(0);
        (&raw mut (*state).freed_within).write(false);
        (&raw mut (*state).named).write(false);
        (&raw mut (*state).next_free).write(core::ptr::null_mut());
        (&raw mut (*state).word).write(word);
        if own.is_null() {
            (&raw mut (*state).exit_rounds).write(0);
            link(state);
        }
    }
    names::name_known_thread(state, thread_id);
    Ok(Some(state))
}

/// Among the living.
///
/// # Safety
/// The state is the calling thread's, and not among them yet.
unsafe fn link(state: *mut ThreadState) {
    let mut living = LIVING.lock();
    // SAFETY: the caller's promise; neighbours are only touched under the lock.
    unsafe {
        (&raw mut (*state).neighbours).write([core::ptr::null_mut(), living.0]);
        if !living.0.is_null() {
            (*living.0).neighbours[0] = state;
        }
    }
    living.0 = state;
}

/// Out of them, and its word closed.
///
/// # Safety
/// The state is the calling thread's, and among them.
unsafe fn unlink(state: *mut ThreadState) {
    let mut living = LIVING.lock();
    // SAFETY: as in `link`.
    unsafe {
        *tls::word() = CLOSED;
        compiler_fence(Ordering::SeqCst);
        let [before, after] = (*state).neighbours;
        if before.is_null() {
            living.0 = after;
        } else {
            (*before).neighbours[1] = after;
        }
        if !after.is_null() {
            (*after).neighbours[0] = before;
        }
    }
}

/// The kernel's name of the calling thread.
fn os_name() -> [u8; 16] {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes. `prctl` cannot fail here, so errno stays.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// Prepares for [`exited`]. Early: the first 32 keys need no allocation to be set. `any` other will do where
/// nothing works without one. Returns whether there is one.
pub(crate) fn make_exit_key(any: bool) -> bool {
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: `exited` is a valid destructor for as long as we are mapped, which is for ever.
    let made = unsafe { libc::pthread_key_create(&raw mut key, Some(exited)) } == 0;
    if made && (any || key < 32) {
        EXIT_KEY.store(key, Ordering::Relaxed);
    }
    made && (any || key < 32)
}

fn watch_exit(state: *mut ThreadState) {
    let key = EXIT_KEY.load(Ordering::Relaxed);
    if key != NO_KEY {
        // SAFETY: the key was made by `make_exit_key`; below 32 this stores into the thread's own block, above
        // it may allocate, which is inside the thread's turn.
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
    *lone = Lone {
        thread: core::ptr::null(),
        company: false,
    };
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
        let word = *tls::word();
        // Empty: it had no event since tracking ended last.
        if word != state && !word.is_null() {
            return;
        }
        (*state).exit_rounds += 1;
        if (*state).exit_rounds < EXIT_ROUNDS {
            watch_exit(state);
            return;
        }
        // As in a hook: whoever ends tracking waits for us, or has emptied our word.
        (*state).activity = Activity::Recording;
        compiler_fence(Ordering::SeqCst);
        if tls::word().read_volatile() == state {
            if switch::is_on() {
                RECORDER.thread_end(&mut (*state).record);
            } else if inside::is_ours() {
                RECORDER.end_stream(&mut (*state).record);
            }
        }
        compiler_fence(Ordering::SeqCst);
        (*state).activity = Activity::Program;
        unlink(state);
        let mut free = FREE.lock();
        (*state).next_free = free.0;
        free.0 = state;
    }
}

/// The calling thread is one of ours.
pub(crate) fn never_records() {
    // SAFETY: the word is this thread's own.
    unsafe { *tls::word() = CLOSED };
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
    // SAFETY: the caller's promise.
    unsafe {
        others_are_gone();
        LONE.reopen();
        // The state stays this thread's, by its key (without one it is lost).
        let state = core::mem::replace(&mut *tls::word(), core::ptr::null_mut());
        if state as usize > CLOSED as usize {
            (*state).record.forget_stream();
        }
    }
    *LONE.lock() = Lone {
        thread: core::ptr::null(),
        company: true,
    };
}

/// In a forked child: of all threads only this one is here. States of the others are used again.
///
/// # Safety
/// The child still has one thread.
pub(crate) unsafe fn others_are_gone() {
    let own = own_state();
    ENTERING.store(0, Ordering::Relaxed);
    // SAFETY: the caller's promise. Lists that were being changed are not believed.
    unsafe {
        let torn = LIVING.reopen() | FREE.reopen();
        let mut living = LIVING.lock();
        let mut free = FREE.lock();
        if torn {
            free.0 = core::ptr::null_mut();
        } else {
            let mut next = living.0;
            while !next.is_null() {
                let state = next;
                next = (*state).neighbours[1];
                if state != own {
                    (*state).activity = Activity::Program;
                    // Its chunk did not come along.
                    (*state).record.forget_stream();
                    (*state).next_free = free.0;
                    free.0 = state;
                }
            }
        }
        living.0 = own;
        if !own.is_null() {
            (*own).neighbours = [core::ptr::null_mut(); 2];
        }
    }
}

// ---- tracking ends, and the program goes on ----------------------------------------------------------

/// Empties the words of all threads. From here on no thread begins a turn: one that is about to finds out after it
/// has said so, and one that has said so before is waited for with [`all_have_left`]. `false`: threads are on
/// their way in, and nothing was done; call again.
///
/// # Safety
/// The switch is off, and there is a key (so that states of threads that ended are not among the living).
pub(crate) unsafe fn leave() -> bool {
    fence(Ordering::SeqCst);
    if ENTERING.load(Ordering::SeqCst) != 0 {
        return false;
    }
    {
        let living = LIVING.lock();
        let mut next = living.0;
        while !next.is_null() {
            // SAFETY: a thread goes from this list, under the lock, before its word goes.
            unsafe {
                let word = (*next).word;
                if word.read_volatile() == next {
                    word.write_volatile(core::ptr::null_mut());
                }
                next = (*next).neighbours[1];
            }
        }
    }
    // After this every running thread has passed a full barrier: it sees its word empty, or we see it in its turn.
    let command = libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED;
    // SAFETY: takes nothing but numbers.
    if unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } != 0 {
        // An old kernel, or a sandbox. A store is seen by others long before this is over.
        let pause = rustix::thread::Timespec {
            tv_sec: 0,
            tv_nsec: 2_000_000,
        };
        let _ = rustix::thread::nanosleep(&pause);
    }
    true
}

/// Is no thread in the middle of a hook? After [`leave`].
pub(crate) fn all_have_left() -> bool {
    let living = LIVING.lock();
    let mut next = living.0;
    while !next.is_null() {
        // SAFETY: as in `leave`; its thread changes it, hence volatile.
        unsafe {
            if (&raw const (*next).activity).read_volatile() != Activity::Program {
                return false;
            }
            next = (*next).neighbours[1];
        }
    }
    true
}

/// Gives back what states hold for the capture that has ended.
///
/// # Safety
/// [`leave`] and [`all_have_left`] were true, and tracking is still off.
pub(crate) unsafe fn release() {
    let release = |state: *mut ThreadState| {
        // SAFETY: no thread uses its state while its word does not lead there, and the lists' locks are held.
        unsafe {
            RECORDER.end_stream(&mut (*state).record);
            (*state).memo = Memo::new();
            (*state).whole = Memo::new();
            (*state).native = NativeMemo::new();
        }
    };
    let living = LIVING.lock();
    let mut next = living.0;
    while !next.is_null() {
        release(next);
        // SAFETY: as in `leave`.
        next = unsafe { (*next).neighbours[1] };
    }
    drop(living);
    let free = FREE.lock();
    let mut next = free.0;
    while !next.is_null() {
        release(next);
        // SAFETY: states on the list belong to nobody.
        next = unsafe { (*next).next_free };
    }
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
