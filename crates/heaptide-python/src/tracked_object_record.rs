//! `TrackedObjectRecord`, and the iterator over those of a capture.

use std::collections::HashSet;
use std::sync::Arc;

use heaptide_capture::Capture;
use heaptide_engine::StackId;
use heaptide_format::{State, Survivor};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::source::{Opened, Source};

/// A Python object that was made while tracking was on, and was alive when it ended.
#[pyclass(frozen, module = "heaptide._memray")]
pub(crate) struct TrackedObjectRecord {
    source: Arc<Source>,
    survivor: Survivor,
    stack: StackId,
}

impl TrackedObjectRecord {
    fn stack(&self, py: Python<'_>, max_stacks: Option<usize>) -> PyResult<Py<PyList>> {
        let (stack, thread) = (self.stack.0, self.survivor.thread);
        let list = self.source.stack_trace(py, stack, thread, max_stacks)?;
        Ok(list.unbind())
    }
}

#[pymethods]
impl TrackedObjectRecord {
    /// The kernel's id of the thread that made it.
    #[getter]
    fn tid(&self) -> u32 {
        self.source.thread_id(self.survivor.thread)
    }

    /// The name of that thread.
    #[getter]
    fn thread_name(&self) -> &str {
        self.source.thread_name(self.survivor.thread)
    }

    /// Where it was: its `id()`.
    #[getter]
    const fn address(&self) -> u64 {
        self.survivor.address
    }

    /// Whether it is about its creation: always, as destructions are not recorded.
    #[getter]
    const fn is_created(&self) -> bool {
        true
    }

    /// The name of its type, with the module for most of those that are not made by `class`; empty when it is not known.
    #[getter]
    fn type_name(&self) -> &str {
        let definitions = &self.source.capture.definitions;
        let name = definitions.string(self.survivor.type_name);
        name.unwrap_or_default()
    }

    /// Number of the stack within this capture; 0 is the empty one.
    #[getter]
    const fn stack_id(&self) -> u32 {
        self.stack.0
    }

    /// Number of the native stack: 0, since none are recorded.
    #[getter]
    const fn native_stack_id(&self) -> u32 {
        0
    }

    /// Number of the list of loaded libraries: 0, since none are recorded.
    #[getter]
    const fn native_segment_generation(&self) -> u32 {
        0
    }

    /// The Python frames that made it, `(function, file, line)`, the innermost first; with `max_stacks` at most so many.
    #[pyo3(signature = (max_stacks=None))]
    fn stack_trace(&self, py: Python<'_>, max_stacks: Option<usize>) -> PyResult<Py<PyList>> {
        self.stack(py, max_stacks)
    }

    /// The native frames: none are recorded, so the list is empty.
    #[pyo3(signature = (max_stacks=None))]
    fn native_stack_trace(&self, py: Python<'_>, max_stacks: Option<usize>) -> Py<PyList> {
        let _ = max_stacks;
        PyList::empty(py).unbind()
    }

    /// Python and native frames in one: without native frames, the same as `stack_trace`.
    #[pyo3(signature = (max_stacks=None))]
    fn hybrid_stack_trace(
        &self,
        py: Python<'_>,
        max_stacks: Option<usize>,
    ) -> PyResult<Py<PyList>> {
        self.stack(py, max_stacks)
    }

    fn __repr__(&self) -> String {
        format!(
            "TrackedObjectRecord<tid={:#x}, address={:#x}, type={}>",
            self.tid(),
            self.survivor.address,
            self.type_name()
        )
    }
}

/// Iterator over the objects that survived, in the order in which they were made.
#[pyclass(module = "heaptide._heaptide")]
pub(crate) struct ObjectIterator {
    opened: Arc<Opened>,
    /// Only those at these addresses.
    only: Option<HashSet<u64>>,
    /// `None` until the first record is asked for.
    survivors: Option<std::vec::IntoIter<Survivor>>,
}

impl ObjectIterator {
    pub(crate) const fn new(opened: Arc<Opened>, only: Option<HashSet<u64>>) -> Self {
        Self {
            opened,
            only,
            survivors: None,
        }
    }
}

#[pymethods]
impl ObjectIterator {
    const fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<TrackedObjectRecord>> {
        if self.survivors.is_none() {
            let mut survivors = survivors_of(&self.opened.capture)?;
            if let Some(only) = &self.only {
                survivors.retain(|survivor| only.contains(&survivor.address));
            }
            self.survivors = Some(survivors.into_iter());
        }
        let Some(survivor) = self.survivors.as_mut().and_then(Iterator::next) else {
            return Ok(None);
        };
        let source = Arc::clone(py.detach(|| self.opened.source()));
        let stack = source.profile.stack_of_node(survivor.node);
        Ok(Some(TrackedObjectRecord {
            source,
            survivor,
            stack: stack.unwrap_or(StackId::LOST),
        }))
    }
}

/// Those that the capture tells of; an exception when it does not tell.
fn survivors_of(capture: &Capture) -> PyResult<Vec<Survivor>> {
    let why = if !capture.identity.tracks_objects() {
        "The file was not generated with track_object_lifetimes=True."
    } else if let Some(survivors) = &capture.survivors {
        return Ok(survivors.iter().map(|(_, survivor)| *survivor).collect());
    } else if capture.lifecycle.state != State::Finished as u32 {
        "Which objects survive is written when tracking ends, and it has not: the program still runs, was killed, or could \
         not be tracked to its end."
    } else {
        "Which objects survived is not known: another tracer of objects was set meanwhile, or there was no memory."
    };
    Err(PyRuntimeError::new_err(format!(
        "Object lifetime events are not available in this capture file. {why}"
    )))
}
