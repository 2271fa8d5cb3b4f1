//! Libraries that come and go: newcomers are patched, the departed forgotten.

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};

use heaptide_elf::{Counts, defines, for_each_object, patch, restore};
use heaptide_recorder::{Mapping, SpinLock};

use crate::thread::Turn;
use crate::{RECORDER, family, guard, hooks, native, real};

/// Most objects that are remembered; one beyond is looked at again at every pass.
const MOST_OBJECTS: usize = 8192;

/// Objects that have been patched, in the loader's order.
static PATCHED: SpinLock<Patched> = SpinLock::new(Patched {
    known: None,
    count: 0,
    loads: 0,
    unloads: 0,
});

struct Patched {
    known: Option<Mapping>,
    count: usize,
    loads: u64,
    unloads: u64,
}

/// A library was opened with `RTLD_DEEPBIND` since the last pass: what its slots that are not bound
/// yet will be bound to is not for us to say (it may bring its own malloc), so they are left alone.
static DEEP_BINDING: AtomicBool = AtomicBool::new(false);

/// What tells one loading of an object from another.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Identity {
    base: usize,
    headers: usize,
}

/// Somebody wants the objects to be looked at.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Patches every object that has not been patched yet. Takes the loader's lock, so never from a
/// hook of an allocation function; the caller holds its thread's turn, which keeps us out of our own hooks.
///
/// Nobody is waited for: who asks for a symbol inside `dl_iterate_phdr` holds the loader's lock.
pub(crate) fn patch_newcomers() {
    PATCHED.work_or_leave(&ASKED, patch_all);
}

fn patch_all(patched: &mut Patched) {
    let table = family::only_when_following(hooks::table());
    let allow_unbound = !DEEP_BINDING.swap(false, Ordering::Relaxed);
    let own = own_address();
    if patched.known.is_none() {
        patched.known = Mapping::new(MOST_OBJECTS * size_of::<Identity>());
    }
    let Some(memory) = &patched.known else { return };
    // SAFETY: the mapping has room for MOST_OBJECTS identities and starts as zeroes.
    let known: &mut [Identity] =
        unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), MOST_OBJECTS) };
    let (before, mut now) = (patched.count, 0);
    let mut counts = Counts::default();
    for_each_object(|object| {
        if now == 0
            && before > 0
            && object.loads == patched.loads
            && object.unloads == patched.unloads
        {
            now = before;
            return false;
        }
        (patched.loads, patched.unloads) = (object.loads, object.unloads);
        let identity = Identity {
            base: object.base,
            headers: object.headers.as_ptr() as usize,
        };
        // The loader keeps its order, so what was known stands here or, after an unload, further on.
        let is_known = now < before && known[now..before].contains(&identity);
        if !is_known && !object.is_system() && !object.contains(own) {
            patch(object, &table, allow_unbound, &mut counts);
        }
        if now < MOST_OBJECTS {
            if is_known {
                let from = now
                    + known[now..before]
                        .iter()
                        .position(|entry| *entry == identity)
                        .unwrap_or(0);
                known.swap(now, from);
            } else {
                known[now] = identity;
            }
            now += 1;
        }
        true
    });
    patched.count = now;
    if let Some(own) = RECORDER.file().own() {
        own.patched_objects
            .fetch_add(counts.objects, Ordering::Relaxed);
        own.patched_slots.fetch_add(counts.slots, Ordering::Relaxed);
    }
}

/// Loads and unloads when we last looked for allocators of libraries, and whether there was one.
static SEEN: SpinLock<(u64, u64, bool)> = SpinLock::new((0, 0, false));

/// Before tracking starts in the middle of a program: with which flags its libraries were opened, nobody knows. So where
/// one of them brings a `free` of its own, slots that are not bound yet are left alone by the next pass.
pub(crate) fn look_for_other_allocators() {
    let ours = [
        real::free::ADDRESS.load(Ordering::Relaxed),
        real::find(c"getpid") as usize,
    ];
    let mut seen = SEEN.lock();
    let mut now = (0, 0, false);
    for_each_object(|object| {
        if (object.loads, object.unloads) == (seen.0, seen.1) {
            now = *seen;
            return false;
        }
        let known = object.is_system() || ours.iter().any(|address| object.contains(*address));
        let found = !known && defines(object, b"free");
        now = (object.loads, object.unloads, found);
        !found
    });
    *seen = now;
    if now.2 {
        DEEP_BINDING.store(true, Ordering::Relaxed);
    }
}

/// Points the slots of all objects back to the real functions. Takes the loader's lock, so from no hook.
pub(crate) fn restore_all() {
    let table = hooks::table();
    let own = own_address();
    let mut patched = PATCHED.lock();
    let mut counts = Counts::default();
    for_each_object(|object| {
        if !object.is_system() && !object.contains(own) {
            restore(object, &table, &mut counts);
        }
        true
    });
    *patched = Patched {
        known: None,
        count: 0,
        loads: 0,
        unloads: 0,
    };
}

/// In a forked child: a thread that is not here may have been in the middle of a pass.
///
/// # Safety
/// The child still has one thread, which is in no pass.
pub(crate) unsafe fn after_fork() {
    // SAFETY: the caller's promise.
    if unsafe { SEEN.reopen() } {
        *SEEN.lock() = (0, 0, false);
    }
    // SAFETY: as above.
    if unsafe { PATCHED.reopen() } {
        // Nothing is known: the next pass looks at every object again, which changes no slot twice.
        let mut patched = PATCHED.lock();
        (patched.count, patched.loads, patched.unloads) = (0, 0, 0);
    }
}

/// Some address inside this library, to leave its own slots alone.
pub(crate) fn own_address() -> usize {
    patch_newcomers as *const () as usize
}

/// Does the code at `address` belong to this library?
pub(crate) fn is_own_code(address: usize) -> bool {
    let (start, end) = code_around(own_address());
    (start..end).contains(&address)
}

/// Start and end of the executable segments of the object that holds `address`.
pub(crate) fn code_around(address: usize) -> (usize, usize) {
    let mut range = (0, 0);
    if address == 0 {
        return range;
    }
    for_each_object(|object| {
        if !object.executes(address) {
            return true;
        }
        for header in object
            .headers
            .iter()
            .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0)
        {
            let start = object.base.wrapping_add(header.p_vaddr as usize);
            let end = start.wrapping_add(header.p_memsz as usize);
            if (start..end).contains(&address) {
                range = (start, end);
            }
        }
        false
    });
    range
}

/// Notes whether the library is to be bound to its own dependencies first, and is the real `dlopen`
/// otherwise: by a jump, since the loader looks at its caller to know which search path applies.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
    core::arch::naked_asm!(
        "test esi, {deep_bind}",
        "jz 2f",
        "mov byte ptr [rip + {deep}], 1",
        "2:",
        "jmp qword ptr [rip + {real}]",
        deep_bind = const libc::RTLD_DEEPBIND,
        deep = sym DEEP_BINDING,
        real = sym real::dlopen::ADDRESS,
    )
}

/// As above.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
    core::arch::naked_asm!(
        "tbz w1, #3, 2f",
        "adrp x16, {deep}",
        "add x16, x16, :lo12:{deep}",
        "mov w17, #1",
        "strb w17, [x16]",
        "2:",
        "adrp x16, {real}",
        "ldr x16, [x16, :lo12:{real}]",
        "br x16",
        deep = sym DEEP_BINDING,
        real = sym real::dlopen::ADDRESS,
    )
}

/// Whoever has loaded a library asks for a symbol of it before it uses it: the moment to patch it.
/// The real function follows by a jump (`RTLD_NEXT` depends on the caller).
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    core::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "call {look}",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "jmp qword ptr [rip + {real}]",
        look = sym look_for_newcomers,
        real = sym real::dlsym::ADDRESS,
    )
}

/// As above.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    core::arch::naked_asm!(
        "stp x29, x30, [sp, #-32]!",
        "stp x0, x1, [sp, #16]",
        "bl {look}",
        "ldp x0, x1, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        "adrp x16, {real}",
        "ldr x16, [x16, :lo12:{real}]",
        "br x16",
        look = sym look_for_newcomers,
        real = sym real::dlsym::ADDRESS,
    )
}

pub(crate) unsafe extern "C" fn dlclose(handle: *mut c_void) -> c_int {
    let is_watched = look_away();
    // SAFETY: hooks are installed only for functions that were found. No turn is held: what the
    // library does when it is finalised is the program's own.
    let result = unsafe { real::dlclose::get()(handle) };
    // An address that is free now may be another library's soon: forget who was there.
    look_for_newcomers();
    if is_watched {
        native::closed();
    }
    result
}

extern "C" fn look_for_newcomers() {
    if let Some(mut turn) = Turn::begin() {
        let _ = turn.state();
        guard::catching(|| {
            patch_newcomers();
            native::look_at_objects();
        });
    }
}

/// A library may be about to go: its unwind information is not to be read.
fn look_away() -> bool {
    Turn::begin().map(|_turn| native::closing()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_found_around_a_function() {
        let malloc = real::find(c"malloc") as usize;
        let (start, end) = code_around(malloc);
        assert!(start <= malloc && malloc < end);
        assert_eq!(code_around(0), (0, 0));
    }
}
