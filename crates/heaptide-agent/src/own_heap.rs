//! The allocator of our own cold code: a bump over memory from the kernel.
//!
//! Nothing on a hot path allocates. What little the standard library allocates for us (a caught
//! panic's payload, say) must not come from the heap we are watching.

use core::alloc::{GlobalAlloc, Layout};

use heaptide_recorder::{Mapping, SpinLock};

const CHUNK_BYTES: usize = 64 << 10;

struct OwnHeap(SpinLock<Bump>);

struct Bump {
    next: usize,
    end: usize,
}

#[global_allocator]
static OWN_HEAP: OwnHeap = OwnHeap(SpinLock::new(Bump { next: 0, end: 0 }));

/// In a forked child: a thread that is not here may have been in the middle of an allocation.
///
/// # Safety
/// The child still has one thread, which is not allocating from us.
pub(crate) unsafe fn after_fork() {
    // SAFETY: the caller's promise.
    if unsafe { OWN_HEAP.0.reopen() } {
        *OWN_HEAP.0.lock() = Bump { next: 0, end: 0 };
    }
}

// SAFETY: blocks are disjoint pieces of mappings that are never unmapped, aligned as asked.
unsafe impl GlobalAlloc for OwnHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut bump = self.0.lock();
        let mut start = bump.next.next_multiple_of(layout.align());
        if bump.next == 0 || start + layout.size() > bump.end {
            let Some(chunk) = Mapping::new((layout.size() + layout.align()).max(CHUNK_BYTES))
            else {
                return core::ptr::null_mut();
            };
            bump.end = chunk.bytes();
            let first: *mut u8 = chunk.leak();
            bump.end += first as usize;
            start = (first as usize).next_multiple_of(layout.align());
        }
        bump.next = start + layout.size();
        start as *mut u8
    }

    unsafe fn dealloc(&self, _block: *mut u8, _layout: Layout) {
        // Cold and tiny: not worth a free list.
    }
}
