//! `TemporalAllocationRecord`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;

use crate::rows::{Span, TemporalRow};
use crate::source::Source;

static INTERVAL_TYPE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// What one stack held over time by one allocator.
#[pyclass(frozen, module = "heaptide._memray")]
pub(crate) struct TemporalAllocationRecord {
    source: Arc<Source>,
    row: TemporalRow,
}

impl TemporalAllocationRecord {
    pub(crate) const fn new(source: Arc<Source>, row: TemporalRow) -> Self {
        Self { source, row }
    }
}

#[pymethods]
impl TemporalAllocationRecord {
    /// The kernel's id of the thread that did it; 0 where threads are merged.
    #[getter]
    fn tid(&self) -> u32 {
        self.source.thread_id(self.row.thread)
    }

    /// The name of that thread; empty where threads are merged.
    #[getter]
    fn thread_name(&self) -> &str {
        self.source.thread_name(self.row.thread)
    }

    /// The `AllocatorType`, as an integer.
    #[getter]
    const fn allocator(&self) -> u8 {
        self.row.allocator
    }

    /// Number of the Python stack within this capture; 0 is the empty one.
    #[getter]
    fn stack_id(&self) -> u32 {
        self.source.profile.stacks.python_whole(self.row.stack).0
    }

    /// Number of the native stack within this capture; 0 where none was recorded.
    #[getter]
    fn native_stack_id(&self) -> u32 {
        self.source.profile.stacks.native_number(self.row.stack)
    }

    /// Number of the list of loaded libraries: 0, since native frames say themselves which library they are in.
    #[getter]
    const fn native_segment_generation(&self) -> u32 {
        0
    }

    /// A list of `Interval`: how much was held, from which snapshot on, until which.
    #[getter]
    fn intervals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let interval = INTERVAL_TYPE.get_or_try_init(py, || {
            let module = py.import("heaptide._records")?;
            PyResult::Ok(module.getattr("Interval")?.unbind())
        })?;
        let interval = interval.bind(py);
        let list = PyList::empty(py);
        for &Span { from, to, amount } in &self.row.spans {
            list.append(interval.call1((from, to, amount.count, amount.bytes))?)?;
        }
        Ok(list)
    }

    /// The Python frames, `(function, file, line)`, the innermost first; with `max_stacks` at most so many.
    #[pyo3(signature = (max_stacks=None))]
    fn stack_trace<'py>(
        &self,
        py: Python<'py>,
        max_stacks: Option<usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        let row = &self.row;
        self.source
            .stack_trace(py, row.stack, row.thread, max_stacks)
    }

    /// The native functions, `(function, file, line)`, the innermost first; with `max_stacks` those of at most so many frames.
    #[pyo3(signature = (max_stacks=None))]
    fn native_stack_trace<'py>(
        &self,
        py: Python<'py>,
        max_stacks: Option<usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        self.source
            .native_stack_trace(py, self.row.stack, max_stacks)
    }

    /// Python and native frames in one; where native stacks were not recorded, the same as `stack_trace`.
    #[pyo3(signature = (max_stacks=None))]
    fn hybrid_stack_trace<'py>(
        &self,
        py: Python<'py>,
        max_stacks: Option<usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        let row = &self.row;
        self.source
            .hybrid_stack_trace(py, row.stack, row.thread, max_stacks)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| {
            let other = other.get();
            self.tid() == other.tid()
                && self.row.allocator == other.row.allocator
                && self.row.stack == other.row.stack
                && self.row.spans == other.row.spans
        })
    }

    fn __hash__(&self) -> u64 {
        u64::from(self.row.stack.0) << 8 | u64::from(self.row.allocator)
    }
}
