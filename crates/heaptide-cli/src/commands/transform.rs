//! `heaptide transform`: Memray's formats for other tools.

use std::io;
use std::path::Path;

use heaptide_report::{gprof2dot_json, speedscope_json, transform_csv};

use clap::ValueEnum as _;
use clap::builder::{PossibleValue, TypedValueParser};

use super::written::WrittenArguments;
use crate::failure::Failure;
use crate::terminal::Terminal;

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// A table: one line per stack, allocator and thread
    Csv,
    /// JSON that gprof2dot turns into a call graph
    Gprof2dot,
    /// JSON for <https://www.speedscope.app>, which shows it without an upload
    Speedscope,
}

impl Format {
    const fn name_and_suffix(self) -> (&'static str, &'static str) {
        match self {
            Self::Csv => ("csv", "csv"),
            Self::Gprof2dot => ("gprof2dot", "json"),
            Self::Speedscope => ("speedscope", "speedscope.json"),
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Written beside the capture as heaptide-FORMAT-NAME.SUFFIX unless -o says otherwise. `heaptide export` has
further formats.

Examples:
  heaptide transform speedscope app.4711.tide
  heaptide transform csv --leaks -o - app.4711.tide > leaks.csv")]
pub(crate) struct Arguments {
    /// The format to write
    #[arg(value_name = "FORMAT", value_parser = FormatName)]
    format: String,
    #[command(flatten)]
    written: WrittenArguments,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let format =
        Format::from_str(&arguments.format, true).map_err(|_| not_supported(&arguments.format))?;
    let (name, suffix) = format.name_and_suffix();
    let written = &arguments.written;
    let path = written.path(name, suffix)?;
    let loaded = written.load(terminal)?;
    let metric = written.metric();
    let profile = &loaded.profile;
    let command = loaded.capture.metadata.command_line();
    let write = |out: &mut dyn io::Write| match format {
        Format::Csv => transform_csv(profile, metric, out),
        Format::Gprof2dot => gprof2dot_json(profile, metric, out),
        Format::Speedscope => speedscope_json(&command, profile, metric, out),
    };
    let file = written.output.write(&path, write)?;
    if let (Format::Gprof2dot, Some(path)) = (format, file) {
        say_how_to_draw(path);
    }
    Ok(())
}

/// Known formats for help and completions; any word is taken, because to ask for another one is a
/// failure and not wrong usage, as in Memray.
#[derive(Clone)]
struct FormatName;

impl TypedValueParser for FormatName {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        clap::builder::StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let formats = Format::value_variants().iter();
        Some(Box::new(
            formats.filter_map(clap::ValueEnum::to_possible_value),
        ))
    }
}

fn not_supported(format: &str) -> Failure {
    let hint = if super::export::is_format(format) {
        format!("`heaptide export {format}` writes it")
    } else {
        "give csv, gprof2dot or speedscope; `heaptide export` has further ones".to_owned()
    };
    Failure {
        what: format!("Format not supported: {format}"),
        why: None,
        hint: Some(hint),
    }
}

/// What is missing to draw the graph, and the command that draws it.
fn say_how_to_draw(path: &Path) {
    if !is_on_path("gprof2dot") {
        eprintln!("heaptide: gprof2dot is not installed; `pip install gprof2dot` gets it");
    }
    if !is_on_path("dot") {
        eprintln!(
            "heaptide: Graphviz, which draws the graph, is not installed: https://graphviz.org/download/"
        );
    }
    let path = heaptide_capture::shell_quote(&path.to_string_lossy());
    eprintln!("next: gprof2dot -f json {path} | dot -Tsvg -o heap.svg");
}

fn is_on_path(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else {
        return false;
    };
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
