//! The hooks: guard, real call, record.
//!
//! Laws kept here: a free is recorded before the real free and an allocation after the real one; a
//! failed call records nothing; `realloc` is both; `free(NULL)` is nothing; no stack is walked in a
//! free; `errno` is whatever the real call left (our own system calls go around the C library).
//!
//! Cost on top of the real call: with tracking off one load and a branch; with it on some tens of
//! nanoseconds, most of them the walk, the table of live blocks and one compare-and-swap.

use core::ffi::{c_int, c_void};
use core::sync::atomic::Ordering;

use heaptide_elf::Hook;
use heaptide_format::Allocator;

use crate::guard::recording;
use crate::thread::{ThreadState, Turn};
use crate::{RECORDER, family, guard, interpreter, loader, names, real, switch, thread, walk};

/// One event in so many is timed. A prime, so that it keeps no step with anything else that recurs.
const TIMED_EVERY: u32 = 1021;

/// No user's address is as high as this on any processor.
const ADDRESS_SPACE: usize = 1 << 56;

/// `MREMAP_DONTUNMAP`: the old range stays mapped.
const KEEPS_OLD_RANGE: c_int = 4;

macro_rules! hook_table {
    ($($name:ident => $replacement:path,)+) => {
        /// All hooks whose function exists in this process.
        pub(crate) fn table() -> [Hook; [$(stringify!($name)),+].len()] {
            [$({
                Hook {
                    name: stringify!($name),
                    original: real::$name::ADDRESS.load(Ordering::Relaxed),
                    home: (
                        real::$name::HOME[0].load(Ordering::Relaxed),
                        real::$name::HOME[1].load(Ordering::Relaxed),
                    ),
                    replacement: $replacement as *const () as usize,
                }
            }),+]
        }
    };
}

hook_table! {
    malloc => malloc,
    calloc => calloc,
    realloc => realloc,
    reallocarray => reallocarray,
    free => free,
    free_sized => free_sized,
    free_aligned_sized => free_aligned_sized,
    posix_memalign => posix_memalign,
    aligned_alloc => aligned_alloc,
    memalign => memalign,
    valloc => valloc,
    pvalloc => pvalloc,
    mmap => mmap,
    mmap64 => mmap64,
    munmap => munmap,
    mremap => mremap,
    pthread_create => pthread_create,
    dlopen => loader::dlopen,
    dlsym => loader::dlsym,
    dlclose => loader::dlclose,
    waitpid => family::waitpid,
    wait => family::wait,
    wait3 => family::wait3,
    wait4 => family::wait4,
    waitid => family::waitid,
    _exit => family::_exit,
    execv => family::execv,
    execve => family::execve,
}

/// Records an allocation that has just succeeded, unless tracking has ended before.
#[inline(always)]
pub(crate) fn allocated(turn: &mut Turn, allocator: Allocator, block: *mut c_void, bytes: usize) {
    if !turn.goes_on() {
        return;
    }
    let state = turn.state();
    timed(state, |state| {
        let node = walk::current_stack(state)?;
        // SAFETY: tracking is on, so the recorder has started; the turn makes the record ours.
        unsafe {
            RECORDER.allocated(
                &mut state.record,
                node,
                allocator,
                block as u64,
                bytes as u64,
            )
        }
    });
}

/// Records a free that is about to happen, in the turn that `begin` gives. Never walks a stack: greenlet frees memory in
/// the middle of a switch, when the frame chain leads into overwritten memory.
#[inline(always)]
pub(crate) fn freed(block: *mut c_void, begin: impl FnOnce() -> Option<Turn>) -> Option<Turn> {
    if block.is_null() {
        return None;
    }
    let Some(mut turn) = begin() else {
        if switch::is_on_for_python() {
            thread::within_python(block, |state| record_free(state, block));
        }
        return None;
    };
    record_free(turn.state(), block);
    turn.real_call();
    Some(turn)
}

#[inline(always)]
fn record_free(state: &mut ThreadState, block: *mut c_void) {
    timed(state, |state| {
        // SAFETY: as in `allocated`.
        unsafe { RECORDER.freed(&mut state.record, block as u64) }
    });
}

/// Runs `event`, and measures what it takes now and then.
#[inline(always)]
fn timed(
    state: &mut ThreadState,
    event: impl FnOnce(&mut ThreadState) -> Result<(), heaptide_recorder::Stop>,
) {
    state.tick += 1;
    if !state.tick.is_multiple_of(TIMED_EVERY) {
        return recording(|| event(state));
    }
    state.tick = 0;
    let start = monotonic_ns();
    recording(|| event(state));
    state
        .record
        .count_time(monotonic_ns().saturating_sub(start));
}

#[cold]
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec as u64)
}

unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    let turn = Turn::begin();
    // SAFETY: hooks are installed only for functions that were found; the arguments are the caller's.
    // (The same holds for every call of `real` in this file.)
    let block = unsafe { real::malloc::get()(size) };
    if let (Some(mut turn), false) = (turn, block.is_null()) {
        allocated(&mut turn, Allocator::Malloc, block, size);
    }
    block
}

unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    let turn = Turn::begin();
    // SAFETY: see `malloc`.
    let block = unsafe { real::calloc::get()(count, size) };
    if let (Some(mut turn), false) = (turn, block.is_null()) {
        // It succeeded, so the product did not overflow.
        allocated(
            &mut turn,
            Allocator::Calloc,
            block,
            count.wrapping_mul(size),
        );
    }
    block
}

unsafe extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
    let Some(mut turn) = Turn::begin() else {
        // SAFETY: see `malloc`.
        return unsafe { real::realloc::get()(old, size) };
    };
    // SAFETY: see `malloc`.
    let call = || unsafe { real::realloc::get()(old, size) };
    reallocated(&mut turn, Allocator::Realloc, old, size, true, call)
}

unsafe extern "C" fn reallocarray(old: *mut c_void, count: usize, size: usize) -> *mut c_void {
    let Some(mut turn) = Turn::begin() else {
        // SAFETY: see `malloc`.
        return unsafe { real::reallocarray::get()(old, count, size) };
    };
    // A product that overflows fails, and must not look like the zero that frees.
    // SAFETY: see `malloc`.
    let call = || unsafe { real::reallocarray::get()(old, count, size) };
    let bytes = count.saturating_mul(size);
    reallocated(&mut turn, Allocator::Realloc, old, bytes, true, call)
}

/// A free and an allocation in one. The old block leaves the table before the real call, since its
/// address may belong to another thread the moment that returns; but it counts as live until then,
/// since it is: a process killed while it copies a large block still held it. Of some functions a size of
/// zero `frees_at_zero`; of others no block means that they failed, whatever the size.
#[inline(always)]
pub(crate) fn reallocated(
    turn: &mut Turn,
    allocator: Allocator,
    old: *mut c_void,
    size: usize,
    frees_at_zero: bool,
    call: impl FnOnce() -> *mut c_void,
) -> *mut c_void {
    let mut taken = None;
    let events = RECORDER.holds_events();
    if !old.is_null() {
        let state = turn.state();
        recording(|| {
            if events {
                // SAFETY: as in `allocated`.
                return unsafe { RECORDER.freed(&mut state.record, old as u64) };
            }
            taken = RECORDER.take(old as u64);
            Ok(())
        });
        turn.real_call();
    }
    let block = call();
    // The last free of the stream is then not ours to take back. (Nobody who fails gives anything back.)
    let freed_within = turn.has_freed_within();
    let goes_on = turn.goes_on();
    let state = turn.state();
    if block.is_null() && !(frees_at_zero && size == 0) {
        // It failed: the old block is as it was.
        if let Some(taken) = taken {
            recording(|| RECORDER.put_back(taken));
        } else if events && !old.is_null() && !freed_within {
            // SAFETY: as in `allocated`.
            recording(|| unsafe { RECORDER.free_undone(&mut state.record) });
        }
        return block;
    }
    timed(state, |state| {
        match taken {
            // SAFETY: as in `allocated`.
            Some(taken) => unsafe { RECORDER.freed_block(&mut state.record, taken)? },
            None if !old.is_null() && !events => RECORDER.unknown_free(&mut state.record),
            None => {}
        }
        if block.is_null() {
            return Ok(());
        }
        // The event is half recorded already, so the rest follows. Who gave this block back was perhaps not recorded.
        if !goes_on && block != old {
            // SAFETY: as in `allocated`.
            unsafe { RECORDER.freed(&mut state.record, block as u64)? };
        }
        let node = walk::current_stack(state)?;
        // SAFETY: as in `allocated`.
        unsafe {
            RECORDER.allocated(
                &mut state.record,
                node,
                allocator,
                block as u64,
                size as u64,
            )
        }
    });
    block
}

unsafe extern "C" fn free(block: *mut c_void) {
    let _turn = freed(block, Turn::begin);
    // SAFETY: see `malloc`.
    unsafe { real::free::get()(block) };
}

unsafe extern "C" fn free_sized(block: *mut c_void, size: usize) {
    let _turn = freed(block, Turn::begin);
    // SAFETY: see `malloc`.
    unsafe { real::free_sized::get()(block, size) };
}

unsafe extern "C" fn free_aligned_sized(block: *mut c_void, alignment: usize, size: usize) {
    let _turn = freed(block, Turn::begin);
    // SAFETY: see `malloc`.
    unsafe { real::free_aligned_sized::get()(block, alignment, size) };
}

unsafe extern "C" fn posix_memalign(
    place: *mut *mut c_void,
    alignment: usize,
    size: usize,
) -> c_int {
    let turn = Turn::begin();
    // SAFETY: see `malloc`.
    let failed = unsafe { real::posix_memalign::get()(place, alignment, size) };
    if let (Some(mut turn), 0) = (turn, failed) {
        // SAFETY: success means that the place was written.
        let block = unsafe { *place };
        if !block.is_null() {
            allocated(&mut turn, Allocator::PosixMemalign, block, size);
        }
    }
    failed
}

macro_rules! aligned_allocator {
    ($name:ident, $allocator:expr, ($($argument:ident),*), $size:ident) => {
        unsafe extern "C" fn $name($($argument: usize),*) -> *mut c_void {
            let turn = Turn::begin();
            // SAFETY: see `malloc`.
            let block = unsafe { real::$name::get()($($argument),*) };
            if let (Some(mut turn), false) = (turn, block.is_null()) {
                allocated(&mut turn, $allocator, block, $size);
            }
            block
        }
    };
}

aligned_allocator!(
    aligned_alloc,
    Allocator::AlignedAlloc,
    (alignment, size),
    size
);
aligned_allocator!(memalign, Allocator::Memalign, (alignment, size), size);
aligned_allocator!(valloc, Allocator::Valloc, (size), size);
aligned_allocator!(pvalloc, Allocator::Pvalloc, (size), size);

macro_rules! mapper {
    ($name:ident) => {
        unsafe extern "C" fn $name(
            hint: *mut c_void,
            bytes: usize,
            protection: c_int,
            flags: c_int,
            file: c_int,
            offset: i64,
        ) -> *mut c_void {
            let turn = Turn::begin();
            // SAFETY: see `malloc`.
            let start = unsafe { real::$name::get()(hint, bytes, protection, flags, file, offset) };
            if let (Some(mut turn), true) = (turn, start != libc::MAP_FAILED) {
                mapped(&mut turn, start, bytes);
            }
            start
        }
    };
}

mapper!(mmap);
mapper!(mmap64);

#[inline(always)]
fn mapped(turn: &mut Turn, start: *mut c_void, bytes: usize) {
    if !bytes.is_multiple_of(rustix::param::page_size()) {
        // The kernel takes whole pages, also of what was mapped there before.
        unmapped(turn, start, bytes, || (), |()| true);
    }
    let state = turn.state();
    timed(state, |state| {
        let node = walk::current_stack(state)?;
        // SAFETY: as in `allocated`.
        unsafe { RECORDER.mapped(&mut state.record, node, start as u64, bytes as u64) }
    });
}

unsafe extern "C" fn munmap(start: *mut c_void, bytes: usize) -> c_int {
    let Some(mut turn) = Turn::begin() else {
        // SAFETY: see `malloc`.
        return unsafe { real::munmap::get()(start, bytes) };
    };
    // SAFETY: see `malloc`.
    unmapped(
        &mut turn,
        start,
        bytes,
        || unsafe { real::munmap::get()(start, bytes) },
        |result| *result == 0,
    )
}

/// Counts the range as freed, makes the call, and takes the free back if it failed.
fn unmapped<T>(
    turn: &mut Turn,
    start: *mut c_void,
    bytes: usize,
    call: impl FnOnce() -> T,
    succeeded: impl FnOnce(&T) -> bool,
) -> T {
    // The kernel refuses others without looking at the range.
    let page = rustix::param::page_size();
    let end = (start as usize)
        .saturating_add(bytes)
        .checked_next_multiple_of(page)
        .unwrap_or(usize::MAX);
    let sensible = (start as usize).is_multiple_of(page) && bytes > 0 && end <= ADDRESS_SPACE;
    let length = end.saturating_sub(start as usize) as u64;
    if RECORDER.holds_events() {
        return unmapped_event(turn, sensible, start as u64, length, call, succeeded);
    }
    let mut last = None;
    if sensible {
        let state = turn.state();
        timed(state, |state| {
            loop {
                // SAFETY: as in `allocated`.
                let pieces =
                    unsafe { RECORDER.unmapping(&mut state.record, start as u64, length)? };
                if pieces.as_slice().is_empty() {
                    return Ok(());
                }
                // Only the last batch can be taken back; a range over more than one is rare, and an
                // unmap of it that fails rarer still.
                if let Some(earlier) = last.replace(pieces) {
                    RECORDER.unmapped(&earlier);
                }
            }
        });
        turn.real_call();
    }
    let result = call();
    let ok = succeeded(&result);
    if let Some(pieces) = last {
        let state = turn.state();
        recording(|| {
            if ok {
                RECORDER.unmapped(&pieces);
                Ok(())
            } else {
                // SAFETY: as in `allocated`.
                unsafe { RECORDER.unmap_failed(&mut state.record, &pieces) }
            }
        });
    }
    result
}

/// As above in mode "all": readers find out what was mapped in the range.
fn unmapped_event<T>(
    turn: &mut Turn,
    sensible: bool,
    start: u64,
    length: u64,
    call: impl FnOnce() -> T,
    succeeded: impl FnOnce(&T) -> bool,
) -> T {
    if sensible {
        let state = turn.state();
        timed(state, |state| {
            // SAFETY: as in `allocated`.
            unsafe { RECORDER.range_unmapped(&mut state.record, start, length) }
        });
        turn.real_call();
    }
    let result = call();
    if sensible && !succeeded(&result) {
        let state = turn.state();
        // SAFETY: as in `allocated`.
        recording(|| unsafe { RECORDER.range_unmap_undone(&mut state.record) });
    }
    result
}

/// Variadic in C; the fifth argument is in its register whether or not the caller passed one.
unsafe extern "C" fn mremap(
    old: *mut c_void,
    old_bytes: usize,
    bytes: usize,
    flags: c_int,
    place: *mut c_void,
) -> *mut c_void {
    // SAFETY: see `malloc`.
    let call = || unsafe { real::mremap::get()(old, old_bytes, bytes, flags, place) };
    let Some(mut turn) = Turn::begin() else {
        return call();
    };
    let succeeded = |start: &*mut c_void| *start != libc::MAP_FAILED;
    // A length of zero makes a second mapping of shared pages; the first stays.
    let start = if old_bytes == 0 || flags & KEEPS_OLD_RANGE != 0 {
        call()
    } else {
        unmapped(&mut turn, old, old_bytes, call, succeeded)
    };
    if succeeded(&start) {
        mapped(&mut turn, start, bytes);
    }
    start
}

/// Only to learn the name of a Python thread, before 3.12. Nothing is recorded.
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: *mut c_void,
    argument: *mut c_void,
) -> c_int {
    if interpreter::starts_threads_unannounced(start as usize)
        && let Some(mut turn) = Turn::begin()
    {
        turn.real_call();
        guard::catching(|| names::thread_is_being_created(argument));
    }
    // SAFETY: see `malloc`.
    unsafe { real::pthread_create::get()(thread, attributes, start, argument) }
}
