//! `heaptide stats`

use std::io::{IsTerminal, stdout};

use heaptide_engine::EngineError;
use heaptide_report::{StatsOptions, stats_json, stats_text};

use super::merge::load_selected;
use super::{CaptureArgument, SelectionArguments};
use crate::failure::Failure;
use crate::output::{OutputArguments, beside};
use crate::terminal::Terminal;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  heaptide stats app.4711.tide
  heaptide stats -n 20 --thread worker-1 app.4711.tide
  heaptide stats --between 10 50% app.4711.tide      from second 10 to half of the run
  heaptide stats --json app.4711.tide | jq .metadata.peak_memory")]
pub(crate) struct Arguments {
    #[command(flatten)]
    capture: CaptureArgument,
    #[command(flatten)]
    selection: SelectionArguments,
    /// How many of the largest locations to show
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    num_largest: u32,
    /// JSON (schema: docs/json.md); without -o and a pipe it becomes heaptide-stats-CAPTURE.json
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    output: OutputArguments,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let output = output_of(arguments);
    output.check(&arguments.capture.path)?;
    let loaded = load_selected(&arguments.capture, &arguments.selection, None, terminal)?;
    if !loaded.capture.identity.knows_totals() {
        return Err(Failure {
            what: format!("{} has no statistics", arguments.capture.path.display()),
            why: Some(EngineError::TotalsUnknown.to_string()),
            hint: Some("see `heaptide summary`, `tree`, `table` or `flamegraph`".to_owned()),
        }
        .into());
    }
    let options = StatsOptions {
        num_largest: arguments.num_largest as usize,
        part: arguments.selection.part(),
    };
    let report = if arguments.json {
        stats_json
    } else {
        stats_text
    };
    output.write(|out| {
        report(
            &loaded.capture,
            &loaded.profile,
            &loaded.liveness,
            options,
            out,
        )
    })
}

/// JSON that nobody reads from a pipe becomes a file, as in Memray.
fn output_of(arguments: &Arguments) -> OutputArguments {
    let mut output = arguments.output.clone();
    if arguments.json && output.output.is_none() && stdout().is_terminal() {
        let capture = &arguments.capture.path;
        let name = capture.file_name().unwrap_or_default();
        output.output = Some(beside(capture, "stats", &name.to_string_lossy(), "json"));
    }
    output
}
