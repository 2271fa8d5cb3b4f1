//! Reports of captures that are larger than the memory they may use.

use std::path::Path;
use std::process::{Command, Output};

use heaptide_testkit::storm::{Storm, write_event_storm};

/// Of address space, which is more than is resident; a fraction of the larger capture.
const MOST_KIB: u64 = 48 << 10;

fn limited(arguments: &str, capture: &Path) -> Output {
    Command::new("sh")
        .args(["-c", "ulimit -v \"$1\" && shift && exec \"$@\"", "sh"])
        .arg(MOST_KIB.to_string())
        .arg(env!("CARGO_BIN_EXE_heaptide"))
        .args(arguments.split(' '))
        .arg(capture)
        .output()
        .expect("sh starts")
}

/// What is needed depends on what lives and on the stacks, not on how many events there were.
#[test]
fn thirty_million_events_fit_into_little_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let capture = directory.path().join("storm.tide");
    let storm = Storm {
        events: 30_000_000,
        live: 10_000,
        stacks: 1_000,
    };
    write_event_storm(&capture, storm).expect("it can be written");
    let bytes = std::fs::metadata(&capture).expect("it is there").len();
    assert!(bytes > (MOST_KIB << 10) * 3 / 2, "{bytes} bytes");
    for arguments in ["stats --json", "flamegraph -o -", "summary --leaks"] {
        let output = limited(arguments, &capture);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments}: {error}");
        if arguments.starts_with("stats") {
            let stats: serde_json::Value =
                serde_json::from_slice(&output.stdout).expect("it is JSON");
            let count = |key: &str| stats[key].as_u64().expect("a number");
            // Places are taken and left in turn, at random.
            let allocated = count("total_num_allocations");
            assert!(allocated.abs_diff(15_000_000) < 20_000, "{allocated}");
        }
    }
}
