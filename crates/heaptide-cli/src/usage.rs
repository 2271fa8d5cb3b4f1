//! What to say when the command line is no command, in the words that Memray's users know.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Error, Parser};

use crate::CommandLine;

/// The exit code of wrong usage.
pub(crate) const WRONG_USAGE: u8 = 2;

/// As the first argument: only say, with the exit code, whether the rest asks for help or the version (0) or not (1).
/// For `heaptide.commands.main`, which ends differently then, and cannot tell by the exit code of a command.
const FORETELL: &str = "--is-answered";

/// What to answer to [`FORETELL`]; `None` when that was not asked.
pub(crate) fn foretold(words: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut words = words.into_iter();
    let program = words.next()?;
    let asked = words.next()? == FORETELL;
    asked.then(|| {
        let parsed = CommandLine::try_parse_from(std::iter::once(program).chain(words));
        let answered = parsed.is_err_and(|error| is_answer(&error));
        if answered {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    })
}

/// Whether what is printed is what was asked for.
fn is_answer(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    )
}

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
        ContextValue::String(text) => Some(name(text)),
        ContextValue::Strings(texts) => texts.first().map(|text| name(text)),
        _ => None,
    };
    let mut argument = text(ContextKind::InvalidArg)?;
    let mut other = text(ContextKind::PriorArg)?;
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    // The later one is at fault. The parser has them in the order of their definition.
    if position(&words, &argument) < position(&words, &other) {
        std::mem::swap(&mut argument, &mut other);
    }
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

/// Of an option as help shows it, without its value.
fn name(option: &str) -> String {
    option.split(' ').next().unwrap_or(option).to_owned()
}

/// Where a long option stands, whole or abbreviated, with its value or without.
fn position(words: &[String], option: &str) -> Option<usize> {
    words.iter().position(|word| {
        let word = word.split('=').next().unwrap_or(word);
        word == option || (word.len() > "--".len() && option.starts_with(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_help_is_told_from_what_does_not() {
        let foretold = |words: &str| {
            let words = words.split(' ').map(OsString::from);
            foretold(words).map(|code| code == ExitCode::SUCCESS)
        };
        assert_eq!(foretold("heaptide --help"), None);
        for answered in ["-V", "--vers", "run -qh", "run -o x --help", "help stats"] {
            let words = format!("heaptide {FORETELL} {answered}");
            assert_eq!(foretold(&words), Some(true), "{answered}");
        }
        for other in [
            "run x.py --help",
            "run -m x -h",
            "stats x.tide",
            "stats",
            "-x -h",
        ] {
            let words = format!("heaptide {FORETELL} {other}");
            assert_eq!(foretold(&words), Some(false), "{other}");
        }
    }

    #[test]
    fn options_are_found_as_they_were_written() {
        let words: Vec<String> = ["heaptide", "--", "--leak", "-o", "--temporary=3"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(position(&words, "--leaks"), Some(2));
        assert_eq!(position(&words, &name("--temporary-x <N>")), Some(4));
        assert_eq!(position(&words, "--output"), None);
    }
}
