//! The `heaptide` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod commands;

/// A memory profiler for Python programs whose capture survives any death.
#[derive(Debug, Parser)]
#[command(name = "heaptide", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(commands::run::RunArguments),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(arguments) => commands::run::run(&arguments),
    }
}
