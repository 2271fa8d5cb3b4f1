//! The tests of somebody's project, from PyPI, under budgets: all pass as they do without, and a budget that is too
//! small is noticed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::shell;

const PROJECT: &str = "more-itertools==10.8.0";
/// Of the test whose budget is made too small: it holds 800 kB at its peak.
const HELD_BACK: &str = "tests/test_more.py::SampleTests::test_specific_sample";

/// `python` has the package, pytest and pytest-xdist.
pub(crate) fn test(python: &Path) -> Result<()> {
    shell::step(&format!("the tests of {PROJECT}, under budgets"));
    let directory = shell::target().join("tmp/project");
    let Some(project) = fetch(python, &directory)? else {
        return Ok(());
    };
    let budgets = directory.join("budgets.json");
    let pytest = |words: &[&str]| {
        let mut command = Command::new(python);
        command
            .args(["-m", "pytest", "--quiet", "-p", "no:cacheprovider"])
            .args([
                "--heaptide",
                "--heaptide-hide-summary",
                "--heaptide-baseline",
            ])
            .arg(&budgets)
            // Budgets are by the names of tests, which depend on it; by itself pytest may take ours.
            .arg("--rootdir")
            .arg(&project)
            .args(words)
            .current_dir(&project);
        command
    };
    shell::run(&mut pytest(&["--heaptide-baseline-update", "tests"]))?;
    shell::run(&mut pytest(&["--numprocesses", "2", "tests"]))?;

    let mut content: Value = serde_json::from_slice(&std::fs::read(&budgets)?)?;
    let peak = content["tests"][HELD_BACK]["peak_bytes"].as_u64();
    ensure!(peak > Some(500_000), "{HELD_BACK} holds {peak:?}");
    content["tests"][HELD_BACK]["peak_bytes"] = 1.into();
    std::fs::write(&budgets, serde_json::to_vec(&content)?)?;
    let output = pytest(&["--heaptide-tolerance", "1 KB", HELD_BACK])
        .output()
        .context("pytest cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.code() == Some(1) && text.contains("MEMORY PROBLEMS"),
        "the budget of {HELD_BACK} is not kept, and pytest says:\n{text}"
    );
    Ok(())
}

/// The project as it is released; `None`, and a note, where there is no network.
fn fetch(python: &Path, directory: &Path) -> Result<Option<PathBuf>> {
    if directory.is_dir() {
        std::fs::remove_dir_all(directory)?;
    }
    std::fs::create_dir_all(directory)?;
    let mut download = Command::new(python);
    download
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(["--no-deps", "--no-binary", ":all:", "--dest"])
        .arg(directory)
        .arg(PROJECT);
    if let Err(error) = shell::run(&mut download) {
        shell::note(&format!("{PROJECT} is not available: {error:#}"));
        return Ok(None);
    }
    let entry = |ending: &str| {
        let mut paths = std::fs::read_dir(directory)?.flatten().map(|it| it.path());
        let found = paths.find(|path| {
            path.to_string_lossy().ends_with(ending) || (ending.is_empty() && path.is_dir())
        });
        found.with_context(|| format!("no file '*{ending}' was downloaded"))
    };
    let mut unpack = Command::new("tar");
    unpack
        .arg("xzf")
        .arg(entry(".tar.gz")?)
        .arg("-C")
        .arg(directory);
    shell::run(&mut unpack)?;
    Ok(Some(entry("")?))
}
