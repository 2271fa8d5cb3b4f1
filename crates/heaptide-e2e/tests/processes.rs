//! Programs of many processes: every one of them leaves a whole capture with a known answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use heaptide_e2e::{Capture, Python, Sandbox, each_python, heaptide, pythons, run};

/// What a block of `processes.py` is.
const SIZE: u64 = 91001;

/// The modes of a capture, as options.
const MODES: [&[&str]; 2] = [&[], &["--aggregate"]];

/// What the program says of one process.
struct Told {
    pid: u64,
    way: String,
    blocks: u64,
}

/// A run, its captures by process, and what it told.
struct Family {
    sandbox: Sandbox,
    root: u64,
    captures: BTreeMap<(u64, String), Capture>,
    told: Vec<Told>,
}

impl Family {
    /// Runs `processes.py` with `arguments`.
    fn run(python: &Python, options: &[&str], arguments: &[&str]) -> Self {
        let sandbox = Sandbox::new(python);
        let directory = sandbox.outside("captures");
        std::fs::create_dir(&directory).expect("a directory");
        let mut command = sandbox.command(sandbox.heaptide());
        command
            .arg("run")
            .args(options)
            .args(["-q", "-o"])
            .arg(sandbox.inside("captures/x.tide"))
            .arg("--python")
            .arg(&python.path)
            .arg(sandbox.inside("processes.py"))
            .args(arguments);
        let finished = run(&mut command);
        finished.expect_success(&format!("{arguments:?} {options:?}"));
        let told = finished
            .text()
            .lines()
            .map(|line| {
                let mut words = line.split(' ');
                let mut word = || words.next().expect("three words").to_owned();
                Told {
                    pid: word().parse().expect("a pid"),
                    way: word(),
                    blocks: word().parse().expect("a number"),
                }
            })
            .collect();
        let mut captures = BTreeMap::new();
        let mut root = 0;
        let mut group = BTreeSet::new();
        for path in files(&directory) {
            let name = path.file_name().expect("a name").to_string_lossy();
            let rest = name.strip_prefix("x.tide").expect("a capture").to_owned();
            let capture = Capture::read(&path);
            let pid = capture.header["pid"].as_u64().expect("a pid");
            if rest.is_empty() {
                root = pid;
            } else {
                assert!(rest == format!(".{pid}") || rest.starts_with(&format!(".{pid}.")));
            }
            group.insert(capture.header["group_id"].to_string());
            captures.insert((pid, rest), capture);
        }
        if options.iter().any(|option| option.starts_with("--follow")) {
            assert_eq!(group.len(), 1, "one group: {group:?}");
        }
        Self {
            sandbox,
            root,
            captures,
            told,
        }
    }

    /// The captures of one process, in order.
    fn of(&self, pid: u64) -> Vec<&Capture> {
        let of_it = self.captures.iter().filter(|((its, _), _)| *its == pid);
        of_it.map(|(_, capture)| capture).collect()
    }

    /// Compares every process with what was told.
    fn check(&self) -> Result<(), String> {
        for told in &self.told {
            let captures = self.of(told.pid);
            let name = format!("{} of {}", told.way, told.pid);
            let Some(capture) = captures.first() else {
                return Err(format!("{name}: no capture"));
            };
            if blocks(capture) != told.blocks {
                let seen = blocks(capture);
                return Err(format!("{name}: {seen} blocks, not {}", told.blocks));
            }
            check_ending(capture, &told.way).map_err(|error| format!("{name}: {error}"))?;
            if capture.header["root_pid"] != self.root {
                return Err(format!("{name}: {}", capture.header));
            }
        }
        for (key, capture) in &self.captures {
            // A storm of threads goes beyond the numbers that threads get of their own, and the capture says so.
            match capture.consistency() {
                Err(error) if !error.starts_with("overflow_threads") => {
                    return Err(format!("{key:?}: {error}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn files(directory: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

/// How many of the program's blocks a process has made.
fn blocks(capture: &Capture) -> u64 {
    let ours = |function: &str| function == "burden";
    let sum = capture.sum(|cell| {
        cell.allocator == "MALLOC"
            && cell
                .stack
                .first()
                .is_some_and(|frame| ours(&frame.function))
    });
    // ctypes may allocate on the same line, but nothing as large.
    sum.allocated_bytes / SIZE
}

fn check_ending(capture: &Capture, way: &str) -> Result<(), String> {
    let (status, word) = match way {
        "return" | "sys.exit" | "root" => ("finished", ""),
        "_exit" => ("died", "exited with code"),
        "nested" => ("died", "exited with code 0"),
        "SIGKILL" => ("died", "SIGKILL"),
        "SIGTERM" => ("died", "SIGTERM"),
        "abort" => ("died", "SIGABRT"),
        "exec" => ("died", "exec"),
        other => panic!("{other}"),
    };
    let text = capture.lifecycle["status_text"].as_str().unwrap_or("");
    if capture.status() == status && text.contains(word) {
        Ok(())
    } else {
        Err(format!("{}: {text}", capture.status()))
    }
}

#[track_caller]
fn check(python: &Python, options: &[&str], arguments: &[&str], captures: usize) -> Family {
    let family = Family::run(python, options, arguments);
    let name = format!("{arguments:?} {options:?}");
    family
        .check()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let names: Vec<_> = family.captures.keys().collect();
    assert_eq!(names.len(), captures, "{name}: {names:?}");
    family
}

fn with<'a>(mode: &[&'a str], option: &'a str) -> Vec<&'a str> {
    let mut options = mode.to_vec();
    options.push(option);
    options
}

#[test]
fn forked_children_end_in_every_way() {
    each_python(|python| {
        for mode in MODES {
            let family = check(python, &with(mode, "--follow-fork"), &["endings"], 8);
            for told in &family.told {
                let header = &family.of(told.pid)[0].header;
                assert_eq!(header["origin"], "forked");
                assert_eq!(header["parent_pid"], family.root);
            }
            assert_eq!(blocks(family.of(family.root)[0]), 5);
        }
    });
}

#[test]
fn nothing_is_followed_unasked() {
    each_python(|python| {
        for mode in MODES {
            let family = Family::run(python, mode, &["endings"]);
            assert_eq!(family.captures.len(), 1);
            assert_eq!(blocks(family.of(family.root)[0]), 5);
            let header = &family.of(family.root)[0].header;
            assert!(header["group_id"].is_null() && header["origin"].is_null());
        }
    });
}

#[test]
fn forks_of_forks_know_nothing_of_their_parents_blocks() {
    each_python(|python| {
        for mode in MODES {
            let family = check(python, &with(mode, "--follow-fork"), &["nested"], 4);
            for told in &family.told {
                let frees = |key: &str| {
                    let slots = &family.of(told.pid)[0].slots;
                    slots
                        .iter()
                        .filter_map(|slot| slot[key].as_u64())
                        .sum::<u64>()
                };
                // Counted by whoever reads the events, in mode "all".
                assert!(mode.is_empty() || frees("unknown_frees") >= 5);
            }
        }
    });
}

#[test]
fn forks_out_of_a_storm_of_threads() {
    each_python(|python| {
        for mode in MODES {
            check(python, &with(mode, "--follow-fork"), &["threads"], 61);
        }
    });
}

#[test]
fn two_hundred_children_leave_two_hundred_captures() {
    let python = pythons().last().expect("an interpreter");
    for mode in MODES {
        let family = check(python, &with(mode, "--follow-children"), &["many"], 201);
        assert_eq!(family.told.len(), 200);
    }
}

#[test]
fn a_pre_fork_server_with_four_workers() {
    each_python(|python| {
        for mode in MODES {
            let family = check(python, &with(mode, "--follow-fork"), &["server"], 5);
            let served: u64 = family.told.iter().map(|told| told.blocks).sum();
            assert_eq!(served, 1400);
        }
    });
}

#[test]
fn other_programs_and_other_interpreters() {
    let all = pythons();
    let local: Vec<_> = all.iter().filter(|python| python.root.is_none()).collect();
    for (index, python) in local.iter().enumerate() {
        let other = local[(index + 1) % local.len()];
        let other = other.path.to_str().expect("UTF-8");
        for mode in MODES {
            let options = with(mode, "--follow-children");
            // The root, the child, the other interpreter, the one below the shell, two images of one
            // process, and the spawned one.
            let family = check(python, &options, &["mixed", other], 7);
            let (_, below_shell) = family
                .captures
                .iter()
                .find(|(_, capture)| blocks(capture) == 13)
                .expect("the one below a shell");
            assert_ne!(below_shell.header["parent_pid"], family.root);
            let exec = family.told.iter().find(|told| told.blocks == 3);
            let images = family.of(exec.expect("told").pid);
            assert_eq!(images.len(), 2);
            assert_eq!(blocks(images[1]), 14);
            assert_eq!(images[1].header["origin"], "started");
            check_ending(images[1], "SIGKILL").expect("the second image");
        }
    }
}

#[test]
fn pools_of_multiprocessing() {
    each_python(|python| {
        for mode in MODES {
            // fork: 3; spawn: 3 and a resource tracker; forkserver: a server and 3; executor: 2 at most
            let family = Family::run(python, &with(mode, "--follow-children"), &["pools"]);
            family.check().expect("consistent");
            let made: u64 = family.captures.values().map(blocks).sum();
            assert_eq!(made, 3 * (40 + 25) + 20, "{:?}", family.captures.keys());
            assert!(family.sandbox.outside("captures").exists());
        }
    });
}

/// Runs a report over a directory of captures.
fn report(family: &Family, arguments: &[&str]) -> serde_json::Value {
    let mut command = std::process::Command::new(heaptide());
    let finished = run(command
        .args(arguments)
        .arg(family.sandbox.outside("captures")));
    finished.expect_success(&format!("{arguments:?}"));
    serde_json::from_slice(&finished.stdout).expect("JSON")
}

#[test]
fn the_peak_of_all_processes_together() {
    const HELD: u64 = 64 << 20;
    let python = pythons().last().expect("an interpreter");
    for mode in MODES {
        let family = check(python, &with(mode, "--follow-fork"), &["curves"], 4);
        let group = report(&family, &["merge", "--json"]);
        let number = |value: &serde_json::Value| value.as_u64().expect("a number");
        let peak = &group["combined_peak"];
        // Two held their blocks together, the third came later; the rest is the interpreter's.
        let together = number(&peak["heap_bytes"]);
        assert!(
            (2 * HELD..2 * HELD + (16 << 20)).contains(&together),
            "{peak}"
        );
        assert!(number(&peak["at_most_bytes"]) >= together);
        assert!(number(&peak["at_most_bytes"]) < 3 * HELD);
        assert!(number(&group["sum_of_peaks_bytes"]) >= 3 * HELD);
        let processes = group["processes"].as_array().expect("a list");
        assert_eq!(processes.len(), 4);
        assert_eq!(processes[0]["origin"], "root");

        let stats = report(&family, &["stats", "--json"]);
        assert!(number(&stats["metadata"]["peak_memory"]) >= 3 * HELD);
        let pid = processes[3]["pid"].to_string();
        let one = report(&family, &["stats", "--json", "--process", &pid]);
        assert_eq!(one["metadata"]["pid"], processes[3]["pid"]);
        let peak = number(&one["metadata"]["peak_memory"]);
        assert!((HELD..HELD + (16 << 20)).contains(&peak));
    }
}

#[test]
fn forks_in_the_middle_of_an_event() {
    each_python(|python| {
        if python.root.is_some() {
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let library = directory.path().join("handler.so");
        let source = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/adversity/fork_in_handler.c"
        );
        let status = std::process::Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-fno-builtin", "-o"])
            .arg(&library)
            .arg(source)
            .status();
        assert!(status.expect("cc").success());
        let library = library.to_str().expect("UTF-8");
        for mode in MODES {
            for option in ["--follow-fork", "--quiet"] {
                let options = if option == "--quiet" {
                    mode.to_vec()
                } else {
                    with(mode, option)
                };
                let family = Family::run(python, &options, &["handler", library]);
                // Those that came between two events are recorded.
                family
                    .check()
                    .unwrap_or_else(|error| panic!("{options:?}: {error}"));
                assert!(family.captures.len() <= 301);
                assert!(
                    option == "--quiet" || family.captures.len() > 1,
                    "{options:?}"
                );
            }
        }
    });
}
