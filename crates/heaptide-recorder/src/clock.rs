//! The time stamp counter, where it orders events of all processors.

/// Do the counters of all processors run as one, so that what happened before has the smaller stamp?
/// The kernel uses the counter as its clock only where it found that to hold.
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_one_for_all_processors() -> bool {
    use rustix::fs::{Mode, OFlags};
    let Ok(file) = rustix::fs::open(
        c"/sys/devices/system/clocksource/clocksource0/current_clocksource",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return false;
    };
    let mut name = [0u8; 32];
    let length = rustix::io::read(&file, &mut name).unwrap_or(0);
    // A paravirtual clock is computed from the counter too, but may correct for differences.
    let name = &name[..length];
    name.starts_with(b"tsc") || (name.starts_with(b"kvm-clock") && counter_is_invariant())
}

#[cfg(target_arch = "x86_64")]
fn counter_is_invariant() -> bool {
    use core::arch::x86_64::__cpuid;
    __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & 1 << 8 != 0
}

/// Stamps count in units of so many cycles of the counter (a power of two), which is a nanosecond or two: less than it takes
/// the fence and the counter to be read, let alone another thread to see what this one has done. So what happened before
/// has a smaller stamp still, and most differences of stamps are one byte.
#[cfg(target_arch = "x86_64")]
const UNIT_BITS: u32 = 2;

/// The counter, read after all loads before it in the program.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: every x86-64 processor has both instructions.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc() >> UNIT_BITS
    }
}

/// Other processors' counters are too coarse to tell two events apart.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn is_one_for_all_processors() -> bool {
    false
}

/// Never asked.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn now() -> u64 {
    0
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn what_another_thread_has_seen_has_a_smaller_stamp() {
        if !is_one_for_all_processors() {
            return;
        }
        let (turns, last, wrong) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for own in 0..2 {
                let (turns, last, wrong) = (&turns, &last, &wrong);
                scope.spawn(move || {
                    for turn in (own..100_000).step_by(2) {
                        while turns.load(Ordering::Acquire) != turn {
                            core::hint::spin_loop();
                        }
                        let stamp = now();
                        if last.swap(stamp, Ordering::Relaxed) >= stamp {
                            // Who fails here would leave the other waiting.
                            wrong.fetch_add(1, Ordering::Relaxed);
                        }
                        turns.store(turn + 1, Ordering::Release);
                    }
                });
            }
        });
        assert_eq!(wrong.into_inner(), 0);
    }
}
