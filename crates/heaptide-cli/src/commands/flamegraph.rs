//! `heaptide flamegraph`

use std::path::{Path, PathBuf};

use heaptide_report::{FlamegraphOptions, TreeOptions, flamegraph_html, tree_json};

use super::merge::load_group;
use super::{CaptureArgument, MomentArgument};
use crate::output::{OutputArguments, write_file};
use crate::terminal::Terminal;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    capture: CaptureArgument,
    #[command(flatten)]
    moment: MomentArgument,
    /// Print the tree as JSON instead of a page, one object a line (schema: docs/json.md)
    #[arg(long)]
    json: bool,
    /// Write to FILE; `-` is stdout [default: heaptide-flamegraph-NAME.html beside the capture]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite FILE if it exists
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let loaded = load_group(&arguments.capture, terminal)?;
    arguments.moment.check(&loaded)?;
    let metric = arguments.moment.metric();
    let output = OutputArguments {
        output: arguments.output.clone(),
        force: arguments.force,
    };
    if arguments.json {
        let options = TreeOptions {
            metric,
            depth: usize::MAX,
            min_percent: 0.0,
            ..TreeOptions::default()
        };
        return output.write(|out| tree_json(&loaded.profile, options, out));
    }
    let options = FlamegraphOptions { metric };
    let page = |out: &mut dyn std::io::Write| {
        flamegraph_html(
            &loaded.capture,
            &loaded.profile,
            &loaded.liveness,
            options,
            out,
        )
    };
    match &arguments.output {
        Some(_) => output.write(page),
        None => write_file(
            &default_path(&arguments.capture.path),
            arguments.force,
            page,
        ),
    }
}

/// `heaptide-flamegraph-<stem without a leading "heaptide-">.html` beside the capture.
fn default_path(capture: &Path) -> PathBuf {
    let stem = capture.file_stem().unwrap_or_default();
    let stem = stem.to_string_lossy();
    let stem = stem.strip_prefix("heaptide-").unwrap_or(&stem);
    capture.with_file_name(format!("heaptide-flamegraph-{stem}.html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_named_after_the_capture() {
        let name = |path: &str| default_path(Path::new(path)).to_string_lossy().into_owned();
        assert_eq!(
            name("out/heaptide-app.py.17.tide"),
            "out/heaptide-flamegraph-app.py.17.html"
        );
        assert_eq!(name("app.tide"), "heaptide-flamegraph-app.html");
    }
}
