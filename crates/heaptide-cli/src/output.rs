//! Where a report goes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Where a report goes.
#[derive(Debug, clap::Args)]
pub(crate) struct OutputArguments {
    /// Write to FILE instead of stdout; `-` is stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Overwrite FILE if it exists
    #[arg(short, long)]
    pub(crate) force: bool,
}

impl OutputArguments {
    pub(crate) fn is_stdout(&self) -> bool {
        self.output
            .as_ref()
            .is_none_or(|path| path == Path::new("-"))
    }

    /// Runs `write` on the output, stdout when no file was named.
    pub(crate) fn write(
        &self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        match &self.output {
            Some(path) if !self.is_stdout() => write_file(path, self.force, write),
            _ => write_stdout(write),
        }
    }
}

/// Runs `write` on stdout, buffered.
pub(crate) fn write_stdout(
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    write(&mut out)?;
    out.flush()?;
    Ok(())
}

/// Runs `write` on a new file; an existing one is only replaced with `force`. Says on stderr what
/// was written.
pub(crate) fn write_file(
    path: &Path,
    force: bool,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    let file = open_new(path, force)?;
    let mut out = BufWriter::with_capacity(64 << 10, file);
    let written = write(&mut out).and_then(|()| out.flush());
    written.map_err(|error| Failure {
        what: format!("cannot write {}", path.display()),
        why: Some(error.to_string()),
        hint: None,
    })?;
    eprintln!("Wrote {}", path.display());
    Ok(())
}

fn open_new(path: &Path, force: bool) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure {
            what: format!("{} exists already", path.display()),
            why: Some("a report does not overwrite a file unasked".to_owned()),
            hint: Some(
                "give -f (--force) to overwrite it, or -o FILE to write elsewhere".to_owned(),
            ),
        },
        _ => Failure {
            what: format!("cannot write {}", path.display()),
            why: Some(error.to_string()),
            hint: Some("give -o FILE to write elsewhere".to_owned()),
        },
    })
}
