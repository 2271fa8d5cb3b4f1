//! `heaptide table`

use heaptide_report::{ConfidentialFiles, TableOptions, table_html, table_json};

use super::merge::load_selected;
use super::{CaptureArgument, MomentArgument, SelectionArguments};
use crate::output::{FileArguments, write_stdout};
use crate::terminal::Terminal;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  heaptide table --leaks app.4711.tide
  heaptide table --split-threads --json app.4711.tide > table.json")]
pub(crate) struct Arguments {
    #[command(flatten)]
    capture: CaptureArgument,
    #[command(flatten)]
    moment: MomentArgument,
    #[command(flatten)]
    selection: SelectionArguments,
    /// A row per thread instead of all threads together
    #[arg(long)]
    split_threads: bool,
    /// Accepted for Memray's sake: the page never needs the network
    #[arg(long)]
    no_web: bool,
    /// Print JSON instead of a page (schema: docs/json.md)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    output: FileArguments,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let to_stdout = arguments.json && arguments.output.output.is_none();
    let path = if to_stdout {
        "-".into()
    } else {
        arguments
            .output
            .path(&arguments.capture.path, "table", "html")?
    };
    let moment = Some(&arguments.moment);
    let loaded = load_selected(&arguments.capture, &arguments.selection, moment, terminal)?;
    let options = TableOptions {
        metric: arguments.moment.metric(),
        split_threads: arguments.split_threads,
        confidential_files: ConfidentialFiles::Default,
        part: arguments.selection.part(),
        shown: &loaded.shown,
    };
    if to_stdout {
        return write_stdout(|out| table_json(&loaded.profile, options, out));
    }
    arguments.output.write(&path, |out| {
        if arguments.json {
            table_json(&loaded.profile, options, out)
        } else {
            table_html(
                &loaded.capture,
                &loaded.profile,
                &loaded.liveness,
                options,
                out,
            )
        }
    })?;
    Ok(())
}
