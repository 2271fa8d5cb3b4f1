//! What to type instead of options of the interpreter, or of a command, that were given to us.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use heaptide_session::SessionError;

use super::Arguments;

/// The only long option of the interpreter that says how to run a program.
const LONG_OPTION: &str = "--check-hash-based-pycs";
/// Ours, or how it was abbreviated: no other one begins like that.
const PYTHON: &str = "--python";

/// What to do about the error: where it is a matter of typing, the command that was meant.
pub(super) fn hint(
    raw: &[OsString],
    arguments: &Arguments,
    error: &SessionError,
) -> Option<String> {
    let program = &arguments.program;
    let ours = raw.len().saturating_sub(program.len());
    let command = |head: &[OsString], tail: &[OsString]| command(&raw[..ours], &[head, tail]);
    match error {
        SessionError::UnknownOption { option } => Some(if is_of_interpreter(option) {
            let python = arguments.python.clone().unwrap_or("python".into());
            format!(
                "options of the interpreter go with it: {}",
                command(&[python], program)
            )
        } else {
            "`heaptide run --help` lists the options; those of the program come after its name"
                .to_owned()
        }),
        SessionError::CommandAsScript { .. } => Some(format!(
            "a command goes after dashes: {}",
            command(&[], program)
        )),
        SessionError::NotPython {
            command: Some(words),
            ..
        } => Some(format!(
            "run it as a command: {}",
            command(words, program.get(1..).unwrap_or_default())
        )),
        _ => error.hint(),
    }
}

fn is_of_interpreter(option: &OsStr) -> bool {
    let is_long = option.as_bytes().starts_with(b"--");
    !is_long || option.as_bytes().starts_with(LONG_OPTION.as_bytes())
}

/// The words that were typed before the program, but for `--python`, and a command after dashes.
fn command(given: &[OsString], program: &[&[OsString]]) -> String {
    let mut words = vec!["heaptide".to_owned()];
    let mut given = given.iter().skip(1);
    while let Some(word) = given.next() {
        let bytes = word.as_bytes();
        let name = bytes.split(|&byte| byte == b'=').next().unwrap_or(bytes);
        if name.len() > "--".len() && PYTHON.as_bytes().starts_with(name) {
            // Commands have their own interpreter.
            if name.len() == bytes.len() {
                given.next();
            }
        } else {
            words.push(shell_word(word));
        }
    }
    words.push("--".to_owned());
    words.extend(
        program
            .iter()
            .copied()
            .flatten()
            .map(|word| shell_word(word)),
    );
    words.join(" ")
}

/// The word as a shell wants it.
fn shell_word(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=+:,@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    #[command(infer_long_args = true)]
    struct Wrapper {
        #[command(flatten)]
        run: Arguments,
    }

    fn check_error(words: &[&str], error: impl Fn(&[OsString]) -> SessionError) -> String {
        let raw: Vec<OsString> = ["heaptide", "run"]
            .iter()
            .chain(words)
            .map(OsString::from)
            .collect();
        let run = Wrapper::try_parse_from(&raw[1..]).unwrap().run;
        hint(&raw, &run, &error(&run.program)).unwrap()
    }

    fn check(words: &[&str]) -> String {
        check_error(words, |program| SessionError::UnknownOption {
            option: program[0].clone(),
        })
    }

    #[test]
    fn a_command_comes_back_after_dashes() {
        let missing = |program: &[OsString]| SessionError::CommandAsScript {
            name: program[0].clone(),
        };
        let hint = check_error(&["-q", "--python=p", "python3", "x.py", "a b"], missing);
        assert!(
            hint.ends_with(": heaptide run -q -- python3 x.py 'a b'"),
            "{hint}"
        );
        let program = |_: &[OsString]| SessionError::NotPython {
            path: "start.sh".into(),
            kind: "a script for /bin/sh".to_owned(),
            command: Some(["/bin/sh", "./start.sh"].map(OsString::from).to_vec()),
        };
        let hint = check_error(&["--agg", "start.sh", "-x"], program);
        assert!(
            hint.ends_with(": heaptide run --agg -- /bin/sh ./start.sh -x"),
            "{hint}"
        );
    }

    #[test]
    fn what_was_typed_comes_back_with_the_interpreter_in_it() {
        let typed = |words: &[&str]| {
            let hint = check(words);
            let command = hint.strip_prefix("options of the interpreter go with it: ");
            command.unwrap_or_else(|| panic!("{hint}")).to_owned()
        };
        assert_eq!(
            typed(&["-X", "importtime", "app.py", "a b", "it's", ""]),
            "heaptide run -- python -X importtime app.py 'a b' 'it'\\''s' ''"
        );
        assert_eq!(
            typed(&[
                "--agg",
                "-o",
                "out $1.tide",
                "-fq",
                "-I",
                "-m",
                "pytest",
                "-x"
            ]),
            "heaptide run --agg -o 'out $1.tide' -fq -- python -I -m pytest -x"
        );
        for python in [
            &["--python", "/opt/p 1/python3"][..],
            &["--pyt=/opt/p 1/python3"],
        ] {
            let words = [&["-q"], python, &["--no-compress", "-Werror", "x.py"]].concat();
            assert_eq!(
                typed(&words),
                "heaptide run -q --no-compress -- '/opt/p 1/python3' -Werror x.py"
            );
        }
        assert_eq!(
            typed(&["--check-hash-based-pycs", "never", "x.py"]),
            "heaptide run -- python --check-hash-based-pycs never x.py"
        );
    }

    #[test]
    fn what_is_no_option_of_the_interpreter_is_not_passed_to_it() {
        for option in ["--agregate", "--live"] {
            let hint = check(&[option, "x.py"]);
            assert!(
                hint.contains("--help") && !hint.contains("python"),
                "{hint}"
            );
        }
    }
}
