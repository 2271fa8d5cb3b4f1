//! Private memory of our own, straight from the kernel, and a count of it.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

static OWN_BYTES: AtomicU64 = AtomicU64::new(0);

/// Anonymous bytes mapped by this crate now.
#[must_use]
pub fn own_bytes() -> u64 {
    OWN_BYTES.load(Ordering::Relaxed)
}

/// An anonymous private mapping, zero-filled, unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping is plain memory; who may touch it is decided by its owner.
unsafe impl Send for Mapping {}

impl Mapping {
    /// At least `bytes` of zeroes, rounded up to whole pages; `None` when the kernel has none.
    #[must_use]
    pub fn new(bytes: usize) -> Option<Self> {
        let bytes = bytes.max(1).checked_next_multiple_of(4096)?;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nobody's memory.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                core::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .ok()?;
        OWN_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
        Some(Self {
            start: NonNull::new(start.cast())?,
            bytes,
        })
    }

    /// First byte; page aligned.
    #[must_use]
    #[inline]
    pub fn as_ptr<T>(&self) -> *mut T {
        self.start.as_ptr().cast()
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A mapping that was leaked, to be dropped.
    ///
    /// # Safety
    /// `start` came from [`Mapping::leak`] of a mapping made for `bytes`, and nobody uses it any more.
    #[must_use]
    pub unsafe fn reclaim<T>(start: *mut T, bytes: usize) -> Option<Self> {
        Some(Self {
            start: NonNull::new(start.cast())?,
            bytes: bytes.max(1).checked_next_multiple_of(4096)?,
        })
    }

    /// Keeps the mapping for the life of the process.
    #[must_use]
    pub fn leak<T>(self) -> *mut T {
        let start = self.as_ptr();
        core::mem::forget(self);
        start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        OWN_BYTES.fetch_sub(self.bytes as u64, Ordering::Relaxed);
        // SAFETY: the range was mapped by `new` and nobody else owns it. A failure would only leak it.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
