//! Comparing a capture with what the program says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::{Capture, Counters, Frame, Mode, Python, Sandbox, Stretches, modes, run};

/// Functions that nobody but the helper calls from a program's own lines: a cell of theirs that was
/// not declared is an error on any line of the program.
const RARE: [&str; 5] = [
    "POSIX_MEMALIGN",
    "ALIGNED_ALLOC",
    "MEMALIGN",
    "VALLOC",
    "PVALLOC",
];

/// One cell that must be there.
#[derive(Debug, Deserialize)]
pub(crate) struct ExpectedCell {
    stack: Vec<Frame>,
    allocator: String,
    thread: String,
    #[serde(flatten)]
    counters: Counters,
}

/// `expected.json`, see `known.py`.
#[derive(Debug, Deserialize)]
pub struct Expected {
    cells: Vec<ExpectedCell>,
    errors: Vec<String>,
    /// The kernel's ids of threads, by name.
    pub threads: BTreeMap<String, u32>,
    /// Threads that Python knows by this name.
    names: Vec<String>,
    /// What the program wrote to stderr.
    #[serde(skip)]
    stderr: String,
}

/// A profiled program, and what it should have been.
#[derive(Debug)]
pub struct Profiled {
    /// What was captured.
    pub capture: Capture,
    /// The kernel's ids of threads, by the name that Python knows them by.
    pub named_threads: BTreeMap<String, u32>,
}

impl Expected {
    /// Reads what the program has just written.
    #[track_caller]
    fn read(sandbox: &Sandbox) -> Self {
        let path = sandbox.outside("expected.json");
        let text = std::fs::read_to_string(&path).expect("the program wrote expected.json");
        std::fs::remove_file(&path).expect("remove");
        serde_json::from_str(&text).expect("expected.json")
    }
}

/// Runs the program as its own oracle under plain Python: what it declares must be what it sees.
#[track_caller]
pub fn check_bookkeeping(sandbox: &Sandbox, program: &OsStr, arguments: &[&str]) -> Expected {
    let name = format!(
        "{} {arguments:?}, Python {}",
        program.display(),
        sandbox.python.version()
    );
    let mut command = sandbox.plain();
    command
        .arg(sandbox.inside(program))
        .arg("oracle")
        .args(arguments);
    let finished = run(&mut command);
    finished.expect_success(&format!("{name}, as its own oracle"));
    let mut expected = Expected::read(sandbox);
    expected.stderr = finished.errors();
    assert!(
        expected.errors.is_empty(),
        "{name}: the books are wrong:\n{}",
        expected.errors.join("\n")
    );
    assert!(expected.cells.len() > 1, "{name}: nothing was declared");
    expected
}

/// The whole of it for one program: the books, a run under the profiler, the comparison.
#[track_caller]
pub fn ground_truth(python: &Python, program: &str, arguments: &[&str]) {
    let sandbox = Sandbox::new(python);
    check_against_truth(&sandbox, OsStr::new(program), arguments);
}

/// As [`ground_truth`], in a sandbox that the caller has prepared. One run in each mode.
#[track_caller]
pub fn check_against_truth(
    sandbox: &Sandbox,
    program: &OsStr,
    arguments: &[&str],
) -> Vec<Profiled> {
    let expected = check_bookkeeping(sandbox, program, arguments);
    let check = |mode| check_in_mode(sandbox, program, arguments, &expected, mode);
    modes().into_iter().map(check).collect()
}

#[track_caller]
fn check_in_mode(
    sandbox: &Sandbox,
    program: &OsStr,
    arguments: &[&str],
    expected: &Expected,
    mode: Mode,
) -> Profiled {
    let command = sandbox.profiled_in(mode);
    let case = Case {
        sandbox,
        program,
        arguments,
        expected,
    };
    case.check(command, &sandbox.capture(), &format!("{mode:?}"))
}

/// As [`ground_truth`], for the program that tracks itself, without a supervisor.
#[track_caller]
pub fn ground_truth_from_inside(python: &Python, program: &str, arguments: &[&str]) {
    let sandbox = Sandbox::new(python);
    let expected = check_bookkeeping(&sandbox, OsStr::new(program), arguments);
    let case = Case {
        sandbox: &sandbox,
        program: OsStr::new(program),
        arguments,
        expected: &expected,
    };
    for mode in modes() {
        let command = sandbox.tracking_itself(&Stretches {
            whole: true,
            ..Stretches::of(mode, 1)
        });
        case.check(
            command,
            &sandbox.stretch(0),
            &format!("{mode:?} from inside"),
        );
    }
}

struct Case<'a> {
    sandbox: &'a Sandbox,
    program: &'a OsStr,
    arguments: &'a [&'a str],
    expected: &'a Expected,
}

impl Case<'_> {
    #[track_caller]
    fn check(&self, mut command: Command, capture: &Path, how: &str) -> Profiled {
        let sandbox = self.sandbox;
        let finished = run(command
            .arg(sandbox.inside(self.program))
            .arg("real")
            .args(self.arguments));
        let name = format!(
            "{} {:?}, Python {}, {how}",
            self.program.display(),
            self.arguments,
            sandbox.python.version()
        );
        finished.expect_success(&format!("{name}, under heaptide"));
        assert_eq!(finished.errors(), self.expected.stderr, "{name}: stderr");
        let threads = Expected::read(sandbox).threads;
        let capture = Capture::read(capture);
        self.compare(&name, &threads, capture)
    }

    #[track_caller]
    fn compare(&self, name: &str, threads: &BTreeMap<String, u32>, capture: Capture) -> Profiled {
        let expected = self.expected;
        let mut errors = compare(expected, threads, &capture);
        if let Err(error) = capture.consistency() {
            errors.push(error);
        }
        if capture.status() != "finished" {
            errors.push(format!("status {}", capture.lifecycle));
        }
        let shown = errors.len().min(12);
        assert!(
            errors.is_empty(),
            "{name}: {} differences\n{}",
            errors.len(),
            errors[..shown].join("\n")
        );
        let names = expected.names.iter();
        Profiled {
            named_threads: names.map(|name| (name.clone(), threads[name])).collect(),
            capture,
        }
    }
}

/// Stack, allocator, thread.
type Key<'a> = (Vec<Frame>, &'a str, u32);

/// The stack without what only newer interpreters know.
fn coarse(stack: &[Frame]) -> Vec<Frame> {
    let frames = stack.iter().cloned();
    frames
        .map(|frame| Frame {
            qualified_name: None,
            column: None,
            ..frame
        })
        .collect()
}

fn short(stack: &[Frame]) -> String {
    let frame = |frame: &Frame| {
        let column = frame
            .column
            .map_or(String::new(), |column| format!(":{column}"));
        let file = frame.file.rsplit('/').next().unwrap_or_default();
        let name = frame.qualified_name.as_ref().unwrap_or(&frame.function);
        format!("{name} ({file}:{}{column})", frame.line)
    };
    let shown: Vec<String> = stack.iter().take(12).map(frame).collect();
    let rest = match stack.len() - shown.len() {
        0 => String::new(),
        more => format!(" < … {more} more"),
    };
    format!("[{}{rest}]", shown.join(" < "))
}

fn compare(expected: &Expected, threads: &BTreeMap<String, u32>, capture: &Capture) -> Vec<String> {
    let mut errors = Vec::new();
    let mut fine: BTreeMap<Key, Counters> = BTreeMap::new();
    let mut plain: BTreeMap<Key, Counters> = BTreeMap::new();
    for cell in &capture.cells {
        let allocator = cell.allocator.as_str();
        let key = (cell.stack.clone(), allocator, cell.thread_id);
        *fine.entry(key).or_default() += cell.counters;
        let key = (coarse(&cell.stack), allocator, cell.thread_id);
        *plain.entry(key).or_default() += cell.counters;
    }

    let mut wanted: BTreeMap<Key, (bool, Counters)> = BTreeMap::new();
    for cell in &expected.cells {
        let Some(&thread_id) = threads.get(&cell.thread) else {
            errors.push(format!(
                "the program did not say who thread {:?} is",
                cell.thread
            ));
            continue;
        };
        let has_columns = cell
            .stack
            .first()
            .is_some_and(|frame| frame.column.is_some());
        let entry = wanted
            .entry((cell.stack.clone(), &cell.allocator, thread_id))
            .or_insert((has_columns, Counters::default()));
        entry.1 += cell.counters;
    }
    for ((stack, allocator, thread_id), (has_columns, counters)) in &wanted {
        let key = (stack.clone(), *allocator, *thread_id);
        let seen = if *has_columns {
            fine.get(&key)
        } else {
            plain.get(&key)
        };
        let place = || format!("{allocator} in thread {thread_id} {}", short(stack));
        match seen {
            Some(seen) if seen == counters => {}
            Some(seen) => errors.push(format!(
                "{}:\n  expected {counters:?}\n  captured {seen:?}",
                place()
            )),
            None => {
                let sum = capture.sum(|cell| {
                    cell.stack.first().map(|f| (&f.file, f.line))
                        == stack.first().map(|f| (&f.file, f.line))
                        && cell.allocator == *allocator
                });
                let near = capture.cells.iter().find(|cell| {
                    cell.stack.first().map(|f| (&f.file, f.line))
                        == stack.first().map(|f| (&f.file, f.line))
                        && cell.allocator == *allocator
                });
                errors.push(format!(
                    "{}: no such stack; its line has {} blocks, for instance {}",
                    place(),
                    sum.allocated_count,
                    near.map_or("none".to_owned(), |cell| format!(
                        "in thread {} {}",
                        cell.thread_id,
                        short(&cell.stack)
                    ))
                ));
            }
        }
    }

    // The other way round: on the lines that were declared nothing else may be found
    let known: BTreeSet<Key> = wanted
        .keys()
        .map(|(stack, allocator, thread)| (coarse(stack), *allocator, *thread))
        .collect();
    let leaves: BTreeSet<(Option<(&str, u32)>, &str)> = wanted
        .keys()
        .map(|(stack, allocator, _)| (stack.first().map(|f| (f.file.as_str(), f.line)), *allocator))
        .collect();
    let files: BTreeSet<&str> = wanted
        .keys()
        .filter_map(|(stack, ..)| stack.first().map(|f| f.file.as_str()))
        .collect();
    for (key, counters) in &plain {
        let (stack, allocator, thread_id) = key;
        let leaf = (stack.first().map(|f| (f.file.as_str(), f.line)), *allocator);
        let ours = (RARE.contains(allocator)
            && stack
                .first()
                .is_some_and(|f| files.contains(f.file.as_str())))
            || (!stack.is_empty() && leaves.contains(&leaf));
        if ours && !known.contains(key) {
            errors.push(format!(
                "not declared: {allocator} in thread {thread_id} {} {counters:?}",
                short(stack)
            ));
        }
    }
    errors
}
