//! `cargo xtask fuzz`: libFuzzer on the stable toolchain, each target for a while.

use anyhow::{Context, Result, bail};

use crate::shell;

/// What `cargo fuzz` would pass, without the sanitizer that needs a nightly compiler.
const COVERAGE_FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=yes -Coverflow-checks=yes \
    --cfg fuzzing -Ccodegen-units=1";

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let seconds: u32 = match arguments {
        [] => 60,
        [flag, value] if flag == "--seconds" => {
            value.parse().context("--seconds takes a number")?
        }
        _ => bail!("usage: cargo xtask fuzz [--seconds N]"),
    };
    let directory = shell::project().join("fuzz");
    let targets = std::fs::read_dir(directory.join("fuzz_targets")).context("fuzz/fuzz_targets")?;
    let mut names: Vec<String> = targets
        .flatten()
        .filter_map(|entry| {
            entry
                .path()
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
        })
        .collect();
    names.sort();
    // A target directory of its own: other flags would rebuild everything each time.
    let target = shell::target().join("fuzz");
    for name in &names {
        let corpus = target.join("corpus").join(name);
        std::fs::create_dir_all(&corpus)?;
        let triple = host_triple()?;
        let mut command = shell::cargo(&[
            "run",
            "--release",
            "--target",
            &triple,
            "--bin",
            name,
            "--target-dir",
        ]);
        command
            .arg(&target)
            .env("RUSTFLAGS", COVERAGE_FLAGS)
            .current_dir(&directory);
        command.arg("--").arg(&corpus);
        let seeds = directory.join("seeds").join(name);
        if seeds.is_dir() {
            command.arg(seeds);
        }
        command.args([
            &format!("-max_total_time={seconds}"),
            "-timeout=10",
            "-rss_limit_mb=2048",
        ]);
        command.arg(format!("-artifact_prefix={}/", target.display()));
        shell::run(&mut command)?;
    }
    Ok(())
}

/// Named, so that the flags do not reach build scripts and procedural macros.
fn host_triple() -> Result<String> {
    let version =
        shell::capture(std::process::Command::new("rustc").arg("-vV")).context("rustc -vV")?;
    let line = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("no host in rustc -vV")?.to_owned())
}
