//! `heaptide tree`

use heaptide_report::{TextOptions, TreeOptions, tree_json, tree_text};
use regex::Regex;

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
    /// Show N frames deep
    #[arg(short, long, value_name = "N", default_value_t = 100)]
    depth: usize,
    /// Only stacks with a frame (`function  file:line`) that matches
    #[arg(long, value_name = "REGEX")]
    focus: Option<Regex>,
    /// Leave out branches with less than P percent of the whole
    #[arg(short = 'p', long, value_name = "P", default_value_t = 1.0)]
    min_percent: f64,
    /// Print JSON, one object a line (schema: docs/json.md)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    output: OutputArguments,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let loaded = load_group(&arguments.capture, terminal)?;
    let matches = arguments
        .focus
        .as_ref()
        .map(|regex| |frame: &str| regex.is_match(frame));
    let options = TreeOptions {
        metric: arguments.moment.metric(),
        depth: arguments.depth,
        min_percent: arguments.min_percent,
        focus: matches
            .as_ref()
            .map(|matches| matches as &dyn Fn(&str) -> bool),
    };
    let color = arguments.output.is_stdout() && terminal.stdout_color;
    let text = TextOptions {
        color,
        unicode: terminal.unicode,
    };
    arguments.output.write(|out| {
        if arguments.json {
            tree_json(&loaded.profile, options, out)
        } else {
            tree_text(&loaded.profile, options, text, out)
        }
    })
}
