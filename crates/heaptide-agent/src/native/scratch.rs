//! Work on a stack of our own, where that of the program may be too small for it.

use core::ffi::c_void;

/// Runs `work` on the stack that ends at `top`; `None` when it panics.
///
/// # Safety
/// `top` is the end of memory that is large enough, aligned to a page, and nobody else's meanwhile. Signal handlers of the
/// calling thread may run there, too.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn on_stack<T>(top: *mut u8, work: impl FnOnce() -> T) -> Option<T> {
    struct Job<F, T> {
        work: Option<F>,
        result: Option<T>,
    }
    unsafe extern "C" fn run<F: FnOnce() -> T, T>(job: *mut c_void) {
        // SAFETY: what `on_stack` passes.
        let job = unsafe { &mut *job.cast::<Job<F, T>>() };
        if let Some(work) = job.work.take() {
            // Nothing may unwind across the change of stacks.
            job.result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok();
        }
    }
    fn runner<F: FnOnce() -> T, T>(_: &Job<F, T>) -> unsafe extern "C" fn(*mut c_void) {
        run::<F, T>
    }
    let mut job = Job {
        work: Some(work),
        result: None,
    };
    let run = runner(&job);
    // SAFETY: the caller's promise; `run` returns.
    unsafe { call((&raw mut job).cast(), top, run) };
    job.result
}

/// Calls `function` with `argument` on another stack.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn call(
    argument: *mut c_void,
    top: *mut u8,
    function: unsafe extern "C" fn(*mut c_void),
) {
    core::arch::naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "mov rsp, rsi",
        "call rdx",
        "mov rsp, rbp",
        "pop rbp",
        "ret",
    )
}

/// There is nothing to do there.
///
/// # Safety
/// None.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn on_stack<T>(_top: *mut u8, work: impl FnOnce() -> T) -> Option<T> {
    Some(work())
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use heaptide_recorder::Mapping;

    use super::*;

    #[test]
    fn work_is_done_elsewhere_and_panics_stay_there() {
        let memory = Mapping::new(256 << 10).expect("memory");
        let start = memory.as_ptr::<u8>();
        // SAFETY: the memory is the test's own.
        unsafe {
            let top = start.add(memory.bytes());
            let place = on_stack(top, || {
                let here = 0u8;
                (&raw const here).addr()
            });
            let range = start.addr()..top.addr();
            assert!(place.is_some_and(|place| range.contains(&place)));
            let mut count = 0;
            assert_eq!(on_stack(top, || count += 3), Some(()));
            assert_eq!(count, 3);
            crate::guard::silence_panics();
            assert_eq!(on_stack(top, || -> u32 { panic!("a bug") }), None);
        }
    }
}
