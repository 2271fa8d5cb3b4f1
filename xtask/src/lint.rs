//! `cargo xtask lint`: formatting, clippy, Python files, licences.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{interpreters, shell, venv};

/// Directories with Python files of the project's own.
const PYTHON_FILES: [&str; 3] = ["demo", "benches", "crates"];

pub(crate) fn run() -> Result<()> {
    run_with(&shell::build()?)
}

/// With the agent of a build that was just made.
pub(crate) fn run_with(agent: &Path) -> Result<()> {
    shell::run(&mut shell::cargo(&["fmt", "--all", "--check"]))?;
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    shell::run(&mut shell::cargo_with_agent(&clippy, agent))?;
    // A workspace of its own, which nothing else builds.
    let fuzz = shell::target().join("fuzz");
    let mut check = shell::cargo(&["check", "--quiet", "--target-dir"]);
    shell::run(check.arg(fuzz).current_dir(shell::project().join("fuzz")))?;
    python_files()?;
    if shell::exists("cargo-deny") {
        shell::run(&mut shell::cargo(&[
            "deny",
            "--offline",
            "check",
            "bans",
            "licenses",
            "sources",
        ]))?;
    } else {
        shell::note("cargo-deny is not installed: licences are not checked");
    }
    Ok(())
}

fn python_files() -> Result<()> {
    // Any interpreter will do that runs the linter; it checks for the oldest one by its options.
    let interpreters = interpreters::discover();
    let Some(newest) = interpreters
        .iter()
        .rev()
        .find(|interpreter| interpreter.chroot.is_none())
    else {
        shell::note("no Python interpreter: Python files are not checked");
        return Ok(());
    };
    let Some(python) = venv::with_packages(&newest.path, "lint", &["ruff", "mypy", "pytest"])
    else {
        return Ok(());
    };
    package(&python)?;
    let check = [
        "-m",
        "ruff",
        "check",
        "--quiet",
        "--target-version",
        "py39",
        "--select",
        "E,F,W",
        "--ignore",
    ];
    let project = shell::project();
    let directories = PYTHON_FILES
        .iter()
        .filter(|directory| project.join(directory).is_dir());
    // Long lines and deliberately odd code are what test programs are made of.
    let mut command = Command::new(python);
    command
        .args(check)
        .args(["E501,E701,E702,E731,E741,F841,E402,F401"])
        .args(directories)
        .current_dir(&project);
    shell::run(&mut command)
}

/// The Python package is held to what pyproject.toml says.
fn package(python: &Path) -> Result<()> {
    let checks: [&[&str]; 3] = [
        &["ruff", "check", "--quiet", "python"],
        &["ruff", "format", "--quiet", "--check", "python"],
        &["mypy"],
    ];
    for check in checks {
        let mut command = Command::new(python);
        command.arg("-m").args(check).current_dir(shell::project());
        shell::run(&mut command)?;
    }
    Ok(())
}
