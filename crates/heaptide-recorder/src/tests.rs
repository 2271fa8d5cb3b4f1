//! The recorder against naive models: what the file says must be what happened.

use std::boxed::Box;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Barrier;
use std::vec::Vec;
use std::{format, thread};

use heaptide_format::{
    Allocator, Cell, CellKind, Decoder, Event, FEATURE_NATIVE_STACKS, FORMAT_VERSION, HEADER_BYTES,
    Header, MAGIC, Mode, Moment, NODE_FOLDED, NODE_OVERFLOW, NODE_ROOT, Node, NodeDecoder,
    NodeEntry, SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, SegmentHeader, SegmentKind, Site, Slot, State,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::{CodeText, KnownTypes, RawText, Recorder, ThreadRecord, TypeName};

/// A capture in a temporary directory, as the supervisor makes it.
struct Fixture {
    recorder: &'static Recorder,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

/// What a reader sees.
struct View {
    header: Header,
    nodes: Vec<Node>,
    cells: Vec<Cell>,
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    allocated: (u64, u64),
    live: (i64, i64),
    peak: (i64, i64),
    temporary: (u64, u64),
}

impl Fixture {
    fn new(node_budget: u32) -> Self {
        Self::in_mode(Mode::Aggregated, node_budget)
    }

    fn with_native_stacks() -> Self {
        Self::with(Mode::Aggregated, 1 << 20, FEATURE_NATIVE_STACKS)
    }

    fn in_mode(mode: Mode, node_budget: u32) -> Self {
        Self::with(mode, node_budget, 0)
    }

    fn with(mode: Mode, node_budget: u32, features: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("capture.tide");
        let mut header = Header::new_zeroed();
        header.identity.magic = MAGIC;
        header.identity.version = FORMAT_VERSION;
        header.identity.mode = mode as u32;
        header.identity.required_features = features;
        header.lifecycle.state = State::Armed as u32;
        header.lifecycle.allocated_end = HEADER_BYTES as u64;
        std::fs::write(&path, header.as_bytes()).unwrap();
        // Leaked, as the real one is a static.
        let recorder: &'static Recorder = Box::leak(Box::new(Recorder::new()));
        recorder
            .start(path.as_os_str().as_encoded_bytes(), node_budget)
            .unwrap();
        recorder.tracking_begins(0x030c_0000, 1, 1);
        Self {
            recorder,
            path,
            _directory: directory,
        }
    }

    fn thread(&self) -> Box<ThreadRecord> {
        let mut record = Box::<ThreadRecord>::new_uninit();
        // SAFETY: fresh memory; `thread_start` fills it.
        unsafe {
            self.recorder
                .thread_start(record.as_mut_ptr(), 1, *b"test\0\0\0\0\0\0\0\0\0\0\0\0")
                .unwrap();
            record.assume_init()
        }
    }

    fn node(&self, name: &str) -> u32 {
        self.recorder.node(NODE_ROOT, self.code(name), 0).unwrap()
    }

    fn code(&self, name: &str) -> u32 {
        let text = RawText {
            bytes: name.as_bytes(),
            kind: 1,
        };
        let code = CodeText {
            name: text,
            qualified_name: text,
            file_name: text,
            first_line: 1,
            flags: 0,
            line_table: b"",
        };
        self.recorder.code(&code).unwrap()
    }

    fn view(&self) -> View {
        let bytes = std::fs::read(&self.path).unwrap();
        let header = Header::read_from_prefix(&bytes).unwrap().0;
        let mut view = View {
            header,
            nodes: Vec::new(),
            cells: Vec::new(),
            slots: Vec::new(),
        };
        let mut at = HEADER_BYTES;
        while at + SEGMENT_HEADER_BYTES <= bytes.len() {
            let segment = SegmentHeader::read_from_prefix(&bytes[at..]).unwrap().0;
            if segment.magic != SEGMENT_MAGIC {
                break;
            }
            assert_eq!(segment.checksum, segment.expected_checksum());
            let payload = &bytes[at + SEGMENT_HEADER_BYTES..][..segment.committed as usize];
            match SegmentKind::from_raw(segment.kind) {
                Some(SegmentKind::NodeStream) => {
                    assert_eq!(segment.first_index, view.nodes.len() as u64);
                    for entry in NodeDecoder::new(payload, segment.first_index as u32) {
                        match entry.unwrap() {
                            NodeEntry::Node(node) => view.nodes.push(node),
                            NodeEntry::Fold(number) => {
                                view.nodes[number as usize].flags |= NODE_FOLDED;
                            }
                        }
                    }
                }
                Some(SegmentKind::Cells) => view.cells.extend(records::<Cell>(payload)),
                Some(SegmentKind::Slots) => view.slots.extend(records::<Slot>(payload)),
                _ => {}
            }
            at += segment.capacity as usize;
        }
        view
    }
}

fn records<T: FromBytes>(payload: &[u8]) -> Vec<T> {
    payload
        .chunks_exact(size_of::<T>())
        .map(|chunk| T::read_from_bytes(chunk).ok().unwrap())
        .collect()
}

impl View {
    /// The figures of every own cell, remote ones folded in: the formula of the specification.
    fn figures(&self) -> HashMap<(u32, u32, u32), Figures> {
        let heap = self.header.heap;
        let mut figures: HashMap<(u32, u32, u32), Figures> = HashMap::new();
        for cell in &self.cells {
            let owner = if cell.kind == CellKind::Remote as u32 {
                &self.cells[cell.target as usize]
            } else {
                cell
            };
            let entry = figures
                .entry((owner.target, owner.allocator, owner.thread))
                .or_default();
            let now = (
                cell.allocated_count.wrapping_sub(cell.freed_count) as i64,
                cell.allocated_bytes.wrapping_sub(cell.freed_bytes) as i64,
            );
            let peak = if heap.headroom != 0 && cell.epoch == heap.epoch {
                (cell.peak_count, cell.peak_bytes)
            } else {
                now
            };
            entry.allocated = (
                entry.allocated.0 + cell.allocated_count,
                entry.allocated.1 + cell.allocated_bytes,
            );
            entry.live = (entry.live.0 + now.0, entry.live.1 + now.1);
            entry.peak = (entry.peak.0 + peak.0, entry.peak.1 + peak.1);
            entry.temporary = (
                entry.temporary.0 + cell.temporary_count,
                entry.temporary.1 + cell.temporary_bytes,
            );
        }
        figures
    }
}

struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Every event of one thread, replayed by the plainest code there is.
#[derive(Default)]
struct Model {
    live: HashMap<u64, (u32, u64)>,
    figures: HashMap<u32, Figures>,
    heap: i64,
    peak: i64,
    at_peak: HashMap<u32, (i64, i64)>,
    last: Vec<u64>,
}

impl Model {
    fn snapshot_if_highest(&mut self) {
        if self.heap >= self.peak {
            self.peak = self.heap;
            self.at_peak = self
                .figures
                .iter()
                .map(|(node, figures)| (*node, figures.live))
                .collect();
        }
    }

    fn allocate(&mut self, node: u32, address: u64, bytes: u64) {
        self.live.insert(address, (node, bytes));
        let figures = self.figures.entry(node).or_default();
        figures.allocated = (figures.allocated.0 + 1, figures.allocated.1 + bytes);
        figures.live = (figures.live.0 + 1, figures.live.1 + bytes as i64);
        self.heap += bytes as i64;
        self.last.insert(0, address);
        self.last.truncate(2);
        self.snapshot_if_highest();
    }

    fn free(&mut self, address: u64) {
        let (node, bytes) = self.live.remove(&address).unwrap();
        let figures = self.figures.get_mut(&node).unwrap();
        figures.live = (figures.live.0 - 1, figures.live.1 - bytes as i64);
        if let Some(position) = self.last.iter().position(|last| *last == address) {
            self.last[position] = 0;
            figures.temporary = (figures.temporary.0 + 1, figures.temporary.1 + bytes);
        }
        self.heap -= bytes as i64;
        self.snapshot_if_highest();
    }
}

#[test]
fn one_thread_agrees_with_a_naive_model_at_every_stop() {
    let fixture = Fixture::new(1 << 20);
    let mut thread = fixture.thread();
    let nodes: Vec<u32> = (0..40)
        .map(|number| fixture.node(&format!("f{number}")))
        .collect();
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut model = Model::default();
    let mut addresses: Vec<u64> = Vec::new();
    for step in 1..=60_000u64 {
        let value = random.next();
        // Sizes from a small set, zero among them, so that the maximum is met again exactly.
        let bytes = (value >> 40) % 4 * 1000;
        let grow = if step % 20_000 < 10_000 { 6 } else { 4 };
        if addresses.is_empty() || value % 10 < grow {
            let address = step * 16;
            let node = nodes[(value >> 8) as usize % nodes.len()];
            // SAFETY: started, and the record is this thread's.
            unsafe {
                fixture
                    .recorder
                    .allocated(&mut thread, node, Allocator::Malloc, address, bytes)
            }
            .unwrap();
            model.allocate(node, address, bytes);
            addresses.push(address);
        } else {
            let from_end = if value & 0x1000 == 0 {
                addresses.len() - 1
            } else {
                (value >> 16) as usize % addresses.len()
            };
            let address = addresses.swap_remove(from_end);
            // SAFETY: as above.
            unsafe { fixture.recorder.freed(&mut thread, address) }.unwrap();
            model.free(address);
        }
        if step % 997 == 0 {
            let view = fixture.view();
            assert_eq!(view.header.heap.peak_bytes as i64, model.peak);
            assert_eq!(
                (view.header.heap.peak_bytes - view.header.heap.headroom) as i64,
                model.heap
            );
            for ((node, _, _), figures) in view.figures() {
                let mut expected = model.figures[&node];
                expected.peak = model.at_peak.get(&node).copied().unwrap_or_default();
                assert_eq!(figures, expected, "node {node} at step {step}");
            }
        }
    }
}

#[test]
fn threads_that_free_each_others_blocks_add_up() {
    const THREADS: usize = 4;
    let fixture = Fixture::new(1 << 20);
    let nodes: Vec<u32> = (0..8)
        .map(|number| fixture.node(&format!("g{number}")))
        .collect();
    // Blocks travel from each thread to the next.
    let mailboxes: Vec<std::sync::Mutex<Vec<u64>>> = (0..THREADS)
        .map(|_| std::sync::Mutex::new(Vec::new()))
        .collect();
    let barrier = Barrier::new(THREADS);
    let counts: Vec<(u64, u64)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|number| {
                let (fixture, nodes, mailboxes, barrier) = (&fixture, &nodes, &mailboxes, &barrier);
                scope.spawn(move || {
                    let mut record = fixture.thread();
                    let mut random = Random(0x9e37_79b9 + number as u64 * 7919);
                    let (mut allocations, mut frees) = (0, 0);
                    barrier.wait();
                    for step in 1..30_000u64 {
                        let value = random.next();
                        if !value.is_multiple_of(3) {
                            let address = (number as u64 + 1) << 40 | step << 4;
                            let node = nodes[(value >> 9) as usize % nodes.len()];
                            // SAFETY: started, and the record is this thread's.
                            unsafe {
                                fixture.recorder.allocated(
                                    &mut record,
                                    node,
                                    Allocator::Calloc,
                                    address,
                                    value >> 50,
                                )
                            }
                            .unwrap();
                            allocations += 1;
                            mailboxes[(number + (value >> 5) as usize % 2) % THREADS]
                                .lock()
                                .unwrap()
                                .push(address);
                        } else if let Some(address) = mailboxes[number].lock().unwrap().pop() {
                            // SAFETY: as above.
                            unsafe { fixture.recorder.freed(&mut record, address) }.unwrap();
                            frees += 1;
                        }
                    }
                    (allocations, frees)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    let view = fixture.view();
    let figures = view.figures();
    let sum = |pick: fn(&Figures) -> i64| figures.values().map(pick).sum::<i64>();
    let allocations: u64 = counts.iter().map(|count| count.0).sum();
    let frees: u64 = counts.iter().map(|count| count.1).sum();
    assert_eq!(sum(|f| f.allocated.0 as i64) as u64, allocations);
    assert_eq!(sum(|f| f.live.0) as u64, allocations - frees);
    assert_eq!(
        sum(|f| f.live.1) as u64,
        view.header.heap.peak_bytes - view.header.heap.headroom
    );
    // The figures of the peak are right only if every cell knew its epoch, whatever the threads did.
    assert_eq!(sum(|f| f.peak.1) as u64, view.header.heap.peak_bytes);
    assert!(
        figures
            .values()
            .all(|f| f.live.0 >= 0 && f.live.1 >= 0 && f.peak.0 >= 0 && f.peak.1 >= 0)
    );
    assert!(
        view.cells
            .iter()
            .any(|cell| cell.kind == CellKind::Remote as u32)
    );
    let counted: u64 = view.slots.iter().map(|slot| slot.allocations).sum();
    assert_eq!(counted, allocations);
    assert_eq!(
        view.slots
            .iter()
            .flat_map(|slot| slot.histogram)
            .sum::<u64>(),
        allocations
    );
}

#[test]
fn the_last_maximum_counts() {
    let fixture = Fixture::new(1 << 20);
    let mut thread = fixture.thread();
    let (first, second) = (fixture.node("first"), fixture.node("second"));
    let figures_of = |node: u32| {
        fixture
            .view()
            .figures()
            .into_iter()
            .find(|(key, _)| key.0 == node)
            .map(|(_, figures)| figures.peak)
    };
    // SAFETY: started, and the record is this thread's.
    unsafe {
        fixture
            .recorder
            .allocated(&mut thread, first, Allocator::Malloc, 0x1000, 100)
            .unwrap();
        assert_eq!(figures_of(first), Some((1, 100)));
        fixture.recorder.freed(&mut thread, 0x1000).unwrap();
        assert_eq!(figures_of(first), Some((1, 100)));
        // The same maximum again, held by another stack: the later one is the peak.
        fixture
            .recorder
            .allocated(&mut thread, second, Allocator::Malloc, 0x2000, 100)
            .unwrap();
        assert_eq!(
            (figures_of(first), figures_of(second)),
            (Some((0, 0)), Some((1, 100)))
        );
        fixture.recorder.freed(&mut thread, 0x2000).unwrap();
        assert_eq!(
            (figures_of(first), figures_of(second)),
            (Some((0, 0)), Some((1, 100)))
        );
    }
}

#[test]
fn a_block_whose_free_was_missed_is_freed_when_its_address_returns() {
    let fixture = Fixture::new(1 << 20);
    let mut thread = fixture.thread();
    let node = fixture.node("f");
    // SAFETY: started, and the record is this thread's.
    unsafe {
        fixture
            .recorder
            .allocated(&mut thread, node, Allocator::Malloc, 0x1000, 100)
            .unwrap();
        fixture
            .recorder
            .allocated(&mut thread, node, Allocator::Malloc, 0x1000, 30)
            .unwrap();
        fixture.recorder.freed(&mut thread, 0x9000).unwrap();
    }
    let view = fixture.view();
    assert_eq!(view.header.heap.peak_bytes - view.header.heap.headroom, 30);
    assert_eq!(
        view.slots
            .iter()
            .map(|slot| (slot.missed_frees, slot.unknown_frees))
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
        (1, 1)
    );
}

#[test]
fn mappings_shrink_split_and_come_back() {
    let fixture = Fixture::new(1 << 20);
    let mut thread = fixture.thread();
    let node = fixture.node("f");
    let live = || {
        let figures = fixture.view().figures();
        figures.values().fold((0, 0), |sum, figures| {
            (sum.0 + figures.live.0, sum.1 + figures.live.1)
        })
    };
    // SAFETY: started, and the record is this thread's.
    unsafe {
        fixture
            .recorder
            .mapped(&mut thread, node, 0x10_0000, 0x10_000)
            .unwrap();
        let pieces = fixture
            .recorder
            .unmapping(&mut thread, 0x10_4000, 0x1000)
            .unwrap();
        fixture.recorder.unmapped(&pieces);
        assert_eq!(live(), (1, 0xf000));
        let pieces = fixture
            .recorder
            .unmapping(&mut thread, 0x10_0000, 0x4000)
            .unwrap();
        assert_eq!(live(), (1, 0xb000));
        fixture.recorder.unmap_failed(&mut thread, &pieces).unwrap();
        assert_eq!(live(), (1, 0xf000));
        // A mapping over all of it (MAP_FIXED) ends the old one.
        fixture
            .recorder
            .mapped(&mut thread, node, 0x10_0000, 0x20_000)
            .unwrap();
        assert_eq!(live(), (1, 0x20_000));
    }
}

#[test]
fn recursion_is_folded_and_then_overflows() {
    let fixture = Fixture::new(64);
    let text = RawText {
        bytes: b"recurse",
        kind: 1,
    };
    let code = CodeText {
        name: text,
        qualified_name: text,
        file_name: text,
        first_line: 1,
        flags: 0,
        line_table: b"",
    };
    let code = fixture.recorder.code(&code).unwrap();
    // Two call sites: without folding every depth and order would be a stack of its own.
    let mut random = Random(99);
    for _ in 0..2000 {
        let mut node = NODE_ROOT;
        for _ in 0..random.next() % 100 {
            node = fixture
                .recorder
                .node(node, code, (random.next() & 2) as i32)
                .unwrap();
        }
        assert_ne!(node, NODE_OVERFLOW);
    }
    let own = fixture.recorder.file().own().unwrap();
    assert!(
        own.folded_stacks
            .load(core::sync::atomic::Ordering::Relaxed)
            > 0
    );
    // Frames that never recur cannot be folded.
    let mut node = NODE_ROOT;
    for number in 0..100 {
        node = fixture.recorder.node(node, code, 100 + number).unwrap();
    }
    assert_eq!(node, NODE_OVERFLOW);
    assert!(fixture.view().nodes.len() <= 64);
}

#[test]
fn a_frame_that_moved_on_is_the_next_sibling_or_unknown() {
    let fixture = Fixture::new(1 << 20);
    let node = |parent, code, at| fixture.recorder.node(parent, code, at).unwrap();
    let (caller, code, other) = (fixture.node("caller"), fixture.code("f"), fixture.code("g"));
    let [first, second] = [10, 20].map(|at| node(caller, code, at));
    let alien = node(caller, other, 30);
    let third = node(caller, code, 30);
    let elsewhere = node(alien, code, 20);
    let next = |previous, at| fixture.recorder.node_next_to(previous, at);
    assert_eq!(next(first, 20), Some(second));
    assert_eq!(next(first, 30), None, "not the next");
    assert_eq!(next(second, 30), None, "next is other code");
    assert_eq!(next(alien, 30), None, "of other code");
    assert_eq!(next(third, 10), None, "the last");
    assert_eq!(next(elsewhere, 20), None, "alone");
    assert_eq!(next(third, -1), None, "the root is nobody's sibling");
}

#[test]
fn the_same_code_is_described_once() {
    let fixture = Fixture::new(1 << 20);
    let (one, other) = (fixture.node("f"), fixture.node("g"));
    assert_ne!(one, other);
    for _ in 0..10_000 {
        assert_eq!(fixture.node("f"), one);
    }
    assert!(std::fs::metadata(&fixture.path).unwrap().len() < 1 << 20);
}

#[test]
fn a_closed_descriptor_is_noticed() {
    let fixture = Fixture::new(1 << 20);
    // What a daemonising program does to descriptors it does not know.
    let file = std::fs::metadata(&fixture.path).unwrap();
    for number in 3..2048 {
        // SAFETY: only descriptors of this very file are closed; the recorder checks before each use.
        unsafe {
            let borrowed = rustix::fd::BorrowedFd::borrow_raw(number);
            let is_capture = rustix::fs::fstat(borrowed)
                .is_ok_and(|status| status.st_ino == std::os::unix::fs::MetadataExt::ino(&file));
            if is_capture {
                rustix::io::close(number);
            }
        }
    }
    let mut node = NODE_ROOT;
    for number in 0..20_000 {
        node = fixture
            .recorder
            .node(if number % 50 == 0 { NODE_ROOT } else { node }, 0, number)
            .unwrap();
    }
    assert!(fixture.view().nodes.len() > 20_000);
}

#[test]
fn threads_without_end_make_no_cells_without_end() {
    let fixture = Fixture::new(1 << 20);
    let nodes: Vec<u32> = (0..20)
        .map(|number| fixture.node(&format!("h{number}")))
        .collect();
    let mut allocated = 0;
    for round in 0..5000u64 {
        let mut thread = fixture.thread();
        for (position, node) in nodes.iter().enumerate() {
            let address = (round * 20 + position as u64 + 1) << 4;
            // SAFETY: started, and the record is this thread's.
            unsafe {
                fixture
                    .recorder
                    .allocated(&mut thread, *node, Allocator::Malloc, address, 10)
                    .unwrap();
            }
            allocated += 1;
        }
        fixture.recorder.thread_end(&mut thread);
    }
    let view = fixture.view();
    assert!(
        view.cells.len() <= 300 * nodes.len(),
        "{} cells",
        view.cells.len()
    );
    let figures = view.figures();
    assert_eq!(
        figures
            .values()
            .map(|figures| figures.allocated.0)
            .sum::<u64>(),
        allocated
    );
}

#[test]
fn threads_that_all_free_each_others_blocks_share_cells_in_the_end() {
    const THREADS: usize = 80;
    let fixture = Fixture::new(1 << 20);
    let nodes: Vec<u32> = (0..8)
        .map(|number| fixture.node(&format!("k{number}")))
        .collect();
    let mut threads: Vec<_> = (0..THREADS).map(|_| fixture.thread()).collect();
    let mut address = 16;
    let mut live = Vec::new();
    for round in 0..2 {
        for allocating in 0..THREADS {
            for (position, node) in nodes.iter().enumerate() {
                for freeing in 0..THREADS {
                    // SAFETY: started; one thread plays them all, one after the other.
                    unsafe {
                        let record = &mut threads[allocating];
                        fixture
                            .recorder
                            .allocated(record, *node, Allocator::Malloc, address, 100)
                            .unwrap();
                        if round == 0 || (position + freeing) % 5 != 0 {
                            fixture
                                .recorder
                                .freed(&mut threads[freeing], address)
                                .unwrap();
                        } else {
                            live.push(address);
                        }
                    }
                    address += 16;
                }
            }
        }
    }
    let view = fixture.view();
    let own = THREADS * nodes.len();
    assert!(
        view.cells.len() <= (16 << 10) + 2 * own,
        "{} cells",
        view.cells.len()
    );
    let figures = view.figures();
    assert_eq!(
        figures.values().map(|figures| figures.live.0).sum::<i64>(),
        live.len() as i64
    );
    assert_eq!(
        figures.values().map(|figures| figures.peak.1).sum::<i64>() as u64,
        view.header.heap.peak_bytes
    );
    assert!(
        figures
            .values()
            .all(|figures| figures.live.0 >= 0 && figures.peak.1 >= 0)
    );
}

/// All events of a capture, in order: `(moment, stream, event)`.
fn events(fixture: &Fixture) -> Vec<(Moment, u32, Event)> {
    use heaptide_format::{CHUNK_HEADER_BYTES, ChunkHeader, Written};
    let bytes = std::fs::read(&fixture.path).unwrap();
    let mut events = Vec::new();
    let mut next_chunk = HashMap::new();
    let mut at = HEADER_BYTES;
    while at + SEGMENT_HEADER_BYTES <= bytes.len() {
        let segment = SegmentHeader::read_from_prefix(&bytes[at..]).unwrap().0;
        assert_eq!(segment.magic, SEGMENT_MAGIC);
        if segment.kind == SegmentKind::Events as u32 {
            let payload = &bytes[at + SEGMENT_HEADER_BYTES..][..segment.committed as usize];
            let header = ChunkHeader::read_from_prefix(payload).unwrap().0;
            let expected = next_chunk.entry(header.stream).or_insert(0);
            assert_eq!(header.sequence, *expected);
            *expected += 1;
            let mut decoder = Decoder::new();
            let mut fields = Written::new(payload, CHUNK_HEADER_BYTES);
            while let Some((moment, event)) = decoder.next(&mut fields).unwrap() {
                events.push((moment, header.stream, event));
            }
        }
        at += segment.capacity as usize;
    }
    // Stable: what a stream wrote in one moment stays in its order.
    events.sort_by_key(|(moment, _, _)| *moment);
    events
}

#[test]
fn every_event_is_in_the_file_in_order() {
    let fixture = Fixture::in_mode(Mode::All, 1000);
    let node = fixture.node("f");
    let mut thread = fixture.thread();
    let mut expected = Vec::new();
    for round in 0..200_000u64 {
        let address = 0x1000 + (round * 7919 % 5000) * 16;
        // SAFETY: started, and the record is ours.
        unsafe {
            fixture
                .recorder
                .allocated(&mut thread, node, Allocator::Malloc, address, round % 300)
                .unwrap();
            fixture.recorder.freed(&mut thread, address).unwrap();
        }
        expected.push((address, Some(round % 300)));
        expected.push((address, None));
    }
    let found: Vec<_> = events(&fixture)
        .into_iter()
        .map(|(_, _, event)| match event {
            Event::Allocated { address, site } => (address, Some(site.size)),
            Event::Freed { address } => (address, None),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(found == expected);
    fixture.recorder.thread_end(&mut thread);
}

#[test]
fn objects_are_events_among_those_of_blocks() {
    let fixture = Fixture::in_mode(Mode::All, 1000);
    let node = fixture.node("f");
    let mut thread = fixture.thread();
    let mut types = KnownTypes::new();
    let mut expected = Vec::new();
    for round in 0..100_000u64 {
        let address = 0x1000 + (round * 7919 % 5000) * 16;
        let (key, name) = [(16, "first"), (32, "second")][round as usize % 2];
        let of = TypeName {
            key,
            name: name.as_bytes(),
        };
        // SAFETY: started, and the record is ours.
        unsafe {
            let recorder = &fixture.recorder;
            let type_name = recorder.type_name(&mut types, of).unwrap();
            recorder
                .allocated(&mut thread, node, Allocator::Malloc, address, 64)
                .unwrap();
            recorder
                .object_made(&mut thread, node, type_name, address + 16)
                .unwrap();
            recorder.object_gone(&mut thread, address + 16).unwrap();
            recorder.freed(&mut thread, address).unwrap();
            let site = Site {
                node,
                allocator: Allocator::Malloc as u8,
                size: 64,
            };
            expected.extend([
                Event::Allocated { address, site },
                Event::ObjectMade {
                    address: address + 16,
                    node,
                    type_name,
                },
                Event::ObjectGone {
                    address: address + 16,
                },
                Event::Freed { address },
            ]);
        }
    }
    let found: Vec<_> = events(&fixture)
        .into_iter()
        .map(|(_, _, event)| event)
        .collect();
    assert!(found == expected);
    let (
        Event::ObjectMade { type_name: one, .. },
        Event::ObjectMade {
            type_name: other, ..
        },
    ) = (found[1], found[5])
    else {
        panic!("{:?}", &found[..8]);
    };
    assert_ne!(one, other);
    fixture.recorder.thread_end(&mut thread);
}

#[test]
fn threads_that_hand_blocks_around_leave_one_consistent_order() {
    const THREADS: usize = 4;
    const ROUNDS: u64 = 100_000;
    let fixture = Fixture::in_mode(Mode::All, 1000);
    let node = fixture.node("f");
    // Places that are free or taken; whoever takes one allocates there, whoever frees it gives it back.
    let places: Vec<std::sync::atomic::AtomicBool> = (0..64)
        .map(|_| std::sync::atomic::AtomicBool::new(false))
        .collect();
    let held = std::sync::Mutex::new(Vec::new());
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for number in 0..THREADS as u64 {
            let (fixture, places, held, barrier) = (&fixture, &places, &held, &barrier);
            scope.spawn(move || {
                let mut record = fixture.thread();
                let mut seed = number + 1;
                barrier.wait();
                for round in 0..ROUNDS {
                    seed = seed
                        .wrapping_mul(6364136223846793005)
                        .wrapping_add(1442695040888963407);
                    let place = (seed >> 58) as usize;
                    if !places[place].swap(true, std::sync::atomic::Ordering::AcqRel) {
                        // SAFETY: started, and the record is this thread's.
                        unsafe {
                            fixture
                                .recorder
                                .allocated(
                                    &mut record,
                                    node,
                                    Allocator::Malloc,
                                    place as u64 + 1,
                                    round,
                                )
                                .unwrap();
                        }
                        held.lock().unwrap().push(place);
                    } else if let Some(place) = held.lock().unwrap().pop() {
                        // SAFETY: as above.
                        unsafe {
                            fixture
                                .recorder
                                .freed(&mut record, place as u64 + 1)
                                .unwrap();
                        }
                        places[place].store(false, std::sync::atomic::Ordering::Release);
                    }
                }
                fixture.recorder.thread_end(&mut record);
            });
        }
    });
    let mut live = std::collections::HashSet::new();
    let events = events(&fixture);
    for (moment, stream, event) in &events {
        match event {
            Event::Allocated { address, .. } => {
                assert!(
                    live.insert(*address),
                    "{moment:?} {stream}: handed out twice"
                );
            }
            Event::Freed { address } => {
                assert!(live.remove(address), "{moment:?} {stream}: freed twice");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(live.len(), held.lock().unwrap().len());
}

#[test]
fn native_nodes_are_found_again() {
    let fixture = Fixture::with_native_stacks();
    let recorder = fixture.recorder;
    let mut known = HashMap::new();
    let mut state = 1u64;
    for round in 0..200_000u64 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let random = state >> 33;
        // Some callers have many callees.
        let parent = match random % 4 {
            0 => 0,
            1 => (random / 4 % 10).min(round / 2) as u32,
            _ => (random / 4 % (known.len() as u64 + 1)) as u32,
        };
        let (module, address) = ((random % 3) as u32, random / 8 % 500);
        let node = recorder.native_node(parent, module, address).unwrap();
        let next = known.len() as u32 + 1;
        let expected = *known.entry((parent, module, address)).or_insert(next);
        assert_eq!(node, expected, "{round}");
    }
}
