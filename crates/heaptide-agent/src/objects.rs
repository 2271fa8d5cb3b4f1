//! The lives of Python objects, where a stretch asks for them: who is made, who is destroyed, who survives.
//!
//! The interpreter calls [`traced`] for both, with the GIL. A creation walks the stack as an allocation does, a
//! destruction only takes the object out of a table of our own. In captures of every event both are events, too. At the
//! end, before the GIL is let go for the first time, those that are left are given references, so that none can die any
//! more, and are written to the capture.
//!
//! The table holds addresses of objects, so it must hear of every destruction. From the moment at which it
//! cannot be sure to (somebody else has taken the tracer's place, there was no memory) it is not believed at all.
//!
//! Objects of other interpreters than the one that started are none of ours: the GIL may be another there.
//!
//! See `docs/design/015-lives-of-objects.md`.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use heaptide_format::{MetadataKey, NODE_ROOT, THREAD_OVERFLOW};
use heaptide_recorder::{KnownTypes, LiveObject, LiveObjects, Stop, TypeName};

use crate::real::find;
use crate::thread::Turn;
use crate::walk::current_stack;
use crate::{RECORDER, guard, interpreter, switch};

/// `PyRefTracer`
type Tracer = unsafe extern "C" fn(*mut c_void, c_int, *mut c_void) -> c_int;
/// `PyRefTracer_SetTracer`
type SetTracer = unsafe extern "C" fn(*const c_void, *mut c_void) -> c_int;
/// `PyRefTracer_GetTracer`
type GetTracer = unsafe extern "C" fn(*mut *mut c_void) -> *const c_void;

/// `PyRefTracer_CREATE`
const CREATED: c_int = 0;
/// `PyRefTracer_DESTROY`
const DESTROYED: c_int = 1;
/// `PyRefTracer_TRACKER_REMOVED` (3.15)
const REMOVED: c_int = 2;

/// The first version whose interpreter tells of all destructions.
const FIRST_VERSION: u32 = 0x030d_0300;

/// The objects that were made in this stretch and live. For whoever holds the GIL of [`HOME`].
static OBJECTS: OnlyObjects = OnlyObjects(UnsafeCell::new(LiveObjects::new()));
/// What it is at first. Never used, only copied.
static BLANK: OnlyObjects = OnlyObjects(UnsafeCell::new(LiveObjects::new()));

/// Types of objects that were made in this stretch. For whoever holds the GIL of [`HOME`].
static TYPES: OnlyTypes = OnlyTypes(UnsafeCell::new(KnownTypes::new()));

struct OnlyTypes(UnsafeCell<KnownTypes>);
// SAFETY: used with the GIL of one interpreter.
unsafe impl Sync for OnlyTypes {}

struct OnlyObjects(UnsafeCell<LiveObjects>);
// SAFETY: used with the GIL of one interpreter, and replaced only in a child that has one thread.
unsafe impl Sync for OnlyObjects {}

/// Are lives tracked in this stretch, be it that they cannot be told any more?
static ASKED: AtomicBool = AtomicBool::new(false);
/// The interpreter that started.
static HOME: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
/// `PyThreadState_GetInterpreter`
static INTERPRETER_OF: AtomicUsize = AtomicUsize::new(0);
/// The list of those that survived the last stretch, until it is asked for.
static SURVIVORS: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

/// Why lives are not tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The interpreter does not tell, or not of all.
    Unsupported,
    /// Somebody else has a tracer, and there is but one.
    OtherTracer,
    /// It was not to be set.
    Failed,
}

/// # Safety
/// With the GIL of [`HOME`].
unsafe fn objects() -> &'static LiveObjects {
    // SAFETY: replaced only while nobody has a reference (`after_fork`).
    unsafe { &*OBJECTS.0.get() }
}

/// # Safety
/// With the GIL of [`HOME`], and by whoever has no reference already.
unsafe fn types() -> &'static mut KnownTypes {
    // SAFETY: the caller's promise.
    unsafe { &mut *TYPES.0.get() }
}

struct Access {
    set: SetTracer,
    get: GetTracer,
}

impl Access {
    fn find() -> Option<Self> {
        let set = find(c"PyRefTracer_SetTracer");
        let get = find(c"PyRefTracer_GetTracer");
        if set.is_null() || get.is_null() {
            return None;
        }
        // SAFETY: both have had this type since CPython 3.13.
        unsafe {
            Some(Self {
                set: core::mem::transmute::<*mut c_void, SetTracer>(set),
                get: core::mem::transmute::<*mut c_void, GetTracer>(get),
            })
        }
    }

    /// # Safety
    /// With the GIL.
    unsafe fn present(&self) -> *const c_void {
        let mut data = core::ptr::null_mut();
        // SAFETY: reads two variables.
        unsafe { (self.get)(&raw mut data) }
    }

    /// # Safety
    /// With the GIL.
    unsafe fn is_ours(&self) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.present() == ours() }
    }
}

fn ours() -> *const c_void {
    traced as Tracer as *const c_void
}

/// Puts our tracer in place. Nothing is heard of objects before [`switch::turn_objects_on`].
///
/// # Safety
/// The GIL is held, the interpreter resolved, and tracking off.
pub(crate) unsafe fn begin() -> Result<(), Refused> {
    // SAFETY: resolved.
    let interpreter = unsafe { interpreter::get() };
    let interpreter_of = find(c"PyThreadState_GetInterpreter");
    // SAFETY: resolved. The table is for one thread at a time.
    let told =
        interpreter.hexversion() >= FIRST_VERSION && !unsafe { interpreter::is_without_gil() };
    let access = Access::find().filter(|_| told);
    let Some(access) = access.filter(|_| !interpreter_of.is_null()) else {
        return Err(Refused::Unsupported);
    };
    INTERPRETER_OF.store(interpreter_of as usize, Ordering::Relaxed);
    // SAFETY: the GIL is held, so there is a thread state. Ours may be there from a parent.
    unsafe {
        HOME.store(home_of(interpreter.thread_state()), Ordering::Relaxed);
        let present = access.present();
        if !present.is_null() && present != ours() {
            return Err(Refused::OtherTracer);
        }
        if (access.set)(ours(), core::ptr::null_mut()) != 0 {
            clear_exception();
            return Err(Refused::Failed);
        }
    }
    // Their names have other numbers in every capture.
    // SAFETY: the GIL is held, and nothing is heard of objects yet.
    unsafe { *types() = KnownTypes::new() };
    ASKED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Takes our tracer away. Where lives are known the survivors are written to the capture; `keep`: and are given references.
///
/// # Safety
/// The GIL is held and was not let go since tracking was switched off.
pub(crate) unsafe fn end(keep: bool) {
    if !ASKED.swap(false, Ordering::Relaxed) {
        return;
    }
    let Some(access) = Access::find() else {
        return;
    };
    // SAFETY: the GIL is held; that of another interpreter is of no use.
    unsafe {
        let is_ours = access.is_ours();
        let all_heard = switch::is_on_for_objects() && is_ours;
        let known = all_heard && is_home();
        switch::turn_objects_off();
        if !all_heard && !RECORDER.has_stopped() {
            note_untold();
        }
        if is_ours && (access.set)(core::ptr::null(), core::ptr::null_mut()) != 0 {
            clear_exception();
        }
        if known && let Some(list) = objects().in_order() {
            if keep {
                SURVIVORS.store(references(list.objects()), Ordering::Relaxed);
            }
            if !RECORDER.has_stopped() {
                // Where there is no room the capture says so.
                let _ = RECORDER.survivors(list.objects(), |address| type_of(address));
            }
        }
        if is_home() {
            objects().release();
        }
    }
}

/// The survivors of the last stretch: a list, now the caller's, or null.
pub(crate) fn take_survivors() -> *mut c_void {
    SURVIVORS.swap(core::ptr::null_mut(), Ordering::Relaxed)
}

/// Survivors that nobody has asked for are let go. Runs what the program has for the ends of objects.
///
/// # Safety
/// The GIL is held.
pub(crate) unsafe fn let_survivors_go() {
    let survivors = take_survivors();
    let release = find(c"Py_DecRef");
    if !survivors.is_null() && !release.is_null() {
        // SAFETY: a reference of ours; the function has had this type for ever.
        unsafe {
            let release: unsafe extern "C" fn(*mut c_void) = core::mem::transmute(release);
            release(survivors);
        }
    }
}

/// In a forked child: its objects are none of ours. The tracer stays in place and is silent.
///
/// # Safety
/// The child still has one thread.
pub(crate) unsafe fn after_fork() {
    switch::turn_objects_off();
    if !ASKED.swap(false, Ordering::Relaxed) {
        return;
    }
    // SAFETY: tracking was started, so the interpreter is resolved. With the GIL nobody else was using the table; without
    // it somebody may have been, and what there is of it is left alone.
    unsafe {
        if interpreter::get().holds_gil() && is_home() {
            objects().release();
        } else {
            core::ptr::copy_nonoverlapping(BLANK.0.get(), OBJECTS.0.get(), 1);
        }
    }
}

// ---- while tracking is on ---------------------------------------------------------------------------

/// Called by the interpreter, with the GIL, for every object.
unsafe extern "C" fn traced(object: *mut c_void, event: c_int, _data: *mut c_void) -> c_int {
    if switch::is_on_for_objects() {
        // SAFETY: the GIL is held; `object` has its type and a reference.
        let done = guard::catching(|| unsafe { happened(object, event) });
        if done.is_none() {
            switch::turn_objects_off();
        }
    }
    0
}

/// # Safety
/// As [`traced`].
#[inline(always)]
unsafe fn happened(object: *mut c_void, event: c_int) {
    // SAFETY: with the GIL of the interpreter that started, the table is ours.
    unsafe {
        match event {
            CREATED if !is_home() || created(object as u64) => {}
            // There is no memory to remember it.
            CREATED => lose(),
            DESTROYED if is_home() => {
                objects().remove(object as u64);
                if RECORDER.holds_events() {
                    types().forget(object as usize);
                    destroyed(object as u64);
                }
            }
            // By somebody else: we switch ourselves off first.
            REMOVED => lose(),
            _ => {}
        }
    }
}

/// Nothing that is heard of objects from now on would be all of it.
#[cold]
#[inline(never)]
fn lose() {
    switch::turn_objects_off();
    // Said at once: the program may be killed before it stops.
    if let Some(mut turn) = Turn::begin() {
        turn.state();
        note_untold();
    }
}

/// Tells readers that not all of it is in the capture. In a thread's turn, or when nobody else is in one.
fn note_untold() {
    let why = b"another tracer of objects was set, or there was no memory";
    // Where there is no room for it the capture says that.
    let _ = RECORDER.metadata(MetadataKey::ObjectsUntold, why);
}

/// Remembers an object with the stack that makes it. `false`: there is no memory.
///
/// # Safety
/// With the GIL of [`HOME`].
#[inline(always)]
unsafe fn created(address: u64) -> bool {
    // SAFETY: the caller's promise.
    let objects = unsafe { objects() };
    let Some(mut turn) = Turn::begin() else {
        // Tracking has ended by itself. The object counts all the same.
        // SAFETY: as above.
        return unsafe { objects.insert(address, NODE_ROOT, THREAD_OVERFLOW) };
    };
    let state = turn.state();
    let node = current_stack(state).and_then(|node| {
        if RECORDER.holds_events() {
            // SAFETY: as above; the object has its type, which lives as long as it does. The turn is this thread's.
            unsafe {
                let type_name = RECORDER.type_name(types(), type_of(address))?;
                RECORDER.object_made(&mut state.record, node, type_name, address)?;
            }
        }
        Ok(node)
    });
    let node = node.unwrap_or_else(|Stop| {
        switch::turn_off();
        NODE_ROOT
    });
    // SAFETY: as above.
    unsafe { objects.insert(address, node, state.record.number()) }
}

/// Records the end of an object, whenever it was made.
///
/// # Safety
/// With the GIL of [`HOME`].
#[inline(always)]
unsafe fn destroyed(address: u64) {
    // Without a turn tracking has ended by itself.
    let Some(mut turn) = Turn::begin() else {
        return;
    };
    let state = turn.state();
    // SAFETY: the turn is this thread's.
    if unsafe { RECORDER.object_gone(&mut state.record, address) } == Err(Stop) {
        switch::turn_off();
    }
}

/// Is this the interpreter that started?
///
/// # Safety
/// The calling thread has a thread state.
#[inline(always)]
unsafe fn is_home() -> bool {
    // SAFETY: lives are tracked, so the interpreter is resolved.
    !interpreter::may_be_several()
        || unsafe { home_of(interpreter::get().thread_state()) } == HOME.load(Ordering::Relaxed)
}

/// The interpreter of a thread state; null for none.
///
/// # Safety
/// Null, or the calling thread's.
#[cold]
unsafe fn home_of(thread_state: *const u8) -> *mut c_void {
    let function = INTERPRETER_OF.load(Ordering::Relaxed);
    if thread_state.is_null() || function == 0 {
        return core::ptr::null_mut();
    }
    // SAFETY: reads a field, and has had this type since CPython 3.9.
    unsafe {
        let function =
            core::mem::transmute::<usize, unsafe extern "C" fn(*const u8) -> *mut c_void>(function);
        function(thread_state)
    }
}

// ---- at the end -------------------------------------------------------------------------------------

/// A list of new references, or null.
///
/// # Safety
/// The GIL is held, and the objects live.
unsafe fn references(objects: &[LiveObject]) -> *mut c_void {
    let functions = [c"PyList_New", c"PyList_SetItem", c"Py_IncRef"].map(find);
    if functions.iter().any(|function| function.is_null()) {
        return core::ptr::null_mut();
    }
    let [new, set, increment] = functions;
    // SAFETY: the functions have had these types for ever. None of this runs Python code, so nothing dies meanwhile.
    unsafe {
        let new: unsafe extern "C" fn(isize) -> *mut c_void = core::mem::transmute(new);
        let set: unsafe extern "C" fn(*mut c_void, isize, *mut c_void) -> c_int =
            core::mem::transmute(set);
        let increment: unsafe extern "C" fn(*mut c_void) = core::mem::transmute(increment);
        let list = new(objects.len() as isize);
        if list.is_null() {
            clear_exception();
            return list;
        }
        for (position, object) in objects.iter().enumerate() {
            let address = core::ptr::with_exposed_provenance_mut(object.address as usize);
            increment(address);
            set(list, position as isize, address);
        }
        list
    }
}

/// # Safety
/// The GIL is held.
unsafe fn clear_exception() {
    let clear = find(c"PyErr_Clear");
    if !clear.is_null() {
        // SAFETY: has had this type for ever.
        unsafe {
            let clear: unsafe extern "C" fn() = core::mem::transmute(clear);
            clear();
        }
    }
}

/// # Safety
/// The GIL is held, and an object lives at the address. What is returned lives no longer than it does.
unsafe fn type_of<'a>(address: u64) -> TypeName<'a> {
    let object: *const u8 = core::ptr::with_exposed_provenance(address as usize);
    // SAFETY: the caller's promise; the fields lie there in every build with the GIL.
    unsafe {
        let offsets = &interpreter::get().layout.object;
        let its_type = object
            .add(offsets.type_ as usize)
            .cast::<*const u8>()
            .read();
        let name = its_type
            .add(offsets.type_name as usize)
            .cast::<*const c_char>()
            .read();
        TypeName {
            key: its_type.addr(),
            name: if name.is_null() {
                b""
            } else {
                CStr::from_ptr(name).to_bytes()
            },
        }
    }
}
