//! What is given as a script, looked at before anything is made for it.
//!
//! A script may also be a directory or an archive with a `__main__.py`, or compiled. Only what surely fails in the
//! interpreter is refused, for a reason that the interpreter does not tell.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::SessionError;

/// As much of a file as tells what it is.
const HEAD_BYTES: u64 = 512;
/// The end of a zip archive, before a comment of at most 65,535 bytes.
const ARCHIVE_END: &[u8; 4] = b"PK\x05\x06";
const ARCHIVE_END_BYTES: u64 = 22 + 65_535;

/// Interpreters that are not Python. Of others (`uv run`, `hy`, `sage`) who knows what they make of the file.
const OTHER_INTERPRETERS: [&str; 26] = [
    "ash", "awk", "bash", "bun", "busybox", "csh", "dash", "deno", "expect", "fish", "gawk", "ksh",
    "lua", "make", "mawk", "mksh", "node", "nodejs", "perl", "php", "Rscript", "ruby", "sed", "sh",
    "tclsh", "zsh",
];

/// Refuses what cannot be run as a script.
pub(crate) fn check(path: &Path) -> Result<(), SessionError> {
    let failed = |source| SessionError::Script {
        path: path.to_owned(),
        source,
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return check_directory(path);
    }
    // What is read from a pipe is gone for the program.
    if !metadata.is_file() {
        return Ok(());
    }
    let mut file = File::open(path).map_err(failed)?;
    let mut head = Vec::new();
    (&mut file)
        .take(HEAD_BYTES)
        .read_to_end(&mut head)
        .map_err(failed)?;
    let Some(kind) = Kind::of(path, &head) else {
        return Ok(());
    };
    if is_archive(&mut file).map_err(failed)? {
        return Ok(());
    }
    let executable = metadata.permissions().mode() & 0o111 != 0;
    Err(SessionError::NotPython {
        path: path.to_owned(),
        kind: kind.text(),
        command: kind.command(path, executable),
    })
}

/// What a file is that no Python reads as source.
enum Kind {
    Machine,
    /// The words behind `#!`.
    Launcher(Vec<OsString>),
}

impl Kind {
    fn of(path: &Path, head: &[u8]) -> Option<Self> {
        if head.starts_with(b"\x7fELF") {
            return Some(Self::Machine);
        }
        let mut lines = head.split(|&byte| byte == b'\n');
        let first = lines.next()?.strip_prefix(b"#!")?;
        let words: Vec<OsString> = first
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .map(|word| OsString::from_vec(word.to_vec()))
            .collect();
        let mut names = words.iter().filter_map(|word| Path::new(word).file_name());
        let is_option = |name: &OsStr| name.as_bytes().starts_with(b"-");
        let interpreter = match names.next()? {
            env if env == "env" => names.find(|name| !is_option(name))?,
            name => name,
        };
        let is_other = OTHER_INTERPRETERS.iter().any(|other| interpreter == *other);
        // A shell may be there only to find the Python that runs the same file, from within what Python takes for a string.
        let is_quoted = lines
            .next()
            .is_some_and(|line| line.starts_with(b"'") || line.starts_with(b"\""));
        let is_named_python = path
            .extension()
            .is_some_and(|name| name == "py" || name == "pyw");
        (is_other && !is_quoted && !is_named_python).then_some(Self::Launcher(words))
    }

    fn text(&self) -> String {
        match self {
            Self::Machine => "a program in machine code (ELF)".to_owned(),
            Self::Launcher(words) => {
                let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
                format!("a script for {}", words.join(" "))
            }
        }
    }

    /// The words that run it as a command, if any do.
    fn command(&self, path: &Path, executable: bool) -> Option<Vec<OsString>> {
        // A bare name would be looked for on PATH.
        let path = if path.as_os_str().as_bytes().contains(&b'/') {
            path.as_os_str().to_owned()
        } else {
            Path::new(".").join(path).into_os_string()
        };
        match self {
            _ if executable => Some(vec![path]),
            Self::Machine => None,
            Self::Launcher(words) => Some(words.iter().cloned().chain([path]).collect()),
        }
    }
}

/// Archives may have anything in front of them, a program too.
fn is_archive(file: &mut File) -> io::Result<bool> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(ARCHIVE_END_BYTES)))?;
    let mut end = Vec::new();
    file.take(ARCHIVE_END_BYTES).read_to_end(&mut end)?;
    Ok(end.windows(ARCHIVE_END.len()).any(|at| at == ARCHIVE_END))
}

fn check_directory(path: &Path) -> Result<(), SessionError> {
    for name in ["__main__.py", "__main__.pyc"] {
        let main = path.join(name);
        match std::fs::metadata(&main) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(SessionError::Script { path: main, source }),
        }
    }
    Err(SessionError::NoMain {
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a file of this name and contents, and the command for it.
    fn check_file(name: &str, contents: &[u8], mode: u32) -> Option<(String, Option<String>)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        match check(&path) {
            Ok(()) => None,
            Err(SessionError::NotPython { kind, command, .. }) => {
                let words = command.map(|words| words.join(OsStr::new(" ")).into_string().unwrap());
                let below = format!("{}/", directory.path().display());
                Some((kind, words.map(|words| words.replace(&below, ""))))
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }

    #[test]
    fn programs_are_no_scripts() {
        let elf = b"\x7fELF\x02\x01\x01\0\0\0";
        let (kind, command) = check_file("python3", elf, 0o755).unwrap();
        assert!(kind.contains("ELF"), "{kind}");
        assert_eq!(command.as_deref(), Some("python3"));
        assert_eq!(check_file("lib.so", elf, 0o644).unwrap().1, None);

        let shell = b"#! /usr/bin/env -S bash -e\nexec python3 app.py\n";
        let (kind, command) = check_file("start", shell, 0o755).unwrap();
        assert_eq!(kind, "a script for /usr/bin/env -S bash -e");
        assert_eq!(command.as_deref(), Some("start"));
        let (_, command) = check_file("start.sh", b"#!/bin/sh\npython3", 0o644).unwrap();
        assert_eq!(command.as_deref(), Some("/bin/sh start.sh"));
    }

    #[test]
    fn what_python_can_run_is_not_refused() {
        for (name, contents) in [
            ("empty", &b""[..]),
            ("plain", b"print(1)\n"),
            ("tool", b"#!/usr/bin/python3 -I\nprint(1)\n"),
            ("tool", b"#!/opt/p p/bin/pypy3\n"),
            ("tool", b"#!/usr/bin/env -S uv run --script\nprint(1)\n"),
            ("tool", b"#!\nprint(1)\n"),
            ("tool", b"#!/usr/bin/env\nprint(1)\n"),
            (
                "pip",
                b"#!/bin/sh\n'''exec' \"/long/python\" \"$0\" \"$@\"\n' '''\nprint(1)\n",
            ),
            ("odd.py", b"#!/bin/sh\nprint(1)\n"),
            ("app.pyz", b"#!/bin/sh\nexit\nPK\x05\x06 and so on"),
            ("app", b"\x7fELF\x02\x01\x01\0\0PK\x05\x06 and so on"),
            ("cached.pyc", b"\xcb\r\r\n\0\0\0\0"),
        ] {
            let refused = check_file(name, contents, 0o755);
            assert_eq!(refused, None, "{name} {}", contents.escape_ascii());
        }
        assert!(check(Path::new("/dev/null")).is_ok());
    }

    #[test]
    fn a_program_in_the_working_directory_is_not_looked_for_elsewhere() {
        let words = Kind::Machine.command(Path::new("tool"), true);
        assert_eq!(words, Some(vec!["./tool".into()]));
        let words = Kind::Machine.command(Path::new("../tool"), true);
        assert_eq!(words, Some(vec!["../tool".into()]));
    }

    #[test]
    fn directories_need_something_to_run() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(matches!(
            check(directory.path()),
            Err(SessionError::NoMain { .. })
        ));
        std::fs::write(at("__main__.pyc"), "").unwrap();
        assert!(check(directory.path()).is_ok());

        std::os::unix::fs::symlink("circle", at("circle")).unwrap();
        let error = check(&at("circle")).unwrap_err();
        assert!(matches!(error, SessionError::Script { .. }), "{error}");
    }
}
