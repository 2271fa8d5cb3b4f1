//! What was wrong with a capture and could be worked around.

use std::fmt;

/// The kinds of damage and oddity that do not stop a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum WarningKind {
    /// The identity block does not match its checksum.
    DamagedIdentity,
    /// A header field has a value that makes no sense.
    OddHeader,
    /// A segment header is damaged and was skipped.
    DamagedSegment,
    /// The file ends inside a segment.
    TruncatedSegment,
    /// A segment claims more bytes than the file has on disk.
    SparseSegment,
    /// Two segments claim the same record numbers.
    OverlappingSegments,
    /// A kind of segment this version does not know.
    UnknownSegment,
    /// A definition does not match its checksum.
    DamagedDefinition,
    /// The lengths in a stream of definitions do not fit; the rest of that segment is lost.
    BrokenDefinitions,
    /// Two definitions share a number; the first one counts.
    DuplicateDefinition,
    /// A kind of definition this version does not know.
    UnknownDefinition,
    /// A record names one that is not there.
    DanglingReference,
    /// A stack node whose parent does not come before it.
    DamagedNode,
    /// A cell with a kind or allocator that does not exist.
    DamagedCell,
    /// Bytes in a stream of events that are no event, or a piece of it that is missing.
    DamagedEvents,
    /// The program writes faster than it could be read; figures may be off by events in flight.
    InFlight,
    /// A mode this version cannot read.
    UnsupportedMode,
    /// The capture was made by another profiler, and something in it has no place in ours.
    Untranslated,
    /// What was allocated in all and what was temporary is not in the capture.
    TotalsUnknown,
    /// The file that native frames are in cannot be read, so nobody knows what they are called.
    MissingSymbols,
    /// A stack whose native frames could not be put among Python's, which are shown alone.
    PythonFramesAlone,
    /// The interpreter was built without debug information: its native frames have names only.
    NoDebugInformation,
}

impl WarningKind {
    /// A name for machines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DamagedIdentity => "damaged_identity",
            Self::OddHeader => "odd_header",
            Self::DamagedSegment => "damaged_segment",
            Self::TruncatedSegment => "truncated_segment",
            Self::SparseSegment => "sparse_segment",
            Self::OverlappingSegments => "overlapping_segments",
            Self::UnknownSegment => "unknown_segment",
            Self::DamagedDefinition => "damaged_definition",
            Self::BrokenDefinitions => "broken_definitions",
            Self::DuplicateDefinition => "duplicate_definition",
            Self::UnknownDefinition => "unknown_definition",
            Self::DanglingReference => "dangling_reference",
            Self::DamagedNode => "damaged_node",
            Self::DamagedEvents => "damaged_events",
            Self::DamagedCell => "damaged_cell",
            Self::InFlight => "in_flight",
            Self::UnsupportedMode => "unsupported_mode",
            Self::Untranslated => "untranslated",
            Self::TotalsUnknown => "totals_unknown",
            Self::MissingSymbols => "missing_symbols",
            Self::PythonFramesAlone => "python_frames_alone",
            Self::NoDebugInformation => "no_debug_information",
        }
    }
}

/// All occurrences of one [`WarningKind`], so that a hostile file cannot make an endless list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is.
    pub kind: WarningKind,
    /// How often it happened.
    pub count: u64,
    /// File offset of the first occurrence, where there is one.
    pub offset: Option<u64>,
    /// The first occurrence in words.
    pub detail: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        if let Some(offset) = self.offset {
            write!(f, " (at byte {offset})")?;
        }
        match self.count {
            0 | 1 => Ok(()),
            2 => f.write_str(", and once more"),
            more => write!(f, ", and {} times more", more - 1),
        }
    }
}

/// Collects warnings, one entry a kind.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Vec<Warning>);

impl Warnings {
    /// Notes one occurrence; `detail` is only called for the first of its kind.
    pub fn add(&mut self, kind: WarningKind, offset: Option<u64>, detail: impl FnOnce() -> String) {
        match self.0.iter_mut().find(|warning| warning.kind == kind) {
            Some(warning) => warning.count += 1,
            None => self.0.push(Warning {
                kind,
                count: 1,
                offset,
                detail: detail(),
            }),
        }
    }

    /// Adds those of another list.
    pub fn append(&mut self, other: Self) {
        for warning in other.0 {
            match self.0.iter_mut().find(|known| known.kind == warning.kind) {
                Some(known) => known.count += warning.count,
                None => self.0.push(warning),
            }
        }
    }

    /// The collected warnings, in the order of their first occurrence.
    #[must_use]
    pub fn into_vec(self) -> Vec<Warning> {
        self.0
    }
}

impl From<Vec<Warning>> for Warnings {
    fn from(warnings: Vec<Warning>) -> Self {
        Self(warnings)
    }
}
