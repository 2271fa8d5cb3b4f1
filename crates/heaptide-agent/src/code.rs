//! Code objects: from address to number in the capture, and never to a dead one's.
//!
//! A code object is known by its address, and addresses are used again. So its destruction is
//! watched: the `tp_dealloc` slot of `PyCode_Type` leads through [`destroyed`], which forgets the
//! address and moves the generation; whoever remembers anything by address compares generations.
//!
//! Nothing of this leans on the GIL, which there may not be: a thread asks only about code that is on its own stack, and
//! to run a new code object at an old address it must have got both the memory and the object from others in an order that the
//! move of the generation comes before.

use core::ffi::c_void;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use heaptide_recorder::{CodeText, Mapping, RawText, SpinLock, Stop, mix};

use crate::{RECORDER, interpreter, real};

type Dealloc = unsafe extern "C" fn(*mut c_void);

static REAL_DEALLOC: AtomicUsize = AtomicUsize::new(0);
static GENERATION: AtomicU64 = AtomicU64::new(1);
static TABLE: AtomicPtr<Table> = AtomicPtr::new(core::ptr::null_mut());
static CHANGING: SpinLock<()> = SpinLock::new(());

const FIRST_ENTRIES: usize = 2048;
const EMPTY: usize = 0;
const REMOVED: usize = 1;

/// Open addressing; entries follow.
#[repr(C)]
struct Table {
    mask: usize,
    /// Entries that are not empty (removed ones included).
    used: AtomicUsize,
    /// The one before, which others may still be in.
    previous: *mut Table,
}

impl Table {
    fn bytes(entries: usize) -> usize {
        size_of::<Self>() + entries * size_of::<Entry>()
    }
}

#[repr(C)]
struct Entry {
    code: AtomicUsize,
    number: AtomicU32,
}

/// Moves whenever a code object that was seen on a stack is destroyed.
#[inline(always)]
pub(crate) fn generation() -> u64 {
    // Acquire pairs with the Release in `forget`: a new code object at an old address was made
    // after that store, by this thread or by one we have since synchronised with (the GIL, or the
    // allocator that gave the memory on and whatever led to the object).
    GENERATION.load(Ordering::Acquire)
}

/// Leads the destruction of code objects through [`destroyed`]. With the GIL, or attached where there is none. For ever: whoever
/// has put himself in front of us since leads to us. Before tracking is on: who has read the slot before is destroying
/// what was on no stack since.
pub(crate) fn watch_destruction() {
    if REAL_DEALLOC.load(Ordering::Relaxed) != 0 {
        return;
    }
    let code_type = real::find(c"PyCode_Type");
    if code_type.is_null() {
        return;
    }
    // SAFETY: `PyCode_Type` is a static, writable type object whose `tp_dealloc` lies at this offset; tracking is about
    // to start, so the interpreter is resolved. Others may call what was there, or ours.
    unsafe {
        let offset = interpreter::get().layout.object.type_dealloc as usize;
        let slot = AtomicUsize::from_ptr(code_type.cast::<u8>().add(offset).cast());
        let real = slot.load(Ordering::Relaxed);
        if real != 0 {
            REAL_DEALLOC.store(real, Ordering::Release);
            slot.store(destroyed as *const () as usize, Ordering::Release);
        }
    }
}

unsafe extern "C" fn destroyed(code: *mut c_void) {
    if crate::switch::is_on() {
        forget(code as usize);
    }
    // SAFETY: stored before the slot led here.
    unsafe {
        let real: Dealloc =
            core::mem::transmute::<usize, Dealloc>(REAL_DEALLOC.load(Ordering::Acquire));
        real(code);
    }
}

fn forget(code: usize) {
    // The guard keeps a signal handler's allocation from waiting for the lock we are about to hold.
    let Some(_turn) = crate::thread::Turn::begin() else {
        return;
    };
    let _changing = CHANGING.lock();
    let table = TABLE.load(Ordering::Relaxed);
    if table.is_null() {
        return;
    }
    // SAFETY: tables live for ever; positions are masked.
    unsafe {
        let mut position = start(code, (*table).mask);
        loop {
            let entry = entry(table, position);
            match (*entry).code.load(Ordering::Relaxed) {
                EMPTY => return,
                found if found == code => {
                    (*entry).code.store(REMOVED, Ordering::Relaxed);
                    GENERATION.fetch_add(1, Ordering::Release);
                    return;
                }
                _ => position = (position + 1) & (*table).mask,
            }
        }
    }
}

/// Moves it for another reason than a death.
pub(crate) fn next_generation() {
    GENERATION.fetch_add(1, Ordering::Release);
}

/// In a forked child that is recorded anew: nothing has a number yet.
///
/// # Safety
/// The child still has one thread, which is in no hook.
pub(crate) unsafe fn after_fork() {
    // SAFETY: the caller's promise.
    unsafe { CHANGING.reopen() };
    TABLE.store(core::ptr::null_mut(), Ordering::Release);
    GENERATION.fetch_add(1, Ordering::Release);
}

/// Tracking has ended: no code object has a number any more, and the memory goes.
///
/// # Safety
/// No thread is in a hook, and none will be before tracking starts again.
pub(crate) unsafe fn release() {
    let mut table = TABLE.swap(core::ptr::null_mut(), Ordering::AcqRel);
    GENERATION.fetch_add(1, Ordering::Release);
    while !table.is_null() {
        // SAFETY: the caller's promise; tables were leaked by `rebuilt`, with this length.
        unsafe {
            let previous = (*table).previous;
            drop(Mapping::reclaim(table, Table::bytes((*table).mask + 1)));
            table = previous;
        }
    }
}

/// Number of the code object at `code`, which is on the calling thread's stack and so alive.
#[inline]
pub(crate) fn number(code: usize) -> Result<u32, Stop> {
    match find(TABLE.load(Ordering::Acquire), code) {
        Some(number) => Ok(number),
        None => describe(code),
    }
}

/// Its number in a table, which may be null, if it has one there.
#[inline(always)]
fn find(table: *mut Table, code: usize) -> Option<u32> {
    if table.is_null() {
        return None;
    }
    // SAFETY: as in `forget`; there is always an empty entry.
    unsafe {
        let mut position = start(code, (*table).mask);
        loop {
            let entry = entry(table, position);
            // Acquire pairs with the Release in `place`: the number is there.
            match (*entry).code.load(Ordering::Acquire) {
                EMPTY => return None,
                found if found == code => return Some((*entry).number.load(Ordering::Relaxed)),
                _ => position = (position + 1) & (*table).mask,
            }
        }
    }
}

/// Gives the code object a number. One thread at a time: many that run the same new code would each give it another.
#[cold]
#[inline(never)]
fn describe(code: usize) -> Result<u32, Stop> {
    let _changing = CHANGING.lock();
    if let Some(number) = find(TABLE.load(Ordering::Relaxed), code) {
        return Ok(number);
    }
    // SAFETY: tracking is on, and the code object is alive.
    let view =
        unsafe { heaptide_cpython::read_code(&interpreter::get().layout, code as *const u8) };
    let number = match &view {
        Some(view) => {
            let text = |raw: &heaptide_cpython::RawStr<'static>| RawText {
                bytes: raw.bytes,
                kind: raw.kind,
            };
            let name = text(&view.name);
            RECORDER.code(&CodeText {
                name,
                qualified_name: view.qualified_name.as_ref().map_or(name, text),
                file_name: text(&view.file_name),
                first_line: view.first_line,
                flags: view.flags,
                line_table: view.line_table,
            })?
        }
        None => {
            let unknown = RawText {
                bytes: b"<unreadable code object>",
                kind: 1,
            };
            RECORDER.code(&CodeText {
                name: unknown,
                qualified_name: unknown,
                file_name: unknown,
                first_line: 0,
                flags: 0,
                line_table: &[],
            })?
        }
    };
    add(code, number);
    Ok(number)
}

/// With the lock.
fn add(code: usize, number: u32) {
    let mut table = TABLE.load(Ordering::Relaxed);
    // SAFETY: only this lock's holder changes tables; positions are masked.
    unsafe {
        if table.is_null() || (*table).used.load(Ordering::Relaxed) * 2 > (*table).mask {
            let Some(bigger) = rebuilt(table) else { return };
            TABLE.store(bigger, Ordering::Release);
            table = bigger;
        }
        place(table, code, number);
    }
}

/// A table with room for more, without the removed entries. The old one stays: others may be in it.
unsafe fn rebuilt(old: *mut Table) -> Option<*mut Table> {
    // SAFETY: as in `add`.
    unsafe {
        let mut live = 0usize;
        for_each(old, |_, _| live += 1);
        let entries = (live * 4).next_power_of_two().max(FIRST_ENTRIES);
        let memory = Mapping::new(Table::bytes(entries))?;
        let table: *mut Table = memory.leak();
        (*table).mask = entries - 1;
        (*table).previous = old;
        for_each(old, |code, number| place(table, code, number));
        Some(table)
    }
}

unsafe fn for_each(table: *mut Table, mut visit: impl FnMut(usize, u32)) {
    if table.is_null() {
        return;
    }
    // SAFETY: as in `add`.
    unsafe {
        for position in 0..=(*table).mask {
            let entry = entry(table, position);
            let code = (*entry).code.load(Ordering::Relaxed);
            if code > REMOVED {
                visit(code, (*entry).number.load(Ordering::Relaxed));
            }
        }
    }
}

unsafe fn place(table: *mut Table, code: usize, number: u32) {
    // SAFETY: as in `add`; there is an empty entry.
    unsafe {
        let mut position = start(code, (*table).mask);
        let mut reusable: Option<*mut Entry> = None;
        loop {
            let here = entry(table, position);
            match (*here).code.load(Ordering::Relaxed) {
                EMPTY => {
                    // Removed entries are used again, or a program that keeps making code would fill the table.
                    let target = reusable.unwrap_or(here);
                    if target == here {
                        (*table).used.fetch_add(1, Ordering::Relaxed);
                    }
                    (*target).number.store(number, Ordering::Relaxed);
                    (*target).code.store(code, Ordering::Release);
                    return;
                }
                REMOVED => {
                    reusable.get_or_insert(here);
                }
                found if found == code => return,
                _ => {}
            }
            position = (position + 1) & (*table).mask;
        }
    }
}

#[inline(always)]
fn start(code: usize, mask: usize) -> usize {
    mix(code as u64, 0) as usize & mask
}

#[inline(always)]
unsafe fn entry(table: *mut Table, position: usize) -> *mut Entry {
    // SAFETY: the caller's position is masked.
    unsafe { table.add(1).cast::<Entry>().add(position) }
}
