//! The walk against `sys._getframe`, inside every interpreter of this machine.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const SCENARIOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/walk_scenarios.py");
const STRESS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/walk_stress.py");

#[test]
fn the_walk_shows_what_python_shows() {
    let probe = build("walk_probe");
    for python in support::pythons() {
        let place = Place::new(&python);
        let (script, probe) = (place.copy(Path::new(SCENARIOS)), place.copy(&probe));
        let text = run(&python, python.command().arg(script).arg(probe));
        assert!(
            text.ends_with("all scenarios passed\n"),
            "CPython {}: {text}",
            python.version
        );
    }
}

#[test]
fn a_walk_at_every_allocation_makes_sense() {
    let (probe, stress) = (build("walk_probe"), build("walk_stress"));
    for python in support::pythons() {
        if python.version.ends_with('t') {
            eprintln!(
                "not tested: CPython {}: its objects cannot be in malloc",
                python.version
            );
            continue;
        }
        let place = Place::new(&python);
        let [script, scenarios] = [STRESS, SCENARIOS].map(|file| place.copy(Path::new(file)));
        let [probe, stress] = [&probe, &stress].map(|library| place.copy(library));
        // `env` inside the root: preloading must not touch the program that enters it.
        let mut command = python.program("env");
        command
            .arg(format!("LD_PRELOAD={}", stress.display()))
            .arg("PYTHONMALLOC=malloc")
            .arg(&python.executable);
        let text = run(
            &python,
            command.arg(script).arg(scenarios).arg(stress).arg(probe),
        );
        assert!(
            text.ends_with("every walk made sense\n"),
            "CPython {}: {text}",
            python.version
        );
    }
}

/// A directory that an interpreter can see.
struct Place<'a> {
    python: &'a support::Python,
    directory: tempfile::TempDir,
}

impl<'a> Place<'a> {
    fn new(python: &'a support::Python) -> Self {
        Self {
            python,
            directory: python.directory(),
        }
    }

    /// Copies a file there and returns its path as the interpreter sees it.
    fn copy(&self, source: &Path) -> PathBuf {
        let target = self.directory.path().join(source.file_name().unwrap());
        std::fs::copy(source, &target).unwrap();
        self.python.inside(&target)
    }
}

/// Runs a command to its good end and returns what it printed.
fn run(python: &support::Python, command: &mut Command) -> String {
    let output = command.output().expect("the interpreter starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "CPython {}: {}\n{text}\n{}",
        python.version,
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    eprintln!("CPython {}:\n{text}", python.version);
    text
}

/// Builds an example of this crate and returns the library.
fn build(example: &str) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--message-format=json",
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .args(["--example", example])
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let messages = String::from_utf8(output.stdout).unwrap();
    let artifact = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|message| {
            message["reason"] == "compiler-artifact" && message["target"]["name"] == example
        });
    let artifact = artifact.expect("the example was built");
    PathBuf::from(artifact["filenames"][0].as_str().expect("a library"))
}
