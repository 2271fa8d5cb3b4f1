//! What `heaptide parse --json` and `heaptide stats --json` say about a capture.

use std::borrow::Cow;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::Value;

use crate::{Sandbox, heaptide, run, with_native_stacks};

/// One frame, as `parse` prints it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct Frame {
    /// `co_name`
    pub function: String,
    /// `co_qualname`, where the interpreter has it.
    pub qualified_name: Option<String>,
    /// `co_filename`
    pub file: String,
    /// Line of the current instruction.
    pub line: u32,
    /// Its first column, where the interpreter knows it.
    pub column: Option<u32>,
}

/// The figures of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Counters {
    /// Blocks allocated.
    pub allocated_count: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Blocks live at the end.
    pub live_count: i64,
    /// Bytes live at the end.
    pub live_bytes: i64,
    /// Blocks live at the peak.
    pub peak_count: i64,
    /// Bytes live at the peak.
    pub peak_bytes: i64,
    /// Temporary blocks.
    pub temporary_count: u64,
    /// Bytes of temporary blocks.
    pub temporary_bytes: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.allocated_count += other.allocated_count;
        self.allocated_bytes += other.allocated_bytes;
        self.live_count += other.live_count;
        self.live_bytes += other.live_bytes;
        self.peak_count += other.peak_count;
        self.peak_bytes += other.peak_bytes;
        self.temporary_count += other.temporary_count;
        self.temporary_bytes += other.temporary_bytes;
    }
}

/// One (stack, allocator, thread).
#[derive(Clone, Debug, Deserialize)]
pub struct Cell {
    /// Innermost first.
    pub stack: Vec<Frame>,
    /// `MALLOC` and so on.
    pub allocator: String,
    /// `raw`, `mem` or `object`, of a request to Python's own allocators.
    pub domain: Option<String>,
    /// The kernel's id of the thread.
    pub thread_id: u32,
    /// Its name.
    pub thread_name: String,
    /// The figures.
    #[serde(flatten)]
    pub counters: Counters,
}

/// Everything that `parse` prints.
#[derive(Debug, Default)]
pub struct Capture {
    /// Where it is.
    pub path: PathBuf,
    /// The record `header`.
    pub header: Value,
    /// The cells.
    pub cells: Vec<Cell>,
    /// The record `lifecycle`.
    pub lifecycle: Value,
    /// The record `heap`.
    pub heap: Value,
    /// The record `own_cost`.
    pub own_cost: Value,
    /// The records `slot`.
    pub slots: Vec<Value>,
    /// The records `warning`.
    pub warnings: Vec<Value>,
}

const STACK_END: &str = "],\"stack_cut\":";

fn without_stack(line: &str, end: usize) -> String {
    format!("{{\"stack\":[{}", &line[end..])
}

/// The interpreter maps a piece of its own stack every hundred frames or so, and each is a cell with a
/// stack as deep as that. Nothing is asked about such cells but their figures.
fn without_long_stack(line: &str) -> Cow<'_, str> {
    const LONG: usize = 200_000;
    match line.rfind(STACK_END) {
        Some(end) if line.len() > LONG && line[end..].contains("\"allocator\":\"MMAP\"") => {
            Cow::Owned(without_stack(line, end))
        }
        _ => Cow::Borrowed(line),
    }
}

impl Capture {
    /// Reads it with `heaptide parse --json`.
    #[track_caller]
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let capture = Self::parse(
            path,
            Command::new(heaptide()).arg("parse").arg(path),
            |_| true,
        );
        if with_native_stacks() {
            capture.without_native_frames()
        } else {
            capture
        }
    }

    /// As [`Self::read`], in the sandbox, where the files are that native frames are named by. Cells have stacks if `keeps` says so of
    /// their line.
    #[track_caller]
    #[must_use]
    pub fn read_inside(sandbox: &Sandbox, name: &str, keeps: fn(&str) -> bool) -> Self {
        let mut command = sandbox.command(sandbox.heaptide());
        let command = command.arg("parse").arg(sandbox.inside(name));
        Self::parse(&sandbox.outside(name), command, keeps)
    }

    #[track_caller]
    fn parse(path: &Path, command: &mut Command, keeps: fn(&str) -> bool) -> Self {
        let mut child = command
            .args(["--json", "--max-stack-frames", "1000000"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("heaptide");
        let mut capture = Self {
            path: path.to_owned(),
            ..Self::default()
        };
        // Line by line: deep recursion prints a gigabyte
        for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
            let line = line.expect("parse prints UTF-8");
            if line.starts_with("{\"record\":\"cell\"") {
                let line = match line.rfind(STACK_END) {
                    Some(end) if !keeps(&line) => Cow::Owned(without_stack(&line, end)),
                    _ => without_long_stack(&line),
                };
                let cell = serde_json::from_str(line.as_ref());
                capture
                    .cells
                    .push(cell.unwrap_or_else(|error| panic!("{error}: {line}")));
                continue;
            }
            let value: Value =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            match value["record"].as_str().expect("every record has a kind") {
                "header" => capture.header = value,
                "lifecycle" => capture.lifecycle = value,
                "heap" => capture.heap = value,
                "own_cost" => capture.own_cost = value,
                "slot" => capture.slots.push(value),
                "warning" => capture.warnings.push(value),
                "cell" => panic!("`record` is not the first key of a cell"),
                _ => {}
            }
        }
        let output = child.wait_with_output().expect("wait");
        assert!(
            output.status.success(),
            "heaptide parse {}: {}\n{}",
            path.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        capture
    }

    /// Takes the native frames out of all stacks: what is left is what a capture without native stacks has, in more cells.
    #[must_use]
    pub fn without_native_frames(mut self) -> Self {
        let is_python = |frame: &Frame| {
            let file = frame.file.as_str();
            file != "<unknown>" && (file.ends_with(".py") || file.starts_with('<'))
        };
        for cell in &mut self.cells {
            cell.stack.retain(is_python);
        }
        self
    }

    /// The sum of all cells.
    #[must_use]
    pub fn totals(&self) -> Counters {
        self.sum(|_| true)
    }

    /// The sum of the cells that `wanted` picks.
    pub fn sum(&self, wanted: impl Fn(&Cell) -> bool) -> Counters {
        let mut sum = Counters::default();
        for cell in self.cells.iter().filter(|cell| wanted(cell)) {
            sum += cell.counters;
        }
        sum
    }

    /// `running`, `finished`, `stopped` or `died`.
    #[must_use]
    pub fn status(&self) -> &str {
        self.lifecycle["status"].as_str().expect("a status")
    }

    /// What must hold in every capture whose writer was not in the middle of an event.
    ///
    /// # Errors
    /// With all that does not hold.
    pub fn consistency(&self) -> Result<(), String> {
        let mut errors = Vec::new();
        let totals = self.totals();
        let mut equal = |what: &str, left: i128, right: i128| {
            if left != right {
                errors.push(format!("{what}: {left} != {right}"));
            }
        };
        let number = |value: &Value| i128::from(value.as_i64().expect("a number"));
        equal(
            "peak: cells and heap",
            totals.peak_bytes.into(),
            number(&self.heap["peak_bytes"]),
        );
        equal(
            "live: cells and heap",
            totals.live_bytes.into(),
            number(&self.heap["live_bytes"]),
        );
        let of_slots = |key: &str| {
            self.slots
                .iter()
                .map(|slot| number(&slot[key]))
                .sum::<i128>()
        };
        // Events are counted by whoever reads them.
        let allocations = if self.header["mode"] == "all" {
            0
        } else {
            totals.allocated_count.into()
        };
        equal(
            "allocations: cells and slots",
            allocations,
            of_slots("allocations"),
        );
        for key in ["missed_reentrant", "missed_frees"] {
            equal(key, of_slots(key), 0);
        }
        for key in [
            "folded_stacks",
            "overflow_stacks",
            "truncated_stacks",
            "dropped_code",
            "overflow_threads",
            "early_stop_mismatches",
        ] {
            equal(key, number(&self.own_cost[key]), 0);
        }
        for cell in &self.cells {
            let c = cell.counters;
            let sane = c.temporary_count <= c.allocated_count
                && c.temporary_bytes <= c.allocated_bytes
                && 0 <= c.live_bytes
                && 0 <= c.peak_bytes
                && i128::from(c.live_bytes) <= i128::from(c.allocated_bytes)
                && i128::from(c.peak_bytes) <= i128::from(c.allocated_bytes);
            if !sane {
                errors.push(format!("a cell that cannot be: {c:?}"));
            }
        }
        errors.extend(
            self.warnings
                .iter()
                .map(|warning| format!("warning: {warning}")),
        );
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors.join("\n"))
        }
    }
}

/// `heaptide stats --json`.
#[track_caller]
#[must_use]
pub fn stats(path: &Path) -> Value {
    let output = run(Command::new(heaptide()).args(["stats", "--json"]).arg(path));
    output.expect_success(&format!("heaptide stats {}", path.display()));
    serde_json::from_slice(&output.stdout).expect("stats prints JSON")
}

/// What the capture says of the profiler's own work, by `heaptide parse --json` with the shortest stacks.
///
/// # Panics
/// When it cannot be read.
#[track_caller]
#[must_use]
pub fn own_cost(path: &Path) -> Value {
    let mut command = Command::new(heaptide());
    command.args(["parse", "--json", "--max-stack-frames", "1"]);
    let output = run(command.arg(path));
    output.expect_success(&format!("heaptide parse {}", path.display()));
    let text = output.text();
    let line = text
        .lines()
        .find(|line| line.starts_with("{\"record\":\"own_cost\""))
        .expect("a record of the own cost");
    serde_json::from_str(line).expect("JSON")
}
