//! Relocation numbers, by architecture.

#[cfg(target_arch = "x86_64")]
mod numbers {
    /// `R_X86_64_64`
    pub(crate) const ABSOLUTE: u32 = 1;
    /// `R_X86_64_GLOB_DAT`
    pub(crate) const GLOB_DAT: u32 = 6;
    /// `R_X86_64_JUMP_SLOT`
    pub(crate) const JUMP_SLOT: u32 = 7;
}

#[cfg(target_arch = "aarch64")]
mod numbers {
    /// `R_AARCH64_ABS64`
    pub(crate) const ABSOLUTE: u32 = 257;
    /// `R_AARCH64_GLOB_DAT`
    pub(crate) const GLOB_DAT: u32 = 1025;
    /// `R_AARCH64_JUMP_SLOT`
    pub(crate) const JUMP_SLOT: u32 = 1026;
}

pub(crate) use numbers::{ABSOLUTE, GLOB_DAT, JUMP_SLOT};
