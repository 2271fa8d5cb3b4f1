//! `heaptide parse`

use std::io::{IsTerminal, stdout};

use heaptide_report::{ParseOptions, parse_json, parse_text};

use super::CaptureArgument;
use super::merge::load_one;
use crate::failure::Failure;
use crate::output::write_stdout;
use crate::terminal::Terminal;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  heaptide parse app.4711.tide | less
  heaptide parse --json app.4711.tide | jq 'select(.record == \"warning\")'")]
pub(crate) struct Arguments {
    #[command(flatten)]
    capture: CaptureArgument,
    /// Print one JSON object a line (schema: docs/json.md)
    #[arg(long)]
    json: bool,
    /// Print at most N innermost frames of a stack
    #[arg(long, value_name = "N", default_value_t = ParseOptions::default().max_stack_frames)]
    max_stack_frames: usize,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    if stdout().is_terminal() {
        return Err(Failure {
            what: "parse does not print to a terminal".to_owned(),
            why: Some("its output has a line for every record".to_owned()),
            hint: Some("You must redirect stdout to a file or shell pipeline.".to_owned()),
        }
        .into());
    }
    let loaded = load_one(&arguments.capture, terminal)?;
    let options = ParseOptions {
        max_stack_frames: arguments.max_stack_frames,
    };
    let report = if arguments.json {
        parse_json
    } else {
        parse_text
    };
    write_stdout(|out| {
        report(
            &loaded.capture,
            &loaded.profile,
            &loaded.liveness,
            options,
            out,
        )
    })
}
