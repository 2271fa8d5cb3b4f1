//! Tracking that starts and stops inside a program, by the functions that the agent exports.

use std::collections::HashMap;

use heaptide_e2e::{
    Capture, Counters, Finished, Mode, Sandbox, Stretches, each_python, ground_truth_from_inside,
    modes, run,
};
use heaptide_format::{Event, MetadataKey, State};
use serde_json::{Value, json};

/// Programs with known answers, tracked from inside: what `heaptide run` sees is what a stretch sees.
#[test]
fn known_answers() {
    each_python(|python| {
        for program in [
            "allocators.py",
            "mappings.py",
            "frames.py",
            "threads.py",
            "early_threads.py",
            "recompiled.py",
            "objects.py",
            "coroutines.py",
            "subinterpreters.py",
        ] {
            ground_truth_from_inside(python, program, &[]);
        }
    });
}

/// Runs one of the things that `stretches.py` does, and returns what it has found.
#[track_caller]
fn told(sandbox: &Sandbox, stretches: &Stretches, what: &[&str]) -> Value {
    let finished = finished(sandbox, stretches, what);
    let name = format!("{what:?}, Python {}", sandbox.python.version());
    finished.expect_success(&name);
    assert_eq!(finished.errors(), "", "{name}");
    serde_json::from_slice(&finished.stdout).expect("JSON")
}

#[track_caller]
fn finished(sandbox: &Sandbox, stretches: &Stretches, what: &[&str]) -> Finished {
    let mut command = sandbox.tracking_itself(stretches);
    command.arg(sandbox.inside("stretches.py")).args(what);
    run(&mut command)
}

/// The blocks that `stretches.py` makes on its one line, and nothing else may be on it.
#[track_caller]
fn made(sandbox: &Sandbox, capture: &Capture) -> (u64, i64) {
    let sum = on_the_line(sandbox, capture);
    assert_eq!(sum.allocated_bytes, sum.allocated_count * SIZE);
    (sum.allocated_count, sum.live_count)
}

#[track_caller]
fn on_the_line(sandbox: &Sandbox, capture: &Capture) -> Counters {
    let line = sandbox.line("stretches.py", "made");
    capture.sum(|cell| {
        let leaf = cell.stack.first();
        leaf.is_some_and(|frame| frame.line == line && frame.function == "make")
            && cell.allocator == "MALLOC"
    })
}

/// What `make` makes.
const SIZE: u64 = 70_001;

fn of_slots(capture: &Capture, key: &str) -> u64 {
    let number = |slot: &Value| slot[key].as_u64().expect("a number");
    capture.slots.iter().map(number).sum()
}

#[test]
fn every_code() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let told = told(&sandbox, &Stretches::of(Mode::All, 2), &["codes"]);
        let expected = json!({
            "before": [3, 0],
            "size": 5, "null": 5, "flags": 5, "relative": 5,
            "missing": [8, libc::ENOENT],
            "zeroes": 9,
            "without_gil": 6,
            "start": [0, 1],
            "again": 1,
            "stop": [0, 0],
            "used": 9,
            "next": [0, 0],
            "after": 3,
        });
        assert_eq!(told, expected, "Python {}", python.version());
    });
}

#[test]
fn under_heaptide_run_it_is_refused() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        // Puts the agent where the program finds it.
        drop(sandbox.tracking_itself(&Stretches::of(Mode::All, 0)));
        let mut command = sandbox.profiled();
        command
            .env("HEAPTIDE_STRETCH_AGENT", sandbox.inside("agent.so"))
            .arg(sandbox.inside("stretches.py"))
            .arg("supervised");
        let finished = run(&mut command);
        finished.expect_success(&format!("Python {}", python.version()));
        let told: Value = serde_json::from_slice(&finished.stdout).expect("JSON");
        assert_eq!(told, json!({"start": 2, "stop": 2, "state": 4}));
        assert_eq!(Capture::read(&sandbox.capture()).status(), "finished");
    });
}

#[test]
fn blocks_of_another_stretch() {
    each_python(|python| {
        for mode in modes() {
            let sandbox = Sandbox::new(python);
            let told = told(&sandbox, &Stretches::of(mode, 2), &["across"]);
            assert_eq!(told["codes"], json!([0, 0, 0, 0]));
            let [first, second] = [0, 1].map(|number| Capture::read(&sandbox.stretch(number)));
            let name = format!("Python {}, {mode:?}", python.version());
            for capture in [&first, &second] {
                capture
                    .consistency()
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(capture.status(), "finished", "{name}");
            }
            // What is freed between two stretches is nobody's.
            assert_eq!(made(&sandbox, &first), (10, 10), "{name}");
            assert_eq!(made(&sandbox, &second), (3, 2), "{name}");
            let freed = told["freed"].as_u64().expect("a number");
            if mode == Mode::Aggregated {
                assert!(of_slots(&second, "unknown_frees") >= freed, "{name}");
            }
        }
    });
}

#[test]
fn a_child_that_is_not_followed() {
    each_python(|python| {
        for mode in modes() {
            let sandbox = Sandbox::new(python);
            let told = told(&sandbox, &Stretches::of(mode, 2), &["fork"]);
            let name = format!("Python {}, {mode:?}", python.version());
            assert_eq!(told["codes"], json!([0, 0]), "{name}");
            // Idle, nothing to stop; then its own stretch.
            assert_eq!(told["child"], json!([0, 3, 0, 0, 1, 0]), "{name}");
            let [parent, child] = [0, 1].map(|number| Capture::read(&sandbox.stretch(number)));
            for capture in [&parent, &child] {
                capture
                    .consistency()
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            assert_eq!(made(&sandbox, &parent), (10, 9), "{name}");
            assert_eq!(made(&sandbox, &child), (9, 9), "{name}");
            assert_ne!(parent.header["pid"], child.header["pid"], "{name}");
            let named = |cell: &heaptide_e2e::Cell| cell.thread_name == "of the child";
            assert!(child.cells.iter().any(named), "{name}");
        }
    });
}

#[test]
fn children_that_are_followed() {
    each_python(|python| {
        for mode in modes() {
            let sandbox = Sandbox::new(python);
            let stretches = Stretches {
                follow_fork: true,
                memory_interval_ms: 1,
                ..Stretches::of(mode, 1)
            };
            let told = told(&sandbox, &stretches, &["follow"]);
            let name = format!("Python {}, {mode:?}", python.version());
            assert_eq!(told["codes"], json!([0, 0]), "{name}");
            assert_eq!(made(&sandbox, &Capture::read(&sandbox.stretch(0))).0, 11);
            let mut captures = 0;
            for child in told["children"].as_array().expect("a list") {
                let (way, pid) = (child[0].as_str().expect("a way"), &child[1]);
                let status = child[2].as_i64().expect("a status");
                let capture = Capture::read(&sandbox.outside(format!("0.tide.{pid}")));
                assert_eq!(&capture.header["pid"], pid, "{name}");
                assert_eq!(made(&sandbox, &capture).0, 20, "{name}, {way}");
                let (expected, state) = match way {
                    "stop" => (0, "finished"),
                    "grandchild" => (0, "finished"),
                    "_exit" => (5 << 8, "died"),
                    // Two threads: the sampler is one.
                    "samples" => (2 << 8, "died"),
                    _ => (9, "died"),
                };
                assert_eq!(
                    (status, capture.status()),
                    (expected, state),
                    "{name}, {way}"
                );
                if way == "samples" {
                    let path = sandbox.outside(format!("0.tide.{pid}"));
                    let read = heaptide_capture::Capture::open(path).expect("a capture");
                    assert!(read.samples.len() > 10, "{name}: {}", read.samples.len());
                }
                captures += 1;
            }
            let names = std::fs::read_dir(sandbox.outside("")).expect("a directory");
            let names: Vec<String> = names
                .map(|entry| {
                    entry
                        .expect("an entry")
                        .file_name()
                        .into_string()
                        .expect("text")
                })
                .filter(|name| name.starts_with("0.tide."))
                .collect();
            // The grandchild too; but not the stranger.
            assert_eq!(names.len(), captures + 1, "{name}: {names:?}");
            assert!(!names.contains(&format!("0.tide.{}", told["stranger"])));
        }
    });
}

#[test]
fn the_end_while_tracking_is_on() {
    each_python(|python| {
        for mode in modes() {
            for (way, ending, status) in [
                ("return", 0, "finished"),
                ("sys.exit", 3, "finished"),
                ("exception", 1, "finished"),
                ("_exit", 7, "died"),
                ("SIGKILL", 1009, "died"),
            ] {
                let sandbox = Sandbox::new(python);
                let finished = finished(&sandbox, &Stretches::of(mode, 1), &["end", way]);
                let name = format!("Python {}, {mode:?}, {way}", python.version());
                assert_eq!(finished.ending(), ending, "{name}: {}", finished.errors());
                let capture = Capture::read(&sandbox.stretch(0));
                assert_eq!(capture.status(), status, "{name}: {}", capture.lifecycle);
                assert_eq!(made(&sandbox, &capture), (10, 10), "{name}");
            }
        }
    });
}

#[test]
fn samples_without_a_supervisor() {
    each_python(|python| {
        for mode in modes() {
            let sandbox = Sandbox::new(python);
            let stretches = Stretches {
                memory_interval_ms: 1,
                ..Stretches::of(mode, 1)
            };
            let told = told(&sandbox, &stretches, &["samples"]);
            let name = format!("Python {}, {mode:?}: {told}", python.version());
            assert_eq!(told["codes"], json!([0, 0]), "{name}");
            // One thread more while tracking is on, none of Python's and none in children.
            assert_eq!(told["tasks"], json!([1, 2, 1, 1, 1, 1, 1, 2, 1]), "{name}");
            assert_eq!(told["python"], json!([1, 1]), "{name}");
            let capture = heaptide_capture::Capture::open(sandbox.stretch(0)).expect("a capture");
            let samples = &capture.samples;
            let forked = told["forked_ns"].as_u64().expect("a time");
            let before = samples.iter().filter(|one| one.unix_ns < forked).count();
            let after = samples.len() - before;
            assert!(before > 20 && after > 20, "{name}: {before}, {after}");
            let resident = |one: &heaptide_format::Sample| one.resident_bytes;
            let (least, most) = (
                samples.iter().map(resident).min().expect("some"),
                samples.iter().map(resident).max().expect("some"),
            );
            assert!(most > least + (24 << 20), "{name}: {least}, {most}");
            if mode == Mode::All {
                assert!(
                    samples.windows(2).all(|pair| pair[0].turn < pair[1].turn),
                    "{name}"
                );
            }
        }
    });
}

/// How many stretches a program has that does something else besides.
const SOME: usize = 100;

#[track_caller]
fn all_went_well(told: &Value, count: usize, name: &str) {
    assert_eq!(told["codes"], json!(vec![0; 2 * count]), "{name}");
}

#[test]
fn signals_in_the_middle() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let stretches = Stretches {
            captures: (0..SOME).map(|n| (Mode::BOTH[n % 2], n % 4 > 1)).collect(),
            ..Stretches::of(Mode::All, 0)
        };
        let told = told(&sandbox, &stretches, &["signals"]);
        let name = format!("Python {}", python.version());
        all_went_well(&told, SOME, &name);
        for number in 0..SOME {
            let capture = Capture::read(&sandbox.stretch(number));
            assert_eq!(capture.status(), "finished", "{name}");
            assert_eq!(made(&sandbox, &capture), (5, 0), "{name}");
        }
    });
}

#[test]
fn allocators_of_others() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let stretches = Stretches {
            captures: (0..8).map(|n| (Mode::Aggregated, n != 3)).collect(),
            ..Stretches::of(Mode::All, 0)
        };
        let told = told(&sandbox, &stretches, &["wrapped"]);
        let name = format!("Python {}", python.version());
        all_went_well(&told, 8, &name);
        for number in 0..8 {
            let capture = Capture::read(&sandbox.stretch(number));
            let seen = capture.sum(|cell| {
                cell.domain.as_deref() == Some("object")
                    && cell.stack.iter().any(|frame| frame.function == "objects")
            });
            let count = seen.allocated_count;
            assert!(
                (if number == 3 {
                    count == 0
                } else {
                    count >= 1000
                }),
                "{name}, stretch {number}: {seen:?}"
            );
        }
    });
}

#[test]
fn what_requests_give_back_besides() {
    each_python(|python| {
        for mode in modes() {
            let sandbox = Sandbox::new(python);
            let stretches = Stretches {
                captures: vec![(mode, true)],
                ..Stretches::of(mode, 0)
            };
            let told = told(&sandbox, &stretches, &["given_back"]);
            let name = format!("Python {}, {mode:?}", python.version());
            assert_eq!(told["codes"], json!([0, 0]), "{name}");
            let capture = Capture::read(&sandbox.stretch(0));
            capture
                .consistency()
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(made(&sandbox, &capture), (11, 1), "{name}");
        }
    });
}

#[test]
fn a_thread_that_does_not_leave_its_hook() {
    each_python(|python| {
        for mode in modes() {
            let sandbox = Sandbox::new(python);
            let stretches = Stretches {
                captures: vec![(mode, true); 2],
                ..Stretches::of(mode, 0)
            };
            let told = told(&sandbox, &stretches, &["stuck"]);
            let name = format!("Python {}, {mode:?}", python.version());
            // Stopped, but busy: no start, and nothing more to stop; then all is well again.
            assert_eq!(told["codes"], json!([0, 0, 3, 4, 3, 0, 1, 0, 0]), "{name}");
            assert!(told["waited"].as_f64() >= Some(1.0), "{name}: {told}");
            for (number, expected) in [(0, 4), (1, 2)] {
                let capture = Capture::read(&sandbox.stretch(number));
                assert_eq!(capture.status(), "finished", "{name}");
                assert_eq!(made(&sandbox, &capture).0, expected, "{name}");
            }
        }
    });
}

/// How many stretches `stretches.py` has when threads race for them.
const RACES: usize = 200;

#[test]
fn threads_that_race_for_it_and_fork() {
    each_python(|python| {
        for follow_fork in [false, true] {
            let sandbox = Sandbox::new(python);
            let stretches = Stretches {
                captures: (0..RACES).map(|n| (Mode::BOTH[n % 2], n % 4 > 1)).collect(),
                follow_fork,
                memory_interval_ms: 1,
                ..Stretches::of(Mode::All, 0)
            };
            let told = told(&sandbox, &stretches, &["racing"]);
            let name = format!("Python {}, {follow_fork}: {told}", python.version());
            assert_eq!(told["state"], 0, "{name}");
            // Every stretch was had once, and stopped once, whoever did it.
            assert_eq!(told["start 0"], RACES, "{name}");
            assert_eq!(told["stop 0"], RACES, "{name}");
            for key in told.as_object().expect("an object").keys() {
                // Else: another has it, is at it, or has been quicker; children are idle, or tracked.
                let known = [
                    "start 0", "start 1", "start 4", "stop 0", "stop 3", "stop 4",
                ];
                let child = ["child 0", if follow_fork { "child 256" } else { "child 0" }];
                let known = known.iter().chain(&child).any(|known| known == key);
                assert!(known || key == "state", "{name}: {key}");
            }
            for number in 0..RACES {
                let path = sandbox.stretch(number);
                let read = heaptide_capture::Capture::open(path).expect("a capture");
                assert_eq!(read.lifecycle.state, State::Finished as u32, "{name}");
            }
        }
    });
}

#[test]
fn hooks_that_wait_for_the_gil() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let stretches = Stretches {
            captures: (0..SOME).map(|n| (Mode::BOTH[n % 2], true)).collect(),
            ..Stretches::of(Mode::All, 0)
        };
        let told = told(&sandbox, &stretches, &["waiting"]);
        let name = format!("Python {}", python.version());
        all_went_well(&told, SOME, &name);
        for number in 0..SOME {
            let capture = Capture::read(&sandbox.stretch(number));
            // Tables of `tracemalloc` may grow on the same line.
            let seen = on_the_line(&sandbox, &capture);
            let known = 3 * SIZE..4 * SIZE;
            assert!(
                known.contains(&seen.allocated_bytes),
                "{name}, stretch {number}: {seen:?}"
            );
            assert!(seen.live_count >= 3, "{name}, stretch {number}: {seen:?}");
        }
    });
}

/// How many stretches one process has.
const RESTARTS: usize = 1000;
/// What may be left of the last three quarters of them: less than a page of each.
const LEFT_BYTES: u64 = 2 << 20;

#[test]
fn a_thousand_stretches_under_eight_threads() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let captures = (0..RESTARTS).map(|number| {
            let mode = Mode::BOTH[number % 2];
            (mode, number % 4 >= 2)
        });
        let stretches = Stretches {
            captures: captures.collect(),
            memory_interval_ms: 1,
            ..Stretches::of(Mode::All, 0)
        };
        let mut command = sandbox.tracking_itself(&stretches);
        // The C library reserves 64 MiB for a thread when it feels like it.
        command.env("MALLOC_ARENA_MAX", "1");
        command
            .arg(sandbox.inside("restarts.py"))
            .arg(RESTARTS.to_string());
        let finished = run(&mut command);
        let name = format!("Python {}", python.version());
        finished.expect_success(&name);
        assert_eq!(finished.errors(), "", "{name}");
        let told: Value = serde_json::from_slice(&finished.stdout).expect("JSON");
        assert_eq!(told["wrong"], Value::Array(vec![]), "{name}");
        assert_eq!(told["samplers"], 0, "{name}: {told}");
        assert!(
            told["steps"].as_u64() > Some(RESTARTS as u64),
            "{name}: {told}"
        );
        // The slot of code objects' deaths and what the C library calls at forks and at the ends of threads.
        assert!(
            (1..16).contains(&told["words"].as_u64().expect("a number")),
            "{name}: {told}"
        );
        let size = |when: usize| told["sizes"][when].as_u64().expect("a number");
        let mut grown = size(1).saturating_sub(size(0));
        if python.free_threaded {
            // mimalloc reserves a gigabyte of addresses at a time.
            grown %= 1 << 30;
        }
        assert!(grown < LEFT_BYTES, "{name}: {told}");
        check_restarts(&sandbox, &name);
    });
}

/// Every capture is whole, and of some every figure is looked at.
#[track_caller]
fn check_restarts(sandbox: &Sandbox, name: &str) {
    let made = sandbox.line("restarts.py", "made");
    let mut own_bytes = Vec::new();
    let mut seen_workers = 0;
    for number in 0..RESTARTS {
        let name = format!("{name}, stretch {number}");
        let path = sandbox.stretch(number);
        let read = heaptide_capture::Capture::open(&path).expect("a capture");
        assert_eq!(read.lifecycle.state, State::Finished as u32, "{name}");
        assert!(read.warnings.is_empty(), "{name}: {:?}", read.warnings);
        let below = read.metadata.text(MetadataKey::FramesBelow);
        assert_eq!(below, Some(number.to_string()), "{name}");
        // A block that was got in a hook while tracking ended may be one that was given back unrecorded.
        let profile = heaptide_engine::Profile::new(&read);
        assert_eq!(profile.own.missed_frees, 0, "{name}");
        assert!(
            profile.warnings.is_empty(),
            "{name}: {:?}",
            profile.warnings
        );
        if number % 50 > 3 {
            continue;
        }
        let capture = Capture::read(&path);
        capture
            .consistency()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let of_line = capture.sum(|cell| {
            let leaf = cell.stack.first();
            leaf.is_some_and(|frame| frame.line == made && frame.function == "stretch_of")
                && cell.allocator == "MALLOC"
                && cell.thread_name == "MainThread"
        });
        assert_eq!(of_line.allocated_count, 10, "{name}");
        assert_eq!(of_line.allocated_bytes, 700_010, "{name}");
        assert_eq!(of_line.live_count, 3, "{name}");
        // Not every stretch is long enough for another thread to get its turn.
        seen_workers += capture
            .cells
            .iter()
            .filter(|cell| cell.thread_name.starts_with("worker "))
            .count();
        own_bytes.push(
            capture.own_cost["anonymous_bytes"]
                .as_u64()
                .expect("a number"),
        );
    }
    assert!(seen_workers > 0, "{name}: threads from before have names");
    let quarter = own_bytes.len() / 4;
    let most = |slice: &[u64]| *slice.iter().max().expect("some");
    let (early, late) = (
        most(&own_bytes[..quarter]),
        most(&own_bytes[own_bytes.len() - quarter..]),
    );
    assert!(late < early + LEFT_BYTES, "{name}: {own_bytes:?}");
}

/// What the events of a capture say of Python objects.
#[derive(Default)]
struct Happened {
    /// Those that are left, in the order of their making.
    left: Vec<u64>,
    /// How many were made, by type.
    made: HashMap<String, usize>,
    /// How many are destroyed, by type; of those that were made before it is empty.
    gone: HashMap<String, usize>,
    /// Why that is not all.
    untold: Option<String>,
}

fn happened_to_objects(capture: &heaptide_capture::Capture) -> Happened {
    let mut happened = Happened::default();
    let mut alive = HashMap::new();
    for (place, placed) in capture.events.in_order().collect().iter().enumerate() {
        match placed.event {
            Event::ObjectMade {
                address,
                type_name,
                node,
            } => {
                assert!(capture.nodes.get(node).is_some(), "stack {node}");
                let name = capture.definitions.string(type_name).expect("a type");
                *happened.made.entry(name.to_owned()).or_default() += 1;
                let before = alive.insert(address, (place, name));
                assert_eq!(before, None, "{address:#x} is alive");
            }
            Event::ObjectGone { address } => {
                let (_, name) = alive.remove(&address).unwrap_or_default();
                *happened.gone.entry(name.to_owned()).or_default() += 1;
            }
            _ => {}
        }
    }
    let mut left: Vec<_> = alive.into_iter().collect();
    left.sort_by_key(|&(_, (place, _))| place);
    happened.left = left.into_iter().map(|(address, _)| address).collect();
    let untold = capture.metadata.text(MetadataKey::ObjectsUntold);
    happened.untold = untold;
    happened
}

#[test]
fn objects_that_survive() {
    each_python(|python| {
        for mode in modes() {
            let sandbox = Sandbox::new(python);
            let stretches = Stretches {
                track_object_lifetimes: true,
                ..Stretches::of(mode, 4)
            };
            let told = told(&sandbox, &stretches, &["lives"]);
            let name = format!("Python {}, {mode:?}", python.version());
            if told["start"] == 7 {
                assert!(python.minor <= 13 || python.free_threaded, "{name}");
                assert_eq!(told["state"], 0, "{name}");
                continue;
            }
            assert_eq!(
                (&told["start"], &told["stop"]),
                (&json!(0), &json!(0)),
                "{name}"
            );
            assert_eq!(told["survivors"], Value::from(vec![true; 6]), "{name}");
            assert_eq!(told["count"], 5, "{name}");
            assert_eq!(told["references"], 1, "{name}");
            assert_eq!(told["again"], Value::Null, "{name}");
            assert_eq!(told["codes"], json!([0, 0, 13, 0, 0, 0, true]), "{name}");
            assert_eq!(told["ghost"], true, "{name}");
            let survivors = |number| {
                let capture = heaptide_capture::Capture::open(sandbox.stretch(number));
                let capture = capture.expect("a capture");
                assert!(capture.identity.tracks_objects(), "{name}");
                capture.survivors.as_ref().map(|survivors| {
                    let of = |survivor: &heaptide_format::Survivor| {
                        let type_name = capture.definitions.string(survivor.type_name);
                        (survivor.address, type_name.unwrap_or("?").to_owned())
                    };
                    survivors
                        .iter()
                        .map(|(_, survivor)| of(survivor))
                        .collect::<Vec<_>>()
                })
            };
            let written = survivors(0).expect("survivors");
            let ids: Vec<u64> = written.iter().map(|(address, _)| *address).collect();
            assert_eq!(json!(ids), told["ids"], "{name}");
            let types: Vec<&str> = written.iter().map(|(_, name)| name.as_str()).collect();
            let first = told["first"].as_u64().expect("a number") as usize;
            assert_eq!(types[first], "list", "{name}");
            assert_eq!(types[first + 1..first + 6], ["Made"; 5], "{name}");
            let written = survivors(1).expect("survivors");
            let ghosts = written.iter().filter(|(_, name)| name == "Made").count();
            assert_eq!(ghosts, 1, "{name}");
            let events = |number| {
                let capture = heaptide_capture::Capture::open(sandbox.stretch(number));
                happened_to_objects(&capture.expect("a capture"))
            };
            if mode == Mode::All {
                let happened = events(0);
                assert_eq!(json!(happened.left), told["ids"], "{name}");
                let of_made = (happened.made["Made"], happened.gone["Made"]);
                assert_eq!(of_made, (1005, 1000), "{name}");
                // The three that were made before, and what else was.
                assert!(happened.gone[""] >= 3, "{name}");
                assert_eq!(happened.untold, None, "{name}");
                let why = events(3).untold.expect("a reason");
                assert!(why.starts_with("another tracer"), "{name}: {why}");
            } else {
                assert!(events(0).made.is_empty(), "{name}");
            }
            assert_eq!(survivors(2), None, "{name}");
            assert_eq!(survivors(3), None, "{name}");
        }
    });
}
