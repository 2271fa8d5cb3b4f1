//! `heaptide flamegraph`

use clap::ValueEnum;
use heaptide_engine::Metric;
use heaptide_report::{
    ConfidentialFiles, FlamegraphOptions, MAX_MEMORY_RECORDS, TreeOptions, flamegraph_html,
    tree_json,
};

use super::merge::{load_selected, load_with_histories};
use super::{CaptureArgument, Loaded, MomentArgument, SelectionArguments};
use crate::failure::{Failure, WrongUsage};
use crate::output::{FileArguments, write_stdout};
use crate::terminal::Terminal;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The page is one file. It shows the peak, what is never given back, everything allocated and what is
temporary, each a click away; the options decide what it shows first.

Examples:
  heaptide flamegraph app.4711.tide                      what held the memory at the peak
  heaptide flamegraph --leaks --split-threads app.4711.tide
  heaptide flamegraph --temporal -o run.html app.4711.tide")]
pub(crate) struct Arguments {
    #[command(flatten)]
    capture: CaptureArgument,
    #[command(flatten)]
    moment: MomentArgument,
    #[command(flatten)]
    selection: SelectionArguments,
    /// Let the page take the run apart: the peak inside any stretch of time, or with --leaks what was
    /// allocated in it and still there at its end. Needs a capture of every event
    #[arg(long)]
    temporal: bool,
    /// Begin with what allocated, and go on with its callers
    #[arg(long)]
    inverted: bool,
    /// Keep threads apart, to choose one in the page
    #[arg(long)]
    split_threads: bool,
    /// At most N samples of memory over time in the page
    #[arg(long, value_name = "N", default_value_t = MAX_MEMORY_RECORDS)]
    max_memory_records: usize,
    /// Accepted for Memray's sake: the page never needs the network
    #[arg(long)]
    no_web: bool,
    #[command(flatten)]
    sources: SourcesArgument,
    /// Print the tree as JSON instead of a page, one object a line (schema: docs/json.md)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    output: FileArguments,
}

/// Of which files a page may have source lines.
#[derive(Debug, clap::Args)]
pub(crate) struct SourcesArgument {
    /// Which files are confidential, so that the page has none of their source lines
    #[arg(long, value_name = "WHICH", value_enum, default_value_t)]
    confidential_files: Confidential,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Confidential {
    /// All: the page has no source lines
    All,
    /// None: the page has source lines of any file
    None,
    /// Those that are neither named `.py`, nor readable by everybody, nor executable
    #[default]
    Default,
}

impl SourcesArgument {
    pub(crate) fn confidential_files(&self) -> ConfidentialFiles {
        match self.confidential_files {
            Confidential::All => ConfidentialFiles::All,
            Confidential::None => ConfidentialFiles::None,
            Confidential::Default => ConfidentialFiles::Default,
        }
    }
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let metric = arguments.moment.metric();
    if arguments.temporal && metric == Metric::Temporary {
        return Err(WrongUsage(Failure {
            what: "Can't create a temporal flame graph of temporary allocations".to_owned(),
            why: Some("what lives so briefly is held at no peak".to_owned()),
            hint: Some("leave out --temporal".to_owned()),
        })
        .into());
    }
    if arguments.temporal {
        arguments.selection.refuse_with_temporal()?;
    }
    let to_stdout = arguments.json && arguments.output.output.is_none();
    let path = if to_stdout {
        "-".into()
    } else {
        let capture = &arguments.capture.path;
        arguments.output.path(capture, "flamegraph", "html")?
    };
    let mut histories = Vec::new();
    let loaded = if arguments.temporal {
        let (loaded, all) =
            load_with_histories(&arguments.capture, arguments.max_memory_records, terminal)?;
        histories = all;
        loaded
    } else {
        let moment = Some(&arguments.moment);
        load_selected(&arguments.capture, &arguments.selection, moment, terminal)?
    };
    let json = |out: &mut dyn std::io::Write| {
        let options = TreeOptions {
            metric,
            depth: usize::MAX,
            min_percent: 0.0,
            ..TreeOptions::default()
        };
        tree_json(&loaded.profile, options, out)
    };
    if to_stdout {
        return write_stdout(json);
    }
    if arguments.json {
        arguments.output.write(&path, json)?;
        return Ok(());
    }
    let options = FlamegraphOptions {
        metric,
        inverted: arguments.inverted,
        split_threads: arguments.split_threads,
        confidential_files: arguments.sources.confidential_files(),
        max_memory_records: arguments.max_memory_records,
        histories: &histories,
        part: arguments.selection.part(),
        shown: &loaded.shown,
    };
    let Loaded {
        capture,
        profile,
        liveness,
        ..
    } = &loaded;
    arguments.output.write(&path, |out| {
        flamegraph_html(capture, profile, liveness, options, out)
    })?;
    Ok(())
}
