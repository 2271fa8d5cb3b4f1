//! `heaptide stats`

use heaptide_report::{StatsOptions, stats_json, stats_text};

use super::CaptureArgument;
use super::merge::load_group;
use crate::output::OutputArguments;
use crate::terminal::Terminal;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    capture: CaptureArgument,
    /// How many of the largest locations to show
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    num_largest: u32,
    /// Print JSON (schema: docs/json.md)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    output: OutputArguments,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let loaded = load_group(&arguments.capture, terminal)?;
    let options = StatsOptions {
        num_largest: arguments.num_largest as usize,
    };
    let report = if arguments.json {
        stats_json
    } else {
        stats_text
    };
    arguments.output.write(|out| {
        report(
            &loaded.capture,
            &loaded.profile,
            &loaded.liveness,
            options,
            out,
        )
    })
}
