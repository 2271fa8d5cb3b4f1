//! `--trace-python-allocators` against functions of the program that count the same requests.

use std::path::Path;

use heaptide_e2e::{Capture, Counters, Python, Sandbox, each_python, run, stats};

const PROGRAM: &str = "python_requests.py";
const DOMAINS: [&str; 3] = ["raw", "mem", "object"];
const KINDS: [&str; 3] = ["PYMALLOC_MALLOC", "PYMALLOC_CALLOC", "PYMALLOC_REALLOC"];

/// What the program's own functions counted.
struct Counted {
    threads: Vec<u64>,
    failed: u64,
    zero: u64,
    /// Count, bytes, count of live ones and their bytes, by domain and kind.
    counters: Vec<[u64; 4]>,
}

impl Counted {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("the program made a page");
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
            .collect();
        let count = usize::try_from(words[1]).expect("a few");
        Self {
            threads: words[4..][..count].to_vec(),
            failed: words[2],
            zero: words[3],
            counters: words[20..][..36]
                .chunks_exact(4)
                .map(|four| four.try_into().expect("four"))
                .collect(),
        }
    }
}

/// What it said on stdout: process and the threads of its work.
fn told(text: &str) -> Vec<(u64, Vec<u64>)> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a process and its threads"))
        .collect()
}

/// The capture must have counted as the program did. Where the program puts `tracemalloc` in front of
/// us while it counts, frees are not compared.
#[track_caller]
fn compare(name: &str, sandbox: &Sandbox, capture: &Capture, page: &Path, threads: &[u64]) {
    let asked = name.contains("\"tracemalloc");
    let counted = Counted::read(page);
    assert!(counted.failed > 0 && counted.zero > 0, "{name}: edges");
    assert_eq!(capture.header["trace_python_allocators"], true, "{name}");
    assert_eq!(capture.status(), "finished", "{name}");
    // Between the stop of a tracemalloc that was on before us and our return nothing is seen.
    if !name.contains("stop-tracemalloc") {
        capture
            .consistency()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let line = sandbox.line(PROGRAM, "WORK");
    let mut errors = Vec::new();
    for (index, expected) in counted.counters.iter().enumerate() {
        let (domain, kind) = (DOMAINS[index / 3], KINDS[index % 3]);
        let seen: Counters = capture.sum(|cell| {
            let thread_id = u64::from(cell.thread_id);
            cell.domain.as_deref() == Some(domain)
                && cell.allocator == kind
                && (threads.contains(&thread_id)
                    || counted.threads.contains(&thread_id)
                    || cell
                        .stack
                        .iter()
                        .any(|frame| frame.function == "measured" && frame.line == line))
        });
        let unsigned = |value: i64| u64::try_from(value).expect("not negative");
        let seen = [
            seen.allocated_count,
            seen.allocated_bytes,
            unsigned(seen.live_count),
            unsigned(seen.live_bytes),
        ];
        let same = if asked {
            // Our question whether requests still come by us is no request of the program
            let (count, bytes) = (expected[0] - seen[0], expected[1] - seen[1]);
            count <= 24 && bytes <= 16 * count
        } else {
            seen == *expected
        };
        if !same {
            errors.push(format!(
                "{domain} {kind}: {expected:?} requested, {seen:?} captured"
            ));
        }
        assert!(expected[0] > 0, "{name}: no {kind} of {domain}");
    }
    assert!(errors.is_empty(), "{name}:\n{}", errors.join("\n"));
}

/// Runs the program, and compares.
#[track_caller]
fn check(python: &Python, environment: &[(&str, &str)], words: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new(python);
    let name = format!("Python {} {environment:?} {words:?}", python.version());
    let mut command = sandbox.profiled_with(&["--trace-python-allocators"]);
    command
        .envs(environment.iter().copied())
        .arg(sandbox.inside(PROGRAM))
        .arg(sandbox.inside("counters"))
        .args(words);
    let finished = run(&mut command);
    finished.expect_success(&name);
    assert_eq!(finished.errors(), "", "{name}: stderr");
    let told = told(&finished.text());
    let capture = Capture::read(&sandbox.capture());
    compare(
        &name,
        &sandbox,
        &capture,
        &sandbox.outside("counters"),
        &told[0].1,
    );
    sandbox
}

#[test]
fn requests_of_one_thread() {
    each_python(|python| {
        let sandbox = check(python, &[], &[]);
        let stats = stats(&sandbox.capture());
        assert_eq!(stats["metadata"]["trace_python_allocators"], true);
        let rows = stats["heaptide"]["python_allocators"]
            .as_array()
            .expect("a list");
        assert_eq!(rows.len(), 9);
        let count = |row: &serde_json::Value| row["allocated"]["count"].as_u64().expect("a count");
        let mallocs = rows.iter().filter(|row| row["allocator"] == KINDS[0]);
        let distribution = &stats["allocator_type_distribution"];
        assert_eq!(
            distribution[KINDS[0]].as_u64(),
            Some(mallocs.map(count).sum())
        );
    });
}

#[test]
fn requests_of_many_threads_some_unknown_to_python() {
    each_python(|python| drop(check(python, &[], &["threads"])));
}

#[test]
fn requests_of_subinterpreters() {
    each_python(|python| drop(check(python, &[], &["subinterpreters"])));
}

#[test]
fn with_other_allocators_behind() {
    each_python(|python| {
        let default = if python.free_threaded {
            "mimalloc"
        } else {
            "pymalloc"
        };
        for allocator in python.allocators().iter().filter(|&&name| name != default) {
            check(python, &[("PYTHONMALLOC", allocator)], &[]);
        }
        if python.minor >= 13 {
            let environment = [("PYTHONMALLOC", "mimalloc")];
            let sandbox = Sandbox::new(python);
            let mut command = sandbox.plain();
            command.envs(environment).args(["-c", "pass"]);
            if run(&mut command).ending() == 0 {
                check(python, &environment, &["threads"]);
            }
        }
        check(python, &[("PYTHONDEVMODE", "1")], &["threads"]);
    });
}

#[test]
fn tracemalloc_in_front_and_behind() {
    each_python(|python| {
        check(python, &[], &["tracemalloc"]);
        check(python, &[], &["tracemalloc-left-on", "threads"]);
        // On before us, and stopped by the program: we are taken out by that, and come back
        let on = [("PYTHONTRACEMALLOC", "3")];
        check(python, &on, &[]);
        check(python, &on, &["stop-tracemalloc", "threads"]);
    });
}

/// Fails requests while an audit event is told, then goes.
const LIMITER: &str = "
import sys
try:
    import _testcapi
except ImportError:
    pass
else:
    try:
        _testcapi.set_nomemory(0, 40)
        sys.audit('x')
    except MemoryError:
        pass
    _testcapi.remove_mem_hooks()
print('ok')
";

#[test]
fn a_limiter_in_front_stays_there() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let mut command = sandbox.profiled_with(&["--trace-python-allocators"]);
        let finished = run(command.args(["-c", LIMITER]));
        let name = format!("Python {}", python.version());
        finished.expect_success(&name);
        assert_eq!(finished.text().trim(), "ok", "{name}");
    });
}

#[test]
fn a_forked_child_counts_for_itself() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let name = format!("Python {}", python.version());
        let mut command = sandbox.profiled_with(&["--trace-python-allocators", "--follow-fork"]);
        command
            .arg(sandbox.inside(PROGRAM))
            .arg(sandbox.inside("counters"))
            .args(["fork", "threads"]);
        let finished = run(&mut command);
        finished.expect_success(&name);
        let told = told(&finished.text());
        assert_eq!(told.len(), 2, "{name}");
        for (number, (pid, threads)) in told.iter().enumerate() {
            let child = number == 0;
            let capture = if child {
                sandbox.outside(format!("capture.tide.{pid}"))
            } else {
                sandbox.capture()
            };
            let page = sandbox.outside(if child { "counters.child" } else { "counters" });
            let name = format!("{name}, child: {child}");
            compare(&name, &sandbox, &Capture::read(&capture), &page, threads);
        }
    });
}

#[test]
fn a_child_that_is_not_followed_is_left_alone() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let mut command = sandbox.profiled_with(&["--trace-python-allocators"]);
        command
            .arg(sandbox.inside(PROGRAM))
            .arg(sandbox.inside("counters"))
            .args(["fork", "threads"]);
        let finished = run(&mut command);
        finished.expect_success(&python.version());
        let parent = told(&finished.text()).pop().expect("a parent");
        let capture = Capture::read(&sandbox.capture());
        let page = sandbox.outside("counters");
        compare(&python.version(), &sandbox, &capture, &page, &parent.1);
    });
}

#[test]
fn daemons_at_the_end() {
    each_python(|python| {
        for _ in 0..3 {
            check(python, &[], &["daemons"]);
        }
    });
}

/// Both modes say the same of a program with one thread, figure by figure.
#[test]
fn both_modes_agree() {
    each_python(|python| {
        let [mut all, mut aggregated] = [&[][..], &["--aggregate"][..]].map(|mode| {
            let sandbox = Sandbox::new(python);
            let mut command = sandbox.command(sandbox.heaptide());
            command
                .arg("run")
                .args(mode)
                .args(["--trace-python-allocators", "-q", "-o"])
                .arg(sandbox.inside("capture.tide"))
                .arg("--python")
                .arg(&python.path)
                .arg(sandbox.inside("requests_twice.py"));
            run(&mut command).expect_success(&python.version());
            let capture = Capture::read(&sandbox.capture());
            let cells = capture.cells.into_iter().filter(|cell| {
                cell.domain.is_some() && cell.stack.iter().any(|frame| frame.function == "measured")
            });
            let place = sandbox.inside("").to_string_lossy().into_owned();
            cells
                .map(|cell| {
                    let frames = cell.stack.iter();
                    let stack: Vec<String> = frames
                        .map(|f| {
                            let file = f.file.replace(&place, "");
                            format!("{}:{file}:{}:{:?}", f.function, f.line, f.column)
                        })
                        .collect();
                    (stack, cell.domain, cell.allocator, cell.counters)
                })
                .collect::<Vec<_>>()
        });
        let key = |row: &(Vec<String>, Option<String>, String, Counters)| {
            (row.0.clone(), row.1.clone(), row.2.clone())
        };
        all.sort_by_key(key);
        aggregated.sort_by_key(key);
        assert!(all.len() > 30, "only {} cells", all.len());
        assert_eq!(all.len(), aggregated.len());
        for (one, other) in all.iter().zip(&aggregated) {
            assert_eq!(one, other);
        }
    });
}
