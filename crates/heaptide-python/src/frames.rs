//! Frames as Python objects, each made once and shared by all stacks that go through it.

use heaptide_engine::{FrameId, StackId, Stacks};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};

/// `heaptide._frame.Frame`: a tuple `(function, file, line)` that knows more.
static FRAME_TYPE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The Python objects of the frames of a capture.
pub(crate) struct Frames(Vec<PyOnceLock<Py<PyAny>>>);

impl Frames {
    pub(crate) fn of(stacks: &Stacks) -> Self {
        Self(stacks.frames.iter().map(|_| PyOnceLock::new()).collect())
    }

    /// The frames of nodes of a stack as a list.
    pub(crate) fn list_of_nodes<'py>(
        &self,
        py: Python<'py>,
        stacks: &Stacks,
        nodes: impl Iterator<Item = StackId>,
    ) -> PyResult<Bound<'py, PyList>> {
        let frames = nodes.map(|node| stacks.nodes[node.index()].frame);
        self.list(py, stacks, frames)
    }

    /// Frames as a list.
    pub(crate) fn list<'py>(
        &self,
        py: Python<'py>,
        stacks: &Stacks,
        frames: impl Iterator<Item = FrameId>,
    ) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for frame in frames {
            list.append(self.frame(py, stacks, frame)?)?;
        }
        Ok(list)
    }

    fn frame<'py>(
        &self,
        py: Python<'py>,
        stacks: &Stacks,
        id: FrameId,
    ) -> PyResult<&Bound<'py, PyAny>> {
        let made = self.0[id.index()].get_or_try_init(py, || make(py, stacks, id))?;
        Ok(made.bind(py))
    }
}

fn make(py: Python<'_>, stacks: &Stacks, id: FrameId) -> PyResult<Py<PyAny>> {
    let frame_type = FRAME_TYPE.get_or_try_init(py, || {
        let module = py.import("heaptide._frame")?;
        PyResult::Ok(module.getattr("Frame")?.unbind())
    })?;
    let frame = stacks.frames[id.index()];
    let location = stacks.locations[frame.location.index()];
    let position = frame.position;
    let place = (
        stacks.text(location.function),
        stacks.text(location.file),
        location.line,
    );
    let made = frame_type.bind(py).call1((place.into_py_any(py)?,))?;
    let facts: Bound<'_, PyDict> = made.getattr("__dict__")?.cast_into()?;
    facts.set_item("qualified_name", stacks.text(frame.qualified_name))?;
    let end_line = (position.end_line > 0).then_some(position.end_line);
    facts.set_item("end_line", end_line)?;
    facts.set_item("column", position.column)?;
    facts.set_item("end_column", position.end_column)?;
    Ok(made.unbind())
}
