//! Errors for people: what happened, why, what to do.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::terminal::Terminal;
use crate::usage::WRONG_USAGE;

/// An error with a way out.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What could not be done.
    pub(crate) what: String,
    /// Why, where there is more to say.
    pub(crate) why: Option<String>,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// Options that do not go together, where the parser cannot tell.
#[derive(Debug)]
pub(crate) struct WrongUsage(pub(crate) Failure);

impl fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for WrongUsage {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Of an error that has been reported.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<WrongUsage>() {
        ExitCode::from(WRONG_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// Prints an error on stderr.
pub(crate) fn report(error: &anyhow::Error, terminal: &Terminal) {
    let title = terminal.stderr_style("1;31", "heaptide: error:");
    eprintln!("{title} {error}");
    let failure = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>());
    if let Some(why) = failure.and_then(|failure| failure.why.as_ref()) {
        eprintln!("  {why}");
    }
    for cause in error
        .chain()
        .skip(1)
        .filter(|cause| cause.downcast_ref::<Failure>().is_none())
    {
        eprintln!("  {cause}");
    }
    if let Some(hint) = failure.and_then(|failure| failure.hint.as_ref()) {
        eprintln!("  {hint}");
    }
}

/// Whether the error is that nobody reads our output any more.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
