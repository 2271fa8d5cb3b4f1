//! What the terminal can do and the user wants of it.

use std::env;
use std::io::{IsTerminal, stderr, stdin, stdout};

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    // On a terminal, unless the environment says otherwise. No words of help on these: clap would
    // spend seven lines on every page.
    Auto,
    // Also in files and pipes.
    Always,
    Never,
}

/// What the terminal can do and the user wants of it. The one place where the environment is asked.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// Colours on stdout.
    pub(crate) stdout_color: bool,
    /// Colours on stderr.
    stderr_color: bool,
    /// Whether there is a screen and a keyboard for a full screen report.
    pub(crate) interactive: bool,
    /// Whether line drawing characters come out right.
    pub(crate) unicode: bool,
    /// How often `-v` was given.
    pub(crate) verbose: u8,
}

impl Terminal {
    pub(crate) fn new(choice: ColorChoice, verbose: u8) -> Self {
        let wanted = wanted_color(choice, |name| {
            env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        });
        Self {
            stdout_color: wanted.unwrap_or_else(|| stdout().is_terminal()),
            stderr_color: wanted.unwrap_or_else(|| stderr().is_terminal()),
            interactive: stdout().is_terminal()
                && stdin().is_terminal()
                && env::var_os("TERM").is_some_and(|term| term != "dumb"),
            unicode: is_utf8_locale(|name| env::var(name).ok()),
            verbose,
        }
    }

    /// How many rows of a table fit the screen; `None` when stdout is not a terminal.
    pub(crate) fn rows_that_fit() -> Option<usize> {
        // Titles, the status on stderr and the next prompt need room too.
        const OTHER_LINES: usize = 5;
        const AT_LEAST: usize = 10;
        let (_, height) = terminal_size::terminal_size_of(stdout())?;
        Some(
            usize::from(height.0)
                .saturating_sub(OTHER_LINES)
                .max(AT_LEAST),
        )
    }

    /// `text` in a colour (the parameters of an ANSI escape sequence) if stderr shows colours.
    pub(crate) fn stderr_style(&self, style: &str, text: &str) -> String {
        if self.stderr_color {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Flag before `CLICOLOR_FORCE` and `FORCE_COLOR`, before `NO_COLOR`, before `CLICOLOR=0`, before
/// `TERM=dumb`; `None` leaves it to the kind of the stream.
fn wanted_color(choice: ColorChoice, variable: impl Fn(&str) -> Option<String>) -> Option<bool> {
    let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let forced = |name: &str| variable(name).is_some_and(|value| !value.is_empty() && value != "0");
    match choice {
        ColorChoice::Always => Some(true),
        ColorChoice::Never => Some(false),
        ColorChoice::Auto if forced("CLICOLOR_FORCE") || forced("FORCE_COLOR") => Some(true),
        ColorChoice::Auto if set("NO_COLOR") => Some(false),
        ColorChoice::Auto if variable("CLICOLOR").as_deref() == Some("0") => Some(false),
        ColorChoice::Auto if variable("TERM").as_deref() == Some("dumb") => Some(false),
        ColorChoice::Auto => None,
    }
}

/// As `setlocale` would have it: the first of these that is set and not empty.
fn is_utf8_locale(variable: impl Fn(&str) -> Option<String>) -> bool {
    let value = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(variable)
        .find(|value| !value.is_empty());
    value.is_some_and(|value| {
        let value = value.to_ascii_lowercase();
        value.ends_with("utf-8") || value.ends_with("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(choice: ColorChoice, environment: &[(&str, &str)]) -> Option<bool> {
        wanted_color(choice, |name| {
            environment
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn colours_follow_flag_then_environment() {
        assert_eq!(wanted(ColorChoice::Auto, &[]), None);
        assert_eq!(wanted(ColorChoice::Auto, &[("NO_COLOR", "1")]), Some(false));
        assert_eq!(wanted(ColorChoice::Auto, &[("NO_COLOR", "")]), None);
        assert_eq!(
            wanted(
                ColorChoice::Auto,
                &[("NO_COLOR", "1"), ("FORCE_COLOR", "1")]
            ),
            Some(true)
        );
        assert_eq!(wanted(ColorChoice::Auto, &[("CLICOLOR", "0")]), Some(false));
        assert_eq!(wanted(ColorChoice::Auto, &[("TERM", "dumb")]), Some(false));
        assert_eq!(
            wanted(ColorChoice::Always, &[("NO_COLOR", "1")]),
            Some(true)
        );
        assert_eq!(
            wanted(ColorChoice::Never, &[("FORCE_COLOR", "1")]),
            Some(false)
        );
    }

    #[test]
    fn the_first_locale_variable_that_is_set_counts() {
        let locale = |pairs: &'static [(&str, &str)]| {
            is_utf8_locale(|name| {
                pairs
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(locale(&[("LANG", "de_DE.UTF-8")]));
        assert!(locale(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!locale(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert!(!locale(&[]));
    }
}
