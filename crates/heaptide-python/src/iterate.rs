//! Iterators over records. They work out what they need when the first record is asked for, as generators do.

use std::sync::Arc;
use std::vec::IntoIter;

use heaptide_engine::{AllocationEvent, AllocationEvents, EventKind, Metric, Temporal};
use pyo3::prelude::*;
use self_cell::self_cell;

use crate::allocation_record::{AllocationRecord, FREE, MUNMAP, PYMALLOC_FREE, memray_number};
use crate::errors::cannot_answer;
use crate::rows::{Row, TemporalRow, rows_of};
use crate::source::{Opened, Source};
use crate::temporal_record::TemporalAllocationRecord;

/// What is to be iterated over.
#[derive(Clone, Copy)]
pub(crate) enum Query {
    /// Every record.
    Events,
    /// Sums of a figure.
    Sums { metric: Metric, merge_threads: bool },
    /// Temporary blocks by another threshold than usual.
    Temporary { threshold: u32, merge_threads: bool },
}

self_cell! {
    /// Events with the capture that they are read from.
    pub(crate) struct OwnedEvents {
        owner: Arc<Source>,
        #[not_covariant]
        dependent: AllocationEvents,
    }
}

impl OwnedEvents {
    pub(crate) fn next(&mut self) -> Option<AllocationEvent> {
        self.with_dependent_mut(|_, events| events.next())
    }
}

/// What a query gives.
pub(crate) enum Answer {
    Events(OwnedEvents),
    Sums(IntoIter<Row>),
}

/// Answers a query.
pub(crate) fn answer(opened: &Opened, query: Query) -> PyResult<Answer> {
    let source = opened.source();
    Ok(match query {
        Query::Events => {
            let events = OwnedEvents::try_new(Arc::clone(source), |source| {
                AllocationEvents::new(&source.capture, &source.profile)
            });
            let refuse = |error| cannot_answer("get all allocations from", error);
            Answer::Events(events.map_err(refuse)?)
        }
        Query::Sums {
            metric,
            merge_threads,
        } => Answer::Sums(rows_of(&source.profile, metric, merge_threads).into_iter()),
        Query::Temporary {
            threshold,
            merge_threads,
        } => {
            let refuse = |error| cannot_answer("find temporary allocations using", error);
            let profile = source.with_threshold(threshold).map_err(refuse)?;
            Answer::Sums(rows_of(&profile, Metric::Temporary, merge_threads).into_iter())
        }
    })
}

/// Memray's number of what happened.
pub(crate) const fn number_of(kind: EventKind) -> u8 {
    match kind {
        EventKind::Allocated(allocator) => memray_number(allocator),
        EventKind::Freed => FREE,
        EventKind::FreedToPython => PYMALLOC_FREE,
        EventKind::Unmapped => MUNMAP,
    }
}

enum State {
    Asked(Query),
    Answered(Answer),
    Done,
}

/// Iterator over allocation records.
#[pyclass(module = "heaptide._heaptide")]
pub(crate) struct RecordIterator {
    opened: Arc<Opened>,
    state: State,
}

impl RecordIterator {
    pub(crate) const fn new(opened: Arc<Opened>, query: Query) -> Self {
        let state = State::Asked(query);
        Self { opened, state }
    }

    fn record_of_event(&self, event: &AllocationEvent) -> AllocationRecord {
        AllocationRecord {
            source: Arc::clone(self.opened.source()),
            address: event.address,
            size: event.bytes,
            n_allocations: 1,
            stack: event.stack,
            thread: event.thread,
            allocator: number_of(event.kind),
        }
    }

    fn record_of_row(&self, row: &Row) -> AllocationRecord {
        AllocationRecord {
            source: Arc::clone(self.opened.source()),
            address: 0,
            size: row.amount.bytes,
            n_allocations: row.amount.count,
            stack: row.stack,
            thread: row.thread,
            allocator: row.allocator,
        }
    }
}

#[pymethods]
impl RecordIterator {
    const fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<AllocationRecord>> {
        if let State::Asked(query) = self.state {
            self.state = State::Done;
            let opened = &self.opened;
            self.state = State::Answered(py.detach(|| answer(opened, query))?);
        }
        let record = match &mut self.state {
            State::Answered(Answer::Events(events)) => {
                events.next().map(|event| self.record_of_event(&event))
            }
            State::Answered(Answer::Sums(rows)) => rows.next().map(|row| self.record_of_row(&row)),
            State::Asked(_) | State::Done => return Ok(None),
        };
        if record.is_none() {
            self.state = State::Done;
        }
        Ok(record)
    }
}

/// Iterator over the history of stacks.
#[pyclass(module = "heaptide._heaptide")]
pub(crate) struct TemporalIterator {
    opened: Arc<Opened>,
    /// `None` until the first record is asked for.
    rows: Option<IntoIter<TemporalRow>>,
    rows_of: fn(&Temporal, bool) -> Vec<TemporalRow>,
    merge_threads: bool,
}

impl TemporalIterator {
    pub(crate) const fn new(
        opened: Arc<Opened>,
        rows_of: fn(&Temporal, bool) -> Vec<TemporalRow>,
        merge_threads: bool,
    ) -> Self {
        Self {
            opened,
            rows: None,
            rows_of,
            merge_threads,
        }
    }
}

#[pymethods]
impl TemporalIterator {
    const fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<TemporalAllocationRecord>> {
        if self.rows.is_none() {
            let rows = py.detach(|| {
                let temporal = self.opened.temporal()?;
                PyResult::Ok((self.rows_of)(&temporal, self.merge_threads))
            })?;
            self.rows = Some(rows.into_iter());
        }
        let source = self.opened.source();
        let next = self.rows.as_mut().and_then(Iterator::next);
        Ok(next.map(|row| TemporalAllocationRecord::new(Arc::clone(source), row)))
    }
}
