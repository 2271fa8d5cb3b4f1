//! `TrackedObjectRecord`, and the iterator over those of a capture.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::vec::IntoIter;

use heaptide_capture::Capture;
use heaptide_engine::{ObjectEvent, ObjectEventKind, ObjectEvents, StackId, surviving_objects};
use heaptide_format::{MetadataKey, State};
use pyo3::exceptions::{PyNotImplementedError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use rustc_hash::FxHasher;
use self_cell::self_cell;

use crate::errors::cannot_answer;
use crate::source::{Opened, Source};

/// The creation or the destruction of a Python object.
#[pyclass(frozen, module = "heaptide._memray")]
pub(crate) struct TrackedObjectRecord {
    source: Arc<Source>,
    event: ObjectEvent,
}

impl TrackedObjectRecord {
    /// What tells records apart.
    fn key(&self) -> (u32, u64, bool, u32) {
        let created = self.is_created();
        (self.tid(), self.event.address, created, self.stack().0)
    }

    /// Where it was made; of a destruction the empty stack.
    const fn stack(&self) -> StackId {
        match self.event.kind {
            ObjectEventKind::Made { stack, .. } => stack,
            ObjectEventKind::Gone => StackId::ROOT,
        }
    }
}

#[pymethods]
impl TrackedObjectRecord {
    /// The kernel's id of the thread that made or destroyed it; 0 when it is not known.
    #[getter]
    fn tid(&self) -> u32 {
        self.source.thread_id(self.event.thread)
    }

    /// The name of that thread.
    #[getter]
    fn thread_name(&self) -> &str {
        self.source.thread_name(self.event.thread)
    }

    /// Where it is: its `id()`.
    #[getter]
    const fn address(&self) -> u64 {
        self.event.address
    }

    /// Whether it was made; else it is destroyed.
    #[getter]
    const fn is_created(&self) -> bool {
        matches!(self.event.kind, ObjectEventKind::Made { .. })
    }

    /// Of its creation, the name of its type, with the module for most of those that are not made by `class`; empty when it is
    /// not known.
    #[getter]
    fn type_name(&self) -> &str {
        let ObjectEventKind::Made { type_name, .. } = self.event.kind else {
            return "";
        };
        let definitions = &self.source.capture.definitions;
        definitions.string(type_name).unwrap_or_default()
    }

    /// Number of the Python stack within this capture; 0 is the empty one.
    #[getter]
    fn stack_id(&self) -> u32 {
        self.source.profile.stacks.python_whole(self.stack()).0
    }

    /// Number of the native stack within this capture; 0 where none was recorded.
    #[getter]
    fn native_stack_id(&self) -> u32 {
        self.source.profile.stacks.native_number(self.stack())
    }

    /// Number of the list of loaded libraries: 0, since native frames say themselves which library they are in.
    #[getter]
    const fn native_segment_generation(&self) -> u32 {
        0
    }

    /// The Python frames that made it, `(function, file, line)`, the innermost first; with `max_stacks` at most so many.
    ///
    /// Raises `NotImplementedError` for destructions.
    #[pyo3(signature = (max_stacks=None))]
    fn stack_trace(&self, py: Python<'_>, max_stacks: Option<usize>) -> PyResult<Py<PyList>> {
        if !self.is_created() {
            return Err(PyNotImplementedError::new_err(
                "Stack traces for deallocations aren't captured.",
            ));
        }
        let (stack, thread) = (self.stack(), self.event.thread);
        let list = self.source.stack_trace(py, stack, thread, max_stacks)?;
        Ok(list.unbind())
    }

    /// The native functions that made it, `(function, file, line)`, the innermost first; with `max_stacks` those of at most
    /// so many frames. None of a destruction.
    #[pyo3(signature = (max_stacks=None))]
    fn native_stack_trace(
        &self,
        py: Python<'_>,
        max_stacks: Option<usize>,
    ) -> PyResult<Py<PyList>> {
        let list = self
            .source
            .native_stack_trace(py, self.stack(), max_stacks)?;
        Ok(list.unbind())
    }

    /// Python and native frames in one: without native frames those of `stack_trace`, and none of a destruction.
    #[pyo3(signature = (max_stacks=None))]
    fn hybrid_stack_trace(
        &self,
        py: Python<'_>,
        max_stacks: Option<usize>,
    ) -> PyResult<Py<PyList>> {
        let (stack, thread) = (self.stack(), self.event.thread);
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
        let (tid, address) = (self.tid(), self.event.address);
        let what = match self.event.kind {
            ObjectEventKind::Made { .. } => format!("type={}", self.type_name()),
            ObjectEventKind::Gone => "is_created=False".to_owned(),
        };
        format!("TrackedObjectRecord<tid={tid:#x}, address={address:#x}, {what}>")
    }
}

self_cell! {
    /// Events with the capture that they are read from.
    struct OwnedEvents {
        owner: Arc<Source>,
        #[not_covariant]
        dependent: ObjectEvents,
    }
}

/// What a capture tells.
enum Answer {
    /// All that happened.
    Events(OwnedEvents),
    /// Who survived.
    Survivors(IntoIter<ObjectEvent>),
}

impl Answer {
    fn of(opened: &Opened) -> PyResult<Self> {
        let capture = &opened.capture;
        if !capture.identity.tracks_objects() {
            return Err(not_available(
                "The file was not generated with track_object_lifetimes=True.",
            ));
        }
        let source = opened.source();
        if capture.identity.holds_object_events() {
            let events = OwnedEvents::try_new(Arc::clone(source), |source| {
                ObjectEvents::new(&source.capture, &source.profile)
            });
            let refuse = |error| cannot_answer("get object lifetime events from", error);
            return Ok(Self::Events(events.map_err(refuse)?));
        }
        match surviving_objects(capture, &source.profile) {
            Some(survivors) => Ok(Self::Survivors(survivors.into_iter())),
            None => Err(not_available(why_unknown(capture))),
        }
    }

    fn next(&mut self) -> Option<ObjectEvent> {
        match self {
            Self::Events(events) => events.with_dependent_mut(|_, events| events.next()),
            Self::Survivors(survivors) => survivors.next(),
        }
    }

    /// After the last event: is that all there was?
    fn is_all(&self, capture: &Capture) -> PyResult<()> {
        match capture.metadata.text(MetadataKey::ObjectsUntold) {
            Some(why) if matches!(self, Self::Events(_)) => Err(PyRuntimeError::new_err(format!(
                "Not all object lifetime events are in this capture file: {why}. Those that were recorded before have been given."
            ))),
            _ => Ok(()),
        }
    }
}

/// Iterator over what happened to objects, in order.
#[pyclass(module = "heaptide._heaptide")]
pub(crate) struct ObjectIterator {
    opened: Arc<Opened>,
    /// Only those at these addresses.
    only: Option<HashSet<u64>>,
    progress: Progress,
}

/// How far the iteration is.
enum Progress {
    Asked,
    Answered(Answer),
    Done,
}

impl ObjectIterator {
    pub(crate) const fn new(opened: Arc<Opened>, only: Option<HashSet<u64>>) -> Self {
        Self {
            opened,
            only,
            progress: Progress::Asked,
        }
    }

    /// The next event that is wanted.
    fn next(&mut self) -> PyResult<Option<ObjectEvent>> {
        if matches!(self.progress, Progress::Asked) {
            // As a generator: after an error there is nothing more.
            self.progress = Progress::Done;
            self.progress = Progress::Answered(Answer::of(&self.opened)?);
        }
        let Progress::Answered(answer) = &mut self.progress else {
            return Ok(None);
        };
        while let Some(event) = answer.next() {
            let only = self.only.as_ref();
            if only.is_none_or(|only| only.contains(&event.address)) {
                return Ok(Some(event));
            }
        }
        let is_all = answer.is_all(&self.opened.capture);
        self.progress = Progress::Done;
        is_all.map(|()| None)
    }
}

#[pymethods]
impl ObjectIterator {
    const fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<TrackedObjectRecord>> {
        let event = py.detach(|| self.next())?;
        Ok(event.map(|event| TrackedObjectRecord {
            source: Arc::clone(self.opened.source()),
            event,
        }))
    }
}

fn not_available(why: &str) -> PyErr {
    PyRuntimeError::new_err(format!(
        "Object lifetime events are not available in this capture file. {why}"
    ))
}

/// Why a capture does not tell who survived.
fn why_unknown(capture: &Capture) -> &'static str {
    if capture.lifecycle.state == State::Finished as u32 {
        "Which objects survived is not known: another tracer of objects was set meanwhile, or there was no memory."
    } else {
        "Which objects survive is written when tracking ends, and it has not: the program still runs, was killed, or could \
         not be tracked to its end."
    }
}
