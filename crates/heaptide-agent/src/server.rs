//! Readers that are connected to this process by sockets. The thread of ours (`sampler`) serves them while tracking is on,
//! and whoever ends tracking tells them.

use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, Ordering};

use heaptide_recorder::SpinLock;
use heaptide_serve::{Buffers, Kept, Server};
use rustix::fd::{AsFd, BorrowedFd};

/// Whoever has the lock may wait for readers meanwhile, so it is only taken while our thread is not there, or by it.
static SERVER: SpinLock<Server> = SpinLock::new(Server::new());
/// Of zeros, so they are not in the library. Used under the lock of `SERVER`.
static BUFFERS: SpinLock<Buffers> = SpinLock::new(Buffers::new());
static OPEN: AtomicBool = AtomicBool::new(false);

/// Is there something to serve?
pub(crate) fn is_open() -> bool {
    OPEN.load(Ordering::Relaxed)
}

/// Serves, from the next start of our thread on. `None`: nothing any more. `false`: somebody else is at it, or there are no descriptors left.
pub(crate) fn set(descriptors: Option<[c_int; 3]>) -> bool {
    let Some(mut server) = SERVER.try_lock() else {
        return false;
    };
    server.close();
    OPEN.store(false, Ordering::Relaxed);
    let Some(descriptors) = descriptors else {
        return true;
    };
    // SAFETY: the caller of the exported function says that they are open; -1 is asked for by nobody.
    let [capture, listener, first] =
        descriptors.map(|number| unsafe { BorrowedFd::borrow_raw(number) });
    let begun = server.begin(capture, listener, first, &mut BUFFERS.lock());
    OPEN.store(begun.is_ok(), Ordering::Relaxed);
    begun.is_ok()
}

/// On our thread: waits for something to do, and does it.
pub(crate) fn turn(wake: Option<&Kept>, nanoseconds: u64) {
    let mut server = SERVER.lock();
    // Without its descriptor our thread is not woken when it is to end.
    let wake = wake.filter(|wake| wake.is_ours());
    let most = if wake.is_some() {
        MOST_WAIT_NS
    } else {
        MOST_WAIT_UNWOKEN_NS
    };
    server.turn(
        wake.map(AsFd::as_fd),
        nanoseconds.min(most),
        &mut BUFFERS.lock(),
    );
    if !server.is_open() {
        OPEN.store(false, Ordering::Relaxed);
    }
}

const MOST_WAIT_NS: u64 = 200_000_000;
const MOST_WAIT_UNWOKEN_NS: u64 = 10_000_000;

/// On our thread: a bug was caught.
pub(crate) fn give_up() {
    OPEN.store(false, Ordering::Relaxed);
    SERVER.lock().close();
}

/// Tracking has ended, and our thread is gone: readers get what was there at the end.
pub(crate) fn finish() {
    if is_open()
        && let Some(mut server) = SERVER.try_lock()
    {
        server.finish(&mut BUFFERS.lock());
        OPEN.store(false, Ordering::Relaxed);
    }
}

/// In a forked child, which serves nobody: the descriptors are closed here.
///
/// # Safety
/// The child still has one thread.
pub(crate) unsafe fn after_fork() {
    OPEN.store(false, Ordering::Relaxed);
    // SAFETY: the caller's promise. A thread that held the lock is not here.
    let was_held = unsafe {
        BUFFERS.reopen();
        SERVER.reopen()
    };
    let mut server = SERVER.lock();
    if was_held {
        // Half changed, so nothing in it is believed.
        core::mem::forget(core::mem::take(&mut *server));
    } else {
        server.close();
    }
}
