//! Opens, validates and salvages heaptide captures.
//!
//! A capture may be read at any moment: while the program writes it, after any death, cut off
//! anywhere, with any bits flipped. [`Capture::open`] gives a result or a clear [`Error`]; whatever
//! could be worked around is a [`Warning`] in the result.
//!
//! **Invariants.** The file is read by positioned reads and never mapped, so a file that shrinks
//! meanwhile is a short read and not a SIGBUS. Every value is copied, checked and only then used.
//! Memory is bounded by what the file occupies on disk, not by what its headers claim.
//!
//! Events are not held: [`Capture::events`] reads them again whenever they are wanted.
#![forbid(unsafe_code)]

mod ahead;
mod batch;
mod chunks;
mod definitions;
mod error;
mod events;
mod fingerprint;
mod liveness;
mod node_streams;
mod packing;
mod process;
mod reader;
mod record_blocks;
mod records;
mod rewrite;
mod segments;
mod signal;
mod source;
mod symbols;
mod table;
mod text;
mod warning;

use std::fs::File;
use std::path::{Path, PathBuf};

use heaptide_format::{
    Cell, HeapWord, Identity, Lifecycle, Module, NativeNode, Node, OwnCost, Sample, Slot, Survivor,
    Thread,
};

pub use chunks::{EventChunk, EventLog, InBlock};
pub use definitions::{Code, CodeFixedFields, Definitions, Metadata};
pub use error::Error;
pub use events::{EventOrder, EventVisitor, PlacedEvent};
pub use liveness::{DeathCause, Ending, Liveness};
pub use process::{ProcessState, process_state};
pub use rewrite::{RewriteError, Rewritten, rewrite};
pub use segments::{SegmentSummary, spare_room};
pub use signal::signal_name;
pub use source::Source;
pub use symbols::{NativeSymbol, Symbols};
pub use table::Table;
pub use text::{Text, bytes_text, escape_bytes, shell_quote};
pub use warning::{Warning, WarningKind, Warnings};

/// The largest file of mode "aggregated" that is read. Such captures grow with the number of distinct stacks, so
/// anything beyond this is not one.
pub const LARGEST_FILE_BYTES: u64 = 4 << 30;

/// Everything that could be read from a capture.
#[derive(Debug)]
pub struct Capture {
    /// Where the capture was read from, for messages.
    pub path: PathBuf,
    /// Length of the file when it was read.
    pub file_bytes: u64,
    /// Who wrote the file.
    pub identity: Identity,
    /// What happens to the process and to the tracking.
    pub lifecycle: Lifecycle,
    /// The heap as a whole.
    pub heap: HeapWord,
    /// What the profiler used and what it left out.
    pub own: OwnCost,
    /// Facts about the run.
    pub metadata: Metadata,
    /// Strings and code objects, by number.
    pub definitions: Definitions,
    /// Stack nodes, by number.
    pub nodes: Table<Node>,
    /// Loaded objects that native frames are in, by number.
    pub modules: Table<Module>,
    /// Nodes of native stacks, by number.
    pub native_nodes: Table<NativeNode>,
    /// What the native frames are called. Nothing, until somebody has looked into the modules' files.
    pub symbols: Symbols,
    /// Counters, by number.
    pub cells: Table<Cell>,
    /// Threads, by number.
    pub threads: Table<Thread>,
    /// Per-thread counters, by number.
    pub slots: Table<Slot>,
    /// Memory over time, sorted, equal times dropped.
    pub samples: Vec<Sample>,
    /// Python objects that were alive when tracking ended, by number; `None`: the capture does not say, which is so until
    /// tracking has ended as it should. See [`Identity::tracks_objects`].
    pub survivors: Option<Table<Survivor>>,
    /// The segments that were found, in file order.
    pub segments: Vec<SegmentSummary>,
    /// Where the events are (mode "all").
    pub events: EventLog,
    /// What was wrong with the file and could be worked around.
    pub warnings: Vec<Warning>,
}

impl Capture {
    /// Reads the capture at `path`.
    ///
    /// # Errors
    /// When there is nothing to read or nothing that this version understands.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let source = source::FileSource::open(path)?;
        let mut capture = reader::read_capture(&source, path)?;
        capture.attach_events(source);
        Ok(capture)
    }

    /// Reads the capture in an open file; `name` stands for the path in messages.
    ///
    /// # Errors
    /// As [`Capture::open`].
    pub fn from_file(file: File, name: impl AsRef<Path>) -> Result<Self, Error> {
        let source = source::FileSource::from(file);
        let mut capture = reader::read_capture(&source, name.as_ref())?;
        capture.attach_events(source);
        Ok(capture)
    }

    /// Reads a capture from memory; `name` stands for the path in messages.
    ///
    /// # Errors
    /// As [`Capture::open`].
    pub fn from_bytes(bytes: &[u8], name: impl AsRef<Path>) -> Result<Self, Error> {
        let mut capture = reader::read_capture(&source::BytesSource(bytes), name.as_ref())?;
        if capture.holds_events() {
            capture.attach_events(source::OwnedSource(bytes.to_vec()));
        }
        Ok(capture)
    }

    /// Reads the capture of counters that `source` has; `name` stands for the path in messages. Of a capture of every event
    /// the events are left out.
    ///
    /// # Errors
    /// As [`Capture::open`].
    pub fn from_source(source: &dyn Source, name: impl AsRef<Path>) -> Result<Self, Error> {
        reader::read_capture(source, name.as_ref())
    }

    /// Is every event in the capture, rather than counters?
    #[must_use]
    pub fn holds_events(&self) -> bool {
        self.identity.mode == heaptide_format::Mode::All as u32
    }

    fn attach_events(&mut self, source: impl source::Source + 'static) {
        if self.holds_events() {
            let mut warnings = Warnings::default();
            self.events = EventLog::new(Box::new(source), &self.segments, &mut warnings);
            self.warnings.append(&mut warnings.into_vec());
        }
    }

    /// How the program fares, asking `/proc` when the capture does not say how it ended.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        self.liveness_given(|| process_state(&self.identity))
    }

    /// As [`Capture::liveness`], with the answer of the process table given by the caller.
    #[must_use]
    pub fn liveness_given(&self, probe: impl FnOnce() -> ProcessState) -> Liveness {
        let limit = self
            .samples
            .last()
            .map_or(0, |sample| sample.cgroup_limit_bytes);
        liveness::decide(&self.lifecycle, limit, probe)
    }

    /// Bytes of the tracked heap that are live.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.heap.peak_bytes.saturating_sub(self.heap.headroom)
    }
}
