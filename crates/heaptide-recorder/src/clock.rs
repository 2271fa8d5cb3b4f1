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

/// The counter, read after all loads before it in the program.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: every x86-64 processor has both instructions.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
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
