//! Arrow's C data and stream interfaces, as capsules: <https://arrow.apache.org/docs/format/CDataInterface.html>.
//!
//! A consumer moves a structure out of its capsule and calls `release` when it is done; what it leaves is
//! released with the capsule. Whatever a structure points to is owned by its `private_data`, so that nothing depends on
//! who is let go first.
#![allow(
    unsafe_code,
    reason = "the interface is C structures with pointers that their consumer gives back"
)]

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use super::columns::{Buffer, Column, Field};

const NULLABLE: i64 = 2;

/// `struct ArrowSchema`
#[repr(C)]
struct ArrowSchema {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    n_children: i64,
    children: *mut *mut ArrowSchema,
    dictionary: *mut ArrowSchema,
    release: Option<unsafe extern "C" fn(*mut ArrowSchema)>,
    private_data: *mut c_void,
}

/// `struct ArrowArray`
#[repr(C)]
struct ArrowArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *mut *const c_void,
    children: *mut *mut ArrowArray,
    dictionary: *mut ArrowArray,
    release: Option<unsafe extern "C" fn(*mut ArrowArray)>,
    private_data: *mut c_void,
}

/// `struct ArrowArrayStream`
#[repr(C)]
struct ArrowArrayStream {
    get_schema: unsafe extern "C" fn(*mut ArrowArrayStream, *mut ArrowSchema) -> c_int,
    get_next: unsafe extern "C" fn(*mut ArrowArrayStream, *mut ArrowArray) -> c_int,
    get_last_error: unsafe extern "C" fn(*mut ArrowArrayStream) -> *const c_char,
    release: Option<unsafe extern "C" fn(*mut ArrowArrayStream)>,
    private_data: *mut c_void,
}

/// Batches of columns, one after the other.
pub(crate) trait Batches: Send {
    /// The columns of all batches.
    fn fields(&self) -> Vec<Field>;

    /// The next batch, as a struct; `None` when there is no more.
    fn next(&mut self) -> Option<Column>;
}

/// A capsule with a schema.
pub(crate) fn schema_capsule<'py>(
    py: Python<'py>,
    fields: Vec<Field>,
) -> PyResult<Bound<'py, PyCapsule>> {
    PyCapsule::new_with_value(
        py,
        OwnedSchema(export_schema(root(fields))),
        c"arrow_schema",
    )
}

/// A capsule with a stream.
pub(crate) fn stream_capsule(
    py: Python<'_>,
    batches: Box<dyn Batches>,
) -> PyResult<Bound<'_, PyCapsule>> {
    let state = Box::new(StreamState { batches });
    let stream = ArrowArrayStream {
        get_schema,
        get_next,
        get_last_error,
        release: Some(release_stream),
        private_data: Box::into_raw(state).cast(),
    };
    PyCapsule::new_with_value(py, OwnedStream(stream), c"arrow_array_stream")
}

fn root(fields: Vec<Field>) -> Field {
    Field::new(c"", super::columns::STRUCT).with_children(fields)
}

/// What is in a capsule: the structure itself is what the capsule points to.
#[repr(transparent)]
struct OwnedSchema(ArrowSchema);

// SAFETY: all it points to is its own and made of plain values; nothing of it is tied to a thread.
unsafe impl Send for OwnedSchema {}

impl Drop for OwnedSchema {
    fn drop(&mut self) {
        if let Some(release) = self.0.release {
            // SAFETY: a structure whose `release` is there was not moved out, so it is whole.
            unsafe { release(&raw mut self.0) };
        }
    }
}

/// What is in a capsule: the structure itself is what the capsule points to.
#[repr(transparent)]
struct OwnedStream(ArrowArrayStream);

// SAFETY: its state is a `StreamState`, whose batches are `Send`.
unsafe impl Send for OwnedStream {}

impl Drop for OwnedStream {
    fn drop(&mut self) {
        if let Some(release) = self.0.release {
            // SAFETY: a structure whose `release` is there was not moved out, so it is whole.
            unsafe { release(&raw mut self.0) };
        }
    }
}

struct StreamState {
    batches: Box<dyn Batches>,
}

/// # Safety
/// `stream` is one that [`stream_capsule`] made and that was not released; nobody else uses it now.
unsafe fn state_of<'a>(stream: *mut ArrowArrayStream) -> &'a mut StreamState {
    // SAFETY: `private_data` is a `StreamState` until the release, by the contract.
    unsafe { &mut *(*stream).private_data.cast::<StreamState>() }
}

/// # Safety
/// By the interface: the stream is whole, `out` can be written to, and calls do not overlap.
unsafe extern "C" fn get_schema(stream: *mut ArrowArrayStream, out: *mut ArrowSchema) -> c_int {
    // SAFETY: by the interface.
    let state = unsafe { state_of(stream) };
    let schema = export_schema(root(state.batches.fields()));
    // SAFETY: `out` can be written to, by the interface; what was there is no value of ours to drop.
    unsafe { out.write(schema) };
    0
}

/// # Safety
/// As for [`get_schema`].
unsafe extern "C" fn get_next(stream: *mut ArrowArrayStream, out: *mut ArrowArray) -> c_int {
    // SAFETY: by the interface.
    let state = unsafe { state_of(stream) };
    let array = state.batches.next().map_or_else(no_array, export_array);
    // SAFETY: `out` can be written to, by the interface; what was there is no value of ours to drop.
    unsafe { out.write(array) };
    0
}

/// Nothing fails: what can is done before there is a stream.
const extern "C" fn get_last_error(_stream: *mut ArrowArrayStream) -> *const c_char {
    ptr::null()
}

/// # Safety
/// The stream is whole, and not used any more.
unsafe extern "C" fn release_stream(stream: *mut ArrowArrayStream) {
    // SAFETY: `private_data` came from a box in `stream_capsule`, and nobody takes it twice: `release` is cleared.
    unsafe {
        drop(Box::from_raw((*stream).private_data.cast::<StreamState>()));
        (*stream).private_data = ptr::null_mut();
        (*stream).release = None;
    }
}

/// What a schema points to besides texts that last for ever.
struct SchemaParts {
    children: Vec<*mut ArrowSchema>,
    dictionary: *mut ArrowSchema,
}

fn export_schema(field: Field) -> ArrowSchema {
    let children = field.children.into_iter();
    let children = children.map(|child| Box::into_raw(Box::new(export_schema(child))));
    let dictionary = field.dictionary.map_or(ptr::null_mut(), |dictionary| {
        Box::into_raw(Box::new(export_schema(*dictionary)))
    });
    let mut parts = Box::new(SchemaParts {
        children: children.collect(),
        dictionary,
    });
    ArrowSchema {
        format: field.format.as_ptr(),
        name: field.name.as_ptr(),
        metadata: ptr::null(),
        flags: if field.nullable { NULLABLE } else { 0 },
        n_children: parts.children.len() as i64,
        // A vector stays where it is while nobody grows it, and its box is the schema's own.
        children: parts.children.as_mut_ptr(),
        dictionary,
        release: Some(release_schema),
        private_data: Box::into_raw(parts).cast(),
    }
}

/// # Safety
/// `schema` came from [`export_schema`], perhaps moved, and was not released.
unsafe extern "C" fn release_schema(schema: *mut ArrowSchema) {
    // SAFETY: `private_data` and what is in it came from boxes in `export_schema`. A child that its consumer moved
    // away has no `release`: then only the box it was in is ours.
    unsafe {
        let parts = Box::from_raw((*schema).private_data.cast::<SchemaParts>());
        let dictionary = (!parts.dictionary.is_null()).then_some(parts.dictionary);
        for part in parts.children.into_iter().chain(dictionary) {
            if let Some(release) = (*part).release {
                release(part);
            }
            drop(Box::from_raw(part));
        }
        (*schema).private_data = ptr::null_mut();
        (*schema).release = None;
    }
}

/// What an array points to.
struct ArrayParts {
    /// Only kept: [`Self::pointers`] point into them.
    _buffers: Vec<Buffer>,
    pointers: Vec<*const c_void>,
    children: Vec<*mut ArrowArray>,
    dictionary: *mut ArrowArray,
}

fn pointer_to(buffer: &Buffer) -> *const c_void {
    match buffer {
        Buffer::Absent => ptr::null(),
        Buffer::Bytes(values) => values.as_ptr().cast(),
        Buffer::Int32(values) => values.as_ptr().cast(),
        Buffer::UInt32(values) => values.as_ptr().cast(),
        Buffer::Int64(values) => values.as_ptr().cast(),
        Buffer::UInt64(values) => values.as_ptr().cast(),
    }
}

fn export_array(column: Column) -> ArrowArray {
    let children = column.children.into_iter();
    let children = children.map(|child| Box::into_raw(Box::new(export_array(child))));
    let dictionary = column.dictionary.map_or(ptr::null_mut(), |dictionary| {
        Box::into_raw(Box::new(export_array(*dictionary)))
    });
    let mut parts = Box::new(ArrayParts {
        pointers: column.buffers.iter().map(pointer_to).collect(),
        _buffers: column.buffers,
        children: children.collect(),
        dictionary,
    });
    ArrowArray {
        length: column.length as i64,
        null_count: column.nulls as i64,
        offset: 0,
        n_buffers: parts.pointers.len() as i64,
        n_children: parts.children.len() as i64,
        buffers: parts.pointers.as_mut_ptr(),
        children: parts.children.as_mut_ptr(),
        dictionary,
        release: Some(release_array),
        private_data: Box::into_raw(parts).cast(),
    }
}

/// The end of a stream: an array that is released already.
fn no_array() -> ArrowArray {
    ArrowArray {
        length: 0,
        null_count: 0,
        offset: 0,
        n_buffers: 0,
        n_children: 0,
        buffers: ptr::null_mut(),
        children: ptr::null_mut(),
        dictionary: ptr::null_mut(),
        release: None,
        private_data: ptr::null_mut(),
    }
}

/// # Safety
/// `array` came from [`export_array`], perhaps moved, and was not released.
unsafe extern "C" fn release_array(array: *mut ArrowArray) {
    // SAFETY: as in `release_schema`.
    unsafe {
        let parts = Box::from_raw((*array).private_data.cast::<ArrayParts>());
        let dictionary = (!parts.dictionary.is_null()).then_some(parts.dictionary);
        for &part in parts.children.iter().chain(&dictionary) {
            if let Some(release) = (*part).release {
                release(part);
            }
            drop(Box::from_raw(part));
        }
        (*array).private_data = ptr::null_mut();
        (*array).release = None;
    }
}
