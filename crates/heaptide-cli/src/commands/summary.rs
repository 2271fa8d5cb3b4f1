//! `heaptide summary`

use heaptide_report::{SummaryColumn, SummaryOptions, TextOptions, summary_json, summary_text};

use super::merge::load_selected;
use super::{CaptureArgument, MomentArgument, SelectionArguments};
use crate::output::OutputArguments;
use crate::terminal::Terminal;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  heaptide summary app.4711.tide                     what was held at the peak, largest first
  heaptide summary --leaks -s own -r 20 app.4711.tide
  heaptide summary --json --split-threads app.4711.tide | jq .rows")]
pub(crate) struct Arguments {
    #[command(flatten)]
    capture: CaptureArgument,
    #[command(flatten)]
    moment: MomentArgument,
    #[command(flatten)]
    selection: SelectionArguments,
    /// Sort by a column: 1 total, 2 its share, 3 own, 4 its share, 5 count; or total, own, count, location
    #[arg(short, long, value_name = "COLUMN", default_value = "1", value_parser = sort_column)]
    sort_column: SummaryColumn,
    /// Show at most N rows [default: what fits the terminal, all in a pipe]
    #[arg(short = 'r', long, value_name = "N")]
    max_rows: Option<usize>,
    /// A row per thread instead of all threads together
    #[arg(long)]
    split_threads: bool,
    /// Print JSON (schema: docs/json.md)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    output: OutputArguments,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let loaded = load_selected(
        &arguments.capture,
        &arguments.selection,
        Some(&arguments.moment),
        terminal,
    )?;
    let to_terminal = !arguments.json && arguments.output.is_stdout();
    let fitting = if to_terminal {
        Terminal::rows_that_fit()
    } else {
        None
    };
    let options = SummaryOptions {
        metric: arguments.moment.metric(),
        sort: arguments.sort_column,
        max_rows: arguments.max_rows.or(fitting).unwrap_or(usize::MAX),
        split_threads: arguments.split_threads,
        ..SummaryOptions::default()
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

/// A column by Memray's number or by its name.
fn sort_column(text: &str) -> Result<SummaryColumn, String> {
    let column = match text.parse() {
        Ok(number) => SummaryColumn::from_number(number),
        Err(_) => SummaryColumn::from_name(text),
    };
    column.ok_or_else(|| "give 1 to 5, or total, own, count or location".to_owned())
}
