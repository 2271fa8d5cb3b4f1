//! Virtual environments with packages from PyPI, below `target/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;

/// A virtual environment of `python` with `packages`, made once. `None`, and a note, when it cannot
/// be had: most often there is no network.
pub(crate) fn with_packages(python: &Path, name: &str, packages: &[&str]) -> Option<PathBuf> {
    let directory = shell::target().join("venv").join(name);
    let interpreter = directory.join("bin/python");
    let marker = directory.join(".packages");
    let wanted = format!("{}\n{}\n", python.display(), packages.join("\n"));
    if std::fs::read_to_string(&marker).is_ok_and(|found| found == wanted) && interpreter.exists() {
        return Some(interpreter);
    }
    shell::step(&format!(
        "virtual environment {name}: {}",
        packages.join(" ")
    ));
    let made = shell::run(
        Command::new(python)
            .args(["-m", "venv", "--clear"])
            .arg(&directory),
    )
    .and_then(|()| {
        let mut install = Command::new(&interpreter);
        install.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
        ]);
        shell::run(install.args(packages))
    });
    let written = made.and_then(|()| Ok(std::fs::write(&marker, wanted)?));
    match written {
        Ok(()) => Some(interpreter),
        Err(error) => {
            shell::note(&format!(
                "virtual environment {name} is not available: {error:#}"
            ));
            None
        }
    }
}
