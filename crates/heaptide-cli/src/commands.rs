//! The subcommands, one module each.

mod completions;
mod export;
mod flamegraph;
mod merge;
mod moment;
mod parse;
mod run;
mod selection;
mod stats;
mod summary;
mod table;
mod transform;
mod tree;
mod written;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use heaptide_capture::{Capture, Error as CaptureError, Liveness};
use heaptide_engine::{EngineError, Profile, ProfileOptions, Temporal};
use heaptide_memray::Error;
use heaptide_report::{status_lines, visible};

pub(crate) use self::moment::MomentArgument;
pub(crate) use self::selection::SelectionArguments;
use crate::failure::Failure;
use crate::progress::ProgressLine;
use crate::terminal::Terminal;

/// One variant a subcommand, in the order of the help.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a Python program and record its memory
    Run(run::Arguments),
    /// Totals, allocation sizes, allocators and the largest locations
    Stats(stats::Arguments),
    /// Memory per function, in a table
    Summary(summary::Arguments),
    /// Who called whom, and what that holds: full screen in a terminal, else as text
    Tree(tree::Arguments),
    /// One HTML page that shows which calls hold the memory; it needs no network
    Flamegraph(flamegraph::Arguments),
    /// The processes of a program that has several, and the peak of all of them together
    Merge(merge::Arguments),
    /// One HTML page with a table of what was allocated where; it sorts, filters and needs no network
    Table(table::Arguments),
    /// Write a capture as csv, gprof2dot or speedscope
    Transform(transform::Arguments),
    /// Write a capture as pprof, collapsed stacks or Firefox profile
    Export(export::Arguments),
    /// Print every record of a capture
    Parse(parse::Arguments),
    /// Print a script that has a shell complete commands and options
    Completions(completions::Arguments),
}

impl Command {
    pub(crate) fn run(self, terminal: &Terminal) -> anyhow::Result<ExitCode> {
        match self {
            // The exit code is the program's own.
            Self::Run(arguments) => return Ok(run::run(&arguments, terminal)),
            Self::Stats(arguments) => stats::run(&arguments, terminal)?,
            Self::Summary(arguments) => summary::run(&arguments, terminal)?,
            Self::Tree(arguments) => tree::run(&arguments, terminal)?,
            Self::Flamegraph(arguments) => flamegraph::run(&arguments, terminal)?,
            Self::Merge(arguments) => merge::run(&arguments, terminal)?,
            Self::Table(arguments) => table::run(&arguments, terminal)?,
            Self::Transform(arguments) => transform::run(&arguments, terminal)?,
            Self::Export(arguments) => export::run(&arguments, terminal)?,
            Self::Parse(arguments) => parse::run(&arguments, terminal)?,
            Self::Completions(arguments) => completions::run(&arguments)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The capture that a report is made of.
#[derive(Debug, clap::Args)]
pub(crate) struct CaptureArgument {
    /// The capture, at any moment: finished, still written, or left behind by a killed program
    #[arg(value_name = "CAPTURE")]
    pub(crate) path: PathBuf,
    /// Captures of further processes; all are shown as one. A directory stands for the captures in it
    #[arg(value_name = "MORE")]
    pub(crate) more: Vec<PathBuf>,
    /// Of several captures, show the one of this process
    #[arg(long, value_name = "PID")]
    pub(crate) process: Option<u32>,
}

/// A capture and what was made of it.
pub(crate) struct Loaded {
    pub(crate) capture: Capture,
    pub(crate) profile: Profile,
    pub(crate) liveness: Liveness,
    /// Which part of the capture the profile is of, in words; empty: all of it.
    pub(crate) shown: String,
}

/// Reads a capture and says on stderr in which state it is.
pub(crate) fn load(
    path: &Path,
    temporary_threshold: Option<u32>,
    terminal: &Terminal,
) -> anyhow::Result<Loaded> {
    let loaded = open(path, temporary_threshold)?;
    tell(&loaded, terminal);
    Ok(loaded)
}

/// As [`open`], with the capture's history, in one pass over its events. `failure` says why there is none.
fn open_with_history(
    path: &Path,
    max_records: usize,
    failure: impl Fn(&Capture, &EngineError) -> Failure,
) -> anyhow::Result<(Loaded, Temporal)> {
    let mut capture = heaptide_memray::open(path).map_err(|error| failure_of(path, &error))?;
    let liveness = capture.liveness();
    let mut line = ProgressLine::new("reading events");
    let mut report = |progress| line.report(progress);
    let options = ProfileOptions {
        progress: Some(&mut report),
        ..ProfileOptions::default()
    };
    let (profile, temporal) = Profile::with_history(&capture, options, max_records)
        .map_err(|error| failure(&capture, &error))?;
    drop(line);
    profile.complete(&mut capture);
    let loaded = Loaded {
        capture,
        profile,
        liveness,
        shown: String::new(),
    };
    Ok((loaded, temporal))
}

/// Why there is no temporal report.
pub(crate) fn no_history(error: &EngineError) -> Failure {
    Failure {
        what: "cannot make a temporal flame graph".to_owned(),
        why: Some(error.to_string()),
        hint: Some("leave out --temporal".to_owned()),
    }
}

/// Says on stderr in which state a capture is.
fn tell(loaded: &Loaded, terminal: &Terminal) {
    let Loaded {
        capture,
        profile,
        liveness,
        ..
    } = loaded;
    for line in status_lines(capture, profile, liveness) {
        let line = visible(&line).into_owned();
        let line = match line.strip_prefix("warning:") {
            Some(rest) => format!("{}{rest}", terminal.stderr_style("33", "warning:")),
            None => line,
        };
        eprintln!("heaptide: {line}");
    }
    if terminal.verbose > 0 {
        eprintln!(
            "heaptide: {} segments, {} stack nodes, {} cells, {} threads, {} bytes",
            capture.segments.len(),
            capture.nodes.len(),
            capture.cells.len(),
            capture.threads.len(),
            capture.file_bytes
        );
    }
}

/// Reads a capture and says nothing.
pub(crate) fn open(path: &Path, temporary_threshold: Option<u32>) -> anyhow::Result<Loaded> {
    let mut capture = heaptide_memray::open(path).map_err(|error| failure_of(path, &error))?;
    let liveness = capture.liveness();
    let mut line = ProgressLine::new("reading events");
    let mut report = |progress| line.report(progress);
    let options = ProfileOptions {
        temporary_threshold,
        progress: Some(&mut report),
    };
    let profile = Profile::with(&capture, options).map_err(|error| Failure {
        what: format!("{} cannot answer this", path.display()),
        why: Some(error.to_string()),
        hint: None,
    })?;
    drop(line);
    profile.complete(&mut capture);
    Ok(Loaded {
        capture,
        profile,
        liveness,
        shown: String::new(),
    })
}

fn failure_of(path: &Path, error: &Error) -> Failure {
    let hint = match error {
        Error::Read { .. } => "check the path and its permissions",
        Error::NotMemray { .. } => "name a file that `heaptide run` or `memray run` has written",
        Error::Version { .. } => "read it with the Memray that made it",
        Error::Temporary { .. } => "set TMPDIR to a directory with room",
        Error::Capture(error) => hint_of(error),
        _ => "the file may be damaged; copy it again from where it was made",
    };
    Failure {
        what: format!("cannot read {}", path.display()),
        why: Some(error.to_string()),
        hint: Some(hint.to_owned()),
    }
}

const fn hint_of(error: &CaptureError) -> &'static str {
    match error {
        CaptureError::Open { .. } | CaptureError::Read { .. } => {
            "check the path and its permissions"
        }
        CaptureError::NotAFile { .. } | CaptureError::NotACapture { .. } => {
            "name a file that `heaptide run` or `memray run` has written"
        }
        CaptureError::Empty { .. } | CaptureError::TruncatedHeader { .. } => {
            "copy the capture again, whole"
        }
        CaptureError::NewerVersion { .. } | CaptureError::UnknownFeatures { .. } => {
            "read it with a newer heaptide"
        }
        _ => "the file may be damaged; copy it again from where it was made",
    }
}
