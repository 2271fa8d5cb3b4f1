//! The switch that every hook reads first.
//!
//! It lies in a page that the kernel wipes in a forked child (`MADV_WIPEONFORK`), so a child is
//! switched off before any of its code runs, whatever way it was forked.

use core::sync::atomic::{AtomicBool, Ordering};

#[repr(C, align(4096))]
struct Page {
    on: AtomicBool,
    python_on: AtomicBool,
    objects_on: AtomicBool,
    rest: [u8; 4093],
}

static PAGE: Page = Page {
    on: AtomicBool::new(false),
    python_on: AtomicBool::new(false),
    objects_on: AtomicBool::new(false),
    rest: [0; 4093],
};

/// Is tracking on, in this process?
#[inline(always)]
pub(crate) fn is_on() -> bool {
    PAGE.on.load(Ordering::Relaxed)
}

/// Are requests to Python's allocators recorded? Our functions may stay in place, behind those of others, when they
/// are not.
#[inline(always)]
pub(crate) fn is_on_for_python() -> bool {
    PAGE.python_on.load(Ordering::Relaxed)
}

/// Is it known which Python objects live? Not switched by [`turn_on`] and [`turn_off`]: where tracking ends by itself their
/// destruction must be heard of all the same.
#[inline(always)]
pub(crate) fn is_on_for_objects() -> bool {
    PAGE.objects_on.load(Ordering::Relaxed)
}

/// From here on it is known.
pub(crate) fn turn_objects_on() {
    PAGE.objects_on.store(true, Ordering::Release);
}

/// From here on it is not.
pub(crate) fn turn_objects_off() {
    PAGE.objects_on.store(false, Ordering::Release);
}

/// Switches tracking on, of what `options` (of [`heaptide_format::Identity`]) say; before that, everything a hook needs
/// has been stored.
pub(crate) fn turn_on(options: u32) {
    let python = options & heaptide_format::PYTHON_ALLOCATORS != 0;
    PAGE.python_on.store(python, Ordering::Release);
    PAGE.on.store(true, Ordering::Release);
}

/// Switches tracking off. Hooks that are running finish what they have begun to record.
pub(crate) fn turn_off() {
    PAGE.python_on.store(false, Ordering::Release);
    PAGE.on.store(false, Ordering::Release);
}

/// Asks the kernel to wipe the page in children. Without it (page size above 4 KiB, old kernel) the
/// `pthread_atfork` handler does the same a little later.
pub(crate) fn protect_children() {
    let page = (&raw const PAGE).cast_mut();
    // SAFETY: the page is ours alone and lies in .bss, which is private anonymous memory; wiping it
    // in a child leaves it as it was at load time.
    let _ = unsafe {
        rustix::mm::madvise(
            page.cast(),
            size_of::<Page>(),
            rustix::mm::Advice::LinuxWipeOnFork,
        )
    };
    let _ = PAGE.rest;
}
