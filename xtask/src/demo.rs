//! `cargo xtask demo`: a leaking web shop, killed half-way, and who held the memory.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cage::Cage;
use crate::shell;

/// What the program may use before it is killed.
const LIMIT_BYTES: u64 = 400 << 20;
/// More requests than fit.
const REQUESTS: &str = "40000";

pub(crate) fn run() -> Result<()> {
    shell::build()?;
    let directory = shell::target().join("demo");
    std::fs::create_dir_all(&directory)?;
    let capture = directory.join("leaky_service.tide");
    let mut arguments: Vec<OsString> = ["run", "--aggregate", "--force", "-o"]
        .map(OsString::from)
        .into();
    arguments.extend([
        capture.clone().into(),
        "demo/leaky_service.py".into(),
        REQUESTS.into(),
    ]);

    let status = match Cage::new(LIMIT_BYTES) {
        Ok(cage) => {
            shell::step(
                "heaptide run --aggregate demo/leaky_service.py, in a memory cgroup of 400 MiB",
            );
            cage.wrap(&shell::heaptide(), &arguments)
                .current_dir(shell::project())
                .status()?
        }
        Err(error) => {
            shell::note(&format!(
                "no memory cgroup can be had here ({error}): SIGKILL instead of the OOM killer"
            ));
            shell::step("heaptide run --aggregate demo/leaky_service.py, killed at 400 MiB");
            run_and_kill(&arguments)?
        }
    };
    if status.signal() != Some(9) {
        bail!("the program was to be killed, but ended with {status}");
    }
    show(&capture)
}

/// Starts the program and kills it once it has grown to the limit.
fn run_and_kill(arguments: &[OsString]) -> Result<ExitStatus> {
    let mut child = Command::new(shell::heaptide())
        .args(arguments)
        .current_dir(shell::project())
        .spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if let Some(program) = program_of(&child)
            && resident_bytes(program) > LIMIT_BYTES
        {
            // SAFETY: the pid was read a moment ago from the list of heaptide's own children, and
            // heaptide reaps a child only to end itself.
            unsafe { libc::kill(program, libc::SIGKILL) };
            return Ok(child.wait()?);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn program_of(supervisor: &Child) -> Option<i32> {
    let pid = supervisor.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn resident_bytes(pid: i32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: Option<u64> = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * 4096
}

fn show(capture: &Path) -> Result<()> {
    let report = |arguments: &[&str]| {
        let mut command = Command::new(shell::heaptide());
        command
            .args(arguments)
            .arg(capture)
            .current_dir(shell::project());
        shell::run(&mut command)
    };
    report(&["stats"])?;
    report(&["summary", "--max-rows", "15"])?;
    report(&["tree", "--leaks", "--min-percent", "5"])?;
    let page: PathBuf = capture.with_extension("html");
    report(&[
        "flamegraph",
        "--leaks",
        "--force",
        "-o",
        &page.to_string_lossy(),
    ])?;
    let size = std::fs::metadata(&page).context("the flame graph")?.len();
    println!(
        "\nThe flame graph ({} kB, no network needed): {}",
        size / 1000,
        page.display()
    );
    println!("The capture: {}", capture.display());
    Ok(())
}
