//! `cargo xtask test`: every test there is.

use anyhow::Result;

use crate::interpreters::{self, Interpreter};
use crate::{lint, shell, venv};

/// Packages that some end-to-end programs use; those programs are left out where they are missing.
const PACKAGES: [&str; 3] = ["numpy", "greenlet", "gevent"];

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let filter = arguments.first();
    if filter.is_none() {
        lint::run()?;
    }
    let interpreters = interpreters::discover();
    shell::step("interpreters");
    for interpreter in &interpreters {
        eprintln!("    CPython {}", interpreter.describe());
    }
    let environments = interpreters
        .iter()
        .filter_map(with_packages)
        .collect::<Vec<_>>();

    // First, because the end-to-end tests run it.
    shell::build()?;
    let mut command = shell::cargo(&["test", "--release", "--workspace", "--no-fail-fast"]);
    if let Some(filter) = filter {
        command.arg(filter);
    }
    command.env("HEAPTIDE_BINARY", shell::heaptide());
    command.env(
        "HEAPTIDE_TEST_PYTHONS",
        std::env::join_paths(&environments)?,
    );
    shell::run(&mut command)
}

/// An interpreter with the packages, where they can be had.
fn with_packages(interpreter: &Interpreter) -> Option<std::path::PathBuf> {
    if interpreter.chroot.is_some() {
        return None;
    }
    let name = format!("test-{}", interpreter.version);
    venv::with_packages(&interpreter.path, &name, &PACKAGES)
}
