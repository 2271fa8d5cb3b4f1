//! `cargo xtask test`: every test there is.

use anyhow::Result;

use crate::{interpreters, lint, shell};

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let filter = arguments.first();
    if filter.is_none() {
        lint::run()?;
    }
    shell::step("interpreters (the end-to-end tests find them the same way)");
    for interpreter in interpreters::discover() {
        eprintln!("    CPython {}", interpreter.describe());
    }
    // First, because the end-to-end tests run it.
    shell::build()?;
    let mut command = shell::cargo(&["test", "--release", "--workspace", "--no-fail-fast"]);
    command
        .args(filter)
        .env("HEAPTIDE_TEST_BINARY", shell::heaptide());
    shell::run(&mut command)
}
