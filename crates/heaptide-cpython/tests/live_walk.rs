//! The walk against `sys._getframe`, inside every interpreter of this machine.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[test]
fn the_walk_shows_what_python_shows() {
    let library = build("walk_probe");
    for python in support::pythons() {
        let directory = python.directory();
        let place = |source: &Path| {
            let target = directory.path().join(source.file_name().unwrap());
            std::fs::copy(source, &target).unwrap();
            python.inside(&target)
        };
        let library = place(&library);
        let script =
            place(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/walk_scenarios.py"));
        let output = python
            .command()
            .arg(&script)
            .arg(&library)
            .output()
            .expect("the interpreter starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "CPython {}: {}\n{text}\n{}",
            python.version,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            text.ends_with("all scenarios passed\n"),
            "CPython {}: {text}",
            python.version
        );
        eprintln!("CPython {}:\n{text}", python.version);
    }
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
