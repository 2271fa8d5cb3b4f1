//! `sys.path` as it is when tracking begins: reports name modules by it.
//!
//! Read before the switch is on, so nothing of it is counted as the program's. A forked child has the text of its parent,
//! since its capture is made inside an event, where the interpreter cannot be asked.

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use heaptide_recorder::Mapping;

use crate::real::find;

/// Entries for which there is no room are left out.
const MOST_BYTES: usize = 16 << 10;

static TEXT: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// The entries as they were read last, each ended by a NUL byte. Empty: nobody has, or there are none.
pub(crate) fn known() -> &'static [u8] {
    let text = TEXT.load(Ordering::Relaxed);
    if text.is_null() {
        return &[];
    }
    // SAFETY: the mapping stays, and so many bytes of it were written.
    unsafe { core::slice::from_raw_parts(text, BYTES.load(Ordering::Relaxed)) }
}

/// Reads the entries anew. What is no text, or cannot be read, is left out.
///
/// # Safety
/// The GIL is held, tracking is off, and nobody else begins it or holds what [`known`] gave.
pub(crate) unsafe fn read() {
    if TEXT.load(Ordering::Relaxed).is_null() {
        let Some(room) = Mapping::new(MOST_BYTES) else {
            return;
        };
        TEXT.store(room.leak(), Ordering::Relaxed);
    }
    BYTES.store(0, Ordering::Relaxed);
    let Some(python) = Python::find() else {
        return;
    };
    // SAFETY: the caller's promise.
    unsafe {
        let path = python.path();
        let count = if path.is_null() {
            0
        } else {
            (python.size)(path)
        };
        for index in 0..count {
            let entry = (python.item)(path, index);
            python.append(entry);
            (python.release)(entry);
        }
        (python.release)(path);
        // Of anything above that has failed.
        (python.clear)();
    }
}

type Object = *mut c_void;
type Text = *const c_char;

/// Functions of the interpreter; all have had these types since 3.7, and none lends what another thread may let go.
struct Python {
    text: unsafe extern "C" fn(Text) -> Object,
    module: unsafe extern "C" fn(Object) -> Object,
    attribute: unsafe extern "C" fn(Object, Text) -> Object,
    size: unsafe extern "C" fn(Object) -> isize,
    item: unsafe extern "C" fn(Object, isize) -> Object,
    encode: unsafe extern "C" fn(Object, Text, Text) -> Object,
    bytes: unsafe extern "C" fn(Object, *mut *mut c_char, *mut isize) -> c_int,
    release: unsafe extern "C" fn(Object),
    clear: unsafe extern "C" fn(),
}

impl Python {
    fn find() -> Option<Self> {
        macro_rules! function {
            ($name:literal as $type:ty) => {{
                let found = find($name);
                if found.is_null() {
                    return None;
                }
                // SAFETY: the name is the interpreter's, and so is the type.
                unsafe { core::mem::transmute::<*mut c_void, $type>(found) }
            }};
        }
        Some(Self {
            text: function!(c"PyUnicode_FromString" as unsafe extern "C" fn(Text) -> Object),
            module: function!(c"PyImport_GetModule" as unsafe extern "C" fn(Object) -> Object),
            attribute: function!(
                c"PyObject_GetAttrString" as unsafe extern "C" fn(Object, Text) -> Object
            ),
            size: function!(c"PySequence_Size" as unsafe extern "C" fn(Object) -> isize),
            item: function!(c"PySequence_GetItem" as unsafe extern "C" fn(Object, isize) -> Object),
            encode: function!(
                c"PyUnicode_AsEncodedString" as unsafe extern "C" fn(Object, Text, Text) -> Object
            ),
            bytes: function!(
                c"PyBytes_AsStringAndSize"
                    as unsafe extern "C" fn(Object, *mut *mut c_char, *mut isize) -> c_int
            ),
            release: function!(c"Py_DecRef" as unsafe extern "C" fn(Object)),
            clear: function!(c"PyErr_Clear" as unsafe extern "C" fn()),
        })
    }

    /// `sys.path`, to be released, or null.
    ///
    /// # Safety
    /// The GIL is held.
    unsafe fn path(&self) -> Object {
        // SAFETY: the GIL is held; null is looked for where it is not allowed, and references are released once.
        unsafe {
            let name = (self.text)(c"sys".as_ptr());
            if name.is_null() {
                return name;
            }
            let module = (self.module)(name);
            (self.release)(name);
            if module.is_null() {
                return module;
            }
            let path = (self.attribute)(module, c"path".as_ptr());
            (self.release)(module);
            path
        }
    }

    /// Adds an entry, in the form that names of files have in captures: UTF-8, and bytes that are none as they are.
    ///
    /// # Safety
    /// The GIL is held, there is room for the text, and nobody else reads or writes it. `entry` is an object or null.
    unsafe fn append(&self, entry: Object) {
        if entry.is_null() {
            return;
        }
        // SAFETY: the caller's promise. What is no text gives null and an exception, and so does what cannot be encoded;
        // the bytes belong to `encoded`, which is released last.
        unsafe {
            let encoded = (self.encode)(entry, c"utf-8".as_ptr(), c"surrogateescape".as_ptr());
            if encoded.is_null() {
                return (self.clear)();
            }
            let (mut bytes, mut length) = (core::ptr::null_mut(), 0);
            if (self.bytes)(encoded, &raw mut bytes, &raw mut length) == 0 {
                let used = BYTES.load(Ordering::Relaxed);
                let length = length as usize;
                if length < MOST_BYTES - used {
                    let end = TEXT.load(Ordering::Relaxed).add(used);
                    core::ptr::copy_nonoverlapping(bytes.cast_const().cast::<u8>(), end, length);
                    *end.add(length) = 0;
                    BYTES.store(used + length + 1, Ordering::Relaxed);
                }
            }
            (self.release)(encoded);
        }
    }
}
