//! Where a report goes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Where a report goes.
#[derive(Clone, Debug, clap::Args)]
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

    /// Fails when there is a file that must stay, before a large capture is read.
    pub(crate) fn check(&self, capture: &Path) -> Result<(), Failure> {
        match &self.output {
            Some(path) if !self.is_stdout() => must_not_exist(path, self.force, capture),
            _ => Ok(()),
        }
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

/// Where a report goes that is a file unless told otherwise.
#[derive(Debug, clap::Args)]
pub(crate) struct FileArguments {
    /// Write to FILE; `-` is stdout [default: heaptide-REPORT-NAME.SUFFIX beside the capture]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Overwrite FILE if it exists
    #[arg(short, long)]
    pub(crate) force: bool,
}

impl FileArguments {
    pub(crate) fn is_stdout(&self) -> bool {
        self.output.as_deref() == Some(Path::new("-"))
    }

    /// The file to write. Fails at once when there is one that must stay, before a large capture is read.
    pub(crate) fn path(
        &self,
        capture: &Path,
        report: &str,
        suffix: &str,
    ) -> Result<PathBuf, Failure> {
        let path = match &self.output {
            Some(path) => path.clone(),
            None => default_path(capture, report, suffix),
        };
        if !self.is_stdout() {
            must_not_exist(&path, self.force, capture)?;
        }
        Ok(path)
    }

    /// Runs `write` on stdout or the file, and gives the path of a file that was written.
    pub(crate) fn write<'a>(
        &self,
        path: &'a Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<Option<&'a Path>> {
        if self.is_stdout() {
            write_stdout(write)?;
            return Ok(None);
        }
        write_file(path, self.force, write)?;
        Ok(Some(path))
    }
}

/// `heaptide-REPORT-<stem without a leading "heaptide-" or "memray-">.SUFFIX` beside the capture.
fn default_path(capture: &Path, report: &str, suffix: &str) -> PathBuf {
    let stem = capture.file_stem().unwrap_or_default();
    beside(capture, report, &stem.to_string_lossy(), suffix)
}

/// `heaptide-REPORT-<name without a leading "heaptide-" or "memray-">.SUFFIX` beside the capture.
pub(crate) fn beside(capture: &Path, report: &str, name: &str, suffix: &str) -> PathBuf {
    let bare = (name.strip_prefix("heaptide-")).or_else(|| name.strip_prefix("memray-"));
    let name = bare.unwrap_or(name);
    capture.with_file_name(format!("heaptide-{report}-{name}.{suffix}"))
}

fn must_not_exist(path: &Path, force: bool, capture: &Path) -> Result<(), Failure> {
    // A missing capture is the greater trouble and is told of by whoever opens it.
    if !force && capture.exists() && path.symlink_metadata().is_ok() {
        return Err(exists_already(path));
    }
    Ok(())
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
        io::ErrorKind::AlreadyExists => exists_already(path),
        _ => Failure {
            what: format!("cannot write {}", path.display()),
            why: Some(error.to_string()),
            hint: Some("give -o FILE to write elsewhere".to_owned()),
        },
    })
}

fn exists_already(path: &Path) -> Failure {
    Failure {
        what: format!("{} exists already", path.display()),
        why: Some("a report does not overwrite a file unasked".to_owned()),
        hint: Some("give -f (--force) to overwrite it, or -o FILE to write elsewhere".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_the_capture() {
        let name = |path: &str, suffix: &str| {
            let path = default_path(Path::new(path), "report", suffix);
            path.to_string_lossy().into_owned()
        };
        assert_eq!(
            name("out/heaptide-app.py.17.tide", "speedscope.json"),
            "out/heaptide-report-app.py.17.speedscope.json"
        );
        assert_eq!(name("app.tide", "csv"), "heaptide-report-app.csv");
        assert_eq!(
            name("memray-app.py.17.bin", "csv"),
            "heaptide-report-app.py.17.csv"
        );
    }
}
