//! The only lock there is.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering, fence};

/// A spin lock for sections of some tens of nanoseconds.
///
/// Safe in a hook because its holder cannot be interrupted by code that takes it: a signal handler
/// on the same thread finds the thread's guard set and records nothing, and a forked child records
/// nothing at all. A preempted holder is waited for with `sched_yield`.
#[derive(Debug, Default)]
pub struct SpinLock<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is only reached through a `SpinGuard`, of which there is one at a time.
unsafe impl<T: Send> Sync for SpinLock<T> {}

/// Access to the value while the lock is held.
pub struct SpinGuard<'a, T> {
    lock: &'a SpinLock<T>,
}

impl<T> SpinLock<T> {
    /// An open lock around `value`.
    pub const fn new(value: T) -> Self {
        Self {
            held: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until the lock is free and takes it.
    #[inline]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        // Acquire pairs with the Release in `drop`: the next holder sees what the last one wrote.
        if self.held.swap(true, Ordering::Acquire) {
            self.wait();
        }
        SpinGuard { lock: self }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        (!self.held.swap(true, Ordering::Acquire)).then(|| SpinGuard { lock: self })
    }

    /// Does `work` on the value, once more for whoever asks meanwhile. Nobody waits: while another is at it, the work is
    /// left to him. `asked` is this lock's alone.
    pub fn work_or_leave(&self, asked: &AtomicBool, mut work: impl FnMut(&mut T)) {
        asked.store(true, Ordering::SeqCst);
        while asked.load(Ordering::SeqCst) {
            let Some(mut held) = self.try_lock() else {
                return;
            };
            asked.store(false, Ordering::SeqCst);
            work(&mut held);
            drop(held);
            // The lock is seen to be free before we look: whoever has asked until then leaves it to us, all others find it free.
            fence(Ordering::SeqCst);
        }
    }

    /// The value without taking the lock.
    ///
    /// # Safety
    /// While one thread alone uses the lock's value, and it does so here.
    #[inline]
    #[expect(
        clippy::mut_from_ref,
        reason = "the caller is the only user, as with the lock held"
    )]
    pub(crate) unsafe fn alone(&self) -> &mut T {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.value.get() }
    }

    /// Opens the lock, whoever holds it, and says whether somebody did: then the value may be half changed.
    ///
    /// # Safety
    /// Only in a forked child that still has one thread, which does not hold the lock itself: a holder
    /// is a thread that is not here.
    pub unsafe fn reopen(&self) -> bool {
        self.held.swap(false, Ordering::Acquire)
    }

    #[cold]
    #[inline(never)]
    fn wait(&self) {
        let mut spins = 0u32;
        loop {
            if !self.held.load(Ordering::Relaxed) && !self.held.swap(true, Ordering::Acquire) {
                return;
            }
            spins += 1;
            if spins < 100 {
                core::hint::spin_loop();
            } else {
                rustix::thread::sched_yield();
            }
        }
    }
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard holds the lock, so no other reference to the value exists.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; `&mut self` makes it exclusive among users of this guard.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.held.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU64;

    #[test]
    fn work_is_done_after_the_last_who_asked() {
        for _ in 0..2000 {
            let (wishes, asked) = (AtomicU64::new(0), AtomicBool::new(false));
            let seen = SpinLock::new(0);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        for _ in 0..5 {
                            wishes.fetch_add(1, Ordering::SeqCst);
                            seen.work_or_leave(&asked, |seen| {
                                *seen = wishes.load(Ordering::SeqCst);
                            });
                        }
                    });
                }
            });
            assert_eq!(*seen.lock(), 10);
        }
    }
}
