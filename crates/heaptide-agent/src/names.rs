//! Thread names.
pub(crate) fn prepare() {}
pub(crate) unsafe fn thread_is_being_started(_arguments: *mut core::ffi::c_void) {}
