//! `heaptide tree`: full screen in a terminal, else as text.

use std::path::PathBuf;

use heaptide_format::MetadataKey;
use heaptide_report::{
    TextOptions, TreeOptions, bytes_text, count_text, keep_biggest, split_by_thread, tree_json,
    tree_text,
};
use heaptide_tui::{Files, Options, State, Theme};
use regex::Regex;

use super::merge::load_selected;
use super::{CaptureArgument, Loaded, MomentArgument, SelectionArguments};
use crate::output::OutputArguments;
use crate::terminal::Terminal;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
In a terminal the tree is full screen; `?` lists its keys. An option that is about printing, a pipe or -o prints it.

Examples:
  heaptide tree app.4711.tide
  heaptide tree --temporary-allocations -b 1000 app.4711.tide
  heaptide tree --text --leaks --focus 'cache\\.py' app.4711.tide
  heaptide tree --between 40% 60% captures/           all processes of a group, by their directory")]
pub(crate) struct Arguments {
    #[command(flatten)]
    capture: CaptureArgument,
    #[command(flatten)]
    moment: MomentArgument,
    #[command(flatten)]
    selection: SelectionArguments,
    /// Print N frames deep [default: 100]
    #[arg(short, long, value_name = "N")]
    depth: Option<usize>,
    /// Print only stacks with a frame (`function  file:line`) that matches
    #[arg(long, value_name = "REGEX")]
    focus: Option<Regex>,
    /// Do not print branches with less than P percent of the whole [default: 1]
    #[arg(short = 'p', long, value_name = "P")]
    min_percent: Option<f64>,
    /// Only the N stacks that have most [default: 200 on a full screen, else all that --min-percent
    /// leaves]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    biggest_allocs: Option<u32>,
    /// A branch per thread instead of all threads together
    #[arg(long)]
    split_threads: bool,
    /// Print the tree also in a terminal
    #[arg(long)]
    text: bool,
    /// Print JSON, one object a line (schema: docs/json.md)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    output: OutputArguments,
}

/// How many stacks a full screen has, as in Memray.
const BIGGEST: u32 = 200;

impl Arguments {
    /// Options that only make sense for text are a wish for text.
    fn is_full_screen(&self, terminal: &Terminal) -> bool {
        let wants_text = self.text
            || self.json
            || self.output.output.is_some()
            || self.depth.is_some()
            || self.focus.is_some()
            || self.min_percent.is_some();
        terminal.interactive && !wants_text
    }
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let mut loaded = load_selected(
        &arguments.capture,
        &arguments.selection,
        Some(&arguments.moment),
        terminal,
    )?;
    let metric = arguments.moment.metric();
    let threads = arguments
        .split_threads
        .then(|| split_by_thread(&mut loaded.profile));
    if arguments.is_full_screen(terminal) {
        return show(&loaded, arguments, terminal);
    }
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
    let defaults = TreeOptions::default();
    let options = TreeOptions {
        metric,
        depth: arguments.depth.unwrap_or(defaults.depth),
        min_percent: arguments.min_percent.unwrap_or(defaults.min_percent),
        focus: matches
            .as_ref()
            .map(|matches| matches as &dyn Fn(&str) -> bool),
        threads: threads.as_ref(),
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

fn show(loaded: &Loaded, arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let capture = &loaded.capture;
    let options = Options {
        metric: arguments.moment.metric(),
        biggest: arguments.biggest_allocs.unwrap_or(BIGGEST) as usize,
        title: capture.metadata.command_line(),
    };
    let theme = Theme {
        color: terminal.stdout_color,
        unicode: terminal.unicode,
    };
    let directory = capture.metadata.text(MetadataKey::WorkingDirectory);
    let mut files = Files::new(
        PathBuf::from(directory.unwrap_or_default()),
        capture.lifecycle.tracking_start_unix_ns,
    );
    let mut state = State::new(&loaded.profile, options);
    heaptide_tui::run(&mut state, &mut files, theme)?;
    Ok(())
}
