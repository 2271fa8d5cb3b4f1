//! Comparing native stacks with what the program says of itself (`native_expected.py`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::build::target_directory;
use crate::{Capture, Cell, Counters, Sandbox};

/// A function, and its line where that is told.
type Place = (String, Option<u32>);

/// A stack that must be there, of the program's own functions only.
#[derive(Debug, Deserialize)]
struct Row {
    /// Innermost first.
    stack: Vec<Place>,
    allocator: String,
    domain: Option<String>,
    /// Of the main thread?
    main: bool,
    /// Native frames may be missing.
    loose: bool,
    allocated_count: u64,
    allocated_bytes: u64,
    live_count: i64,
    live_bytes: i64,
    temporary_count: u64,
}

#[derive(Debug, Deserialize)]
struct Truth {
    /// The file of the program.
    program: String,
    stacks: Vec<Row>,
}

/// What the loose stacks allocate with, and nothing else.
const LOOSE: &str = "MEMALIGN";
/// The functions of the libraries.
const OURS: &str = "nt_";
/// What calls the interpreter's allocators: what those allocate in turn is not told.
const REQUESTS: &str = "nt_requests";
/// The block that makes the peak.
const TIDE: &str = "nt_tide";

/// What a frame of the program's own is called, and where it is.
fn own_frames(cell: &Cell, program: &str) -> Vec<Place> {
    let frames = cell.stack.iter().filter(|frame| {
        frame.function.starts_with(OURS) || frame.file.rsplit('/').next() == Some(program)
    });
    frames
        .map(|frame| {
            let function = frame.function.trim_end_matches(".cold").to_owned();
            (function, (frame.line != 0).then_some(frame.line))
        })
        .collect()
}

/// Without the lines of native frames.
fn without_lines(stack: &[Place]) -> Vec<Place> {
    let places = stack.iter().map(|(function, line)| {
        let line = line.filter(|_| !function.starts_with(OURS));
        (function.clone(), line)
    });
    places.collect()
}

fn python_part(stack: &[Place]) -> Vec<Place> {
    let places = stack.iter();
    places
        .filter(|(function, _)| !function.starts_with(OURS))
        .cloned()
        .collect()
}

/// Is `part` what is left of `whole` when some frames are taken out?
fn is_part_of(part: &[Place], whole: &[Place]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|place| rest.any(|other| other == place))
}

/// May it be one that must be told? Else its stack is not read: those of the interpreter's own blocks are deep, and many.
fn may_be_told(line: &str) -> bool {
    const START: &str = "{\"record\":\"cell\",\"stack\":[{\"function\":\"";
    let start = line.strip_prefix(START);
    start.is_some_and(|rest| rest.starts_with(OURS))
        || line.contains("\"allocator\":\"MEMALIGN\"")
        || !line.contains("\"domain\":null") && line.contains(REQUESTS)
}

/// Must a cell be told?
fn is_exact(cell: &Cell, stack: &[Place]) -> bool {
    let requests = stack
        .first()
        .is_some_and(|(function, _)| function == REQUESTS);
    if requests || cell.domain.is_some() {
        return requests && cell.domain.is_some();
    }
    let innermost = cell.stack.first();
    innermost.is_some_and(|frame| frame.function.starts_with(OURS)) && cell.allocator != LOOSE
}

fn evaluates(function: &str) -> bool {
    function.contains("_PyEval_EvalFrameDefault") || function.starts_with("_TAIL_CALL_")
}

fn short(stack: &[Place]) -> String {
    let mut text = String::new();
    let mut rest = stack;
    while let Some((function, line)) = rest.first() {
        let same = rest.iter().take_while(|place| *place == &rest[0]).count();
        let line = line.map_or(String::new(), |line| format!(":{line}"));
        let times = if same > 1 {
            format!("*{same}")
        } else {
            String::new()
        };
        text += &format!(
            "{}{function}{line}{times}",
            if text.is_empty() { "" } else { " < " }
        );
        rest = &rest[same..];
    }
    text
}

/// Own frames, allocator, domain, of the main thread?
type Key<'a> = (Vec<Place>, &'a str, Option<&'a str>, bool);

/// Compares every capture of the sandbox with what its process has written. Returns how many stacks of those that may be cut are
/// whole, and how many there are.
///
/// # Errors
/// With all differences.
pub fn check_native_stacks(sandbox: &Sandbox) -> Result<(usize, usize), String> {
    let mut errors = Vec::new();
    let mut whole = (0, 0);
    let mut processes = BTreeSet::new();
    for path in files(&sandbox.outside("")) {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|name| name.starts_with("capture.tide")) else {
            continue;
        };
        let mut capture = Capture::read_inside(sandbox, name, may_be_told);
        let pid = capture.header["pid"].as_u64().expect("a pid");
        let Some(truth) = read_truth(sandbox, pid) else {
            errors.push(format!("{name}: process {pid} has not told anything"));
            continue;
        };
        processes.insert(pid);
        let mut of_it = compare(&truth, &capture, &mut whole);
        // Which interpreters have debug information is nobody's fault; stacks that may be cut are shown without native frames.
        let has_loose = truth.stacks.iter().any(|row| row.loose);
        capture.warnings.retain(|warning| {
            let is = |kind: &str| warning["kind"] == kind;
            let replaced = is("missing_symbols")
                && warning["detail"]
                    .as_str()
                    .is_some_and(|text| text.contains("native-replaced.so"));
            !(replaced || is("no_debug_information") || has_loose && is("python_frames_alone"))
        });
        if let Err(error) = capture.consistency() {
            of_it.push(error);
        }
        let shown = of_it.len().min(8);
        if shown > 0 {
            let text = of_it[..shown].join("\n");
            errors.push(format!("{name}: {} differences\n{text}", of_it.len()));
        }
    }
    for path in files(&sandbox.outside("")) {
        let name = path.file_name().and_then(|name| name.to_str());
        let pid = name.and_then(|name| {
            name.strip_prefix("expected.")?
                .strip_suffix(".json")?
                .parse()
                .ok()
        });
        if pid.is_some_and(|pid: u64| !processes.contains(&pid)) {
            errors.push(format!("process {pid:?} has no capture"));
        }
    }
    if errors.is_empty() {
        Ok(whole)
    } else {
        Err(errors.join("\n"))
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the sandbox");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

fn read_truth(sandbox: &Sandbox, pid: u64) -> Option<Truth> {
    let text = std::fs::read_to_string(sandbox.outside(format!("expected.{pid}.json"))).ok()?;
    Some(serde_json::from_str(&text).expect("what the program expects"))
}

fn compare(truth: &Truth, capture: &Capture, whole: &mut (usize, usize)) -> Vec<String> {
    let mut errors = Vec::new();
    let main = capture.header["pid"].as_u64().expect("a pid");
    // Memray numbers threads from 1 on, and leaves out what is older than tracking.
    let is_main = |cell: &Cell| [main, 1].contains(&u64::from(cell.thread_id));
    let key =
        |row: &Row, stack: Vec<Place>| (stack, row.allocator.clone(), row.domain.clone(), row.main);

    // What is told without lines is compared without.
    let exact: Vec<&Row> = truth.stacks.iter().filter(|row| !row.loose).collect();
    let with_lines: BTreeSet<_> = exact
        .iter()
        .map(|row| key(row, row.stack.clone()))
        .collect();
    let mut seen: BTreeMap<Key, Counters> = BTreeMap::new();
    for cell in &capture.cells {
        let stack = own_frames(cell, &truth.program);
        if !is_exact(cell, &stack) {
            continue;
        }
        let functions = || cell.stack.iter().map(|frame| frame.function.as_str());
        if functions().any(evaluates) {
            errors.push(format!(
                "an evaluation without its Python frame: {:?}",
                functions().collect::<Vec<_>>()
            ));
        }
        // What the interpreter does before the program begins is left out, if the walk has come there.
        let outermost = cell.stack.last().expect("one of ours");
        let is_greenlet = outermost.function.ends_with("g_initialstub(void*)");
        let is_program = outermost.file.rsplit('/').next() == Some(&truth.program);
        if u64::from(cell.thread_id) == main && !is_greenlet && !is_program {
            errors.push(format!(
                "does not go to its end: {:?}",
                functions().collect::<Vec<_>>()
            ));
        }
        let domain = cell.domain.as_deref();
        let fine = (
            stack.clone(),
            cell.allocator.clone(),
            cell.domain.clone(),
            is_main(cell),
        );
        let stack = if with_lines.contains(&fine) {
            stack
        } else {
            without_lines(&stack)
        };
        let fine_stack = own_frames(cell, &truth.program);
        let coarse = (
            stack.clone(),
            cell.allocator.clone(),
            cell.domain.clone(),
            is_main(cell),
        );
        // Not told at all: with all its lines in the message.
        let stack = if with_lines.contains(&coarse) {
            stack
        } else {
            fine_stack
        };
        *seen
            .entry((stack, &cell.allocator, domain, is_main(cell)))
            .or_default() += cell.counters;
    }
    let mut wanted: BTreeMap<Key, Counters> = BTreeMap::new();
    let has_tide = exact.iter().any(|row| row.stack[0].0 == TIDE);
    for row in exact {
        let at_peak = if row.stack[0].0 == TIDE {
            1
        } else {
            row.live_count
        };
        let each = row.allocated_bytes / row.allocated_count;
        let counters = Counters {
            allocated_count: row.allocated_count,
            allocated_bytes: row.allocated_bytes,
            live_count: row.live_count,
            live_bytes: row.live_bytes,
            peak_count: at_peak,
            peak_bytes: at_peak * i64::try_from(each).expect("small"),
            temporary_count: row.temporary_count,
            temporary_bytes: row.temporary_count * each,
        };
        let key = (
            row.stack.clone(),
            row.allocator.as_str(),
            row.domain.as_deref(),
            row.main,
        );
        *wanted.entry(key).or_default() += counters;
    }
    for (key, counters) in &wanted {
        let mut counters = *counters;
        let found = seen.get(key);
        if let (Some(found), false) = (found, has_tide) {
            (counters.peak_count, counters.peak_bytes) = (found.peak_count, found.peak_bytes);
        }
        if found != Some(&counters) {
            let found = found.map_or("no such stack".to_owned(), |found| {
                format!("captured {found:?}")
            });
            errors.push(format!(
                "{} {:?} main {}\n  expected {counters:?}\n  {found}",
                short(&key.0),
                (key.1, key.2),
                key.3
            ));
        }
    }
    for (key, counters) in seen.iter().filter(|(key, _)| !wanted.contains_key(key)) {
        errors.push(format!(
            "not told: {} {:?} main {} {counters:?}",
            short(&key.0),
            (key.1, key.2),
            key.3
        ));
    }
    errors.extend(compare_loose(truth, capture, whole));
    errors
}

fn compare_loose(truth: &Truth, capture: &Capture, whole: &mut (usize, usize)) -> Vec<String> {
    let mut errors = Vec::new();
    // By the Python frames, of which none may be missing.
    let mut sums: BTreeMap<Vec<Place>, [i128; 4]> = BTreeMap::new();
    let loose: Vec<&Row> = truth.stacks.iter().filter(|row| row.loose).collect();
    for cell in capture.cells.iter().filter(|cell| cell.allocator == LOOSE) {
        let stack = own_frames(cell, &truth.program);
        let coarse = without_lines(&stack);
        let told = loose
            .iter()
            .find(|row| is_part_of(&stack, &row.stack) || is_part_of(&coarse, &row.stack));
        let Some(told) = told else {
            errors.push(format!(
                "is no part of any stack that is told: {} {:?}",
                short(&stack),
                cell.counters
            ));
            continue;
        };
        whole.0 += usize::from(stack == told.stack || coarse == told.stack);
        whole.1 += 1;
        let sum = sums.entry(python_part(&stack)).or_default();
        let c = cell.counters;
        let amounts = [
            c.allocated_count.into(),
            c.allocated_bytes.into(),
            c.live_count.into(),
            c.live_bytes.into(),
        ];
        for (sum, amount) in sum.iter_mut().zip::<[i128; 4]>(amounts) {
            *sum += amount;
        }
    }
    for row in loose {
        let sum = sums.entry(python_part(&row.stack)).or_default();
        let amounts = [
            row.allocated_count.into(),
            row.allocated_bytes.into(),
            row.live_count.into(),
            row.live_bytes.into(),
        ];
        for (sum, amount) in sum.iter_mut().zip::<[i128; 4]>(amounts) {
            *sum -= amount;
        }
    }
    for (stack, sum) in sums.iter().filter(|(_, sum)| **sum != [0; 4]) {
        errors.push(format!(
            "{}: {sum:?} too many (blocks, bytes, live blocks, live bytes)",
            short(stack)
        ));
    }
    errors
}

/// The libraries of `tests/native`, in every build.
#[derive(Debug)]
pub struct NativeLibraries;

/// Name, compiler, source, and how it is built besides.
const BUILDS: &[(&str, &str, &str, &[&str])] = &[
    ("base", "cc", "frames.c", &["-O2", "-g"]),
    (
        "omit",
        "cc",
        "frames.c",
        &["-O2", "-g", "-fomit-frame-pointer", "-Wl,-Bsymbolic"],
    ),
    (
        "framed",
        "cc",
        "frames.c",
        &["-O2", "-g", "-fno-omit-frame-pointer"],
    ),
    (
        "control",
        "cc",
        "frames.c",
        &["-O2", "-g", "-fcf-protection=full"],
    ),
    (
        "realign",
        "cc",
        "frames.c",
        &["-O2", "-g", "-mstackrealign"],
    ),
    ("plain", "cc", "frames.c", &["-O0", "-g"]),
    ("stripped", "cc", "frames.c", &["-O2", "-s"]),
    // Its first address is not 0, and its code is in the first segment.
    (
        "elsewhere",
        "cc",
        "frames.c",
        &[
            "-O2",
            "-g",
            "-Wl,-Ttext-segment=0x7000000",
            "-Wl,-z,noseparate-code",
            "-Wl,--build-id=none",
        ],
    ),
    (
        "now",
        "cc",
        "frames.c",
        &["-O3", "-g", "-fno-plt", "-Wl,-z,now"],
    ),
    // No unwind information, or none that is found.
    (
        "untabled",
        "cc",
        "frames.c",
        &[
            "-O2",
            "-g",
            "-fno-asynchronous-unwind-tables",
            "-fno-unwind-tables",
        ],
    ),
    (
        "untabled_framed",
        "cc",
        "frames.c",
        &[
            "-O2",
            "-g",
            "-fno-asynchronous-unwind-tables",
            "-fno-unwind-tables",
            "-fno-omit-frame-pointer",
        ],
    ),
    (
        "unindexed",
        "cc",
        "frames.c",
        &["-O2", "-g", "-Wl,--no-eh-frame-hdr"],
    ),
    ("throws", "c++", "throws.cpp", &["-O2", "-g"]),
    (
        "alpha",
        "cc",
        "comes_and_goes.c",
        &["-O2", "-g", "-DNAME=nt_alpha"],
    ),
    (
        "beta",
        "cc",
        "comes_and_goes.c",
        &["-O2", "-g", "-DNAME=nt_beta"],
    ),
    (
        "gamma",
        "cc",
        "comes_and_goes.c",
        &["-O2", "-g", "-DNAME=nt_gamma"],
    ),
];

impl NativeLibraries {
    /// Where the sources are.
    #[must_use]
    pub fn sources() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native")
    }

    /// Compiles one.
    #[track_caller]
    pub fn compile(compiler: &str, source: &str, options: &[&str], target: &Path) {
        let status = Command::new(compiler)
            .args([
                "-shared",
                "-fPIC",
                "-fno-builtin",
                "-pthread",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-o",
            ])
            .arg(target)
            .arg(Self::sources().join(source))
            .args(options)
            .status()
            .unwrap_or_else(|error| panic!("{compiler} is needed: {error}"));
        assert!(
            status.success(),
            "{source} does not compile with {options:?}"
        );
    }

    /// Puts all of them, with their sources, into a sandbox.
    ///
    /// # Panics
    /// When one does not compile.
    #[track_caller]
    pub fn put_into(sandbox: &Sandbox) {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        let built = BUILT.get_or_init(|| {
            let directory = target_directory().join(format!("e2e-native-{}", std::process::id()));
            std::fs::create_dir_all(&directory).expect("target/ can be written");
            for (name, compiler, source, options) in BUILDS {
                let target = directory.join(format!("native-{name}.so"));
                Self::compile(compiler, source, options, &target);
            }
            directory
        });
        for path in files(built).into_iter().chain(files(&Self::sources())) {
            let name = path.file_name().expect("a name");
            std::fs::copy(&path, sandbox.outside(name)).expect("copy");
        }
    }
}
