//! `RecordSums`: what records say that somebody has chosen, as something that reports can be made of.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use heaptide_capture::{Capture, Ending, Liveness, Metadata};
use heaptide_engine::{Amount, Figures, FrameId, Metric, Position, Profile, Sums};
use heaptide_format::{
    Allocator, FORMAT_VERSION, HEADER_BYTES, Header, MAGIC, MetadataKey, Mode, PYTHON_ALLOCATORS,
    PythonAllocator, Sample, State,
};
use heaptide_report::{
    ConfidentialFiles, FlamegraphOptions, MAX_MEMORY_RECORDS, Part, TableOptions, flamegraph_html,
    table_html,
};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use zerocopy::{FromZeros, IntoBytes};

use crate::allocation_record::is_deallocation;

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;
const PAGE_BYTES: u32 = 4096;

/// Sums of records of any class that has what those of `AllocationRecord` have.
#[pyclass(frozen, module = "heaptide._heaptide")]
pub(crate) struct RecordSums {
    /// Held only for moments in which no Python runs.
    sums: Mutex<OneMetric>,
}

/// A profile that has amounts of one metric; which it is, whoever chose the records says with each page.
struct OneMetric {
    profile: Profile,
    metric: Metric,
}

impl OneMetric {
    /// The amounts are those of `metric`, which is the peak or what is live.
    fn as_of(&mut self, metric: Metric) -> &Profile {
        if self.metric != metric {
            let entries = self.profile.entries.iter_mut();
            let figures = entries.map(|entry| &mut entry.figures);
            for figures in figures.chain([&mut self.profile.totals.figures]) {
                std::mem::swap(&mut figures.peak, &mut figures.live);
            }
            self.metric = metric;
        }
        &self.profile
    }
}

/// Facts about the run, by the names of `Metadata`.
#[derive(FromPyObject)]
struct Facts {
    command_line: String,
    pid: u32,
    main_thread_id: u64,
    python_allocator: String,
    trace_python_allocators: bool,
}

#[pymethods]
impl RecordSums {
    /// Adds up records; `stacks` is the name of their method that gives a stack, the innermost frame first.
    #[new]
    fn new(records: &Bound<'_, PyAny>, stacks: &Bound<'_, PyString>) -> PyResult<Self> {
        let mut sums = Sums::new();
        let mut frames = Frames::default();
        let mut stack = Vec::new();
        for record in records.try_iter()? {
            let record = record?;
            stack.clear();
            for frame in record.call_method0(stacks)?.try_iter()? {
                stack.push(frames.number(&mut sums, frame?)?);
            }
            let amount = Amount {
                count: record.getattr("n_allocations")?.extract()?,
                bytes: record.getattr("size")?.extract()?,
            };
            let number: i64 = record.getattr("tid")?.extract()?;
            let name: String = record.getattr("thread_name")?.extract()?;
            let thread = sums.thread(u32::try_from(number).unwrap_or(0), &name);
            let figures = Figures {
                peak: amount,
                ..Figures::default()
            };
            let stack = sums.stack(stack.iter().rev().copied());
            sums.add(stack, allocator(&record)?, thread, &figures);
        }
        let sums = OneMetric {
            profile: sums.finish(),
            metric: Metric::Peak,
        };
        Ok(Self {
            sums: Mutex::new(sums),
        })
    }

    /// A page as text. `report`: `flamegraph` or `table`; `start_ms`, `end_ms`: of tracking, milliseconds since the epoch;
    /// `snapshots`: milliseconds since the epoch, resident bytes and heap bytes.
    #[pyo3(signature = (report, metadata, *, start_ms, end_ms, aggregated, snapshots, leaks, inverted, split_threads, confidential_files))]
    #[expect(
        clippy::too_many_arguments,
        reason = "they are keywords, named by the only caller"
    )]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "what comes from Python comes as values"
    )]
    fn page(
        &self,
        py: Python<'_>,
        report: &str,
        metadata: Facts,
        start_ms: u64,
        end_ms: u64,
        aggregated: bool,
        snapshots: Vec<(u64, u64, u64)>,
        leaks: bool,
        inverted: bool,
        split_threads: bool,
        confidential_files: &str,
    ) -> PyResult<String> {
        let confidential_files = match confidential_files {
            "all" => ConfidentialFiles::All,
            "none" => ConfidentialFiles::None,
            "default" => ConfidentialFiles::Default,
            other => {
                let text = format!("confidential_files is all, none or default, and not {other}");
                return Err(PyValueError::new_err(text));
            }
        };
        let metric = if leaks { Metric::Live } else { Metric::Peak };
        let capture = capture_of(&metadata, (start_ms, end_ms), aggregated, &snapshots)?;
        let page = py.detach(|| {
            let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
            let profile = sums.as_of(metric);
            let mut page = Vec::new();
            let ending = Ending::Unseen;
            let liveness = Liveness::Finished { ending };
            let part = Part::Records;
            if report == "table" {
                let options = TableOptions {
                    metric,
                    split_threads,
                    confidential_files,
                    part,
                    shown: "",
                };
                table_html(&capture, profile, &liveness, options, &mut page)?;
            } else {
                let options = FlamegraphOptions {
                    metric,
                    inverted,
                    split_threads,
                    confidential_files,
                    max_memory_records: MAX_MEMORY_RECORDS,
                    histories: &[],
                    part,
                    shown: "",
                };
                flamegraph_html(&capture, profile, &liveness, options, &mut page)?;
            }
            String::from_utf8(page).map_err(io::Error::other)
        });
        page.map_err(|error| PyOSError::new_err(error.to_string()))
    }
}

/// By its `AllocatorType`; records of other classes may have none.
fn allocator(record: &Bound<'_, PyAny>) -> PyResult<Allocator> {
    let Some(number) = record.getattr_opt("allocator")? else {
        return Ok(Allocator::Malloc);
    };
    let number: u8 = number.extract()?;
    let known = Allocator::from_raw(number.into()).filter(|_| !is_deallocation(number));
    known.ok_or_else(|| PyValueError::new_err(format!("{number} is no allocator of a record")))
}

/// Frames that were seen. Most come again and again as the same object.
#[derive(Default)]
struct Frames(HashMap<usize, (Py<PyAny>, FrameId)>);

impl Frames {
    fn number(&mut self, sums: &mut Sums, frame: Bound<'_, PyAny>) -> PyResult<FrameId> {
        // What is kept alive has an address of its own.
        let address = frame.as_ptr() as usize;
        if let Some(&(_, number)) = self.0.get(&address) {
            return Ok(number);
        }
        let (function, file, line): (Bound<'_, PyString>, Bound<'_, PyString>, i32) =
            frame.extract()?;
        let function = function.to_string_lossy();
        let mut position = Position::of_line(line);
        let mut qualified_name = function.clone();
        let named;
        if !frame.is_exact_instance_of::<PyTuple>()
            && let Some(name) = frame.getattr_opt("qualified_name")?
        {
            named = name.cast_into::<PyString>()?;
            qualified_name = named.to_string_lossy();
            let end_line: Option<i32> = frame.getattr("end_line")?.extract()?;
            position.end_line = end_line.unwrap_or(0);
            position.column = frame.getattr("column")?.extract()?;
            position.end_column = frame.getattr("end_column")?.extract()?;
        }
        let file = file.to_string_lossy();
        let number = sums.frame(&function, &file, &qualified_name, position);
        self.0.insert(address, (frame.unbind(), number));
        Ok(number)
    }
}

/// A capture of nothing but what the facts say. `ms`: when tracking began and ended.
fn capture_of(
    facts: &Facts,
    ms: (u64, u64),
    aggregated: bool,
    snapshots: &[(u64, u64, u64)],
) -> PyResult<Capture> {
    let nanoseconds = |ms: u64| ms.saturating_mul(NANOSECONDS_PER_MILLISECOND);
    let mut header = Header::new_zeroed();
    let identity = &mut header.identity;
    identity.magic = MAGIC;
    identity.version = FORMAT_VERSION;
    identity.header_bytes = HEADER_BYTES as u32;
    identity.page_bytes = PAGE_BYTES;
    let mode = if aggregated {
        Mode::Aggregated
    } else {
        Mode::All
    };
    identity.mode = mode as u32;
    identity.pid = facts.pid;
    identity.created_unix_ns = nanoseconds(ms.0);
    identity.sample_weight = 1;
    if facts.trace_python_allocators {
        identity.options |= PYTHON_ALLOCATORS;
    }
    identity.checksum = identity.expected_checksum();
    let lifecycle = &mut header.lifecycle;
    lifecycle.state = State::Finished as u32;
    lifecycle.main_thread_id = u32::try_from(facts.main_thread_id).unwrap_or(0);
    lifecycle.python_allocator = python_allocator(&facts.python_allocator);
    lifecycle.tracking_start_unix_ns = nanoseconds(ms.0);
    lifecycle.tracking_end_unix_ns = nanoseconds(ms.1);
    lifecycle.allocated_end = HEADER_BYTES as u64;
    let capture = Capture::from_bytes(header.as_bytes(), "records");
    let mut capture = capture.map_err(|error| PyOSError::new_err(error.to_string()))?;
    // Arguments are in one line in the facts; where one had a blank in it, it comes apart.
    let arguments = facts.command_line.replace(' ', "\0").into_bytes();
    capture.metadata = Metadata::from_iter([(MetadataKey::CommandLine, arguments)]);
    capture.warnings.clear();
    let samples = snapshots.iter().map(|&(time_ms, resident, heap)| Sample {
        unix_ns: nanoseconds(time_ms),
        resident_bytes: resident,
        heap_bytes: heap,
        ..Sample::default()
    });
    capture.samples = samples.collect();
    capture.samples.sort_by_key(|sample| sample.unix_ns);
    Ok(capture)
}

fn python_allocator(name: &str) -> u32 {
    let known = (0..=u32::from(u8::MAX)).filter_map(PythonAllocator::from_raw);
    let mut named = known.filter(|allocator| allocator.name() == name);
    named.next().map_or(0, |allocator| allocator as u32)
}
