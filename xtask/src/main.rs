//! The project's chores: `cargo xtask <chore>`.
//!
//! Every chore sets up what it needs by itself (below `target/`) and says what it does. What cannot
//! be had (no network, not root) is said and left out, unless it is the point of the chore.

mod bench;
mod cage;
mod demo;
#[cfg(test)]
mod dependencies;
mod fuzz;
mod interpreters;
mod lint;
mod package;
mod project;
mod shell;
mod test;
mod venv;
mod web;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask <chore>

  demo                profile a leaking program until it is killed, and show who held the memory
  test [FILTER]       lint, then every test (with FILTER: only the tests whose name contains it)
  lint                formatting, clippy, Python files, licences
  package             build the Python package's wheel and test it on every interpreter
  web                 is the page of the HTML reports fresh, and does a browser show it
  fuzz [--seconds N]  run each fuzz target for N seconds (60)
  bench [--quick] [--rounds N] [--only W] [--mode M]... [--python 3.N]
                      compare with plain Python and Memray, write docs/benchmarks.md
  bench-readers [--quick] [--rounds N]
                      compare how long reports take with Memray, write that section of docs/benchmarks.md";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let Some((chore, rest)) = arguments.split_first() else {
        bail!("{USAGE}")
    };
    match chore.as_str() {
        "demo" => demo::run(),
        "test" => test::run(rest),
        "lint" => lint::run(),
        "package" => package::run(),
        "web" => web::run(),
        "fuzz" => fuzz::run(rest),
        "bench" => bench::run(rest),
        "bench-readers" => bench::readers::run(rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown chore '{other}'\n\n{USAGE}"),
    }
}
