//! `heaptide summary`

use heaptide_report::{SummaryColumn, SummaryOptions, TextOptions, summary_json, summary_text};

use super::merge::load_group;
use super::{CaptureArgument, MomentArgument};
use crate::output::OutputArguments;
use crate::terminal::Terminal;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    capture: CaptureArgument,
    #[command(flatten)]
    moment: MomentArgument,
    /// Sort by column N: 1 total, 2 its share, 3 own, 4 its share, 5 count
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    sort_column: u8,
    /// Show at most N rows [default: what fits the terminal, all in a pipe]
    #[arg(short = 'r', long, value_name = "N")]
    max_rows: Option<usize>,
    /// Print JSON (schema: docs/json.md)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    output: OutputArguments,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let loaded = load_group(&arguments.capture, terminal)?;
    let to_terminal = !arguments.json && arguments.output.is_stdout();
    let fitting = if to_terminal {
        Terminal::rows_that_fit()
    } else {
        None
    };
    let options = SummaryOptions {
        metric: arguments.moment.metric(),
        sort: SummaryColumn::from_number(arguments.sort_column).unwrap_or(SummaryColumn::Total),
        max_rows: arguments.max_rows.or(fitting).unwrap_or(usize::MAX),
    };
    let text = TextOptions {
        color: to_terminal && terminal.stdout_color,
        unicode: terminal.unicode,
    };
    arguments.output.write(|out| {
        if arguments.json {
            summary_json(&loaded.profile, options, out)
        } else {
            summary_text(&loaded.profile, options, text, out)
        }
    })
}
