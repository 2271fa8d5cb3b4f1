//! Who may depend on whom: dependencies point down only, and the agent's tree stays tiny.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::shell;

/// Every crate and what it may use of the workspace outside of its tests. A new edge is a decision,
/// to be made here.
const ALLOWED: &[(&str, &[&str])] = &[
    // Pure data and single mechanisms.
    ("heaptide-format", &[]),
    ("heaptide-elf", &[]),
    ("heaptide-cpython", &[]),
    ("heaptide-unwind", &[]),
    // Inside the profiled process.
    ("heaptide-recorder", &["heaptide-format"]),
    ("heaptide-serve", &["heaptide-format"]),
    (
        "heaptide-agent",
        &[
            "heaptide-cpython",
            "heaptide-elf",
            "heaptide-format",
            "heaptide-recorder",
            "heaptide-serve",
            "heaptide-unwind",
        ],
    ),
    // Outside of it.
    ("heaptide-capture", &["heaptide-format"]),
    ("heaptide-embedded-agent", &[]),
    ("heaptide-session", &["heaptide-capture", "heaptide-format"]),
    (
        "heaptide-engine",
        &["heaptide-capture", "heaptide-cpython", "heaptide-format"],
    ),
    ("heaptide-remote", &["heaptide-capture", "heaptide-format"]),
    ("heaptide-symbols", &[]),
    (
        "heaptide-memray",
        &["heaptide-capture", "heaptide-format", "heaptide-symbols"],
    ),
    (
        "heaptide-report",
        &["heaptide-capture", "heaptide-engine", "heaptide-format"],
    ),
    (
        "heaptide-tui",
        &["heaptide-engine", "heaptide-format", "heaptide-report"],
    ),
    (
        "heaptide-cli",
        &[
            "heaptide-capture",
            "heaptide-embedded-agent",
            "heaptide-engine",
            "heaptide-format",
            "heaptide-memray",
            "heaptide-report",
            "heaptide-session",
            "heaptide-tui",
        ],
    ),
    (
        "heaptide-python",
        &[
            "heaptide-capture",
            "heaptide-embedded-agent",
            "heaptide-engine",
            "heaptide-format",
            "heaptide-memray",
            "heaptide-remote",
            "heaptide-report",
            "heaptide-session",
            "heaptide-symbols",
        ],
    ),
    // For tests and chores.
    ("heaptide-testkit", &["heaptide-format"]),
    (
        "heaptide-e2e",
        &[
            "heaptide-capture",
            "heaptide-engine",
            "heaptide-format",
            "heaptide-memray",
            "heaptide-session",
            "heaptide-symbols",
            "heaptide-testkit",
        ],
    ),
    ("xtask", &[]),
];

/// What may be loaded into somebody else's process, and what that is built with.
const AGENT_TREE: &[&str] = &[
    "bitflags",
    "cfg-if",
    "crc32fast",
    "gimli",
    "libc",
    "linux-raw-sys",
    "rustix",
    "zerocopy",
    // Only while building.
    "proc-macro2",
    "quote",
    "syn",
    "unicode-ident",
    "zerocopy-derive",
];

fn cargo_output(arguments: &[&str]) -> String {
    let mut command: Command = shell::cargo(arguments);
    let output = command.output().expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

#[test]
fn dependencies_point_down_only() {
    let text = cargo_output(&["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value = serde_json::from_str(&text).expect("cargo prints JSON");
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        let allowed = ALLOWED.iter().find(|(crate_name, _)| *crate_name == name);
        let (_, allowed) =
            allowed.unwrap_or_else(|| panic!("{name} has no place in the layers yet"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let used = dependency["name"].as_str().expect("a name");
            let only_in_tests = dependency["kind"] == "dev";
            assert!(
                used != "heaptide-agent",
                "{name} must know the agent as bytes only"
            );
            if used.starts_with("heaptide-") && !only_in_tests {
                assert!(allowed.contains(&used), "{name} must not depend on {used}");
            }
        }
    }
}

#[test]
fn the_agent_brings_little_along() {
    let tree = cargo_output(&[
        "tree",
        "--package",
        "heaptide-agent",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let names: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    for name in names {
        let known = name.starts_with("heaptide-") || AGENT_TREE.contains(&name);
        assert!(known, "{name} is new in the agent's tree");
    }
}
