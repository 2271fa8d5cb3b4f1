//! What to type instead of options of the interpreter that were given to us.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::Arguments;

/// The only long option of the interpreter that says how to run a program.
const LONG_OPTION: &str = "--check-hash-based-pycs";
/// Ours, or how it was abbreviated: no other one begins like that.
const PYTHON: &str = "--python";

/// For an `option` that is none of ours: the command that was typed, with the interpreter named in it.
pub(super) fn hint(raw: &[OsString], arguments: &Arguments, option: &OsStr) -> String {
    let is_long = option.as_bytes().starts_with(b"--");
    if is_long && !option.as_bytes().starts_with(LONG_OPTION.as_bytes()) {
        return "`heaptide run --help` lists the options; those of the program come after its name"
            .to_owned();
    }
    format!(
        "options of the interpreter go with it: {}",
        command(raw, arguments)
    )
}

fn command(raw: &[OsString], arguments: &Arguments) -> String {
    let ours = raw.len().saturating_sub(arguments.program.len());
    let mut words = vec!["heaptide".to_owned()];
    let mut given = raw[..ours].iter().skip(1);
    while let Some(word) = given.next() {
        let bytes = word.as_bytes();
        let name = bytes.split(|&byte| byte == b'=').next().unwrap_or(bytes);
        if name.len() > "--".len() && PYTHON.as_bytes().starts_with(name) {
            // It goes behind the dashes.
            if name.len() == bytes.len() {
                given.next();
            }
        } else {
            words.push(shell_word(word));
        }
    }
    words.push("--".to_owned());
    words.push(shell_word(
        arguments.python.as_deref().unwrap_or(OsStr::new("python")),
    ));
    words.extend(arguments.program.iter().map(|word| shell_word(word)));
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

    fn check(words: &[&str]) -> String {
        let raw: Vec<OsString> = ["heaptide", "run"]
            .iter()
            .chain(words)
            .map(OsString::from)
            .collect();
        let run = Wrapper::try_parse_from(&raw[1..]).unwrap().run;
        let option = run.program[0].clone();
        hint(&raw, &run, &option)
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
        for option in ["--agregate", "--native"] {
            let hint = check(&[option, "x.py"]);
            assert!(
                hint.contains("--help") && !hint.contains("python"),
                "{hint}"
            );
        }
    }
}
