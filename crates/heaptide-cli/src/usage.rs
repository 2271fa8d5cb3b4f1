//! What to say when the command line is no command, in the words that Memray's users know.

use std::process::ExitCode;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The exit code of wrong usage.
pub(crate) const WRONG_USAGE: u8 = 2;

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
    fn options_are_found_as_they_were_written() {
        let words: Vec<String> = ["heaptide", "--", "--leak", "-o", "--temporary=3"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(position(&words, "--leaks"), Some(2));
        assert_eq!(position(&words, &name("--temporary-x <N>")), Some(4));
        assert_eq!(position(&words, "--output"), None);
    }
}
