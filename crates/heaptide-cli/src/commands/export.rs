//! `heaptide export`: formats of other profilers.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, stdout};

use heaptide_report::{collapsed_stacks, firefox_json, gzipped, pprof};

use super::written::WrittenArguments;
use crate::failure::Failure;
use crate::terminal::Terminal;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For `go tool pprof` and whatever else reads profile.proto; has every metric
    Pprof,
    /// One stack and its bytes a line, for flame graph scripts
    Collapsed,
    /// For <https://profiler.firefox.com>; has every metric and memory over time
    Firefox,
}

impl Format {
    const fn name_and_suffix(self) -> (&'static str, &'static str) {
        match self {
            Self::Pprof => ("pprof", "pb.gz"),
            Self::Collapsed => ("collapsed", "txt"),
            Self::Firefox => ("firefox", "json.gz"),
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Written beside the capture as heaptide-FORMAT-NAME.SUFFIX unless -o says otherwise. `firefox` is
compressed when FILE ends in .gz; `pprof` always is.

Examples:
  heaptide export pprof app.4711.tide      then: go tool pprof -http=: heaptide-pprof-app.4711.pb.gz
  heaptide export collapsed -o - app.4711.tide | flamegraph.pl --countname bytes > app.svg")]
pub(crate) struct Arguments {
    /// The format to write
    #[arg(value_name = "FORMAT")]
    format: Format,
    #[command(flatten)]
    written: WrittenArguments,
}

/// Whether `export` knows a format of this name.
pub(super) fn is_format(name: &str) -> bool {
    <Format as clap::ValueEnum>::from_str(name, true).is_ok()
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let (name, suffix) = arguments.format.name_and_suffix();
    let written = &arguments.written;
    let path = written.path(name, suffix)?;
    if arguments.format == Format::Pprof && written.output.is_stdout() && stdout().is_terminal() {
        return Err(Failure {
            what: "pprof is not written to a terminal".to_owned(),
            why: Some("it is compressed".to_owned()),
            hint: Some("redirect stdout, or give -o FILE".to_owned()),
        }
        .into());
    }
    let loaded = written.load(terminal)?;
    let metric = written.metric();
    let (capture, profile) = (&loaded.capture, &loaded.profile);
    let compressed = !written.output.is_stdout() && path.extension() == Some(OsStr::new("gz"));
    let write = |out: &mut dyn io::Write| match arguments.format {
        Format::Pprof => pprof(capture, profile, metric, out),
        Format::Collapsed => collapsed_stacks(profile, metric, out),
        Format::Firefox if compressed => {
            gzipped(out, |out| firefox_json(capture, profile, metric, out))
        }
        Format::Firefox => firefox_json(capture, profile, metric, out),
    };
    written.output.write(&path, write)?;
    Ok(())
}
