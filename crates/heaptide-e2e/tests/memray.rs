//! The reference agrees: programs under Memray 1.20 and under heaptide, figure by figure.
//!
//! What remains different, and why, is in `docs/differences-from-memray.md`.

use std::collections::BTreeMap;
use std::path::Path;

use heaptide_e2e::{Capture, Cell, Mode, Python, Sandbox, modes, pythons_of, run, stats};
use serde::Deserialize;
use serde_json::Value;

#[path = "memray/over_time.rs"]
mod over_time;
#[path = "memray/rows.rs"]
mod rows;

use rows::{Place, Sums, expect_equal, of_the_program, sums, with_memray};

const PROGRAM: &str = "reference.py";

/// Functions of the program.
const FUNCTIONS: [&str; 10] = [
    "plain",
    "numpy_arrays",
    "threads",
    "documents",
    "growth",
    "mappings",
    "leaks",
    "temporary",
    "generators",
    "recursion",
];

/// A row of `memray_figures.py`.
#[derive(Deserialize)]
struct Row {
    stack: Vec<Place>,
    allocator: String,
    thread: String,
    count: u64,
    bytes: u64,
}

/// The four figures of both profilers.
#[derive(Deserialize)]
struct Reference {
    allocated: Vec<Row>,
    peak: Vec<Row>,
    live: Vec<Row>,
    temporary: Vec<Row>,
    /// `temporary_N`
    #[serde(flatten)]
    by_threshold: BTreeMap<String, Vec<Row>>,
}

/// How many other allocations a temporary block may see, besides the usual one.
const THRESHOLDS: [&str; 3] = ["0", "2", "9"];

fn of_memray(rows: Vec<Row>, by_allocator: bool) -> Sums {
    sums(rows.into_iter().filter_map(|row| {
        let key = (
            of_the_program(row.stack)?,
            row.thread,
            by_allocator.then_some(row.allocator),
        );
        Some((key, (row.count, row.bytes)))
    }))
}

fn of_heaptide(
    capture: &Capture,
    by_allocator: bool,
    figures: impl Fn(&Cell) -> (u64, u64),
) -> Sums {
    sums(capture.cells.iter().filter_map(|cell| {
        let places = cell.stack.iter().map(|frame| Place {
            function: frame.function.clone(),
            file: frame.file.clone(),
            line: frame.line,
        });
        let key = (
            of_the_program(places.collect())?,
            cell.thread_name.clone(),
            by_allocator.then(|| cell.allocator.clone()),
        );
        Some((key, figures(cell)))
    }))
}

fn unsigned(count: i64, bytes: i64) -> (u64, u64) {
    let number = |value: i64| u64::try_from(value).expect("not negative");
    (number(count), number(bytes))
}

/// `stats --json` of either: places of the program in a list of top places.
fn top(stats: &Value, list: &str, figure: &str) -> BTreeMap<String, u64> {
    let rows = stats[list].as_array().expect("a list").iter();
    rows.map(|row| {
        let location = row["location"].as_str().expect("a place").to_owned();
        (location, row[figure].as_u64().expect("a number"))
    })
    .filter(|(location, _)| {
        location.contains(PROGRAM)
            && !location.starts_with("<module>:")
            && !location.starts_with("down:")
    })
    .collect()
}

/// Sums of what lies on the program's own lines.
fn by_place(rows: impl Iterator<Item = (Place, (u64, u64))>) -> BTreeMap<Place, (u64, u64)> {
    let mut places: BTreeMap<Place, (u64, u64)> = BTreeMap::new();
    for (place, (count, bytes)) in rows {
        if of_the_program(vec![place.clone()]).is_some() {
            let sum = places.entry(place).or_default();
            sum.0 += count;
            sum.1 += bytes;
        }
    }
    places
}

struct Run<'a> {
    sandbox: &'a Sandbox,
    interpreter: &'a Path,
    function: &'a str,
}

impl Run<'_> {
    fn memray(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = self.sandbox.command(self.interpreter);
        command.env("OPENBLAS_NUM_THREADS", "1");
        let finished = run(command.args(["-m", "memray"]).args(arguments));
        finished.expect_success(&format!("memray {arguments:?}"));
        finished.stdout
    }

    /// What Memray's reader says, and `memray stats --json`.
    fn reference(&self) -> (Reference, Value) {
        let program = self.sandbox.inside(PROGRAM);
        let program = program.to_str().expect("UTF-8");
        self.memray(&[
            "run",
            "-q",
            "-f",
            "-o",
            "memray.bin",
            program,
            self.function,
        ]);
        self.memray(&[
            "stats",
            "--json",
            "-f",
            "-n",
            "100000",
            "-o",
            "memray.json",
            "memray.bin",
        ]);
        let stats = std::fs::read(self.sandbox.outside("memray.json")).expect("memray.json");
        let finished = run(self
            .sandbox
            .command(self.interpreter)
            .args(["memray_figures.py", "memray.bin"])
            .args(THRESHOLDS));
        finished.expect_success("memray_figures.py");
        let parse = |bytes: &[u8]| serde_json::from_slice(bytes).expect("JSON");
        let figures = serde_json::from_slice(&finished.stdout).expect("JSON");
        (figures, parse(&stats))
    }

    fn heaptide(&self, mode: Mode) -> (Capture, Value) {
        let python = Python {
            path: self.interpreter.to_owned(),
            ..self.sandbox.python.clone()
        };
        let mut command = self.sandbox.profiled_by(mode, &python);
        command
            .env("OPENBLAS_NUM_THREADS", "1")
            .arg(self.sandbox.inside(PROGRAM))
            .arg(self.function);
        run(&mut command).expect_success(self.function);
        let path = self.sandbox.capture();
        let output = run(std::process::Command::new(heaptide_e2e::heaptide())
            .args(["stats", "--json", "-n", "100000"])
            .arg(&path));
        output.expect_success("stats");
        let all = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(
            stats(&path)["total_num_allocations"],
            Value::clone(&all)["total_num_allocations"]
        );
        (Capture::read(&path), all)
    }

    /// Temporary blocks by place, with another threshold, of the capture of every event just made.
    fn temporary_places(&self, threshold: &str) -> BTreeMap<Place, (u64, u64)> {
        let mut command = std::process::Command::new(heaptide_e2e::heaptide());
        command
            .args(["table", "--json", "--temporary-allocation-threshold"])
            .arg(threshold)
            .arg(self.sandbox.capture());
        let finished = run(&mut command);
        finished.expect_success("heaptide table");
        let table: Value = serde_json::from_slice(&finished.stdout).expect("JSON");
        let rows = table["rows"].as_array().expect("a list").iter();
        let row = |row: &Value| {
            let place = serde_json::from_value(row.clone()).ok()?;
            let number = |key: &str| row[key].as_u64().expect("a number");
            Some((place, (number("count"), number("size"))))
        };
        by_place(rows.filter_map(row))
    }

    fn compare(&self) {
        let (mut reference, reference_stats) = self.reference();
        let by_threshold = std::mem::take(&mut reference.by_threshold);
        let allocated = of_memray(reference.allocated, true);
        // Memray shows one row per stack, with the allocator of any of its blocks.
        let peak = of_memray(reference.peak, false);
        let live = of_memray(reference.live, false);
        let temporary = of_memray(reference.temporary, false);
        assert!(allocated.len() > 1, "{}: nothing to compare", self.function);
        assert!(
            !peak.is_empty() && !live.is_empty(),
            "{}: the peak is somewhere else",
            self.function
        );
        for mode in modes() {
            let name = |figure: &str| format!("{} ({mode:?}), {figure}", self.function);
            let (capture, own_stats) = self.heaptide(mode);
            let ours = of_heaptide(&capture, true, |cell| {
                let counters = cell.counters;
                (counters.allocated_count, counters.allocated_bytes)
            });
            expect_equal(&name("allocated"), &allocated, &ours);
            let ours = of_heaptide(&capture, false, |cell| {
                unsigned(cell.counters.peak_count, cell.counters.peak_bytes)
            });
            expect_equal(&name("peak"), &peak, &ours);
            let ours = of_heaptide(&capture, false, |cell| {
                unsigned(cell.counters.live_count, cell.counters.live_bytes)
            });
            expect_equal(&name("live"), &live, &ours);
            let ours = of_heaptide(&capture, false, |cell| {
                let counters = cell.counters;
                (counters.temporary_count, counters.temporary_bytes)
            });
            expect_equal(&name("temporary"), &temporary, &ours);
            for (list, figure) in [
                ("top_allocations_by_size", "size"),
                ("top_allocations_by_count", "count"),
            ] {
                let places = top(&reference_stats, list, figure);
                assert!(!places.is_empty(), "{}", name(list));
                assert_eq!(places, top(&own_stats, list, figure), "{}", name(list));
            }
            if mode == Mode::All {
                for threshold in THRESHOLDS {
                    let rows = by_threshold[&format!("temporary_{threshold}")].iter();
                    let row = |row: &Row| {
                        let place = row.stack.first()?.clone();
                        Some((place, (row.count, row.bytes)))
                    };
                    let memray = by_place(rows.filter_map(row));
                    assert_eq!(memray, self.temporary_places(threshold), "{threshold}");
                }
            }
        }
    }
}

#[test]
fn memray_finds_the_same() {
    for python in pythons_of(&[12]) {
        let Some(interpreter) = with_memray(python) else {
            continue;
        };
        let sandbox = Sandbox::new(python);
        for function in FUNCTIONS {
            Run {
                sandbox: &sandbox,
                interpreter: &interpreter,
                function,
            }
            .compare();
        }
    }
}
