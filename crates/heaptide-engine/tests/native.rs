//! Combined stacks of captures that are odd or damaged; those of whole ones are tested where they are translated.

use heaptide_capture::{Capture, NativeSymbol, WarningKind};
use heaptide_engine::{CallTree, Metric, Profile, StackId, by_location};
use heaptide_format::{NODE_COMBINED, NativeNode, Node};
use heaptide_testkit::{CaptureBuilder, fixtures};

/// The capture with names for two frames of its module.
fn open(builder: &CaptureBuilder) -> Profile {
    let mut capture = Capture::from_bytes(&builder.build(), "x.tide").unwrap();
    for (address, function) in [(0x1000, "_PyEval_EvalFrameDefault"), (0x2000, "by_c")] {
        let symbol = NativeSymbol {
            function: function.to_owned(),
            file: "x.c".to_owned(),
            line: 7,
        };
        capture.symbols.insert(0, address, vec![symbol]);
    }
    Profile::new(&capture)
}

fn label(profile: &Profile, stack: StackId) -> String {
    let stacks = &profile.stacks;
    let labels = stacks.walk(stack).map(|node| {
        let frame = stacks.nodes[node.index()].frame;
        stacks.location_label(stacks.frames[frame.index()].location)
    });
    labels.collect::<Vec<_>>().join(" < ")
}

/// The stacks of the two combined nodes, and the warnings.
fn combined(builder: &CaptureBuilder) -> (Vec<String>, Vec<WarningKind>) {
    let profile = open(builder);
    let last = profile.entries.len() - 2;
    let stacks = profile.entries[last..].iter();
    let labels = stacks.map(|entry| label(&profile, entry.stack)).collect();
    let kinds = profile.warnings.iter().map(|warning| warning.kind);
    // Figures stand whatever the stacks are.
    assert_eq!(profile.totals.figures.live.bytes, 4096 + 96);
    (labels, kinds.collect())
}

const PYTHON: &str = "<module>:/t.py:2 < <module>:/t.py:1";

#[test]
fn reports_see_hybrid_stacks_and_statistics_python_ones() {
    let mut builder = fixtures::tiny_native();
    // Both frames in one evaluation: the inner one was called without leaving it.
    builder.nodes[3].flags = 0;
    let (labels, kinds) = combined(&builder);
    assert_eq!(
        labels,
        [format!("by_c:x.c:7 < {PYTHON}"), PYTHON.to_owned()]
    );
    assert_eq!(kinds, []);
    let profile = open(&builder);
    let locations = by_location(&profile);
    assert_eq!(
        locations
            .iter()
            .filter(|row| row.figures.live.bytes == 96)
            .count(),
        1
    );
    let tree = CallTree::new(&profile);
    let own = tree.own(&profile, Metric::Live);
    let total = tree.total(&own);
    assert_eq!(total[0].bytes, 4096 + 96);
}

#[test]
fn what_leads_nowhere_or_in_circles_ends() {
    let whole = fixtures::tiny_native();
    let first = whole.nodes.len() - 2;
    let dangling = vec![WarningKind::DanglingReference];
    let damaged = vec![WarningKind::DamagedNode];
    // The evaluation for the entry frame is one too few: the stack is Python's.
    assert_eq!(combined(&whole), (vec![PYTHON.to_owned(); 2], vec![]));

    let mut builder = whole.clone();
    builder.nodes[first].code = 999;
    assert_eq!(
        combined(&builder),
        (vec![PYTHON.to_owned(); 2], dangling.clone())
    );

    // Its own caller, and one that comes after it.
    for parent in [2, 3] {
        let mut builder = whole.clone();
        builder.native_nodes[2].parent = parent;
        assert_eq!(
            combined(&builder),
            (vec![PYTHON.to_owned(); 2], damaged.clone())
        );
    }

    // A combined stack calls another one.
    let mut builder = whole.clone();
    builder.nodes[first + 1].parent = first as u32;
    assert_eq!(combined(&builder), (vec![PYTHON.to_owned(); 2], damaged));

    let mut builder = whole;
    builder.native_nodes[2].module = 5;
    assert_eq!(combined(&builder), (vec![PYTHON.to_owned(); 2], vec![]));
}

/// Stacks of so many frames that a file of some megabytes would ask for gigabytes.
#[test]
fn what_is_shared_is_not_made_without_bound() {
    let mut builder = fixtures::tiny_native();
    let deep = 40_000;
    for _ in 0..deep {
        let parent = builder.native_nodes.len() as u32 - 1;
        builder.native_nodes.push(NativeNode {
            parent,
            module: 0,
            address: 0x2000,
        });
    }
    for number in 0..20_000 {
        builder.node(Node {
            parent: 2,
            code: 4 + deep - 1 - number % 7,
            last_instruction: number as i32,
            flags: NODE_COMBINED,
        });
    }
    let profile = open(&builder);
    assert_eq!(profile.warnings.len(), 1, "{:?}", profile.warnings);
    assert_eq!(profile.warnings[0].kind, WarningKind::SparseSegment);
    assert!(
        profile.stacks.nodes.len() < 200_000,
        "{}",
        profile.stacks.nodes.len()
    );
}
