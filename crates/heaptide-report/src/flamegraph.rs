//! `heaptide flamegraph`: one HTML page that needs no network.

use std::io::{self, Write};

use heaptide_capture::{Capture, Liveness};
use heaptide_engine::{Metric, ProcessHistory, Profile};

use crate::page::{ConfidentialFiles, PageRequest, write_page};
use crate::stats::Part;

/// How many memory samples a page has at most, unless told otherwise; Memray's default.
pub const MAX_MEMORY_RECORDS: usize = 10_000;

/// What the page shows first, and what it has.
#[derive(Clone, Copy, Debug)]
pub struct FlamegraphOptions<'a> {
    /// What is shown first; the others are a click away.
    pub metric: Metric,
    /// Start with where memory was allocated, callers below.
    pub inverted: bool,
    /// Keep threads apart, to choose one in the page.
    pub split_threads: bool,
    /// Of which files no source line may be in the page.
    pub confidential_files: ConfidentialFiles,
    /// How many memory samples the page has at most.
    pub max_memory_records: usize,
    /// The histories of the processes, for pages that take time apart; else empty. Their keys are those of
    /// the profile.
    pub histories: &'a [ProcessHistory],
    /// Of what the figures of the profile are.
    pub part: Part,
    /// The same in words, for the page's notes; empty: of everything.
    pub shown: &'a str,
}

impl Default for FlamegraphOptions<'_> {
    fn default() -> Self {
        Self {
            metric: Metric::Peak,
            inverted: false,
            split_threads: false,
            confidential_files: ConfidentialFiles::Default,
            max_memory_records: MAX_MEMORY_RECORDS,
            histories: &[],
            part: Part::Whole,
            shown: "",
        }
    }
}

/// The page.
///
/// # Errors
/// When writing fails.
pub fn flamegraph_html(
    capture: &Capture,
    profile: &Profile,
    liveness: &Liveness,
    options: FlamegraphOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let request = PageRequest {
        report: "flamegraph",
        capture,
        profile,
        liveness,
        metric: options.metric,
        inverted: options.inverted,
        split_threads: options.split_threads,
        confidential_files: options.confidential_files,
        max_memory_records: options.max_memory_records,
        histories: options.histories,
        part: options.part,
        shown: options.shown,
    };
    write_page(&request, out)
}
