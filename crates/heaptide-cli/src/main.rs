//! The heaptide command line.
//!
//! stdout carries data only; everything else goes to stderr. Exit codes: 0 for success (also with
//! a damaged capture, whose damage is told on stderr, and also when the reader of a pipe goes
//! away), 1 for failure, 2 for wrong usage.
#![forbid(unsafe_code)]

mod commands;
mod failure;
mod output;
mod progress;
mod terminal;
mod usage;

use std::process::ExitCode;

use clap::Parser;

use crate::commands::Command;
use crate::terminal::{ColorChoice, Terminal};

/// Find out what holds the memory of a Python program, even of one that was killed.
#[derive(Debug, Parser)]
#[command(
    name = "heaptide",
    version,
    arg_required_else_help = true,
    // As Memray's parser does: `--agg` is `--aggregate`.
    infer_long_args = true,
    after_help = EXAMPLES
)]
struct CommandLine {
    /// Say more; may be given more than once
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = EVERYWHERE)]
    verbose: u8,
    /// Use colours; auto: on a terminal, unless the environment says otherwise
    #[arg(long, global = true, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN", help_heading = EVERYWHERE)]
    color: ColorChoice,
    #[command(subcommand)]
    command: Command,
}

/// Where options are listed that every command has.
const EVERYWHERE: &str = "Options of every command";

const EXAMPLES: &str = "\
Examples:
  heaptide run --aggregate app.py          record a program's memory
  heaptide stats app.4711.tide             totals, sizes and the largest locations
  heaptide tree app.4711.tide              who holds what, full screen; `?` lists the keys
  heaptide tree --leaks app.4711.tide      what is never given back
  heaptide flamegraph app.4711.tide        one HTML page, no network needed

Exit codes: 0 success (a damaged capture is read as far as it goes), 1 failure, 2 wrong usage;
`run` passes on the exit code or the signal of the program.
NO_COLOR, CLICOLOR_FORCE, FORCE_COLOR and CLICOLOR are honoured; --color goes before them.";

fn main() -> ExitCode {
    if let Some(code) = heaptide_session::buffered::as_writer(std::env::args_os()) {
        return ExitCode::from(code);
    }
    if let Some(code) = usage::foretold(std::env::args_os()) {
        return code;
    }
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => return usage::answer(&error),
    };
    let terminal = Terminal::new(command_line.color, command_line.verbose);
    match command_line.command.run(&terminal) {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(error) if failure::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            failure::report(&error, &terminal);
            failure::exit_code(&error)
        }
    }
}
