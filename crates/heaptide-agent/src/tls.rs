//! One thread-local word that never allocates.
//!
//! `thread_local!` compiles to `__tls_get_addr` in a shared object, which may call malloc, and with
//! a destructor to `__cxa_thread_atexit_impl`, which does. The initial-exec model needs neither, but
//! stable Rust cannot ask for it, hence the assembly. The word is 8 bytes of the static TLS surplus.

use crate::thread::ThreadState;

core::arch::global_asm!(
    ".section .tbss.heaptide,\"awT\",@nobits",
    ".hidden heaptide_thread",
    ".globl heaptide_thread",
    ".type heaptide_thread,@tls_object",
    ".size heaptide_thread,8",
    ".balign 8",
    "heaptide_thread:",
    ".zero 8",
    ".previous",
);

/// Address of the calling thread's word: null at first, see [`ThreadState`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn word() -> *mut *mut ThreadState {
    let address: *mut *mut ThreadState;
    // SAFETY: initial-exec access as in the ELF TLS specification: thread pointer plus the offset
    // that the loader has put into our GOT. Touches no memory but the GOT and the thread pointer's own word.
    unsafe {
        core::arch::asm!(
            "mov {address}, qword ptr fs:[0]",
            "add {address}, qword ptr [rip + heaptide_thread@GOTTPOFF]",
            address = out(reg) address,
            options(pure, readonly, nostack),
        );
    }
    address
}

/// Address of the calling thread's word: null at first, see [`ThreadState`].
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(crate) fn word() -> *mut *mut ThreadState {
    let address: *mut *mut ThreadState;
    // SAFETY: as above, with the thread pointer in TPIDR_EL0.
    unsafe {
        core::arch::asm!(
            "adrp {address}, :gottprel:heaptide_thread",
            "ldr {address}, [{address}, :gottprel_lo12:heaptide_thread]",
            "mrs {pointer}, tpidr_el0",
            "add {address}, {address}, {pointer}",
            address = out(reg) address,
            pointer = out(reg) _,
            options(pure, readonly, nostack),
        );
    }
    address
}
