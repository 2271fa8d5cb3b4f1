//! Python's own allocators (`--trace-python-allocators`): our functions in front of those of the domains
//! raw, mem and object.
//!
//! Each request is one event. What the former functions do to fulfil it (an arena, a `malloc` for
//! what is large) happens inside the thread's turn and is not counted besides.
//!
//! The interpreter reads context and function of a domain one after the other, in the raw domain
//! without the GIL, while we exchange them. So our functions go with the *former context*: whichever
//! half a thread has read, the pair makes sense.
//!
//! See `docs/design/005-python-allocators.md`.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use heaptide_format::{Allocator, PythonAllocator};

use crate::hooks::{allocated, freed, reallocated};
use crate::real::find;
use crate::thread::Turn;
use crate::{guard, interpreter, switch};

type Malloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
type Calloc = unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void;
type Realloc = unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void, *mut c_void);

/// `PyMemAllocatorEx`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Functions {
    pub(crate) context: *mut c_void,
    pub(crate) malloc: Malloc,
    pub(crate) calloc: Calloc,
    pub(crate) realloc: Realloc,
    pub(crate) free: Free,
}

impl Functions {
    fn is(&self, other: &Self) -> bool {
        self.context == other.context && self.malloc as usize == other.malloc as usize
    }
}

type Exchange = unsafe extern "C" fn(c_int, *mut Functions);

/// `PyMem_GetAllocator`, `PyMem_SetAllocator`
#[derive(Clone, Copy)]
pub(crate) struct Access {
    get: Exchange,
    set: Exchange,
}

impl Access {
    /// `None` where the interpreter does not have them.
    pub(crate) fn find() -> Option<Self> {
        let words = [c"PyMem_GetAllocator", c"PyMem_SetAllocator"].map(|name| find(name) as usize);
        // SAFETY: both have had this type since CPython 3.4.
        unsafe { Self::of(words) }
    }

    /// # Safety
    /// The words are the addresses of the two, or zeroes.
    unsafe fn of([get, set]: [usize; 2]) -> Option<Self> {
        if get == 0 || set == 0 {
            return None;
        }
        // SAFETY: the caller's promise.
        unsafe {
            Some(Self {
                get: core::mem::transmute::<usize, Exchange>(get),
                set: core::mem::transmute::<usize, Exchange>(set),
            })
        }
    }

    /// As long as ours are in place.
    fn installed() -> Option<Self> {
        // SAFETY: `install` stores what `find` has found.
        unsafe { Self::of([&ACCESS[0], &ACCESS[1]].map(|word| word.load(Ordering::Acquire))) }
    }

    /// The functions of a domain.
    ///
    /// # Safety
    /// The GIL is held, or the interpreter does not exist yet.
    pub(crate) unsafe fn get(self, domain: c_int) -> Functions {
        let mut functions = core::mem::MaybeUninit::uninit();
        // SAFETY: fills in all of it for each of the three domains.
        unsafe {
            (self.get)(domain, functions.as_mut_ptr());
            functions.assume_init()
        }
    }

    /// Replaces the functions of a domain.
    ///
    /// # Safety
    /// As [`Access::get`]; the functions serve the blocks of those that they replace.
    pub(crate) unsafe fn set(self, domain: c_int, mut functions: Functions) {
        // SAFETY: the structure is copied.
        unsafe { (self.set)(domain, &raw mut functions) };
    }
}

/// `PyMemAllocatorDomain`: raw, mem, object.
const DOMAINS: usize = 3;
/// `PYMEM_DOMAIN_RAW`
pub(crate) const RAW: c_int = 0;

/// The functions that we stand in front of. Only read once ours are in place.
#[repr(align(64))]
struct Former {
    context: AtomicUsize,
    functions: [AtomicUsize; 4],
}

impl Former {
    const fn new() -> Self {
        Self {
            context: AtomicUsize::new(0),
            functions: [const { AtomicUsize::new(0) }; 4],
        }
    }

    fn store(&self, from: &Functions) {
        let words = [
            from.malloc as usize,
            from.calloc as usize,
            from.realloc as usize,
            from.free as usize,
        ];
        self.context.store(from.context as usize, Ordering::Relaxed);
        for (place, word) in self.functions.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
    }

    // Each by itself: a hook needs one, and atomic loads are not left out.

    #[inline(always)]
    fn word(&self, index: usize) -> usize {
        self.functions[index].load(Ordering::Relaxed)
    }

    /// # Safety
    /// For this and the next three: `store` was called.
    #[inline(always)]
    unsafe fn malloc(&self) -> Malloc {
        // SAFETY: what `store` has put there.
        unsafe { core::mem::transmute::<usize, Malloc>(self.word(0)) }
    }

    /// # Safety
    /// As `malloc`.
    #[inline(always)]
    unsafe fn calloc(&self) -> Calloc {
        // SAFETY: what `store` has put there.
        unsafe { core::mem::transmute::<usize, Calloc>(self.word(1)) }
    }

    /// # Safety
    /// As `malloc`.
    #[inline(always)]
    unsafe fn realloc(&self) -> Realloc {
        // SAFETY: what `store` has put there.
        unsafe { core::mem::transmute::<usize, Realloc>(self.word(2)) }
    }

    /// # Safety
    /// As `malloc`.
    #[inline(always)]
    unsafe fn free(&self) -> Free {
        // SAFETY: what `store` has put there.
        unsafe { core::mem::transmute::<usize, Free>(self.word(3)) }
    }

    /// All of them.
    ///
    /// # Safety
    /// As `malloc`.
    unsafe fn load(&self) -> Functions {
        // SAFETY: the caller's promise.
        unsafe {
            Functions {
                context: self.context.load(Ordering::Relaxed) as *mut c_void,
                malloc: self.malloc(),
                calloc: self.calloc(),
                realloc: self.realloc(),
                free: self.free(),
            }
        }
    }
}

static FORMER: [Former; DOMAINS] = [const { Former::new() }; DOMAINS];

macro_rules! domain {
    ($module:ident, $number:literal, $malloc:ident, $calloc:ident, $realloc:ident) => {
        mod $module {
            use super::*;

            /// Ours, with the context of those that we stand in front of.
            pub(super) fn functions(context: *mut c_void) -> Functions {
                Functions {
                    context,
                    malloc,
                    calloc,
                    realloc,
                    free,
                }
            }

            unsafe extern "C" fn malloc(context: *mut c_void, size: usize) -> *mut c_void {
                let turn = Turn::begin_for_python(core::ptr::null_mut());
                // SAFETY: ours are in place, so the former ones are known; the arguments are the
                // caller's. (The same holds for every call of `FORMER` in this file.)
                let block = unsafe { FORMER[$number].malloc()(context, size) };
                if let (Some(mut turn), false) = (turn, block.is_null()) {
                    allocated(&mut turn, Allocator::$malloc, block, size);
                }
                block
            }

            unsafe extern "C" fn calloc(
                context: *mut c_void,
                count: usize,
                size: usize,
            ) -> *mut c_void {
                let turn = Turn::begin_for_python(core::ptr::null_mut());
                // SAFETY: see `malloc`.
                let block = unsafe { FORMER[$number].calloc()(context, count, size) };
                if let (Some(mut turn), false) = (turn, block.is_null()) {
                    // It succeeded, so the product did not overflow.
                    let bytes = count.wrapping_mul(size);
                    allocated(&mut turn, Allocator::$calloc, block, bytes);
                }
                block
            }

            unsafe extern "C" fn realloc(
                context: *mut c_void,
                old: *mut c_void,
                size: usize,
            ) -> *mut c_void {
                // SAFETY: see `malloc`.
                let call = || unsafe { FORMER[$number].realloc()(context, old, size) };
                let Some(mut turn) = Turn::begin_for_python(old) else {
                    return call();
                };
                // Python's never free at a size of zero: no block means that it failed.
                reallocated(&mut turn, Allocator::$realloc, old, size, false, call)
            }

            unsafe extern "C" fn free(context: *mut c_void, block: *mut c_void) {
                let _turn = freed(block, || Turn::begin_for_python(block));
                // SAFETY: see `malloc`.
                unsafe { FORMER[$number].free()(context, block) };
            }
        }
    };
}

domain!(raw, 0, RawMalloc, RawCalloc, RawRealloc);
domain!(mem, 1, MemMalloc, MemCalloc, MemRealloc);
domain!(object, 2, ObjectMalloc, ObjectCalloc, ObjectRealloc);

/// Ours, for a domain whose former functions are known.
fn ours(domain: usize) -> Functions {
    let context = FORMER[domain].context.load(Ordering::Relaxed) as *mut c_void;
    match domain {
        0 => raw::functions(context),
        1 => mem::functions(context),
        _ => object::functions(context),
    }
}

/// `PyMem_GetAllocator` and `PyMem_SetAllocator` while ours are in place, else zeroes.
static ACCESS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
/// One thread at a time looks after them (subinterpreters may have GILs of their own).
static BUSY: AtomicBool = AtomicBool::new(false);
/// What was in place when we last looked: context and `malloc` of each domain.
static SEEN: [[AtomicUsize; 2]; DOMAINS] = [const { [const { AtomicUsize::new(0) }; 2] }; DOMAINS];

/// May others lead to ours? Since ours were put in front, until they were taken out with nobody in front of them.
static PLACED: [AtomicBool; DOMAINS] = [const { AtomicBool::new(false) }; DOMAINS];

/// Puts ours in front of the interpreter's allocators. Before tracking is switched on; where tracking has been on
/// before, somebody may have wrapped ours then, and strangers stay in front (see [`look_after`]).
///
/// # Safety
/// The GIL is held.
pub(crate) unsafe fn install() {
    let Some(access) = Access::find() else {
        return;
    };
    let own = !matches!(
        interpreter::allocator(),
        None | Some(PythonAllocator::Other)
    );
    for (domain, former) in FORMER.iter().enumerate() {
        // SAFETY: the GIL is held; where ours were placed `put_in_front` has stored the former functions.
        unsafe {
            let present = access.get(domain as c_int);
            let placed = PLACED[domain].load(Ordering::Relaxed);
            if present.is(&ours(domain)) {
                // Somebody had them and has put them back.
                PLACED[domain].store(true, Ordering::Relaxed);
                note_seen(domain, &present);
            } else if !placed || own || present.is(&former.load()) {
                put_in_front(access, domain, &present);
            } else {
                note_seen(domain, &present);
            }
        }
    }
    ACCESS[0].store(access.get as usize, Ordering::Release);
    ACCESS[1].store(access.set as usize, Ordering::Release);
}

/// # Safety
/// The GIL is held; ours are not among what `former` leads to.
unsafe fn put_in_front(access: Access, domain: usize, former: &Functions) {
    FORMER[domain].store(former);
    PLACED[domain].store(true, Ordering::Relaxed);
    let ours = ours(domain);
    note_seen(domain, &ours);
    // SAFETY: ours hand every request on to the former functions.
    unsafe { access.set(domain as c_int, ours) };
}

fn note_seen(domain: usize, functions: &Functions) {
    SEEN[domain][0].store(functions.context as usize, Ordering::Relaxed);
    SEEN[domain][1].store(functions.malloc as usize, Ordering::Relaxed);
}

fn was_seen(domain: usize, functions: &Functions) -> bool {
    SEEN[domain][0].load(Ordering::Relaxed) == functions.context as usize
        && SEEN[domain][1].load(Ordering::Relaxed) == functions.malloc as usize
}

/// Takes ours out again, where nobody has put others in front of them since: those lead to ours, which then
/// hand on in silence for ever. Blocks that came through ours are the former functions' own.
///
/// # Safety
/// The GIL is held, and tracking has been switched off.
pub(crate) unsafe fn remove() {
    let Some(access) = Access::installed() else {
        return;
    };
    ACCESS[0].store(0, Ordering::Release);
    for (domain, former) in FORMER.iter().enumerate() {
        // SAFETY: the GIL is held; `install` has stored the former functions.
        unsafe { take_out(access, domain, former) };
    }
}

/// # Safety
/// As [`remove`]; `install` has stored the former functions.
unsafe fn take_out(access: Access, domain: usize, former: &Former) {
    // SAFETY: the caller's promise.
    unsafe {
        if access.get(domain as c_int).is(&ours(domain)) {
            access.set(domain as c_int, former.load());
            PLACED[domain].store(false, Ordering::Relaxed);
        }
    }
}

/// Without the GIL another thread may be in the middle of one of ours with the context of the functions that were the former ones so far. May
/// it go on with these? Where the context is the same, or is not looked at: only Python's debug functions look at theirs.
fn may_follow(former: &Functions, present: &Functions, allocator: Option<PythonAllocator>) -> bool {
    // SAFETY: ours are in place, so the interpreter is resolved.
    !unsafe { interpreter::is_without_gil() }
        || present.context == former.context
        || allocator == Some(PythonAllocator::Mimalloc)
}

/// Without the GIL another thread may have ended tracking meanwhile and taken ours out, before they were put in front again: then they
/// go once more. (They would be silent, but in the way.)
fn take_back_if_removed(access: Access) {
    if ACCESS[0].load(Ordering::Acquire) != 0 {
        return;
    }
    for (domain, former) in FORMER.iter().enumerate() {
        // SAFETY: attached to the interpreter, in the audit hook that this is called from; `install` has stored the former functions.
        unsafe { take_out(access, domain, former) };
    }
}

/// Whoever was there before us may have put back what was there before *him* (a `tracemalloc` that was on
/// when we came, and is stopped): then ours are in front of nothing, and are put in front again. Who has
/// come after us leads to ours, and stays. Now and then, with the GIL held.
///
/// Of a stranger nobody can say that he does *not* lead to ours (he may serve some requests himself, or fail
/// some), and in front of one who does we would call ourselves without end. So ours go only in front of what
/// cannot: the interpreter's own functions, and those that ours were in front of already.
pub(crate) fn look_after() {
    let Some(access) = Access::installed().filter(|_| switch::is_on()) else {
        return;
    };
    if BUSY.swap(true, Ordering::Acquire) {
        return;
    }
    guard::catching(|| {
        // SAFETY: the GIL is held, in the audit hook that this is called from.
        let present = |domain: usize| unsafe { access.get(domain as c_int) };
        let is_seen = |domain| was_seen(domain, &present(domain));
        if (0..DOMAINS).all(is_seen) {
            return;
        }
        // Asked of all domains at once, and before any of them is exchanged.
        let allocator = interpreter::allocator();
        let own = !matches!(allocator, None | Some(PythonAllocator::Other));
        for (domain, former) in FORMER.iter().enumerate() {
            let present = present(domain);
            if was_seen(domain, &present) {
                continue;
            }
            // SAFETY: `install` has stored the former functions.
            let former = unsafe { former.load() };
            if !present.is(&ours(domain))
                && (own || present.is(&former))
                && may_follow(&former, &present, allocator)
            {
                // SAFETY: the GIL is held; neither leads to ours.
                unsafe { put_in_front(access, domain, &present) };
            } else {
                note_seen(domain, &present);
            }
        }
        take_back_if_removed(access);
    });
    BUSY.store(false, Ordering::Release);
}
