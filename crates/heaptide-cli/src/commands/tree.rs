//! `heaptide tree`

use heaptide_report::{
    TextOptions, TreeOptions, bytes_text, count_text, keep_biggest, tree_json, tree_text,
};
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
    /// Only the N stacks that have most [default: all that --min-percent leaves]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    biggest_allocs: Option<u32>,
    /// Print JSON, one object a line (schema: docs/json.md)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    output: OutputArguments,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let mut loaded = load_group(&arguments.capture, terminal)?;
    arguments.moment.check(&loaded)?;
    let metric = arguments.moment.metric();
    if let Some(limit) = arguments.biggest_allocs {
        let kept = keep_biggest(&mut loaded.profile, metric, limit as usize);
        if kept.stacks < kept.of_stacks {
            eprintln!(
                "heaptide: {} of {} stacks, those that have most: {}",
                count_text(kept.stacks as u64),
                count_text(kept.of_stacks as u64),
                bytes_text(kept.amount.bytes)
            );
        }
    }
    let matches = arguments
        .focus
        .as_ref()
        .map(|regex| |frame: &str| regex.is_match(frame));
    let options = TreeOptions {
        metric,
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
