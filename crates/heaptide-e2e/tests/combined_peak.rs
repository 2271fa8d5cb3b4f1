//! The peak of all processes together, against what the kernel counted of them in a memory cgroup.

use heaptide_e2e::{Cage, Mode, Sandbox, heaptide, modes, not_tested, pythons, run};
use serde_json::Value;

/// What each worker holds, more or less, MiB.
const SHARE: u64 = 64;

struct Measured {
    /// The largest that the kernel counted, bytes.
    cgroup: u64,
    /// `combined_peak` of `heaptide merge --json`.
    peak: Value,
    /// What the workers say they have asked for, bytes.
    asked: u64,
}

/// `prefork.py` with workers of so many MiB, in a cgroup of its own. `None` where there are no cgroups to be made.
fn measure(mode: Mode, share: u64) -> Option<Measured> {
    let python = pythons().iter().rfind(|python| python.root.is_none())?;
    let sandbox = Sandbox::new(python);
    let cage = Cage::new(4 << 30)?;
    std::fs::create_dir(sandbox.outside("captures")).expect("a directory");
    let mut command = sandbox.command(sandbox.heaptide());
    command
        .arg("run")
        .args((mode == Mode::Aggregated).then_some("--aggregate"))
        .args(["-q", "--follow-fork", "-o"])
        .arg(sandbox.inside("captures/x.tide"))
        .arg("--python")
        .arg(&python.path)
        .arg(sandbox.inside("prefork.py"))
        .arg(share.to_string());
    let finished = run(cage.confine(&mut command));
    finished.expect_success("prefork.py");
    let cgroup = cage.peak_bytes()?;
    let merged = run(std::process::Command::new(heaptide())
        .args(["merge", "--json"])
        .arg(sandbox.outside("captures")));
    merged.expect_success("heaptide merge");
    let group: Value = serde_json::from_slice(&merged.stdout).expect("JSON");
    assert_eq!(group["processes"].as_array().map(Vec::len), Some(5));
    Some(Measured {
        cgroup,
        peak: group["combined_peak"].clone(),
        asked: finished.text().trim().parse().expect("a number"),
    })
}

/// What is no heap (the interpreters' own code and data, page tables, the supervisor, the captures in the page cache) is
/// what the kernel counts more than we do when the workers allocate nothing. With that taken off, the kernel's
/// peak and ours are within 5 %.
#[test]
fn a_pre_fork_server_against_its_cgroup() {
    for mode in modes() {
        let (Some(empty), Some(full)) = (measure(mode, 0), measure(mode, SHARE)) else {
            return not_tested("the combined peak: no memory cgroup can be made here");
        };
        let number = |value: &Value| value.as_u64().expect("a number");
        let heap = |measured: &Measured| number(&measured.peak["heap_bytes"]);
        let not_heap = empty.cgroup.saturating_sub(heap(&empty));
        let of_the_kernel = full.cgroup.saturating_sub(not_heap);
        let ours = heap(&full);
        let told = format!(
            "{mode:?}: the cgroup's peak was {} ({} with idle workers), heaptide's {ours} ({} with idle workers), asked \
             for {}",
            full.cgroup,
            empty.cgroup,
            heap(&empty),
            full.asked
        );
        eprintln!("{told}");
        assert!(full.asked > 200 << 20 && ours > full.asked, "{told}");
        assert!(of_the_kernel.abs_diff(ours) * 100 <= ours * 5, "{told}");
        assert_eq!(full.peak["processes"], 5, "{told}");
        assert!(number(&full.peak["at_least_bytes"]) <= ours, "{told}");
        assert!(number(&full.peak["at_most_bytes"]) >= ours, "{told}");
    }
}
