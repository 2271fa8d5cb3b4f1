//! What is known of a program whose records somebody has chosen, as a capture without any.

use heaptide_capture::{Capture, Metadata};
use heaptide_format::{
    FORMAT_VERSION, HEADER_BYTES, Header, MAGIC, MetadataKey, Mode, PYTHON_ALLOCATORS,
    PythonAllocator, Sample, State,
};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use zerocopy::{FromZeros, IntoBytes};

pub(crate) const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;
const PAGE_BYTES: u32 = 4096;

/// Facts about the run, by the names of `Metadata`.
#[derive(FromPyObject)]
pub(crate) struct Facts {
    pub(crate) command_line: String,
    pid: u32,
    main_thread_id: u64,
    python_allocator: String,
    trace_python_allocators: bool,
}

/// Milliseconds since the epoch, resident bytes and heap bytes.
pub(crate) type Snapshot = (u64, u64, u64);

/// A capture of nothing but what the facts say. `ms`: when tracking began and ended.
pub(crate) fn capture_of(
    facts: &Facts,
    ms: (u64, u64),
    aggregated: bool,
    snapshots: &[Snapshot],
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
