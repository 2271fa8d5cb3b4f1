//! The real functions, found once before anything is patched.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

/// Address of `name` as the program itself would find it; null when there is none.
pub(crate) fn find(name: &CStr) -> *mut c_void {
    // SAFETY: a valid name; the default scope is the program's own.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

/// Address of the code that `name` means, behind a canonical entry in the executable if there is one
/// (that entry leads through a slot which we are about to patch).
fn find_function(name: &CStr) -> *mut c_void {
    let found = find(name);
    let mut canonical = false;
    heaptide_elf::for_each_object(|object| {
        if object.executes(found as usize) {
            canonical = heaptide_elf::imports(object, name.to_bytes());
            return false;
        }
        true
    });
    if !canonical {
        return found;
    }
    // Null when there is no other definition: the entry itself would lead the hook back to the hook.
    // SAFETY: a valid name; "next" is whatever comes after us in the search order.
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }
}

macro_rules! real_functions {
    ($($name:ident: $symbol:literal as fn($($argument:ty),*) -> $result:ty;)+) => {
        $(
            pub(crate) mod $name {
                use super::*;
                pub(crate) static ADDRESS: AtomicUsize = AtomicUsize::new(0);
                /// Start and end of the code around it.
                pub(crate) static HOME: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
                #[allow(dead_code, reason = "some are only jumped to")]
                pub(crate) type Function = unsafe extern "C" fn($($argument),*) -> $result;

                /// The function.
                ///
                /// # Safety
                /// `resolve` has found it: hooks are only installed for functions it found.
                #[allow(dead_code, reason = "some are only jumped to")]
                #[inline(always)]
                pub(crate) unsafe fn get() -> Function {
                    // SAFETY: `resolve` stored the address of a function of this C type.
                    unsafe { core::mem::transmute::<usize, Function>(ADDRESS.load(Ordering::Relaxed)) }
                }
            }
        )+

        /// Looks all of them up. Before any slot is patched: afterwards the loader would still say the
        /// truth, but there would be a moment in which a hook runs without its function.
        pub(crate) fn resolve() {
            $({
                let address = find_function($symbol) as usize;
                let home = crate::loader::code_around(address);
                $name::ADDRESS.store(address, Ordering::Relaxed);
                $name::HOME[0].store(home.0, Ordering::Relaxed);
                $name::HOME[1].store(home.1, Ordering::Relaxed);
            })+
        }
    };
}

real_functions! {
    malloc: c"malloc" as fn(usize) -> *mut c_void;
    calloc: c"calloc" as fn(usize, usize) -> *mut c_void;
    realloc: c"realloc" as fn(*mut c_void, usize) -> *mut c_void;
    reallocarray: c"reallocarray" as fn(*mut c_void, usize, usize) -> *mut c_void;
    free: c"free" as fn(*mut c_void) -> ();
    free_sized: c"free_sized" as fn(*mut c_void, usize) -> ();
    free_aligned_sized: c"free_aligned_sized" as fn(*mut c_void, usize, usize) -> ();
    posix_memalign: c"posix_memalign" as fn(*mut *mut c_void, usize, usize) -> c_int;
    aligned_alloc: c"aligned_alloc" as fn(usize, usize) -> *mut c_void;
    memalign: c"memalign" as fn(usize, usize) -> *mut c_void;
    valloc: c"valloc" as fn(usize) -> *mut c_void;
    pvalloc: c"pvalloc" as fn(usize) -> *mut c_void;
    mmap: c"mmap" as fn(*mut c_void, usize, c_int, c_int, c_int, i64) -> *mut c_void;
    mmap64: c"mmap64" as fn(*mut c_void, usize, c_int, c_int, c_int, i64) -> *mut c_void;
    munmap: c"munmap" as fn(*mut c_void, usize) -> c_int;
    mremap: c"mremap" as fn(*mut c_void, usize, usize, c_int, *mut c_void) -> *mut c_void;
    pthread_create: c"pthread_create" as fn(*mut libc::pthread_t, *const libc::pthread_attr_t, *mut c_void, *mut c_void) -> c_int;
    dlsym: c"dlsym" as fn(*mut c_void, *const c_char) -> *mut c_void;
    dlopen: c"dlopen" as fn(*const c_char, c_int) -> *mut c_void;
    dlclose: c"dlclose" as fn(*mut c_void) -> c_int;
    waitpid: c"waitpid" as fn(c_int, *mut c_int, c_int) -> c_int;
    wait: c"wait" as fn(*mut c_int) -> c_int;
    wait3: c"wait3" as fn(*mut c_int, c_int, *mut c_void) -> c_int;
    wait4: c"wait4" as fn(c_int, *mut c_int, c_int, *mut c_void) -> c_int;
    waitid: c"waitid" as fn(c_int, u32, *mut libc::siginfo_t, c_int) -> c_int;
    _exit: c"_exit" as fn(c_int) -> ();
    execv: c"execv" as fn(*const c_char, *const *const c_char) -> c_int;
    execve: c"execve" as fn(*const c_char, *const *const c_char, *const *const c_char) -> c_int;
}
