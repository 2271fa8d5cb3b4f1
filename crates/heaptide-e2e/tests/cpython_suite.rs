//! CPython's own tests fail under the profiler where they fail without it, and nowhere else. Meanwhile every walk that ends
//! early is compared with a whole one.
//!
//! `HEAPTIDE_SUITE=quick` (the default) takes a few minutes; `full` runs all modules on all
//! interpreters that have the tests.

use std::collections::BTreeSet;
use std::time::Duration;

use heaptide_e2e::{Python, Sandbox, each, not_tested, own_cost, pythons_of, run, spawn};

/// From this version on frames lie in chunks, where walks may end early.
const CHUNKS: u32 = 11;

const QUICK: &[&str] = &[
    "test_gc",
    "test_generators",
    "test_coroutines",
    "test_sys_setprofile",
    "test_exceptions",
    "test_mmap",
    "test_threading",
];
const FULL: &[&str] = &[
    "test_threading",
    "test_gc",
    "test_asyncio",
    "test_generators",
    "test_coroutines",
    "test_ctypes",
    "test_mmap",
    "test_subprocess",
    "test_multiprocessing_fork",
    "test_signal",
    "test_sys_setprofile",
    "test_exceptions",
    "test_descr",
    "test_io",
];

/// What is on by default, compared.
fn checked(minor: u32) -> &'static str {
    if matches!(minor, 11 | 12) {
        "check"
    } else {
        "check-chunks"
    }
}

/// The names of failing tests, in the form `FAIL: test_x (…)`.
fn failing(output: &str) -> BTreeSet<String> {
    let lines = output.lines();
    lines
        .filter(|line| {
            line.starts_with("FAIL: ") || line.starts_with("ERROR: ") || line.contains(" crashed ")
        })
        .map(str::to_owned)
        .collect()
}

fn check(python: &Python, module: &str) {
    let sandbox = Sandbox::new(python);
    let words = ["-m", "test", "-v", module];
    let ended = |mut command: std::process::Command| {
        command
            .env_remove("PYTHONPATH")
            .env_remove("PYTHONHASHSEED")
            .args(words)
            .stdin(std::process::Stdio::null());
        spawn(&mut command)
            .with_deadline(Duration::from_secs(1200))
            .finish()
    };
    let plain = ended(sandbox.plain());
    let mut command = sandbox.command(sandbox.heaptide());
    command
        .env("HEAPTIDE_EARLY_STOP", checked(python.minor))
        .args(["run", "--aggregate", "-q", "-f", "-o"])
        .arg(sandbox.inside("capture.tide"));
    command.arg("--").arg(&sandbox.python.path);
    let profiled = ended(command);
    let (before, after) = (
        failing(&(plain.text() + &plain.errors())),
        failing(&(profiled.text() + &profiled.errors())),
    );
    let text = profiled.text() + &profiled.errors();
    let tail: Vec<&str> = text.lines().rev().take(15).collect();
    assert_eq!(
        after, before,
        "{module}: failing tests under heaptide, and without"
    );
    assert_eq!(
        profiled.ending(),
        plain.ending(),
        "{module}: exit code; the end was\n{}",
        tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    );
    let own_cost = own_cost(&sandbox.capture());
    assert_eq!(own_cost["early_stop_mismatches"], 0, "{module}");
    let compared = own_cost["early_stops_compared"].as_u64();
    assert!(
        compared > Some(1000) || python.minor < CHUNKS,
        "{module}: {own_cost}"
    );
}

#[test]
fn cpython_s_own_tests() {
    let full = std::env::var("HEAPTIDE_SUITE").is_ok_and(|value| value == "full");
    let modules = if full { FULL } else { QUICK };
    each(pythons_of(&[9, 12, 14]), |python| {
        let probe = run(Sandbox::new(python)
            .plain()
            .args(["-c", "import test.test_gc"]));
        if !probe.status.success() {
            return not_tested(&format!(
                "CPython's own tests on {}: not installed",
                python.version()
            ));
        }
        let mut failures = Vec::new();
        for module in modules {
            let checked = std::panic::AssertUnwindSafe(|| check(python, module));
            if let Err(panic) = std::panic::catch_unwind(checked) {
                failures.push(panic.downcast_ref::<String>().cloned().unwrap_or_default());
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    });
}
