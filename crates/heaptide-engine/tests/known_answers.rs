//! Captures whose figures are known.

use std::collections::HashMap;

use heaptide_capture::{Capture, WarningKind};
use heaptide_engine::{
    Amount, CallTree, Figures, Metric, Profile, StackId, by_allocator, by_function, by_location,
};
use heaptide_format::{Allocator, Cell, CellKind, Node};
use heaptide_testkit::fixtures::{KIB, MIB};
use heaptide_testkit::{CaptureBuilder, Simulation, fixtures};

fn profile(builder: &CaptureBuilder) -> Profile {
    Profile::new(&Capture::from_bytes(&builder.build(), "test.tide").expect("readable"))
}

const fn amount(count: u64, bytes: u64) -> Amount {
    Amount { count, bytes }
}

fn warned(profile: &Profile, kind: WarningKind) -> bool {
    profile.warnings.iter().any(|warning| warning.kind == kind)
}

#[test]
fn the_killed_service() {
    let profile = profile(&fixtures::killed_service());
    assert_eq!(profile.warnings, []);
    let expected = Figures {
        allocated: amount(112, 76 * MIB + 401 * KIB),
        live: amount(8, 70 * MIB + 512),
        peak: amount(10, 74 * MIB + KIB),
        temporary: amount(100, 400 * KIB),
    };
    assert_eq!(profile.totals.figures, expected);
    assert_eq!(profile.totals.deallocations, 104);
    assert_eq!(profile.own.estimated_ns(), Some(45 * (112 + 104)));

    let labels: Vec<(String, Amount)> = by_location(&profile)
        .iter()
        .map(|row| {
            let label = row
                .location
                .map_or_else(String::new, |id| profile.stacks.location_label(id));
            (label, row.figures.peak)
        })
        .collect();
    let expected = [
        ("load_table:/srv/tables.py:31", amount(2, 68 * MIB)),
        ("walk:/srv/tree.py:42", amount(0, 0)),
        ("put:/srv/cache.py:22", amount(6, 6 * MIB)),
        ("", amount(2, KIB)),
    ];
    assert_eq!(
        labels,
        expected.map(|(label, amount)| (label.to_owned(), amount))
    );
    let allocators: Vec<_> = by_allocator(&profile)
        .iter()
        .map(|(allocator, figures)| (*allocator, figures.allocated.count))
        .collect();
    assert_eq!(
        allocators,
        [
            (Allocator::Malloc, 109),
            (Allocator::Calloc, 2),
            (Allocator::Mmap, 1)
        ]
    );
}

#[test]
fn names_lines_and_columns_of_a_stack() {
    let profile = profile(&fixtures::killed_service());
    let entry = profile
        .entries
        .iter()
        .find(|entry| entry.thread == 2)
        .unwrap();
    let frames: Vec<String> = profile
        .stacks
        .walk(entry.stack)
        .map(|stack| {
            let frame = profile.stacks.innermost(stack).unwrap();
            let name = profile.stacks.text(frame.qualified_name);
            format!("{name}:{}:{:?}", frame.position.line, frame.position.column)
        })
        .collect();
    assert_eq!(
        frames,
        [
            "Cache.put:22:Some(4)",
            "serve:14:Some(4)",
            "<module>:3:Some(4)"
        ]
    );
    assert_eq!(profile.threads[2].name, "worker-1");
    assert_eq!(profile.threads[1].name, "MainThread");
}

#[test]
fn a_function_counts_once_under_recursion() {
    let profile = profile(&fixtures::killed_service());
    let rows = by_function(&profile, Metric::Allocated);
    let row = |name: &str| {
        let named = |row: &&heaptide_engine::FunctionRow| {
            row.function
                .is_some_and(|(function, _)| profile.stacks.text(function) == name)
        };
        *rows.iter().find(named).unwrap()
    };
    assert_eq!(row("walk").total, amount(100, 400 * KIB));
    assert_eq!(row("walk").own, amount(100, 400 * KIB));
    assert_eq!(row("serve").total, amount(110, 76 * MIB + 400 * KIB));
    assert_eq!(row("serve").own, amount(0, 0));
    let tree = CallTree::new(&profile);
    let total = tree.total(&tree.own(&profile, Metric::Allocated));
    assert_eq!(total[0], profile.totals.figures.allocated);
}

/// The peak, the hard way: after every event the whole heap is summed up.
#[derive(Default)]
struct Model {
    live: HashMap<u32, Amount>,
    peak: HashMap<u32, Amount>,
    heap: u64,
    highest: u64,
}

impl Model {
    fn event(&mut self, node: u32, count: i64, bytes: i64) {
        let amount = self.live.entry(node).or_default();
        amount.count = amount.count.wrapping_add_signed(count);
        amount.bytes = amount.bytes.wrapping_add_signed(bytes);
        self.heap = self.heap.wrapping_add_signed(bytes);
        if self.heap >= self.highest {
            self.highest = self.heap;
            self.peak.clone_from(&self.live);
        }
    }
}

#[test]
fn peaks_agree_with_a_naive_model() {
    for seed in 1..60u64 {
        let mut builder = CaptureBuilder::new();
        let threads = [
            builder.thread(1, "a", ""),
            builder.thread(2, "b", ""),
            builder.thread(3, "c", ""),
        ];
        let code = builder.function("f", "/f.py", 1, 8);
        let nodes: Vec<u32> = (0..8).map(|line| builder.frame(0, code, line)).collect();
        let mut program = Simulation::new();
        let mut model = Model::default();
        let mut blocks = Vec::new();
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        for _ in 0..300 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let thread = threads[(random >> 8) as usize % 3];
            // Few sizes, so that the same maximum is reached more than once: the last one counts.
            let size = 1 + (random >> 16) % 3;
            if random & 1 == 0 || blocks.is_empty() {
                let node = nodes[(random >> 24) as usize % 8];
                blocks.push((
                    program.allocate(&mut builder, thread, node, Allocator::Malloc, size),
                    node,
                    size,
                ));
                model.event(node, 1, size as i64);
            } else {
                let (block, node, size) =
                    blocks.swap_remove((random >> 24) as usize % blocks.len());
                program.free(&mut builder, thread, block, false);
                model.event(node, -1, -(size as i64));
            }
        }
        let profile = profile(&builder);
        assert_eq!(profile.warnings, [], "seed {seed}");
        assert_eq!(
            profile.totals.figures.peak.bytes, model.highest,
            "seed {seed}"
        );
        for (line, node) in nodes.iter().enumerate() {
            let mut figures = Figures::default();
            let of_node = |entry: &&heaptide_engine::Entry| {
                profile
                    .stacks
                    .innermost(entry.stack)
                    .is_some_and(|frame| frame.position.line == line as i32 + 1)
            };
            profile
                .entries
                .iter()
                .filter(of_node)
                .for_each(|entry| figures.add(&entry.figures));
            assert_eq!(
                figures.peak,
                model.peak.get(node).copied().unwrap_or_default(),
                "seed {seed} node {node}"
            );
            assert_eq!(
                figures.live,
                model.live.get(node).copied().unwrap_or_default(),
                "seed {seed} node {node}"
            );
        }
    }
}

#[test]
fn figures_below_zero_are_clamped_and_told() {
    let mut builder = fixtures::tiny();
    builder.cells[0].freed_count += 5;
    builder.cells[0].freed_bytes += 5000;
    let profile = profile(&builder);
    assert_eq!(profile.in_flight.clamped_cells, 1);
    assert!(warned(&profile, WarningKind::InFlight));
    let sum: u64 = profile
        .entries
        .iter()
        .map(|entry| entry.figures.live.bytes)
        .sum();
    assert_eq!(sum, profile.totals.figures.live.bytes);
}

#[test]
fn references_that_lead_nowhere_keep_their_bytes() {
    let mut builder = fixtures::tiny();
    let before = profile(&builder).totals.figures;
    // A caller that comes after its callee could make a circle.
    builder.nodes[2].parent = 3;
    builder.cells[0].target = 999;
    builder.node(Node {
        parent: 2,
        code: 55,
        last_instruction: 0,
        flags: 0,
    });
    let profile = profile(&builder);
    assert!(warned(&profile, WarningKind::DamagedNode));
    assert!(warned(&profile, WarningKind::DanglingReference));
    assert_eq!(profile.totals.figures, before);
    assert_eq!(profile.entries[0].stack, StackId::LOST);
}

#[test]
fn remote_cells_of_nothing_are_told() {
    let mut builder = fixtures::tiny();
    builder.cells.push(Cell {
        target: 4000,
        thread: 1,
        kind: CellKind::Remote as u32,
        ..Cell::default()
    });
    builder.cells.push(Cell {
        target: 0,
        thread: 9,
        kind: 7,
        ..Cell::default()
    });
    builder.cells.push(Cell::default());
    let profile = profile(&builder);
    assert!(warned(&profile, WarningKind::DanglingReference));
    assert!(warned(&profile, WarningKind::DamagedCell));
}

#[test]
fn a_stack_as_deep_as_the_table_is_no_recursion_for_us() {
    let mut builder = CaptureBuilder::new();
    let thread = builder.thread(1, "deep", "");
    let code = builder.function("down", "/deep.py", 1, 2);
    let mut node = 0;
    for _ in 0..200_000 {
        node = builder.frame(node, code, 1);
    }
    Simulation::new().allocate(&mut builder, thread, node, Allocator::Malloc, 10);
    let profile = profile(&builder);
    let rows = by_function(&profile, Metric::Peak);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].total, amount(1, 10));
    let tree = CallTree::new(&profile);
    assert_eq!(
        tree.total(&tree.own(&profile, Metric::Peak))[0],
        amount(1, 10)
    );
}
