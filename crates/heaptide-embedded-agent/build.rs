//! Builds the agent, so that the command and the Python package carry it inside: `cargo build --release` alone
//! makes a `heaptide` that can be copied anywhere.
//!
//! Cargo cannot depend on another package's cdylib on stable, hence the nested build. It has a
//! target directory of its own, because the outer build holds the lock of the other one.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const AGENT: &str = "heaptide-agent";

/// Names an agent that is built already, for packagers and for cross builds.
const PREBUILT: &str = "HEAPTIDE_PREBUILT_AGENT";

fn main() {
    println!("cargo::rerun-if-env-changed={PREBUILT}");
    let library = match env::var_os(PREBUILT).map(PathBuf::from) {
        Some(library) => {
            println!("cargo::rerun-if-changed={}", library.display());
            library
        }
        None => build_agent(),
    };
    println!(
        "cargo::rustc-env=HEAPTIDE_AGENT_LIBRARY={}",
        library.display()
    );
}

fn build_agent() -> PathBuf {
    let manifest_directory = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let workspace = manifest_directory
        .join("../..")
        .canonicalize()
        .expect("the workspace's directory");
    for package in with_workspace_dependencies(&workspace, AGENT) {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join("crates").join(package).display()
        );
    }
    for file in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(file).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    let target = variable("TARGET");
    let target_directory = PathBuf::from(variable("OUT_DIR")).join("agent");
    let status = Command::new(variable("CARGO"))
        .args([
            "build",
            "--release",
            "--package",
            AGENT,
            "--target",
            &target,
            "--target-dir",
        ])
        .arg(&target_directory)
        .current_dir(&workspace)
        // Under `cargo clippy` these would make the nested build check the agent instead of building it.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CLIPPY_ARGS")
        // The nested build reads its own flags from the environment and the configuration. Flags of
        // the outer one are meant for the command (a fuzzer's or a coverage tool's instrumentation
        // would not survive inside another process).
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .expect("cargo can be run");
    if !status.success() {
        // The nested build has said why.
        println!("cargo::error=building {AGENT} failed: {status}");
        std::process::exit(1);
    }

    let library = target_directory
        .join(target)
        .join("release/libheaptide_agent.so");
    assert!(library.is_file(), "{} was not built", library.display());
    library
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

/// The package and those of the workspace that it depends on, read from their manifests: a list
/// kept by hand would go stale unnoticed.
fn with_workspace_dependencies(workspace: &Path, package: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut pending = vec![package.to_owned()];
    while let Some(package) = pending.pop() {
        let manifest = workspace.join("crates").join(&package).join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).unwrap_or_default();
        if found.insert(package) {
            let names = text.lines().filter(|line| line.starts_with("heaptide-"));
            let end = |line: &str| line.find(['.', ' ', '=']).unwrap_or(line.len());
            pending.extend(names.map(|line| line[..end(line)].to_owned()));
        }
    }
    found
}
