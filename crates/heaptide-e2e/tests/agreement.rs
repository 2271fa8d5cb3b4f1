//! The two modes say the same: figure by figure of whole programs, and both as a naive model does of threads that
//! allocate in a known order.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::unix::process::CommandExt;

use heaptide_e2e::{
    Capture, Cell, Counters, Frame, Mode, Python, Sandbox, each_python, modes, not_tested, run,
    stats,
};
use heaptide_format::Allocator;
use serde_json::Value;

// ---- whole programs -------------------------------------------------------------------------------------------------

/// A run of `program` in one mode. Addresses are not random, so that two runs do the same to the last event.
fn record(sandbox: &Sandbox, mode: Mode, program: &str, arguments: &[&str]) -> (Capture, Value) {
    let mut command = sandbox.profiled_in(mode);
    command
        .arg(sandbox.inside(program))
        .arg("real")
        .args(arguments);
    // SAFETY: one system call, on the child alone.
    unsafe {
        command.pre_exec(|| match libc::personality(libc::ADDR_NO_RANDOMIZE as u64) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    run(&mut command).expect_success(&format!("{program} {arguments:?} {mode:?}"));
    let path = sandbox.capture();
    let figures = (Capture::read(&path), stats(&path));
    // The interpreter lists the directory of the program: the next run shall find it as this one did.
    for path in [path, sandbox.outside("expected.json")] {
        std::fs::remove_file(path).expect("the run has made it");
    }
    figures
}

type Key = (Vec<Frame>, String, String);

/// The interpreter's arenas, and where its pools are used up on purpose, so that none is mapped later. How many it takes
/// and where depends on how they are aligned, and so on what else is mapped.
fn uses_up_pools(cell: &Cell) -> bool {
    let sizes = [256 << 10, 1 << 20].map(|arena| arena * cell.counters.allocated_count);
    cell.stack.iter().any(|frame| frame.function == "_warm")
        || (cell.allocator == "MMAP" && sizes.contains(&cell.counters.allocated_bytes))
}

/// Where the program writes what it knows: the kernel's numbers of threads are in it, and begin anew with fewer digits.
fn writes_the_answer(cell: &Cell) -> bool {
    cell.stack.iter().any(|frame| frame.function == "finish")
}

/// Figures by stack, allocator and thread.
fn by_key(capture: &Capture) -> HashMap<Key, Counters> {
    let mut figures: HashMap<Key, Counters> = HashMap::new();
    let compared = |cell: &&Cell| !uses_up_pools(cell) && !writes_the_answer(cell);
    for cell in capture.cells.iter().filter(compared) {
        let key = (
            cell.stack.clone(),
            cell.allocator.clone(),
            cell.thread_name.clone(),
        );
        *figures.entry(key).or_default() += cell.counters;
    }
    figures
}

fn expect_agreement(sandbox: &Sandbox, program: &str, arguments: &[&str]) {
    let name = format!(
        "{program} {arguments:?}, Python {}",
        sandbox.python.version()
    );
    let [(all, all_stats), (aggregated, aggregated_stats)] =
        [Mode::All, Mode::Aggregated].map(|mode| record(sandbox, mode, program, arguments));
    for capture in [&all, &aggregated] {
        capture
            .consistency()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let (left, right) = (by_key(&all), by_key(&aggregated));
    let mut differences = Vec::new();
    for (key, counters) in &left {
        if right.get(key) != Some(counters) {
            let leaf = key.0.first();
            let other = right.get(key);
            differences.push(format!(
                "{} of {} at {leaf:?}:\n  all        {counters:?}\n  aggregated {other:?}",
                key.1, key.2
            ));
        }
    }
    let missing = right.keys().filter(|key| !left.contains_key(*key)).count();
    assert!(
        differences.is_empty() && missing == 0,
        "{name}: {} stacks differ, {missing} are missing in mode all\n{}",
        differences.len(),
        differences[..differences.len().min(8)].join("\n")
    );
    // Without the GIL the interpreter itself asks malloc for little
    let fewest = if sandbox.python.free_threaded {
        20
    } else {
        100
    };
    assert!(left.len() > fewest, "{name}: {} stacks", left.len());
    // The same of the heap as a whole, which neither mode adds up from its stacks.
    for key in ["peak_bytes", "live_bytes"] {
        let rest = [&all, &aggregated].map(|capture| {
            let pools = capture.sum(uses_up_pools);
            let pools = if key == "peak_bytes" {
                pools.peak_bytes
            } else {
                pools.live_bytes
            };
            capture.heap[key].as_i64().expect("a number") - pools
        });
        assert_eq!(rest[0], rest[1], "{name}: {key}");
    }
    for key in ["/heaptide/deallocations", "/heaptide/missed"] {
        let figures = [&all_stats, &aggregated_stats].map(|stats| stats.pointer(key));
        assert!(figures[0].is_some(), "{name}: no {key}");
        assert_eq!(figures[0], figures[1], "{name}: {key}");
    }
    // Sizes, but for those of arenas
    let histograms = [&all_stats, &aggregated_stats].map(|stats| {
        let bins = stats["allocation_size_histogram"].as_array().expect("bins");
        let small = |bin: &&Value| bin["max_bytes"].as_u64().is_some_and(|most| most < 1 << 18);
        bins.iter().filter(small).cloned().collect::<Vec<Value>>()
    });
    assert!(histograms[0].len() > 3, "{name}: {histograms:?}");
    assert_eq!(histograms[0], histograms[1], "{name}");
}

/// One thread at a time, so that nothing is left to chance.
const PROGRAMS: [(&str, &[&str]); 7] = [
    ("allocators.py", &[]),
    ("frames.py", &[]),
    ("recompiled.py", &[]),
    ("objects.py", &[]),
    ("ties.py", &["allocators"]),
    ("ties.py", &["threads"]),
    ("names.py", &[]),
];

#[test]
fn every_figure_of_whole_programs() {
    each_python(|python| {
        if python.root.is_none() && !can_fix_addresses() {
            return not_tested("the two modes on whole programs: addresses stay random here");
        }
        for (program, arguments) in PROGRAMS {
            expect_agreement(&Sandbox::new(python), program, arguments);
        }
    });
}

/// Containers may forbid it.
fn can_fix_addresses() -> bool {
    let setarch = std::process::Command::new("setarch")
        .args(["-R", "true"])
        .status();
    setarch.is_ok_and(|status| status.success())
}

// ---- threads in a known order ---------------------------------------------------------------------------------------

const PAGE: u64 = 4096;
/// Length of an event in the log.
const RECORD: usize = 32;

/// An event as `lockstep.c` logs it.
#[derive(Clone, Copy)]
struct Event {
    thread: u64,
    kind: u32,
    address: u64,
    size: u64,
}

fn read_log(path: &std::path::Path, events: usize) -> Vec<Event> {
    let log = std::fs::read(path).expect("the log");
    let word = |record: &[u8], at: usize| {
        u64::from_le_bytes(record[8 * at..8 * at + 8].try_into().expect("8 bytes"))
    };
    log.chunks_exact(RECORD)
        .take(events)
        .map(|record| Event {
            thread: word(record, 0),
            kind: u32::try_from(word(record, 1)).expect("a kind"),
            address: word(record, 2),
            size: word(record, 3),
        })
        .collect()
}

/// Thread and allocator.
type Maker = (u64, u32);

struct Block {
    maker: Maker,
    start: u64,
    left: u64,
    /// Which of its thread's allocations it was.
    order: u64,
}

/// By the book and slowly: every page has an owner, and the state at each maximum is copied.
#[derive(Default)]
struct Model {
    figures: BTreeMap<Maker, Counters>,
    blocks: Vec<Block>,
    by_address: HashMap<u64, usize>,
    /// Block of each mapped page, and its bytes in that page.
    pages: BTreeMap<u64, (usize, u64)>,
    allocations: HashMap<u64, u64>,
    heap: i64,
    peak: i64,
    at_peak: BTreeMap<Maker, Counters>,
    histogram: BTreeMap<u32, u64>,
}

impl Model {
    fn event(&mut self, event: &Event) {
        match Allocator::from_raw(event.kind).expect("an allocator") {
            Allocator::Free => {
                let block = self.by_address.remove(&event.address);
                let block = block.expect("a block that is alive");
                let size = self.blocks[block].left;
                self.take(event.thread, block, size, true);
            }
            Allocator::Munmap => self.unmap(event),
            _ => self.allocate(event),
        }
        if self.heap >= self.peak {
            self.peak = self.heap;
            self.at_peak.clone_from(&self.figures);
        }
    }

    fn allocate(&mut self, event: &Event) {
        let order = self.allocations.entry(event.thread).or_default();
        *order += 1;
        let block = self.blocks.len();
        let maker = (event.thread, event.kind);
        self.blocks.push(Block {
            maker,
            start: event.address,
            left: event.size,
            order: *order,
        });
        let figures = self.figures.entry(maker).or_default();
        let size = i64::try_from(event.size).expect("small");
        figures.allocated_count += 1;
        figures.allocated_bytes += event.size;
        figures.live_count += 1;
        figures.live_bytes += size;
        self.heap += size;
        *self.histogram.entry(event.size.max(1).ilog2()).or_default() += 1;
        if event.kind == Allocator::Mmap as u32 {
            for offset in (0..event.size).step_by(PAGE as usize) {
                let bytes = PAGE.min(event.size - offset);
                let before = self.pages.insert(event.address + offset, (block, bytes));
                assert!(before.is_none(), "a page is mapped twice");
            }
        } else {
            let before = self.by_address.insert(event.address, block);
            assert!(before.is_none(), "an address is given out twice");
        }
    }

    fn unmap(&mut self, event: &Event) {
        let end = event.address + event.size;
        let gone: Vec<(u64, (usize, u64))> = self
            .pages
            .range(event.address..end)
            .map(|(page, owner)| (*page, *owner))
            .collect();
        // A run of pages of one mapping goes at once.
        let mut runs: Vec<(u64, u64, usize, u64)> = Vec::new();
        for (page, (block, bytes)) in gone {
            self.pages.remove(&page);
            match runs.last_mut() {
                Some((_, next, owner, sum)) if *next == page && *owner == block => {
                    *next += PAGE;
                    *sum += bytes;
                }
                _ => runs.push((page, page + PAGE, block, bytes)),
            }
        }
        for (start, _, block, bytes) in runs {
            let from_its_start = start == self.blocks[block].start;
            self.take(event.thread, block, bytes, from_its_start);
        }
    }

    /// Part of a block ends, or all of it.
    fn take(&mut self, thread: u64, block: usize, bytes: u64, from_its_start: bool) {
        let block = &mut self.blocks[block];
        block.left -= bytes;
        let figures = self.figures.get_mut(&block.maker).expect("it was made");
        figures.live_bytes -= i64::try_from(bytes).expect("small");
        self.heap -= i64::try_from(bytes).expect("small");
        if block.left > 0 {
            return;
        }
        figures.live_count -= 1;
        let since = self.allocations.get(&thread).copied().unwrap_or(0);
        if block.maker.0 == thread && from_its_start && since - block.order <= 1 {
            figures.temporary_count += 1;
            figures.temporary_bytes += bytes;
        }
    }

    fn results(&self) -> BTreeMap<Maker, Counters> {
        let mut results = self.figures.clone();
        for (maker, figures) in &mut results {
            if let Some(at_peak) = self.at_peak.get(maker) {
                figures.peak_count = at_peak.live_count;
                figures.peak_bytes = at_peak.live_bytes;
            }
        }
        results
    }
}

/// What the capture has of the program's own events: on its marked lines, and all of the threads that have no Python.
fn captured(sandbox: &Sandbox, capture: &Capture) -> BTreeMap<Maker, Counters> {
    let program = "lockstep.py";
    let lines = ["first", "main"].map(|marker| sandbox.line(program, marker));
    let with_python: HashSet<u32> = (capture.cells.iter())
        .filter(|cell| !cell.stack.is_empty())
        .map(|cell| cell.thread_id)
        .collect();
    let mut figures: BTreeMap<Maker, Counters> = BTreeMap::new();
    for cell in &capture.cells {
        let ours = match cell.stack.first() {
            Some(leaf) => leaf.file.ends_with(program) && lines.contains(&leaf.line),
            None => !with_python.contains(&cell.thread_id),
        };
        if ours {
            let allocator = (0..64)
                .filter_map(Allocator::from_raw)
                .find(|allocator| allocator.name() == cell.allocator)
                .expect("an allocator's name");
            let maker = (u64::from(cell.thread_id), allocator as u32);
            *figures.entry(maker).or_default() += cell.counters;
        }
    }
    figures
}

fn lockstep(python: &Python, mode: Mode, seed: u64, steps: u64) {
    let name = format!("seed {seed}, {mode:?}, Python {}", python.version());
    let sandbox = Sandbox::new(python);
    let finished = run(sandbox
        .profiled_in(mode)
        .arg(sandbox.inside("lockstep.py"))
        .arg(sandbox.inside("log"))
        .args([seed.to_string(), steps.to_string()]));
    finished.expect_success(&name);
    let events: usize = finished.text().trim().parse().expect("a number");
    assert!(events as u64 > steps, "{name}: {events} events");

    let mut model = Model::default();
    for event in read_log(&sandbox.outside("log"), events) {
        model.event(&event);
    }
    // The interpreter's own blocks are few while it starts and ends: the peak is where the model has it.
    assert!(
        model.peak > model.heap + (1 << 20),
        "{name}: the peak is too near the end"
    );
    let capture = Capture::read(&sandbox.capture());
    capture
        .consistency()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let missed = &stats(&sandbox.capture())["heaptide"]["missed"];
    assert_eq!(missed["missed_frees"], 0, "{name}");
    let (expected, seen) = (model.results(), captured(&sandbox, &capture));
    let mut differences = Vec::new();
    for maker in expected.keys().chain(seen.keys()) {
        if expected.get(maker) != seen.get(maker) {
            differences.push(format!(
                "{maker:?}:\n  expected {:?}\n  captured {:?}",
                expected.get(maker),
                seen.get(maker)
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{name}:\n{}",
        differences.join("\n")
    );
    let threads = expected.keys().map(|maker| maker.0);
    let threads: BTreeSet<u64> = threads.collect();
    assert_eq!(
        (threads.len(), expected.len()),
        (6, 6 * 9),
        "{name}: every function in every thread"
    );
    let made: u64 = model.histogram.values().sum();
    let sum: u64 = expected
        .values()
        .map(|figures| figures.allocated_count)
        .sum();
    assert_eq!(made, sum);
}

/// Six threads that share blocks and mappings: allocated, live, at the exact peak and temporary, per thread and
/// function, as a model of the logged order has it.
#[test]
fn threads_in_a_known_order() {
    each_python(|python| {
        for mode in modes() {
            for seed in 1..=3 {
                lockstep(python, mode, seed, 12_000);
            }
        }
    });
}
