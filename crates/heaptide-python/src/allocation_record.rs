//! `AllocationRecord`.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use heaptide_engine::StackId;
use heaptide_format::Allocator;
use pyo3::exceptions::PyNotImplementedError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use rustc_hash::FxHasher;

use crate::source::Source;

/// Memray's number of an allocator: those of Python's allocators are not told apart by their domains.
pub(crate) const fn memray_number(allocator: Allocator) -> u8 {
    (allocator as u32 & 0xf) as u8
}

/// `AllocatorType.PYMALLOC_FREE`
pub(crate) const PYMALLOC_FREE: u8 = 1;
/// `AllocatorType.FREE`
pub(crate) const FREE: u8 = 5;
/// `AllocatorType.MUNMAP`
pub(crate) const MUNMAP: u8 = 15;

/// Gives a function of this number memory back? Then there is no stack.
pub(crate) const fn is_deallocation(number: u8) -> bool {
    matches!(number, FREE | MUNMAP | PYMALLOC_FREE)
}

/// One allocation or deallocation, or the sum of all allocations of one stack.
///
/// Sizes and addresses are in bytes. Records are equal when all their numbers are.
#[pyclass(frozen, freelist = 64, module = "heaptide")]
pub(crate) struct AllocationRecord {
    pub(crate) source: Arc<Source>,
    /// The first byte of the block; 0 for sums.
    #[pyo3(get)]
    pub(crate) address: u64,
    /// Bytes; 0 for blocks that are given back.
    #[pyo3(get)]
    pub(crate) size: u64,
    /// How many allocations this is.
    #[pyo3(get)]
    pub(crate) n_allocations: u64,
    /// Where it was allocated.
    pub(crate) stack: StackId,
    /// Index of the thread.
    pub(crate) thread: u32,
    /// The `AllocatorType`, as an integer.
    #[pyo3(get)]
    pub(crate) allocator: u8,
}

impl AllocationRecord {
    /// What makes it equal to another one.
    fn key(&self) -> (u32, u64, u64, u8, u32, u64) {
        let tid = self.source.thread_id(self.thread);
        let (address, size) = (self.address, self.size);
        (
            tid,
            address,
            size,
            self.allocator,
            self.stack.0,
            self.n_allocations,
        )
    }

    fn refuse_deallocations(&self) -> PyResult<()> {
        if is_deallocation(self.allocator) {
            return Err(PyNotImplementedError::new_err(
                "Stack traces for deallocations aren't captured.",
            ));
        }
        Ok(())
    }
}

#[pymethods]
impl AllocationRecord {
    /// The kernel's id of the thread that did it; of one of the threads, where threads are merged.
    #[getter]
    fn tid(&self) -> u32 {
        self.source.thread_id(self.thread)
    }

    /// The name of that thread.
    #[getter]
    fn thread_name(&self) -> &str {
        self.source.thread_name(self.thread)
    }

    /// Number of the Python stack within this capture; 0 is the empty one.
    #[getter]
    fn stack_id(&self) -> u32 {
        self.source.profile.stacks.python_whole(self.stack).0
    }

    /// Number of the native stack within this capture; 0 where none was recorded.
    #[getter]
    fn native_stack_id(&self) -> u32 {
        self.source.profile.stacks.native_number(self.stack)
    }

    /// Number of the list of loaded libraries: 0, since native frames say themselves which library they are in.
    #[getter]
    const fn native_segment_generation(&self) -> u32 {
        0
    }

    /// The Python frames, `(function, file, line)`, the innermost first.
    ///
    /// With `max_stacks` at most so many. Raises `NotImplementedError` for deallocations.
    #[pyo3(signature = (max_stacks=None))]
    fn stack_trace(&self, py: Python<'_>, max_stacks: Option<usize>) -> PyResult<Py<PyList>> {
        self.refuse_deallocations()?;
        let (stack, thread) = (self.stack, self.thread);
        let list = self.source.stack_trace(py, stack, thread, max_stacks)?;
        Ok(list.unbind())
    }

    /// The native functions, `(function, file, line)`, the innermost first; none where native stacks were not recorded.
    ///
    /// With `max_stacks` those of at most so many frames. Raises `NotImplementedError` for deallocations.
    #[pyo3(signature = (max_stacks=None))]
    fn native_stack_trace(
        &self,
        py: Python<'_>,
        max_stacks: Option<usize>,
    ) -> PyResult<Py<PyList>> {
        self.refuse_deallocations()?;
        let list = self.source.native_stack_trace(py, self.stack, max_stacks)?;
        Ok(list.unbind())
    }

    /// Python and native frames in one; where native stacks were not recorded, the same as `stack_trace`.
    #[pyo3(signature = (max_stacks=None))]
    fn hybrid_stack_trace(
        &self,
        py: Python<'_>,
        max_stacks: Option<usize>,
    ) -> PyResult<Py<PyList>> {
        self.refuse_deallocations()?;
        let (stack, thread) = (self.stack, self.thread);
        let list = self
            .source
            .hybrid_stack_trace(py, stack, thread, max_stacks)?;
        Ok(list.unbind())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        let other = other.cast::<Self>();
        other.is_ok_and(|other| self.key() == other.get().key())
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = FxHasher::default();
        self.key().hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        let size = match self.size {
            0 => "N/A".to_owned(),
            size => size_text(size),
        };
        format!(
            "AllocationRecord<tid={:#x}, address={:#x}, size={size}, allocator={}, allocations={}>",
            self.tid(),
            self.address,
            self.allocator,
            self.n_allocations
        )
    }
}

/// A size as Memray shows it: in thousands, with three decimals.
fn size_text(bytes: u64) -> String {
    let mut number = bytes as f64;
    for unit in ["", "k", "M", "G", "T", "P"] {
        if number < 1000.0 {
            return format!("{number:.3}{unit}B");
        }
        number /= 1000.0;
    }
    format!("{number:.3}EB")
}
