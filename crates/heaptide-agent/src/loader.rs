//! Libraries that come and go: newcomers are patched, the departed forgotten.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::Ordering;

use heaptide_elf::{Counts, Object, for_each_object, patch};
use heaptide_recorder::{Mapping, SpinLock};

use crate::thread::Turn;
use crate::{RECORDER, guard, hooks, real};

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

/// What tells one loading of an object from another.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Identity {
    base: usize,
    headers: usize,
}

/// Patches every object that has not been patched yet. Takes the loader's lock, so never from a
/// hook of an allocation function; the caller holds its thread's turn, which keeps us out of our own hooks.
pub(crate) fn patch_newcomers() {
    let table = hooks::table();
    let own = constructor_address();
    let mut patched = PATCHED.lock();
    let patched = &mut *patched;
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
            patch(object, &table, &mut counts);
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

/// Some address inside this library, to leave its own slots alone.
fn constructor_address() -> usize {
    patch_newcomers as *const () as usize
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

/// Passes on where it was called from, which only the first instruction can know for sure.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
    core::arch::naked_asm!("mov rdx, qword ptr [rsp]", "jmp {}", sym dlopen_from)
}

/// Passes on where it was called from, which only the first instruction can know for sure.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
    core::arch::naked_asm!("mov x2, x30", "b {}", sym dlopen_from)
}

unsafe extern "C" fn dlopen_from(name: *const c_char, flags: c_int, caller: usize) -> *mut c_void {
    let expanded = if name.is_null() {
        None
    } else {
        // SAFETY: dlopen takes a C string.
        guard::catching(|| search_callers_path(unsafe { CStr::from_ptr(name) }, caller)).flatten()
    };
    let path = expanded.as_ref().map_or(name, |path| path.as_ptr().cast());
    // SAFETY: hooks are installed only for functions that were found. No turn is held: what the
    // library allocates when it is initialised is the program's own.
    let handle = unsafe { real::dlopen::get()(path, flags) };
    if !handle.is_null()
        && let Some(mut turn) = Turn::begin()
    {
        let _ = turn.state();
        guard::catching(patch_newcomers);
    }
    handle
}

pub(crate) unsafe extern "C" fn dlclose(handle: *mut c_void) -> c_int {
    // SAFETY: as in `dlopen`.
    let result = unsafe { real::dlclose::get()(handle) };
    if let Some(mut turn) = Turn::begin() {
        let _ = turn.state();
        // An address that is free now may be another library's soon: forget who was there.
        guard::catching(patch_newcomers);
    }
    result
}

/// The hook stands between the caller and the loader, which looks at the caller's own search path
/// (`DT_RUNPATH`) for a bare name. So we look there first, as the loader would have.
fn search_callers_path(name: &CStr, caller: usize) -> Option<[u8; 1024]> {
    let name = name.to_bytes();
    if name.contains(&b'/') || name.is_empty() {
        return None;
    }
    let mut found = None;
    for_each_object(|object| {
        if !object.executes(caller) {
            return true;
        }
        if let Some(paths) = object.run_path() {
            found = paths
                .split(|byte| *byte == b':')
                .find_map(|path| existing_file(object, path, name));
        }
        false
    });
    found
}

fn existing_file(object: &Object<'_>, directory: &[u8], name: &[u8]) -> Option<[u8; 1024]> {
    let origin = match object.name.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => &object.name[..slash],
        None => &b"."[..],
    };
    let mut path = [0u8; 1024];
    let mut length = 0;
    let mut push = |bytes: &[u8]| -> Option<()> {
        // One byte stays for the NUL.
        let end = length + bytes.len();
        path.get_mut(length..end)
            .filter(|_| end < 1024)?
            .copy_from_slice(bytes);
        length = end;
        Some(())
    };
    let mut rest = directory;
    while !rest.is_empty() {
        if let Some(tail) = rest
            .strip_prefix(b"$ORIGIN")
            .or_else(|| rest.strip_prefix(b"${ORIGIN}"))
        {
            push(origin)?;
            rest = tail;
        } else {
            push(&rest[..1])?;
            rest = &rest[1..];
        }
    }
    push(b"/")?;
    push(name)?;
    let text = CStr::from_bytes_until_nul(&path).ok()?;
    rustix::fs::access(text, rustix::fs::Access::READ_OK).ok()?;
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_found_beside_its_caller() {
        let directory =
            std::env::temp_dir().join(format!("heaptide-origin-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("libs")).unwrap();
        std::fs::write(directory.join("libs/plugin.so"), b"").unwrap();
        let name = directory
            .join("caller.so")
            .into_os_string()
            .into_encoded_bytes();
        let object = Object {
            name: &name,
            base: 0,
            headers: &[],
            loads: 0,
            unloads: 0,
        };
        for path in [&b"$ORIGIN/libs"[..], b"${ORIGIN}/libs"] {
            let found = existing_file(&object, path, b"plugin.so").unwrap();
            let found = CStr::from_bytes_until_nul(&found).unwrap().to_bytes();
            assert_eq!(
                found,
                directory
                    .join("libs/plugin.so")
                    .as_os_str()
                    .as_encoded_bytes()
            );
        }
        assert_eq!(existing_file(&object, b"$ORIGIN/libs", b"absent.so"), None);
        assert_eq!(existing_file(&object, &[b'/'; 2000], b"plugin.so"), None);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn code_is_found_around_a_function() {
        let malloc = real::find(c"malloc") as usize;
        let (start, end) = code_around(malloc);
        assert!(start <= malloc && malloc < end);
        assert_eq!(code_around(0), (0, 0));
    }
}
