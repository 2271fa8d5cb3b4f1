//! `CaptureReader`: what `FileReader` asks.

use std::collections::HashSet;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;

use heaptide_capture::Capture;
use heaptide_engine::Metric;
use heaptide_format::{Mode, PythonAllocator};
use heaptide_report::{ParseOptions, end_unix_ns, parse_text};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrow::ArrowTable;
use crate::errors::cannot_read;
use crate::iterate::{Query, RecordIterator, TemporalIterator};
use crate::rows::{held_at_peaks, lifetimes};
use crate::source::{Opened, open};
use crate::statistics::statistics;
use crate::text_stream::TextStream;
use crate::tracked_object_record::ObjectIterator;

/// A capture, opened.
#[pyclass(frozen, module = "heaptide._heaptide")]
pub(crate) struct CaptureReader(Arc<Opened>);

impl CaptureReader {
    fn iterator(&self, query: Query) -> RecordIterator {
        RecordIterator::new(Arc::clone(&self.0), query)
    }

    fn sums(&self, metric: Metric, merge_threads: bool) -> RecordIterator {
        self.iterator(Query::Sums {
            metric,
            merge_threads,
        })
    }
}

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

#[pymethods]
impl CaptureReader {
    /// Opens a capture. Raises `OSError` when it cannot be read.
    #[new]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "Python's paths come as values"
    )]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        report_progress: bool,
        max_memory_records: usize,
    ) -> PyResult<Self> {
        let capture = py
            .detach(|| open(&path))
            .map_err(|error| cannot_read(&error))?;
        let opened = Opened::new(capture, report_progress, max_memory_records);
        Ok(Self(Arc::new(opened)))
    }

    /// Every event in order.
    fn allocation_records(&self) -> RecordIterator {
        self.iterator(Query::Events)
    }

    /// What was live at the peak.
    fn high_watermark(&self, merge_threads: bool) -> RecordIterator {
        self.sums(Metric::Peak, merge_threads)
    }

    /// What is live at the end.
    fn leaked(&self, merge_threads: bool) -> RecordIterator {
        self.sums(Metric::Live, merge_threads)
    }

    /// All that was ever allocated.
    fn allocated(&self, merge_threads: bool) -> RecordIterator {
        self.sums(Metric::Allocated, merge_threads)
    }

    /// What was freed soon.
    fn temporary(&self, merge_threads: bool, threshold: u32) -> RecordIterator {
        self.iterator(Query::Temporary {
            threshold,
            merge_threads,
        })
    }

    /// When what was allocated was freed.
    fn lifetimes(&self, merge_threads: bool) -> TemporalIterator {
        TemporalIterator::new(Arc::clone(&self.0), lifetimes, merge_threads)
    }

    /// What was held at the peak of each interval.
    fn held_at_peaks(&self, merge_threads: bool) -> TemporalIterator {
        TemporalIterator::new(Arc::clone(&self.0), held_at_peaks, merge_threads)
    }

    /// What one of these queries gives, as columns.
    fn columns(
        &self,
        kind: &str,
        merge_threads: bool,
        threshold: u32,
        stacks: bool,
    ) -> PyResult<ArrowTable> {
        ArrowTable::new(Arc::clone(&self.0), kind, merge_threads, threshold, stacks)
    }

    /// The largest heap of each interval, bytes.
    fn peak_of_each_interval(&self, py: Python<'_>) -> PyResult<Vec<u64>> {
        Ok(py.detach(|| self.0.temporal())?.peak_bytes)
    }

    /// What happened to Python objects, or to those at the addresses `only`.
    fn object_events(&self, only: Option<HashSet<u64>>) -> ObjectIterator {
        ObjectIterator::new(Arc::clone(&self.0), only)
    }

    /// `(milliseconds since the epoch, resident bytes, heap bytes)` of each snapshot.
    fn snapshots(&self, py: Python<'_>) -> Vec<(u64, u64, u64)> {
        let source = py.detach(|| self.0.source());
        let samples = self.0.capture.samples.iter().enumerate();
        let snapshots = samples.step_by(self.0.stride()).map(|(index, sample)| {
            let replayed = source.profile.sample_heap.get(index);
            let heap = replayed.copied().unwrap_or(sample.heap_bytes);
            let time = sample.unix_ns / NANOSECONDS_PER_MILLISECOND;
            (time, sample.resident_bytes, heap)
        });
        snapshots.collect()
    }

    /// Facts about the run, by the names of `Metadata`; times in milliseconds since the epoch.
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let source = py.detach(|| self.0.source());
        let (capture, profile) = (&self.0.capture, &source.profile);
        let lifecycle = &capture.lifecycle;
        let milliseconds = |unix_ns: u64| unix_ns / NANOSECONDS_PER_MILLISECOND;
        let facts = PyDict::new(py);
        let start = milliseconds(lifecycle.tracking_start_unix_ns);
        let end = milliseconds(end_unix_ns(capture));
        facts.set_item("start_time", start)?;
        facts.set_item("end_time", end.max(start))?;
        let allocations = profile.totals.figures.allocated.count;
        facts.set_item("total_allocations", allocations)?;
        facts.set_item("total_frames", profile.stacks.frames.len())?;
        facts.set_item("peak_memory", profile.heap.peak_bytes)?;
        facts.set_item("command_line", command_line(capture))?;
        facts.set_item("pid", capture.identity.pid)?;
        facts.set_item("main_thread_id", lifecycle.main_thread_id)?;
        facts.set_item("python_allocator", python_allocator(capture))?;
        let native = capture.identity.holds_native_stacks();
        facts.set_item("has_native_traces", native)?;
        let tracing = capture.identity.traces_python_allocators();
        facts.set_item("trace_python_allocators", tracing)?;
        let tracking = capture.identity.tracks_objects();
        facts.set_item("track_object_lifetimes", tracking)?;
        let aggregated = capture.identity.mode == Mode::Aggregated as u32;
        facts.set_item("file_format", u32::from(aggregated))?;
        Ok(facts)
    }

    /// How the program fares, in words.
    fn status(&self, py: Python<'_>) -> String {
        py.detach(|| self.0.capture.liveness().to_string())
    }

    /// What was wrong with the capture and could be worked around.
    fn warnings(&self, py: Python<'_>) -> Vec<String> {
        let source = py.detach(|| self.0.source());
        let warnings = source.profile.warnings.iter();
        warnings.map(ToString::to_string).collect()
    }

    /// Totals and the largest places, by the names of `Stats`.
    fn statistics<'py>(&self, py: Python<'py>, num_largest: usize) -> PyResult<Bound<'py, PyDict>> {
        let source = py.detach(|| self.0.source());
        statistics(py, source, num_largest)
    }

    /// Writes every record as text to a Python file.
    fn write_records(&self, py: Python<'_>, file: &Bound<'_, PyAny>) -> PyResult<()> {
        let source = py.detach(|| self.0.source());
        let liveness = self.0.capture.liveness();
        let mut stream = TextStream::new(file);
        let mut buffered = BufWriter::with_capacity(1 << 16, &mut stream);
        let written = parse_text(
            &self.0.capture,
            &source.profile,
            &liveness,
            ParseOptions::default(),
            &mut buffered,
        );
        let flushed = written.and_then(|()| std::io::Write::flush(&mut buffered));
        drop(buffered);
        match (stream.raised(), flushed) {
            (Some(raised), _) => Err(raised),
            (None, Err(error)) => Err(PyOSError::new_err(error.to_string())),
            (None, Ok(())) => Ok(()),
        }
    }
}

pub(crate) fn command_line(capture: &Capture) -> String {
    capture.metadata.arguments().join(" ")
}

/// In Memray's words.
fn python_allocator(capture: &Capture) -> &'static str {
    match PythonAllocator::from_raw(capture.lifecycle.python_allocator) {
        None | Some(PythonAllocator::Other) => "unknown",
        Some(allocator) => allocator.name(),
    }
}
