//! What may be asked for, and why it cannot be had.

/// How to work a capture out.
#[derive(Default)]
pub struct ProfileOptions<'a> {
    /// A block is temporary when its own thread frees it while at most this many other allocations of that thread
    /// have happened since. `None`: what the capture was recorded with, which is 1 unless it says otherwise.
    pub temporary_threshold: Option<u32>,
    /// Called now and then while events are read.
    pub progress: Option<&'a mut dyn FnMut(Progress)>,
}

/// How to work out the history of a capture.
pub struct TemporalOptions<'a> {
    /// At most this many boundaries; more samples are thinned by a stride. Zero counts as one.
    pub max_records: usize,
    /// Called now and then while events are read.
    pub progress: Option<&'a mut dyn FnMut(Progress)>,
}

impl Default for TemporalOptions<'_> {
    fn default() -> Self {
        Self {
            max_records: 10_000,
            progress: None,
        }
    }
}

/// How far the reading of events is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of event chunks that have been read.
    pub done: u64,
    /// Bytes of all event chunks.
    pub total: u64,
}

/// Why a question has no answer in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Counters were kept for one threshold only.
    #[error(
        "an aggregated capture counts temporary allocations for the threshold it was recorded with ({recorded}), \
         so the threshold {asked} cannot be answered: record without --aggregate"
    )]
    ThresholdNotRecorded {
        /// The threshold that was asked for.
        asked: u32,
        /// The one that the capture has.
        recorded: u32,
    },
    /// The capture does not hold what was allocated in all.
    #[error(
        "the capture was made by Memray with --aggregate: it holds what was live at the peak and at the end, not what was \
         allocated in all or was temporary"
    )]
    TotalsUnknown,
    /// Counters have no history.
    #[error("an aggregated capture has no history of its allocations: record without --aggregate")]
    NoHistory,
}
