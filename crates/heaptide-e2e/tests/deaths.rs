//! Every way to end: the ending is passed on exactly, and the capture holds every byte.

use std::io::{Read, Write};
use std::process::Stdio;

use heaptide_e2e::{
    Cage, Capture, Mode, Page, Python, Sandbox, each_python, modes, not_tested, run, stats,
};

/// How the program of `deaths.py` can end: the way, its exit code (or 1000 + signal), the status in
/// the capture, and a word of the status text.
const ENDINGS: [(&str, i32, &str, &str); 20] = [
    ("normal", 0, "finished", ""),
    ("sys.exit", 3, "finished", ""),
    ("exit text", 1, "finished", ""),
    ("exception", 1, "finished", ""),
    ("recursion", 1, "finished", ""),
    ("handler", 21, "finished", ""),
    ("failed exec", 0, "finished", ""),
    ("SIGINT", 1002, "finished", ""),
    ("segv", 1011, "died", "SIGSEGV"),
    ("abort", 1006, "died", "SIGABRT"),
    ("overflow", 1011, "died", "SIGSEGV"),
    ("SIGTERM", 1015, "died", "SIGTERM"),
    ("SIGKILL", 1009, "died", "SIGKILL"),
    ("SIGHUP", 1001, "died", "SIGHUP"),
    ("SIGUSR2", 1012, "died", "SIGUSR2"),
    ("_exit", 7, "died", "7"),
    ("c__exit", 11, "died", "11"),
    ("c_exit", 9, "died", "9"),
    ("thread", 13, "died", "13"),
    ("exec", 5, "died", "exec"),
];

#[test]
fn every_ending_is_passed_on_and_every_byte_is_there() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let modes = modes();
        let cases = ENDINGS
            .iter()
            .flat_map(|ending| modes.iter().map(move |mode| (mode, ending)));
        for (&mode, &(way, ending, status, word)) in cases {
            let program = sandbox.inside("deaths.py");
            let plain = run(sandbox.plain().arg(&program).arg(way));
            assert_eq!(plain.ending(), ending, "{way}, plain: {}", plain.errors());
            let _ = std::fs::remove_file(sandbox.capture());
            let profiled = run(sandbox.profiled_in(mode).arg(&program).arg(way));
            let way = format!("{way}, {mode:?}");
            assert_eq!(profiled.ending(), ending, "{way}: {}", profiled.errors());
            assert_eq!(profiled.text(), plain.text(), "{way}: stdout");
            let (ours, theirs) = (profiled.errors(), plain.errors());
            let interrupted = word.is_empty() && ending >= 1000;
            let killed = ending >= 1000 && !interrupted;
            if killed {
                assert!(
                    ours.starts_with(&theirs),
                    "{way}: stderr {ours:?}, plain {theirs:?}"
                );
                assert!(
                    ours[theirs.len()..].contains(word),
                    "{way}: stderr {ours:?}"
                );
            } else if !interrupted {
                assert_eq!(ours, theirs, "{way}: stderr");
            }

            let capture = Capture::read(&sandbox.capture());
            assert_eq!(capture.status(), status, "{way}: {}", capture.lifecycle);
            let text = stats(&sandbox.capture())["heaptide"]["status"]["text"].to_string();
            assert!(text.contains(word), "{way}: {text}");
            capture
                .consistency()
                .unwrap_or_else(|error| panic!("{way}: {error}"));
            let seen = capture.sum(|cell| {
                cell.allocator == "MALLOC"
                    && cell.stack.len() == 1
                    && cell.stack[0].line == sandbox.line("deaths.py", "made")
                    && cell.stack[0].file.ends_with("deaths.py")
            });
            assert_eq!(
                (seen.allocated_count, seen.allocated_bytes),
                (100, 100 * 70001),
                "{way}"
            );
            assert_eq!(
                (seen.live_count, seen.live_bytes),
                (60, 60 * 70001),
                "{way}"
            );
            assert_eq!(
                (seen.temporary_count, seen.temporary_bytes),
                (10, 10 * 70001),
                "{way}"
            );
        }
    });
}

#[test]
fn the_oom_killer_strikes() {
    each_python(|python| {
        modes()
            .into_iter()
            .for_each(|mode| the_oom_killer_strikes_in(python, mode));
    });
}

fn the_oom_killer_strikes_in(python: &Python, mode: Mode) {
    let sandbox = Sandbox::new(python);
    let Some(cage) = Cage::new(100 << 20) else {
        return not_tested("the OOM killer: no memory cgroup can be made here");
    };
    let mut command = sandbox.profiled_in(mode);
    command
        .arg(sandbox.inside("leak.py"))
        .arg(sandbox.inside("page"));
    let finished = run(cage.confine(&mut command));
    let errors = finished.errors();
    let page = Page::read(&sandbox.outside("page")).expect("the program's own count");
    let capture = Capture::read(&sandbox.capture());
    let truth = page.counters[0];
    let line = sandbox.line("leak.py", "leak");
    assert!(truth.allocated_bytes > 50 << 20, "it held {truth:?}");
    let seen = capture.sum(|cell| {
        let frames: Vec<(&str, u32)> = cell
            .stack
            .iter()
            .map(|f| (f.function.as_str(), f.line))
            .collect();
        frames
            == [
                ("serve", line),
                ("<module>", sandbox.line("leak.py", "serve")),
            ]
    });
    let least = truth.allocated_bytes / 100 * 99;
    assert!(
        u64::try_from(seen.live_bytes).unwrap() >= least && seen.peak_bytes == seen.live_bytes,
        "the line held {} of {} bytes",
        seen.live_bytes,
        truth.allocated_bytes
    );
    let most = truth.allocated_bytes + truth.pending_allocation;
    assert!(u64::try_from(seen.live_bytes).unwrap() <= most);
    // The killer may choose the supervisor, but it is small
    assert_eq!(finished.ending(), 1009, "{errors}");
    assert!(errors.contains("OOM killer"), "{errors}");
    let text = stats(&sandbox.capture())["heaptide"]["status"]["text"].to_string();
    assert!(
        text.to_lowercase().contains("memory") || text.contains("OOM"),
        "{text}"
    );
    // The supervisor's last words name the line
    assert!(errors.contains(&format!("leak.py:{line}")), "{errors}");
}

/// Totals only grow, the status is `running`, and the run is as good as one that nobody watched.
#[test]
fn reading_while_it_runs() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let mut child = sandbox
            .profiled()
            .arg(sandbox.inside("storm.py"))
            .arg(sandbox.inside("page"))
            .args(["1", "3000000"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("heaptide");
        let output = child.stdout.as_mut().expect("piped");
        let mut word = [0; 6];
        output.read_exact(&mut word).expect("the storm begins");
        let mut before = (0, 0, 0);
        for _ in 0..20 {
            let now = stats(&sandbox.capture());
            let number = |value: &serde_json::Value| value.as_u64().expect("a number");
            let totals = (
                number(&now["total_num_allocations"]),
                number(&now["total_bytes_allocated"]),
                number(&now["metadata"]["peak_memory"]),
            );
            assert!(
                totals.0 >= before.0 && totals.1 >= before.1,
                "{before:?}, then {totals:?}"
            );
            assert!(
                totals.2 >= before.2,
                "the peak went down: {before:?}, then {totals:?}"
            );
            assert_eq!(now["heaptide"]["status"]["state"], "running");
            before = totals;
        }
        child
            .stdin
            .take()
            .expect("piped")
            .write_all(b"enough")
            .expect("write");
        output.read_to_end(&mut Vec::new()).expect("the storm ends");
        assert!(child.wait().expect("wait").success());
        let page = Page::read(&sandbox.outside("page")).expect("a page");
        let capture = Capture::read(&sandbox.capture());
        assert_eq!(capture.status(), "finished");
        for (number, truth) in page.counters.iter().take(3).enumerate() {
            let seen = capture.sum(|cell| {
                u64::from(cell.thread_id) == truth.thread_id
                    && cell
                        .stack
                        .first()
                        .is_some_and(|frame| frame.function == "first")
            });
            assert_eq!(
                (seen.allocated_count, seen.allocated_bytes),
                (truth.allocated_count, truth.allocated_bytes),
                "thread {number}"
            );
        }
    });
}
