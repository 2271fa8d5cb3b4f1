//! `ArrowTable`: what a query answers, for whatever reads Arrow.

use std::sync::Arc;

use heaptide_engine::{Metric, Temporal};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use super::batches::{AnswerBatches, Lines, Shape};
use super::interface::{schema_capsule, stream_capsule};
use crate::iterate::{Query, answer};
use crate::rows::{TemporalRow, held_at_peaks, lifetimes};
use crate::source::Opened;

#[derive(Clone, Copy)]
enum Question {
    Records(Query),
    Temporal(fn(&Temporal, bool) -> Vec<TemporalRow>),
}

/// What a query answers, as columns. It holds no rows: each stream works them out anew, a batch at a time.
#[pyclass(frozen, module = "heaptide._heaptide")]
pub(crate) struct ArrowTable {
    opened: Arc<Opened>,
    question: Question,
    shape: Shape,
}

impl ArrowTable {
    /// Raises `ValueError` for a kind that there is not.
    pub(crate) fn new(
        opened: Arc<Opened>,
        kind: &str,
        merge_threads: bool,
        threshold: u32,
        stacks: bool,
    ) -> PyResult<Self> {
        let sums = |metric| {
            Question::Records(Query::Sums {
                metric,
                merge_threads,
            })
        };
        let question = match kind {
            "high_watermark" => sums(Metric::Peak),
            "leaked" => sums(Metric::Live),
            "total" => sums(Metric::Allocated),
            "temporary" => Question::Records(Query::Temporary {
                threshold,
                merge_threads,
            }),
            "all" => Question::Records(Query::Events),
            "temporal" => Question::Temporal(lifetimes),
            "temporal_high_watermark" => Question::Temporal(held_at_peaks),
            _ => {
                return Err(PyValueError::new_err(format!(
                    "no kind of records is called {kind:?}: choose one of 'high_watermark', 'leaked', 'total', \
                     'temporary', 'all', 'temporal', 'temporal_high_watermark'"
                )));
            }
        };
        let events = matches!(question, Question::Records(Query::Events));
        let shape = Shape {
            addresses: events,
            intervals: matches!(question, Question::Temporal(_)),
            stacks,
            merged: merge_threads && !events,
        };
        Ok(Self {
            opened,
            question,
            shape,
        })
    }

    fn batches(&self) -> PyResult<AnswerBatches> {
        let lines = match self.question {
            Question::Records(query) => Lines::Records(answer(&self.opened, query)?),
            Question::Temporal(rows_of) => {
                let temporal = self.opened.temporal()?;
                let rows = rows_of(&temporal, self.shape.merged);
                Lines::Temporal(rows.into_iter(), None)
            }
        };
        AnswerBatches::new(Arc::clone(self.opened.source()), self.shape, lines)
    }
}

#[pymethods]
impl ArrowTable {
    /// The columns, as a capsule `arrow_schema`.
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        schema_capsule(py, self.shape.fields())
    }

    /// The rows, as a capsule `arrow_array_stream`. A requested schema is not looked at: consumers convert.
    ///
    /// Raises `NotImplementedError` when the capture is aggregated and does not know.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        let batches = py.detach(|| self.batches())?;
        stream_capsule(py, Box::new(batches))
    }
}
