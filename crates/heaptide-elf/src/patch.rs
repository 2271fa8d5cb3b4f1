//! Replacing and restoring slots.

use core::sync::atomic::{AtomicUsize, Ordering};

use rustix::mm::MprotectFlags;

use crate::arch::{ABSOLUTE, GLOB_DAT, JUMP_SLOT};
use crate::dynamic::Dynamic;
use crate::object::Object;

/// A function to be called in place of another.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Symbol name.
    pub name: &'static str,
    /// Address of the function that symbol means in this process; 0: there is none, leave it alone.
    pub original: usize,
    /// Code of the object that holds `original`: start and end. A slot with any address in there is
    /// taken for the function (other versions of the symbol).
    pub home: (usize, usize),
    /// Address of the replacement.
    pub replacement: usize,
}

/// What a pass has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Objects with at least one slot changed.
    pub objects: u64,
    /// Slots changed.
    pub slots: u64,
}

/// Points the slots of `object` to the replacements.
///
/// A slot is changed when it holds the original (or is still to be bound to it): an object that
/// brings its own `malloc`, or was bound to another one (`RTLD_DEEPBIND`), keeps what it has. With
/// `allow_unbound` false, so does every slot that is not bound yet.
pub fn patch(object: &Object<'_>, hooks: &[Hook], allow_unbound: bool, counts: &mut Counts) {
    let mut slots = 0;
    for_each_slot(object, hooks, |slot, hook, lazy| {
        let now = slot.load(Ordering::Relaxed);
        let bound = now == hook.original || (now >= hook.home.0 && now < hook.home.1);
        // A slot not bound yet points back into the object's own procedure linkage table.
        let unbound = allow_unbound && lazy && object.executes(now);
        if hook.original != 0 && now != hook.replacement && (bound || unbound) {
            slots += 1;
            Some(hook.replacement)
        } else {
            None
        }
    });
    counts.slots += slots;
    counts.objects += u64::from(slots > 0);
}

/// Points the slots of `object` that hold a replacement back to the originals.
pub fn restore(object: &Object<'_>, hooks: &[Hook], counts: &mut Counts) {
    let mut slots = 0;
    for_each_slot(object, hooks, |slot, hook, _| {
        if slot.load(Ordering::Relaxed) == hook.replacement {
            slots += 1;
            Some(hook.original)
        } else {
            None
        }
    });
    counts.slots += slots;
    counts.objects += u64::from(slots > 0);
}

/// Does `object` call `name` through a slot, that is, import it?
///
/// An executable at a fixed address that also takes the function's address gets a *canonical*
/// procedure linkage table entry: to the whole process that entry is the function, while it only
/// jumps to where the slot leads.
#[must_use]
pub fn imports(object: &Object<'_>, name: &[u8]) -> bool {
    let Some(dynamic) = Dynamic::of(object) else {
        return false;
    };
    dynamic.relocations().any(|relocation| {
        relocation.kind() == JUMP_SLOT
            && relocation.symbol() != 0
            && !dynamic.defines(relocation.symbol())
            && dynamic.name(relocation.symbol()) == name
    })
}

fn for_each_slot(
    object: &Object<'_>,
    hooks: &[Hook],
    mut decide: impl FnMut(&AtomicUsize, &Hook, bool) -> Option<usize>,
) {
    let Some(dynamic) = Dynamic::of(object) else {
        return;
    };
    let mut writable = Writable::new(object);
    for relocation in dynamic.relocations() {
        let kind = relocation.kind();
        // The addend of a JUMP_SLOT is no part of its value (`ld -z mark-plt` keeps the place of the
        // procedure linkage table entry there); that of the others is.
        if !matches!(kind, JUMP_SLOT | GLOB_DAT | ABSOLUTE)
            || relocation.symbol() == 0
            || (kind != JUMP_SLOT && relocation.addend != 0)
        {
            continue;
        }
        let letter = dynamic.first_letter(relocation.symbol());
        if !hooks
            .iter()
            .any(|hook| hook.name.as_bytes().first() == Some(&letter))
        {
            continue;
        }
        let name = dynamic.name(relocation.symbol());
        let Some(hook) = hooks.iter().find(|hook| hook.name.as_bytes() == name) else {
            continue;
        };
        let address = object.base.wrapping_add(relocation.offset as usize);
        if !object.writes(address) || !address.is_multiple_of(align_of::<usize>()) {
            continue;
        }
        // SAFETY: an aligned word in a loaded, writable segment; other threads only load it.
        let slot = unsafe { AtomicUsize::from_ptr(address as *mut usize) };
        let lazy = kind == JUMP_SLOT && !dynamic.defines(relocation.symbol());
        if let Some(value) = decide(slot, hook, lazy)
            && writable.open(address)
        {
            // One aligned store: a thread that calls through the slot sees the old or the new.
            slot.store(value, Ordering::Release);
        }
    }
}

/// Pages that were made read-only after relocation, opened while this lives.
struct Writable {
    page: usize,
    range: Option<(usize, usize)>,
    open: bool,
}

impl Writable {
    fn new(object: &Object<'_>) -> Self {
        let page = rustix::param::page_size();
        Self {
            page,
            range: object.relro(page),
            open: false,
        }
    }

    /// Makes sure that `address` can be written.
    fn open(&mut self, address: usize) -> bool {
        debug_assert!(self.page.is_power_of_two());
        match self.range {
            Some((start, end)) if address >= start && address < end && !self.open => {
                self.open = protect(start, end, MprotectFlags::READ | MprotectFlags::WRITE);
                self.open
            }
            _ => true,
        }
    }
}

impl Drop for Writable {
    fn drop(&mut self) {
        if let (Some((start, end)), true) = (self.range, self.open) {
            protect(start, end, MprotectFlags::READ);
        }
    }
}

fn protect(start: usize, end: usize, flags: MprotectFlags) -> bool {
    // SAFETY: the range is the object's RELRO segment in whole pages; it stays readable throughout.
    unsafe { rustix::mm::mprotect(start as *mut core::ffi::c_void, end - start, flags) }.is_ok()
}
