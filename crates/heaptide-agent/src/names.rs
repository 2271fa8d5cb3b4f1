//! Thread names.
use crate::thread::ThreadState;
use heaptide_cpython::Layout;
pub(crate) fn prepare() {}
pub(crate) unsafe fn thread_is_being_started(_arguments: *mut core::ffi::c_void) {}
pub(crate) fn name_thread(state: &mut ThreadState, _layout: &Layout) { state.named = true; }
