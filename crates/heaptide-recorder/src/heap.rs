//! The heap as a whole and its exact peak: one 16-byte word, one compare-and-swap per event.
//!
//! `docs/design/001-aggregated-capture.md` has the rule and why it is exact.

use core::sync::atomic::{AtomicU64, Ordering};

/// `heaptide_format::HeapWord` as it is written.
#[repr(C, align(16))]
pub(crate) struct Heap {
    headroom: AtomicU64,
    epoch: AtomicU64,
    peak_bytes: AtomicU64,
}

impl Heap {
    /// Counts `bytes` more. Returns the epoch the event belongs to.
    /// Cost: one locked 16-byte compare-and-swap, about 8 ns uncontended.
    #[inline]
    pub(crate) fn allocate(&self, bytes: u64) -> u64 {
        loop {
            let epoch = self.epoch.load(Ordering::Relaxed);
            let headroom = self.headroom.load(Ordering::Relaxed);
            let (left, excess) = if bytes > headroom {
                (0, bytes - headroom)
            } else {
                (headroom - bytes, 0)
            };
            // SAFETY: `self` is 16-byte aligned and starts with the two words.
            if unsafe { swap_pair(self.pair(), (headroom, epoch), (left, epoch)) } {
                if excess > 0 {
                    // Sums commute, so the order in which two threads raise the maximum is no matter.
                    self.peak_bytes.fetch_add(excess, Ordering::Relaxed);
                }
                return epoch;
            }
        }
    }

    /// Counts `bytes` less. Returns the epoch the event belongs to: a new one at a falling edge.
    #[inline]
    pub(crate) fn free(&self, bytes: u64) -> u64 {
        loop {
            let epoch = self.epoch.load(Ordering::Relaxed);
            let headroom = self.headroom.load(Ordering::Relaxed);
            let now = if headroom == 0 && bytes > 0 {
                epoch + 1
            } else {
                epoch
            };
            // SAFETY: as in `allocate`.
            if unsafe {
                swap_pair(
                    self.pair(),
                    (headroom, epoch),
                    (headroom.wrapping_add(bytes), now),
                )
            } {
                return now;
            }
        }
    }

    /// [`Heap::allocate`] while one thread alone records: plain stores, 1 ns.
    #[inline]
    pub(crate) fn allocate_alone(&self, bytes: u64) -> u64 {
        let headroom = self.headroom.load(Ordering::Relaxed);
        if bytes > headroom {
            self.headroom.store(0, Ordering::Relaxed);
            let peak = self.peak_bytes.load(Ordering::Relaxed);
            self.peak_bytes
                .store(peak + (bytes - headroom), Ordering::Relaxed);
        } else {
            self.headroom.store(headroom - bytes, Ordering::Relaxed);
        }
        self.epoch.load(Ordering::Relaxed)
    }

    /// [`Heap::free`] while one thread alone records.
    #[inline]
    pub(crate) fn free_alone(&self, bytes: u64) -> u64 {
        let headroom = self.headroom.load(Ordering::Relaxed);
        let mut epoch = self.epoch.load(Ordering::Relaxed);
        if headroom == 0 && bytes > 0 {
            epoch += 1;
            // The epoch first: without headroom no reader looks at it, so dying in between is harmless.
            self.epoch.store(epoch, Ordering::Relaxed);
        }
        self.headroom
            .store(headroom.wrapping_add(bytes), Ordering::Release);
        epoch
    }

    /// The heap now. Headroom and peak are loaded one after the other, so it may be off by an event.
    pub(crate) fn bytes(&self) -> u64 {
        let headroom = self.headroom.load(Ordering::Relaxed);
        self.peak_bytes
            .load(Ordering::Relaxed)
            .saturating_sub(headroom)
    }

    fn pair(&self) -> *mut u64 {
        self.headroom.as_ptr()
    }
}

/// Replaces the 16 bytes at `word` by `new` if they are `old`.
///
/// # Safety
/// `word` is 16-byte aligned and valid for reads and writes of two words.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn swap_pair(word: *mut u64, old: (u64, u64), new: (u64, u64)) -> bool {
    let swapped: u64;
    // SAFETY: the caller vouches for `word`. `rbx` may not be named as an operand, so it is swapped in
    // and put back; the other operands have fixed registers, so none of them can be `rbx`. Every
    // x86-64 CPU since 2006 has the instruction.
    unsafe {
        core::arch::asm!(
            "xchg {low}, rbx",
            "lock cmpxchg16b [rdi]",
            "mov rbx, {low}",
            "sete cl",
            "movzx ecx, cl",
            low = inout(reg) new.0 => _,
            in("rdi") word,
            inout("rcx") new.1 => swapped,
            inout("rax") old.0 => _,
            inout("rdx") old.1 => _,
            options(nostack),
        );
    }
    swapped != 0
}

/// As above, with a load-exclusive/store-exclusive pair.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn swap_pair(word: *mut u64, old: (u64, u64), new: (u64, u64)) -> bool {
    let failed: u32;
    // SAFETY: the caller vouches for `word`; all registers are declared. A mismatch writes the old
    // pair back, which is what makes the 16-byte read single-copy atomic.
    unsafe {
        core::arch::asm!(
            "ldaxp {a}, {b}, [{word}]",
            "cmp {a}, {old_a}",
            "ccmp {b}, {old_b}, #0, eq",
            "csel {new_a}, {new_a}, {a}, eq",
            "csel {new_b}, {new_b}, {b}, eq",
            "cset {differs:w}, ne",
            "stlxp {status:w}, {new_a}, {new_b}, [{word}]",
            "orr {failed:w}, {status:w}, {differs:w}",
            a = out(reg) _, b = out(reg) _,
            word = in(reg) word,
            old_a = in(reg) old.0, old_b = in(reg) old.1,
            new_a = inout(reg) new.0 => _, new_b = inout(reg) new.1 => _,
            differs = out(reg) _, status = out(reg) _,
            failed = out(reg) failed,
            options(nostack),
        );
    }
    failed == 0
}

const _: () = {
    assert!(
        core::mem::offset_of!(Heap, epoch)
            == core::mem::offset_of!(heaptide_format::HeapWord, epoch)
    );
    assert!(
        core::mem::offset_of!(Heap, peak_bytes)
            == core::mem::offset_of!(heaptide_format::HeapWord, peak_bytes)
    );
};
