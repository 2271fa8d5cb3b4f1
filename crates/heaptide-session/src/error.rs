//! What can go wrong before the program runs.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// An error before the program started. Nothing is left behind when one is returned.
///
/// The text says what happened and why; [`SessionError::hint`] what to do now.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// An option that is none of ours, perhaps one of the interpreter.
    #[error("unknown option '{}'", option.display())]
    UnknownOption {
        /// As given.
        option: OsString,
    },
    /// The script is not there or cannot be read. Worded like the interpreter's own message.
    #[error("can't open file '{}': {}", path.display(), plain(source))]
    Script {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such script, but a command of that name.
    #[error("can't open file '{}': No such file or directory", name.display())]
    CommandAsScript {
        /// As given.
        name: OsString,
    },
    /// The script is a program of another kind.
    #[error("'{}' is no Python script: it is {kind}", path.display())]
    NotPython {
        /// As given.
        path: PathBuf,
        /// What it is.
        kind: String,
        /// The words that run it as a command, if any do.
        command: Option<Vec<OsString>>,
    },
    /// A directory that is no program.
    #[error("can't find '__main__' module in '{}'", path.display())]
    NoMain {
        /// As given.
        path: PathBuf,
    },
    /// A command that is not on `PATH`.
    #[error("command not found: {}", name.display())]
    CommandNotFound {
        /// As given.
        name: OsString,
    },
    /// No interpreter was named and none was found.
    #[error("no Python interpreter found: neither python3 nor python is on PATH")]
    NoInterpreter,
    /// `-o` cannot be understood.
    #[error("cannot use the output name '{}': {why}", pattern.display())]
    OutputPattern {
        /// As given.
        pattern: OsString,
        /// What is wrong with it.
        why: String,
    },
    /// The capture exists already.
    #[error("output file '{}' already exists", path.display())]
    OutputExists {
        /// The capture.
        path: PathBuf,
    },
    /// With `--force`: what is there is not a file that may be replaced.
    #[error("output '{}' is {what}, not a file that can be replaced", path.display())]
    OutputNotReplaceable {
        /// The capture.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The capture could not be made.
    #[error("cannot {step} the capture '{}': {}", path.display(), plain(source))]
    Capture {
        /// The capture.
        path: PathBuf,
        /// What was being done: `create`, `allocate space for`, `map`, `write`.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// There is nowhere to hold a capture that is not mapped where it belongs.
    #[error("no place in memory for the capture: {0}")]
    Staging(String),
    /// The agent could not be put where the loader finds it.
    #[error("cannot prepare the agent for preloading: {0}")]
    Agent(String),
    /// The agent could not be loaded into this process.
    #[error("cannot load the agent: {0}")]
    AgentLoad(String),
    /// `exec` failed.
    #[error("cannot start '{}': {}", program.display(), plain(source))]
    Exec {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program that was to write the capture is none that can, or was killed.
    #[error("'{}' has not written a capture: it is not the heaptide of this version, or was killed", program.display())]
    Writer {
        /// The program.
        program: PathBuf,
    },
    /// The process that was to write the capture has refused.
    #[error("{0}")]
    Refused(String),
    /// A system call that should not fail did.
    #[error("{what} failed: {}", plain(source))]
    System {
        /// Which.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl SessionError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Script { source, .. } => script_hint(source).map(str::to_owned),
            Self::NotPython { command: None, .. } => {
                Some("give the script that it is loaded by".to_owned())
            }
            Self::NoMain { .. } => Some(
                "a directory is run by its __main__.py; a package by -m, from the directory above it"
                    .to_owned(),
            ),
            Self::CommandNotFound { .. } => {
                Some("check the name, or give the path of the executable".to_owned())
            }
            Self::NoInterpreter => Some(
                "name one with --python PATH or HEAPTIDE_PYTHON, or run `heaptide run -- COMMAND`"
                    .to_owned(),
            ),
            Self::OutputPattern { .. } => {
                Some("known are %p (process id), %t (Unix time), %h (host name) and %%".to_owned())
            }
            Self::OutputExists { .. } => {
                Some("overwrite it with -f (--force), or choose another name with -o".to_owned())
            }
            Self::Capture { source, step, .. } => Some(capture_hint(step, source)),
            Self::Agent(_) => Some(
                "point XDG_CACHE_HOME or TMPDIR to a writable directory from which programs may be executed"
                    .to_owned(),
            ),
            Self::AgentLoad(_) => Some("reinstall heaptide; the agent comes with it".to_owned()),
            Self::Exec { source, .. } if source.raw_os_error() == Some(libc::ENOEXEC) => {
                Some("it is neither a binary of this machine nor a script with a #! line".to_owned())
            }
            _ => None,
        }
    }

    /// Whether the command line is to blame (exit code 2) rather than the world (1).
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Usage(_)
                | Self::UnknownOption { .. }
                | Self::CommandAsScript { .. }
                | Self::NotPython { .. }
                | Self::OutputPattern { .. }
        )
    }

    pub(crate) fn is_missing_script(&self) -> bool {
        matches!(self, Self::Script { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn script_hint(source: &io::Error) -> Option<&'static str> {
    match source.kind() {
        io::ErrorKind::NotFound => {
            Some("check the path: it is relative to the directory that heaptide is run in")
        }
        io::ErrorKind::PermissionDenied => {
            Some("make the file readable, and the directories above it searchable, for this user")
        }
        _ => None,
    }
}

fn capture_hint(step: &str, source: &io::Error) -> String {
    match source.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            "free some space, or write the capture elsewhere with -o".to_owned()
        }
        Some(libc::EFBIG) => {
            "the file size limit (ulimit -f) is below what a capture needs at the start".to_owned()
        }
        Some(libc::ENOENT) if step == "create" => {
            "the directory does not exist: create it, or choose another with -o".to_owned()
        }
        _ if step == "map" => {
            "its file system has no shared mappings: add --buffered-file-io, or write the capture elsewhere with -o"
                .to_owned()
        }
        _ => "write the capture elsewhere with -o".to_owned(),
    }
}

/// The error without the number that Rust puts behind it: `No such file or directory`.
#[must_use]
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
