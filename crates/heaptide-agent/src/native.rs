//! Native stacks, where they are asked for: `docs/design/020-recording-native-stacks.md`.
//!
//! A thread remembers its last walk; frames that are not as they were are looked up in a table of rules that all
//! threads share, and what is not there yet is found in the unwind information of the object, under a lock and on a stack
//! of ours.

#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "there are no rules for other processors yet")
)]

mod memo;
mod objects;
mod scratch;
mod stack;

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use heaptide_format::NATIVE_ROOT;
use heaptide_recorder::{Mapping, SpinLock, Stop};
use heaptide_unwind::{Full, Known, Place, Registers, RuleTable, Stack, walk};

pub(crate) use self::memo::NativeMemo;
use self::objects::{Lookout, Objects};
use crate::RECORDER;
use crate::thread::ThreadState;

static ON: AtomicBool = AtomicBool::new(false);
static OBJECTS: SpinLock<Objects> = SpinLock::new(Objects::new());
static LOOKOUT: SpinLock<Lookout> = SpinLock::new(Lookout::new());
/// There for as long as native stacks are recorded.
static TABLE: AtomicPtr<RuleTable> = AtomicPtr::new(core::ptr::null_mut());
/// Moves when objects come or go, and when a `dlclose` is over: what is remembered may be of those that are gone, or ends where
/// nothing was known.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Are native stacks recorded?
#[inline(always)]
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Gets ready, if the capture is to hold native stacks. After it was opened and before tracking is on; takes the loader's
/// lock.
pub(crate) fn begin() {
    // SAFETY: tracking is off, and has been since the last capture was released.
    unsafe { release() };
    if !RECORDER.holds_native_stacks() || !cfg!(target_arch = "x86_64") {
        return;
    }
    if !OBJECTS.lock().prepare() || !LOOKOUT.lock().prepare() {
        return;
    }
    let Some(memory) = Mapping::new(size_of::<RuleTable>()) else {
        return;
    };
    TABLE.store(memory.leak(), Ordering::Release);
    ON.store(true, Ordering::Release);
    look_at_objects();
}

/// In a forked child, whose capture was just made: what was known of objects still holds.
pub(crate) fn begin_in_child() {
    if !RECORDER.holds_native_stacks() {
        ON.store(false, Ordering::Release);
    }
    if is_on() {
        LOOKOUT.lock().describe_again();
    }
}

/// Somebody wants the objects to be looked at.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Learns which objects are loaded. Takes the loader's lock, so from no hook of an allocation function; the caller has
/// its thread's turn, or tracking is off.
pub(crate) fn look_at_objects() {
    if !is_on() {
        return;
    }
    let Some(table) = table() else { return };
    LOOKOUT.work_or_leave(&ASKED, |lookout| {
        if lookout.look(&OBJECTS, table) {
            GENERATION.fetch_add(1, Ordering::Release);
        }
    });
}

/// So many calls of `dlclose` are under way, whatever is recorded.
static CLOSING: AtomicU32 = AtomicU32::new(0);

/// Some object may be about to go: until [`look_at_objects`] and as many calls of [`closed`] nothing is read from objects.
pub(crate) fn closing() {
    CLOSING.fetch_add(1, Ordering::SeqCst);
    // Whoever is reading is waited for.
    drop(OBJECTS.lock());
}

/// See [`closing`].
pub(crate) fn closed() {
    // In a child that was forked meanwhile it is zero.
    let _ = CLOSING.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
        count.checked_sub(1)
    });
    // What could not be looked up may be now.
    GENERATION.fetch_add(1, Ordering::Release);
}

/// Native stacks are not recorded any more, and the memory goes.
///
/// # Safety
/// No thread is in a hook, and none will be before tracking starts again.
pub(crate) unsafe fn release() {
    ON.store(false, Ordering::Release);
    let table = TABLE.swap(core::ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: leaked by `begin`, and nobody is in it.
    drop(unsafe { Mapping::reclaim(table, size_of::<RuleTable>()) });
    *OBJECTS.lock() = Objects::new();
    *LOOKOUT.lock() = Lookout::new();
    GENERATION.fetch_add(1, Ordering::Release);
}

/// In a forked child: what was being changed is not believed.
///
/// # Safety
/// The child still has one thread, which is in no hook.
pub(crate) unsafe fn after_fork() {
    // SAFETY: the caller's promise.
    unsafe {
        OBJECTS.reopen();
        LOOKOUT.reopen();
    }
    CLOSING.store(0, Ordering::SeqCst);
    // Whoever was looking up has left half of a rule, where nobody sees it.
    if !OBJECTS.lock().recover() {
        ON.store(false, Ordering::Release);
    }
}

fn table() -> Option<&'static RuleTable> {
    // SAFETY: null, or a table that was leaked by `begin` and stays until `release`, which waits for all who use it.
    unsafe { TABLE.load(Ordering::Acquire).as_ref() }
}

/// Number of the stack that is `python` together with the native stack of the caller.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
pub(crate) fn combined(state: &mut ThreadState, python: u32) -> Result<u32, Stop> {
    let here = Registers::here();
    let memo = &mut state.native;
    let Some(table) = table() else {
        return Ok(python);
    };
    let Some(stack) = stack::around(&mut memo.own_stack, here.stack_pointer) else {
        return Ok(python);
    };
    let native = native_stack(memo, table, &here, stack)?;
    memo.combined(python, native)
}

/// Nobody asks.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn combined(_state: &mut ThreadState, python: u32) -> Result<u32, Stop> {
    Ok(python)
}

/// Number of the native stack that begins with the caller of this library.
fn native_stack(
    memo: &mut NativeMemo,
    table: &RuleTable,
    here: &Registers,
    stack: Stack,
) -> Result<u32, Stop> {
    memo.be_of(GENERATION.load(Ordering::Acquire), stack);
    let stack = stack.from(here.stack_pointer);
    loop {
        let (remembered, fresh) = memo.frames();
        let found = walk(*here, &stack, remembered, fresh, |registers| {
            table
                .find(registers.instruction)
                .unwrap_or_else(|| look_up(table, registers, &stack))
        });
        match found {
            Ok(found) if memo.has_room(found.kept + found.fresh) => {
                return memo.remember(found.kept, found.fresh);
            }
            Ok(_) | Err(Full) => {
                if !memo.grow() {
                    return Ok(NATIVE_ROOT);
                }
            }
        }
    }
}

/// What the objects say of an address that is not in the table yet.
#[cold]
#[inline(never)]
fn look_up(table: &RuleTable, registers: &Registers, stack: &Stack) -> Known {
    let mut objects = OBJECTS.lock();
    // Somebody else may have found it meanwhile.
    if let Some(known) = table.find(registers.instruction) {
        return known;
    }
    let is_closing = CLOSING.load(Ordering::SeqCst) > 0;
    match objects.known(registers.instruction, is_closing) {
        Some(known) => {
            table.insert(registers.instruction, known);
            known
        }
        None => Known {
            rule: objects.rule_outside(registers, stack),
            place: Place::UNKNOWN,
        },
    }
}
