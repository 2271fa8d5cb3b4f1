//! What to say when the command line is no command, in the words that Memray's users know.

use std::process::ExitCode;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Of wrong usage.
const WRONG_USAGE: u8 = 2;

/// Prints help or version on stdout, or what is wrong on stderr.
pub(crate) fn answer(error: &Error) -> ExitCode {
    if error.kind() == ErrorKind::DisplayVersion {
        println!("{}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match conflict(error) {
        Some(text) => eprintln!("{text}"),
        // A stream that is closed is nobody's to be told of.
        None => drop(error.print()),
    }
    if error.use_stderr() {
        ExitCode::from(WRONG_USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// Usage and a line as Python's `argparse` has it.
fn conflict(error: &Error) -> Option<String> {
    if error.kind() != ErrorKind::ArgumentConflict {
        return None;
    }
    let text = |kind| match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg)?;
    let other = text(ContextKind::PriorArg)?;
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else {
        return None;
    };
    let usage = usage.to_string();
    let words = usage.split_whitespace().skip(1);
    let command: Vec<&str> = words
        .take_while(|word| !word.starts_with(['-', '<', '[']))
        .collect();
    Some(format!(
        "{usage}\n{}: error: argument {argument}: not allowed with argument {other}",
        command.join(" ")
    ))
}
