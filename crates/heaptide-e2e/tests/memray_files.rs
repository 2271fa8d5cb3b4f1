//! Captures that Memray made: what its own reader finds in them, ours finds.
//!
//! Each header version that is read is made by a Memray that writes it.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use heaptide_capture::Capture;
use heaptide_e2e::{Finished, Sandbox, pythons_of, run, virtual_environment};
use heaptide_engine::{Amount, FrameId, Profile, StackId};
use heaptide_format::{Allocator, Event, PythonAllocator};
use serde::Deserialize;
use tempfile::TempDir;

const PROGRAM: &str = "foreign.py";

/// Versions of Memray and of the header that they write.
const MEMRAYS: [(&str, i32); 4] = [
    ("1.10.0", 10),
    ("1.18.0", 11),
    ("1.19.3", 12),
    ("1.20.0", 13),
];

/// What `memray run` is given.
const OPTIONS: [&[&str]; 7] = [
    &[],
    &["--no-compress"],
    &["--native"],
    &["--trace-python-allocators"],
    &["--aggregate"],
    &["--aggregate", "--native"],
    &["--aggregate", "--trace-python-allocators"],
];

/// Function, file, line.
type Frame = (String, String, i32);

#[derive(Deserialize)]
struct Row {
    stack: Vec<Frame>,
    thread: u32,
    count: u64,
    bytes: u64,
}

/// Thread, address, size, allocator, and the stack of an allocation.
type Told = (u32, u64, u64, String, Option<Vec<Frame>>);

/// What `foreign_answers.py` prints.
#[derive(Deserialize)]
struct Answers {
    peak: Vec<Row>,
    live: Vec<Row>,
    temporary: Vec<Row>,
    events: Vec<Told>,
    snapshots: Vec<(u64, u64, u64)>,
    names: Vec<String>,
    command_line: String,
    pid: u32,
    start: u64,
    end: u64,
    allocator: String,
    peak_bytes: u64,
    /// Of an aggregated capture, blocks at the peak and at the end.
    counts: (u64, u64),
}

type Sums = BTreeMap<(Vec<Frame>, u32), (u64, u64)>;

fn sums(rows: impl Iterator<Item = (Vec<Frame>, u32, u64, u64)>) -> Sums {
    let mut sums = Sums::new();
    for (stack, thread, count, bytes) in rows.filter(|row| (row.2, row.3) != (0, 0)) {
        let sum = sums.entry((stack, thread)).or_default();
        sum.0 += count;
        sum.1 += bytes;
    }
    sums
}

fn theirs(rows: Vec<Row>) -> Sums {
    sums(
        rows.into_iter()
            .map(|row| (row.stack, row.thread, row.count, row.bytes)),
    )
}

/// The Python frames, and where native ones were recorded the functions of the native and of the hybrid stack behind them.
fn stack_of(profile: &Profile, stack: StackId) -> Vec<Frame> {
    let stacks = &profile.stacks;
    let frame = |id: FrameId| {
        let location = stacks.locations[stacks.frames[id.index()].location.index()];
        let text = |id| stacks.text(id).to_owned();
        (text(location.function), text(location.file), location.line)
    };
    let node = |node: StackId| stacks.nodes[node.index()].frame;
    let mut frames: Vec<Frame> = stacks
        .walk_python(stack)
        .map(|at| frame(node(at)))
        .collect();
    if stacks.python_whole(stack) != stack {
        let function = |kind: &str, id| (kind.to_owned(), frame(id).0, 0);
        let native = stacks.native_frames(stack, usize::MAX);
        frames.extend(native.map(|id| function("native", id)));
        let hybrid = stacks.walk(stack).map(node);
        frames.extend(hybrid.map(|id| function("hybrid", id)));
    }
    frames
}

fn ours(profile: &Profile, amount: impl Fn(&heaptide_engine::Figures) -> Amount) -> Sums {
    sums(profile.entries.iter().map(|entry| {
        let amount = amount(&entry.figures);
        let thread = profile.threads[entry.thread as usize].thread_id;
        (
            stack_of(profile, entry.stack),
            thread,
            amount.count,
            amount.bytes,
        )
    }))
}

fn expect_equal(name: &str, memray: &Sums, heaptide: &Sums) {
    let keys = memray.keys().chain(heaptide.keys());
    let different: Vec<_> = keys
        .filter(|&key| memray.get(key) != heaptide.get(key))
        .collect();
    let shown = different.iter().take(4).map(|&key| {
        format!(
            "{key:?}:\n  Memray {:?}\n  heaptide {:?}",
            memray.get(key),
            heaptide.get(key)
        )
    });
    assert!(
        different.is_empty(),
        "{name}: {} of {} differ\n{}",
        different.len(),
        memray.len(),
        shown.collect::<Vec<_>>().join("\n")
    );
}

/// What Memray takes for temporary though it is not: a thread frees a block at an address where one of its last
/// allocations was, which another thread has freed since.
fn mistaken(told: &[Told]) -> Sums {
    // Memray's reader keeps the threshold and one more.
    let mut lately: BTreeMap<u32, VecDeque<usize>> = BTreeMap::new();
    let mut live: BTreeMap<u64, usize> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (index, (thread, address, _, _, stack)) in told.iter().enumerate() {
        let mine = lately.entry(*thread).or_default();
        if stack.is_some() {
            live.insert(*address, index);
            mine.push_front(index);
            mine.truncate(2);
            continue;
        }
        let block = live.remove(address);
        let Some(place) = mine.iter().position(|&old| told[old].1 == *address) else {
            continue;
        };
        let old = mine.remove(place).expect("a place in the list");
        if block != Some(old) {
            let (_, _, size, _, stack) = &told[old];
            mistakes.push((stack.clone().expect("an allocation"), *thread, 1, *size));
        }
    }
    sums(mistakes.into_iter())
}

#[test]
fn what_memray_takes_for_temporary_though_it_is_not() {
    let stack = |name: &str| vec![(name.to_owned(), "a.py".to_owned(), 1)];
    let made = |thread, address, size, name: &str| {
        (
            thread,
            address,
            size,
            "MALLOC".to_owned(),
            Some(stack(name)),
        )
    };
    let freed = |thread, address| (thread, address, 0, "FREE".to_owned(), None);
    let told = [
        // Really temporary.
        made(1, 16, 1, "own"),
        freed(1, 16),
        // Freed and made again by another thread, then freed by the first.
        made(1, 32, 2, "stolen"),
        freed(2, 32),
        made(2, 32, 3, "thief"),
        freed(1, 32),
        // The same, but the first thread has made two others since.
        made(1, 48, 4, "old"),
        freed(2, 48),
        made(2, 48, 5, "thief"),
        made(1, 64, 6, "one"),
        made(1, 80, 7, "two"),
        freed(1, 48),
    ];
    assert_eq!(
        mistaken(&told),
        Sums::from([((stack("stolen"), 1), (1, 2))])
    );
}

/// A Memray and where it works.
struct Memray<'a> {
    sandbox: &'a Sandbox,
    interpreter: PathBuf,
    version: &'static str,
    /// Where its captures go. In memory if possible: Memray writes them through a mapping that grows, and on a
    /// disk it has been seen to die of SIGBUS there, several times in a row.
    captures: TempDir,
}

/// A directory in memory, or where temporary files go if there is none.
fn directory_in_memory() -> TempDir {
    TempDir::new_in("/dev/shm")
        .or_else(|_| TempDir::new())
        .expect("a directory")
}

impl Memray<'_> {
    fn capture(&self) -> PathBuf {
        self.captures.path().join("memray.bin")
    }

    fn run(&self, options: &[&str], kill: bool) -> PathBuf {
        let attempt = || {
            let mut command = self.sandbox.command(&self.interpreter);
            command
                .args(["-m", "memray", "run", "-q", "-f", "-o"])
                .arg(self.capture())
                .args(options)
                .arg(self.sandbox.inside(PROGRAM));
            if kill {
                command.arg("kill");
            }
            run(&mut command)
        };
        let crashed = |finished: &Finished| finished.ending() == 1000 + libc::SIGBUS;
        let finished = (0..10)
            .map(|_| attempt())
            .find(|finished| !crashed(finished))
            .expect("Memray does not crash every time");
        if kill {
            assert_eq!(finished.ending(), 1000 + libc::SIGKILL, "{}", self.version);
        } else {
            finished.expect_success(&format!("memray {} {options:?}", self.version));
        }
        self.capture()
    }

    fn answers(&self, aggregated: bool) -> Answers {
        let mut command = self.sandbox.command(&self.interpreter);
        command.arg("foreign_answers.py").arg(self.capture());
        if aggregated {
            command.arg("aggregated");
        }
        let finished = run(&mut command);
        finished.expect_success("foreign_answers.py");
        serde_json::from_slice(&finished.stdout).expect("JSON")
    }

    fn compare(&self, options: &[&str], kill: bool) {
        let name = format!(
            "Memray {} {options:?}{}",
            self.version,
            if kill { ", killed" } else { "" }
        );
        let path = self.run(options, kill);
        let aggregated = options.contains(&"--aggregate");
        let answers = self.answers(aggregated);
        assert!(
            !answers.peak.is_empty() && !answers.live.is_empty(),
            "{name}: nothing to compare"
        );
        assert!(heaptide_memray::is_memray(&path));
        let capture =
            heaptide_memray::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let profile = Profile::new(&capture);
        compare_facts(&name, &capture, &profile, &answers);
        let native = options.contains(&"--native");
        assert_eq!(capture.identity.holds_native_stacks(), native, "{name}");
        let foreign = usize::from(aggregated);
        assert_eq!(
            capture.warnings.len(),
            foreign,
            "{name}: {:?}",
            capture.warnings
        );
        assert_eq!(
            profile.warnings.len(),
            foreign,
            "{name}: {:?}",
            profile.warnings
        );
        assert_eq!(
            capture.liveness().word(),
            if kill { "died" } else { "finished" },
            "{name}"
        );

        let figures = &profile.totals.figures;
        if aggregated {
            assert_eq!(
                (figures.peak.count, figures.live.count),
                answers.counts,
                "{name}"
            );
            assert!(figures.allocated.is_zero(), "{name}: nobody knows");
        } else {
            compare_events(&name, &capture, &profile, &answers.events);
        }
        for (figure, rows, amount) in [
            (
                "peak",
                answers.peak,
                (|figures| figures.peak) as fn(&heaptide_engine::Figures) -> Amount,
            ),
            ("live", answers.live, |figures| figures.live),
            ("temporary", answers.temporary, |figures| figures.temporary),
        ] {
            let (mut memray, mut heaptide) = (theirs(rows), ours(&profile, amount));
            if figure == "temporary" {
                for (key, (count, bytes)) in mistaken(&answers.events) {
                    let sum = memray.entry(key.clone()).or_default();
                    *sum = (sum.0 - count, sum.1 - bytes);
                    if sum.0 == 0 {
                        memray.remove(&key);
                    }
                }
            }
            if aggregated {
                // There Memray's reader gives one for what it has merged.
                for sums in [&mut memray, &mut heaptide] {
                    sums.values_mut().for_each(|sum| sum.0 = 0);
                }
            }
            expect_equal(&format!("{name}, {figure}"), &memray, &heaptide);
        }
    }
}

fn compare_facts(name: &str, capture: &Capture, profile: &Profile, answers: &Answers) {
    assert_eq!(capture.identity.pid, answers.pid, "{name}");
    assert_eq!(
        capture.metadata.command_line(),
        answers.command_line,
        "{name}"
    );
    let milliseconds = |nanoseconds: u64| nanoseconds / 1_000_000;
    let lifecycle = &capture.lifecycle;
    assert_eq!(
        milliseconds(lifecycle.tracking_start_unix_ns),
        answers.start,
        "{name}"
    );
    if capture.liveness().word() == "finished" {
        assert_eq!(
            milliseconds(lifecycle.tracking_end_unix_ns),
            answers.end,
            "{name}"
        );
    }
    let allocator = PythonAllocator::from_raw(lifecycle.python_allocator).expect("an allocator");
    assert_eq!(allocator.name(), answers.allocator, "{name}");
    assert_eq!(
        profile.totals.figures.peak.bytes, answers.peak_bytes,
        "{name}"
    );
    assert_eq!(profile.heap.peak_bytes, answers.peak_bytes, "{name}");
    // Memray tells all, also where two have the same time.
    let mut snapshots = answers.snapshots.clone();
    snapshots.dedup_by_key(|snapshot| snapshot.0);
    let samples = capture.samples.iter().enumerate().map(|(index, sample)| {
        let heap = profile
            .sample_heap
            .get(index)
            .copied()
            .unwrap_or(sample.heap_bytes);
        (milliseconds(sample.unix_ns), sample.resident_bytes, heap)
    });
    assert_eq!(samples.collect::<Vec<_>>(), snapshots, "{name}");
    let named = profile
        .threads
        .iter()
        .filter(|thread| !thread.name.starts_with('<'));
    let named: Vec<String> = named
        .map(|thread| format!("{:#x} ({})", thread.thread_id, thread.name))
        .collect();
    for theirs in answers.names.iter().filter(|name| name.contains('(')) {
        assert!(
            named.contains(theirs),
            "{name}: {theirs} is not among {named:?}"
        );
    }
}

/// Every event, one by one.
fn compare_events(name: &str, capture: &Capture, profile: &Profile, told: &[Told]) {
    let mut count = 0;
    for placed in capture.events.in_order().collect() {
        let (thread, address, size, allocator, stack) = &told[count];
        count += 1;
        let at = format!("{name}, event {count}");
        let number = placed.thread as usize;
        assert_eq!(profile.threads[number].thread_id, *thread, "{at}");
        match placed.event {
            Event::Allocated {
                address: ours,
                site,
            } => {
                assert_eq!((ours, site.size), (*address, *size), "{at}");
                let ours = Allocator::from_raw(u32::from(site.allocator)).expect("an allocator");
                assert_eq!(ours.name(), allocator, "{at}");
                let nodes = profile.stack_of_node(site.node).expect("a stack");
                assert_eq!(Some(&stack_of(profile, nodes)), stack.as_ref(), "{at}");
            }
            Event::Freed { address: ours } => {
                assert_eq!(ours, *address, "{at}");
                assert!(allocator.ends_with("FREE"), "{at}: {allocator}");
            }
            Event::Unmapped {
                address: ours,
                length,
            } => {
                assert_eq!((ours, length), (*address, *size), "{at}");
                assert_eq!(allocator, "MUNMAP", "{at}");
            }
            other => panic!("{at}: {other:?}"),
        }
    }
    assert_eq!(count, told.len(), "{name}");
}

fn each_memray(test: impl Fn(&Memray<'_>)) {
    for python in pythons_of(&[12]) {
        for (version, header) in MEMRAYS {
            let packages = [format!("memray=={version}"), "typing_extensions".to_owned()];
            let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
            let Some(interpreter) =
                virtual_environment(python, &format!("memray-{header}"), &packages)
            else {
                continue;
            };
            let sandbox = Sandbox::new(python);
            test(&Memray {
                sandbox: &sandbox,
                interpreter,
                version,
                captures: directory_in_memory(),
            });
        }
    }
}

#[test]
fn our_reader_finds_what_memrays_own_does() {
    each_memray(|memray| {
        for options in OPTIONS {
            memray.compare(options, false);
        }
    });
}

#[test]
fn captures_of_killed_programs_are_read_up_to_their_last_event() {
    each_memray(|memray| memray.compare(&[], true));
}

/// Cut off anywhere, and with bytes changed anywhere, there is a result or an error.
#[test]
fn damaged_captures_are_read_as_far_as_they_go() {
    each_memray(|memray| {
        for options in [
            &["--no-compress"][..],
            &["--aggregate"],
            &[],
            &["--native", "--no-compress"],
            &["--native", "--aggregate", "--no-compress"],
        ] {
            let path = memray.run(options, false);
            let whole = std::fs::read(&path).expect("the capture");
            let damaged = path.with_extension("damaged");
            let mut read = 0;
            let mut seed = 1u64;
            for number in 0..40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let place = (seed >> 33) as usize % whole.len();
                let mut bytes = whole.clone();
                if number % 2 == 0 {
                    bytes.truncate(place);
                } else {
                    bytes[place] ^= 1 << (seed >> 29 & 7);
                }
                std::fs::write(&damaged, bytes).expect("a file");
                if let Ok(capture) = heaptide_memray::open(&damaged) {
                    let profile = Profile::new(&capture);
                    read += usize::from(profile.totals.figures.peak.bytes > 0);
                }
            }
            assert!(read > 5, "{}: {read}", memray.version);
        }
    });
}
