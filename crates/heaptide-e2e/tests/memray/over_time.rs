//! The same stretches of time of one program in both profilers.
//!
//! Samples of memory fall at other moments in each, and they are what stretches of time are made of. So the
//! program has states in which it does nothing long enough for samples of both, and the stretches go from one
//! such state to another: what is allocated between two of them is the same.

use heaptide_capture::Capture;
use heaptide_e2e::{Mode, Python, Sandbox, heaptide, pythons_of, run};
use serde::Deserialize;

use crate::rows::{Place, Sums, expect_equal, of_the_program, sums, with_memray};

const PROGRAM: &str = "phases.py";
/// Four states, and as many pairs of them.
const STRETCHES: usize = 6;

/// A row of `memray_over_time.py`.
#[derive(Deserialize)]
struct Row {
    stack: Vec<Place>,
    thread: String,
    count: u64,
    bytes: u64,
}

/// From one state to another. Times are nanoseconds since the Unix epoch.
#[derive(Deserialize)]
struct Stretch {
    begin: (u64, u64),
    end: (u64, u64),
    peak: Vec<Row>,
    live: Vec<Row>,
}

fn of_memray(rows: Vec<Row>) -> Sums {
    sums(rows.into_iter().filter_map(|row| {
        let key = (of_the_program(row.stack)?, row.thread, None);
        Some((key, (row.count, row.bytes)))
    }))
}

/// `function;file;line|…`, innermost first.
fn stack(text: &str) -> Vec<Place> {
    let frames = text.split('|').filter(|frame| !frame.is_empty());
    let place = |frame: &str| {
        let mut parts = frame.split(';');
        let mut part = || parts.next().expect("three parts").to_owned();
        Place {
            function: part(),
            file: part(),
            line: part().parse().expect("a line"),
        }
    };
    frames.map(place).collect()
}

/// What `heaptide transform csv` prints with these options.
fn of_heaptide(sandbox: &Sandbox, options: &[&str]) -> Sums {
    let mut command = std::process::Command::new(heaptide());
    command.args(["transform", "csv", "-o", "-"]).args(options);
    let finished = run(command.arg(sandbox.capture()));
    finished.expect_success(&format!("heaptide transform csv {options:?}"));
    let text = finished.text();
    sums(text.lines().skip(1).filter_map(|line| {
        // Nothing in this program has a name that would have to be quoted.
        let fields: Vec<&str> = line.split(',').collect();
        let [_allocator, count, bytes, _tid, thread, frames] = fields[..] else {
            panic!("six columns: {line}");
        };
        let thread = thread.split_once(" (").map_or(thread, |(_, name)| name);
        let key = (
            of_the_program(stack(frames))?,
            thread.trim_end_matches(')').to_owned(),
            None,
        );
        let number = |text: &str| text.parse().expect("a number");
        Some((key, (number(count), number(bytes))))
    }))
}

/// The middle of a state, in seconds since tracking began, after making sure that there are samples in both halves
/// of it: a stretch is extended to whole intervals between samples.
fn middle(capture: &Capture, (begin, end): (u64, u64)) -> String {
    let middle = begin.midpoint(end);
    for half in [begin..middle, middle..end] {
        assert!(
            capture
                .samples
                .iter()
                .any(|sample| half.contains(&sample.unix_ns)),
            "no sample fell into a state that was held"
        );
    }
    let since = middle - capture.lifecycle.tracking_start_unix_ns;
    format!("{:.6}", since as f64 / 1e9)
}

fn compare(sandbox: &Sandbox, python: &Python) {
    let program = sandbox.inside(PROGRAM);
    let memray = |arguments: &[&std::ffi::OsStr]| {
        let finished = run(sandbox.command(&python.path).args(arguments));
        finished.expect_success(&format!("{arguments:?}"));
        finished.stdout
    };
    let run_it = ["-m", "memray", "run", "-q", "-f", "-o", "memray.bin"].map(AsRef::as_ref);
    let mut arguments = run_it.to_vec();
    arguments.extend([program.as_os_str(), "memray.json".as_ref()]);
    memray(&arguments);
    let printed = memray(&["memray_over_time.py", "memray.bin", "memray.json"].map(AsRef::as_ref));
    let stretches: Vec<Stretch> = serde_json::from_slice(&printed).expect("JSON");
    assert_eq!(stretches.len(), STRETCHES);

    let mut command = sandbox.profiled_by(Mode::All, python);
    run(command.arg(&program).arg("heaptide.json")).expect_success(PROGRAM);
    let text = std::fs::read(sandbox.outside("heaptide.json")).expect("the states");
    let holds: Vec<(u64, u64)> = serde_json::from_slice(&text).expect("JSON");
    let capture = Capture::open(sandbox.capture()).expect("a capture");
    let states: Vec<(u64, u64)> = {
        let ends = stretches.iter().flat_map(|one| [one.begin, one.end]);
        let mut states: Vec<(u64, u64)> = ends.collect();
        states.sort_unstable();
        states.dedup();
        states
    };
    assert_eq!(states.len(), holds.len());
    for stretch in stretches {
        let hold = |state| {
            let index = states.iter().position(|one| *one == state);
            middle(&capture, holds[index.expect("one of the states")])
        };
        let (begin, end) = (hold(stretch.begin), hold(stretch.end));
        let between = ["--between", &begin, &end];
        let peak = of_memray(stretch.peak);
        let live = of_memray(stretch.live);
        assert!(!peak.is_empty() && !live.is_empty(), "nothing to compare");
        let name = |figure: &str| format!("{} {between:?}, {figure}", python.version());
        let ours = of_heaptide(sandbox, &between);
        expect_equal(&name("peak"), &peak, &ours);
        let ours = of_heaptide(sandbox, &[&["--leaks"], &between[..]].concat());
        expect_equal(&name("live"), &live, &ours);
    }
}

#[test]
fn memray_finds_the_same_in_any_stretch_of_time() {
    for python in pythons_of(&[12]) {
        let Some(path) = with_memray(python) else {
            continue;
        };
        let python = Python {
            path,
            ..python.clone()
        };
        compare(&Sandbox::new(&python), &python);
    }
}
