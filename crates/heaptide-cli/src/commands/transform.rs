//! `heaptide transform`: Memray's formats for other tools.

use std::io;

use heaptide_report::{gprof2dot_json, speedscope_json, transform_csv};

use super::merge::load_group;
use super::{CaptureArgument, MomentArgument};
use crate::output::FileArguments;
use crate::terminal::Terminal;

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// A table: one line per stack, allocator and thread
    Csv,
    /// JSON that gprof2dot turns into a call graph
    Gprof2dot,
    /// JSON for <https://www.speedscope.app>, which shows it without an upload
    Speedscope,
}

impl Format {
    const fn name_and_suffix(self) -> (&'static str, &'static str) {
        match self {
            Self::Csv => ("csv", "csv"),
            Self::Gprof2dot => ("gprof2dot", "json"),
            Self::Speedscope => ("speedscope", "speedscope.json"),
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Written beside the capture as heaptide-FORMAT-NAME.SUFFIX unless -o says otherwise."
)]
pub(crate) struct Arguments {
    /// The format to write
    #[arg(value_name = "FORMAT")]
    format: Format,
    #[command(flatten)]
    capture: CaptureArgument,
    #[command(flatten)]
    moment: MomentArgument,
    #[command(flatten)]
    output: FileArguments,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let (name, suffix) = arguments.format.name_and_suffix();
    let path = arguments
        .output
        .path(&arguments.capture.path, name, suffix)?;
    let loaded = load_group(&arguments.capture, terminal)?;
    let metric = arguments.moment.metric();
    let profile = &loaded.profile;
    let write = |out: &mut dyn io::Write| match arguments.format {
        Format::Csv => transform_csv(profile, metric, out),
        Format::Gprof2dot => gprof2dot_json(profile, metric, out),
        Format::Speedscope => speedscope_json(&loaded.capture, profile, metric, out),
    };
    let written = arguments.output.write(&path, write)?;
    if let (Format::Gprof2dot, Some(path)) = (arguments.format, written) {
        let path = heaptide_capture::shell_quote(&path.to_string_lossy());
        eprintln!("next: gprof2dot -f json {path} | dot -Tsvg -o heap.svg");
    }
    Ok(())
}
