//! `cargo xtask test`: every test there is.

use anyhow::Result;

use crate::{interpreters, lint, package, shell, web};

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let filter = arguments.first();
    // First, because everything else uses it.
    let agent = shell::build()?;
    if filter.is_none() {
        lint::run_with(&agent)?;
        web::run()?;
    }
    shell::step("interpreters (the end-to-end tests find them the same way)");
    for interpreter in interpreters::discover() {
        eprintln!("    CPython {}", interpreter.describe());
    }
    // Not in release: what is measured and profiled is the command just built, and linking every
    // test with optimisation over crates takes longer than the tests.
    let mut command = shell::cargo_with_agent(&["test", "--workspace", "--no-fail-fast"], &agent);
    command
        .args(filter)
        .env("HEAPTIDE_TEST_BINARY", shell::heaptide());
    shell::run(&mut command)?;
    if filter.is_none() {
        package::run()?;
    }
    Ok(())
}
