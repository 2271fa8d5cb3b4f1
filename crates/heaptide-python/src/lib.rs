//! The native half of the Python package: thin classes over the engine.
//!
//! What is Python's own business (destinations, enumerations, data classes, the context manager) is in
//! `python/heaptide`; here is what has to be fast or needs the engine. Work that takes long lets the GIL go.
//! `unsafe` is in `tracking.rs` and `arrow/interface.rs` alone.
#![deny(unsafe_code)]

mod allocation_record;
mod arrow;
mod errors;
mod facts;
mod frames;
mod iterate;
mod live;
mod reader;
mod record_history;
mod record_reading;
mod record_sums;
mod rows;
mod source;
mod statistics;
mod symbolic_support;
mod temporal_record;
mod text_stream;
mod tracked_object_record;
mod tracking;

use pyo3::prelude::*;

/// Not for users: the package's modules give its names out.
///
/// Sound without the GIL: what several threads may have at once is frozen or behind a lock, iterators refuse a second thread while one is in them,
/// and the agent wants no more than a thread that is attached to the interpreter.
#[pymodule(gil_used = false)]
mod _heaptide {
    #[pymodule_export]
    use super::allocation_record::AllocationRecord;
    #[pymodule_export]
    use super::arrow::ArrowTable;
    #[pymodule_export]
    use super::iterate::{RecordIterator, TemporalIterator};
    #[pymodule_export]
    use super::live::LiveReader;
    #[pymodule_export]
    use super::reader::CaptureReader;
    #[pymodule_export]
    use super::record_sums::RecordSums;
    #[pymodule_export]
    use super::symbolic_support::symbolic_support;
    #[pymodule_export]
    use super::temporal_record::TemporalAllocationRecord;
    #[pymodule_export]
    use super::tracked_object_record::{ObjectIterator, TrackedObjectRecord};
    #[pymodule_export]
    use super::tracking::Tracking;

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
