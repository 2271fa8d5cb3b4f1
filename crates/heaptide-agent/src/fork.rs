//! Forked children never touch the parent's capture: they are silent, or start one of their own.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::thread::Turn;
use crate::{
    RECORDER, code, family, inside, loader, names, native, objects, own_heap, sampler, start,
    switch, thread,
};

/// Was the parent recorded when it forked? The switch itself is wiped in the child.
static WAS_ON: AtomicBool = AtomicBool::new(false);
/// The thread that said that it is about to fork (`os.fork`), by its identity for us; 0: none.
static ANNOUNCED_BY: AtomicUsize = AtomicUsize::new(0);

/// Registers the handlers around a fork.
pub(crate) fn watch() {
    // SAFETY: the handlers stay mapped for ever.
    unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
}

/// The calling thread is about to fork, and its child will go on as a Python program.
pub(crate) fn announced() {
    // The thread may not have had an event yet.
    drop(Turn::begin());
    ANNOUNCED_BY.store(thread::identity(), Ordering::Relaxed);
}

unsafe extern "C" fn before() {
    sampler::pause();
    WAS_ON.store(switch::is_on(), Ordering::Relaxed);
}

unsafe extern "C" fn in_parent() {
    ANNOUNCED_BY.store(0, Ordering::Relaxed);
    sampler::resume_soon();
}

/// The switch is off in the child already where the kernel wipes its page.
unsafe extern "C" fn in_child() {
    switch::turn_off();
    // SAFETY: in a forked child, which has one thread.
    unsafe { objects::after_fork() };
    let by = ANNOUNCED_BY.swap(0, Ordering::Relaxed);
    let announced = by != 0 && by == thread::identity();
    let interrupted = thread::is_inside_hook();
    family::nobody_reads();
    let followed = family::follows_forks() && WAS_ON.load(Ordering::Relaxed) && !interrupted;
    if inside::is_used() {
        // SAFETY: in a forked child, which has one thread.
        unsafe {
            sampler::after_fork(followed);
            if interrupted {
                // What follows forgets the parent, this thread's part in it included; here that stays.
                thread::others_are_gone();
            }
            inside::after_fork(!interrupted, followed);
        }
    }
    if followed {
        // SAFETY: in a forked child, which has one thread, and that is in no hook of ours.
        unsafe { forget_parent() };
        family::begin_in_child(announced);
        return;
    }
    if inside::is_used() && !interrupted {
        // The child may track itself.
        // SAFETY: as above.
        unsafe { forget_parent() };
        family::stop_following();
        return;
    }
    thread::forget_in_child();
    // The mapping of the capture becomes private memory, so that not even a bug could reach the parent's
    // file.
    // SAFETY: in a forked child, which has one thread.
    unsafe { RECORDER.file().abandon(interrupted) };
}

/// Puts all that recording has left in our memory back to how it was before it began.
///
/// # Safety
/// In a forked child that still has one thread, which is in no hook.
unsafe fn forget_parent() {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        RECORDER.file().let_go();
        RECORDER.make_blank();
        own_heap::after_fork();
        thread::after_fork();
        names::after_fork();
        code::after_fork();
        loader::after_fork();
        native::after_fork();
        start::after_fork();
    }
}
