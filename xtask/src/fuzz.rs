//! `cargo xtask fuzz`: libFuzzer on the stable toolchain, each target for a while.

use anyhow::{Context, Result, bail};

use crate::shell;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (seconds, only): (u32, Option<&String>) = match arguments {
        [] => (60, None),
        [flag, value, only @ ..] if flag == "--seconds" && only.len() < 2 => (
            value.parse().context("--seconds takes a number")?,
            only.first(),
        ),
        _ => bail!("usage: cargo xtask fuzz [--seconds N [TARGET]]"),
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
    names.retain(|name| only.is_none_or(|only| only == name));
    if names.is_empty() {
        bail!("fuzz/fuzz_targets has no such target");
    }
    names.sort();
    // Other compiler flags than everything else (`fuzz/.cargo/config.toml`), so another directory.
    let target = shell::target().join("fuzz");
    for name in &names {
        let corpus = target.join("corpus").join(name);
        std::fs::create_dir_all(&corpus)?;
        let seeds = ["run", "--quiet", "--package"];
        let maker = match name.as_str() {
            "answer_reader" => "heaptide-remote --example make_conversations -- asked",
            "hear_program" => "heaptide-remote --example make_conversations -- said",
            _ => "heaptide-testkit --example make_captures --",
        };
        shell::run(shell::cargo(&seeds).args(maker.split(' ')).arg(&corpus))?;
        let mut command = shell::cargo(&["run", "--release", "--bin", name, "--target-dir"]);
        command
            .arg(&target)
            .current_dir(&directory)
            .arg("--")
            .arg(&corpus);
        command.arg(format!("-max_total_time={seconds}"));
        command.args([
            "-max_len=65536",
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
        ]);
        command.arg(format!("-artifact_prefix={}/", target.display()));
        shell::run(&mut command)?;
    }
    Ok(())
}
