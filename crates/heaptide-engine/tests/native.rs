//! Combined stacks of captures that are odd or damaged; those of whole ones are tested where they are translated.

use std::collections::BTreeMap;

use heaptide_capture::{Capture, NativeSymbol, WarningKind};
use heaptide_engine::{CallTree, Merger, Metric, Profile, StackId, by_location};
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

/// The stack of the last block of 64 bytes when its native frames are these, the outermost first; the two Python frames are of so
/// many evaluations.
fn stack_of(functions: &[&str], evaluations: u32) -> String {
    let mut builder = fixtures::tiny_native();
    if evaluations == 1 {
        builder.nodes[3].flags = 0;
    }
    builder.native_nodes.truncate(1);
    for (parent, _) in (0..).zip(functions) {
        let address = 0x10 * u64::from(parent + 1);
        builder.native_nodes.push(NativeNode {
            parent,
            module: 0,
            address,
        });
    }
    let combined = builder.nodes.len() - 2;
    builder.nodes[combined].code = functions.len() as u32;
    let mut capture = Capture::from_bytes(&builder.build(), "x.tide").unwrap();
    for (number, function) in (1..).zip(functions) {
        let symbol = NativeSymbol {
            function: (*function).to_owned(),
            file: "x.c".to_owned(),
            line: 7,
        };
        capture.symbols.insert(0, 0x10 * number, vec![symbol]);
    }
    let profile = Profile::new(&capture);
    let entry = &profile.entries[profile.entries.len() - 2];
    label(&profile, entry.stack)
}

/// With tail calls the function of an instruction is called by the one that has begun, which stays on the stack.
#[test]
fn an_instruction_with_a_function_of_its_own_is_no_evaluation_of_its_own() {
    let (inner, outer) = PYTHON.split_once(" < ").unwrap();
    let begins = "_PyEval_EvalFrameDefault";
    let call = "_TAIL_CALL_CALL";
    assert_eq!(
        stack_of(&["main", begins, call, "by_c", begins, call], 2),
        format!("{inner} < by_c:x.c:7 < {outer} < main:x.c:7")
    );
    // Where the one that has begun is not there any more.
    assert_eq!(
        stack_of(&["main", call, "by_c", call], 2),
        format!("{inner} < by_c:x.c:7 < {outer} < main:x.c:7")
    );
    assert_eq!(
        stack_of(&[begins, begins, call, "by_c"], 2),
        format!("by_c:x.c:7 < {inner} < {outer}")
    );
}

/// What is below is the stack of whoever has switched to it.
#[test]
fn a_greenlet_begins_where_it_has_begun() {
    let begins = "_PyEval_EvalFrameDefault";
    for start in [
        "greenlet::UserGreenlet::g_initialstub(void*)",
        "g_initialstub",
    ] {
        assert_eq!(
            stack_of(&["main", begins, "switch", start, "run", begins, "by_c"], 1),
            format!("by_c:x.c:7 < {PYTHON} < run:x.c:7 < {start}:x.c:7")
        );
        let inner = [
            "main", begins, start, "run", begins, start, "run", begins, "by_c",
        ];
        assert_eq!(
            stack_of(&inner, 1),
            format!("by_c:x.c:7 < {PYTHON} < run:x.c:7 < {start}:x.c:7")
        );
    }
    // It has not begun to run: the frames are still of the one that switches.
    let start = "g_initialstub";
    assert_eq!(
        stack_of(&["main", begins, "switch", start, "by_c"], 1),
        format!("by_c:x.c:7 < {start}:x.c:7 < switch:x.c:7 < {PYTHON} < main:x.c:7")
    );
    let other = "not_g_initialstub";
    assert_eq!(
        stack_of(&["main", other, begins, "by_c"], 1),
        format!("by_c:x.c:7 < {PYTHON} < {other}:x.c:7 < main:x.c:7")
    );
}

/// What leads from the system to the first Python frame is the same in all stacks of the main thread.
#[test]
fn what_starts_the_program_is_left_out() {
    let (inner, outer) = PYTHON.split_once(" < ").unwrap();
    let begins = "_PyEval_EvalFrameDefault";
    assert_eq!(
        stack_of(
            &["main", "Py_RunMain", "run", begins, "by_c", begins, "in_c"],
            2
        ),
        format!("in_c:x.c:7 < {inner} < by_c:x.c:7 < {outer}")
    );
    // Where the program is another.
    assert_eq!(
        stack_of(&["main", "PyRun_String", begins, "by_c", begins], 2),
        format!("{inner} < by_c:x.c:7 < {outer} < PyRun_String:x.c:7 < main:x.c:7")
    );
}

#[test]
fn what_leads_nowhere_or_in_circles_ends() {
    let whole = fixtures::tiny_native();
    let first = whole.nodes.len() - 2;
    let alone = WarningKind::PythonFramesAlone;
    // The evaluation for the entry frame is one too few: the stack is Python's, and it is said.
    assert_eq!(combined(&whole), (vec![PYTHON.to_owned(); 2], vec![alone]));

    let mut builder = whole.clone();
    builder.nodes[first].code = 999;
    assert_eq!(
        combined(&builder),
        (
            vec![PYTHON.to_owned(); 2],
            vec![WarningKind::DanglingReference, alone]
        )
    );

    // Its own caller, and one that comes after it.
    for parent in [2, 3] {
        let mut builder = whole.clone();
        builder.native_nodes[2].parent = parent;
        assert_eq!(
            combined(&builder),
            (
                vec![PYTHON.to_owned(); 2],
                vec![WarningKind::DamagedNode, alone]
            )
        );
    }

    // A combined stack calls another one.
    let mut builder = whole.clone();
    builder.nodes[first + 1].parent = first as u32;
    assert_eq!(
        combined(&builder),
        (
            vec![PYTHON.to_owned(); 2],
            vec![alone, WarningKind::DamagedNode]
        )
    );

    let mut builder = whole;
    builder.native_nodes[2].module = 5;
    assert_eq!(
        combined(&builder),
        (vec![PYTHON.to_owned(); 2], vec![alone])
    );
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
    let kinds = profile.warnings.iter().map(|warning| warning.kind);
    // The first is of the two stacks of the fixture.
    let expected = [WarningKind::PythonFramesAlone, WarningKind::SparseSegment];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
    assert!(
        profile.stacks.nodes.len() < 200_000,
        "{}",
        profile.stacks.nodes.len()
    );
}

/// What is missing is said once for all stacks; nothing is where nobody looked for names.
#[test]
fn what_names_do_not_tell_is_said() {
    let mut builder = fixtures::tiny_native();
    builder.nodes[3].flags = 0;
    let mut capture = Capture::from_bytes(&builder.build(), "x.tide").unwrap();
    assert_eq!(Profile::new(&capture).warnings, []);
    let named = |function: &str| NativeSymbol {
        function: function.to_owned(),
        file: "<unknown>".to_owned(),
        line: 0,
    };
    let kinds = |capture: &Capture| {
        let warnings = Profile::new(capture).warnings.into_iter();
        warnings
            .map(|warning| (warning.kind, warning.count))
            .collect::<Vec<_>>()
    };
    capture.symbols.insert(0, 0x1000, vec![named("main")]);
    assert_eq!(kinds(&capture), [(WarningKind::PythonFramesAlone, 2)]);
    let evaluates = named("_PyEval_EvalFrameDefault");
    capture.symbols.insert(0, 0x1000, vec![evaluates]);
    assert_eq!(kinds(&capture), [(WarningKind::NoDebugInformation, 1)]);
}

#[test]
fn processes_that_are_merged_keep_their_native_frames() {
    let mut builder = fixtures::tiny_native();
    builder.nodes[3].flags = 0;
    let alone = open(&builder);
    let mut merger = Merger::new(open(&builder), 1);
    merger.add(open(&builder), 2);
    let merged = merger.finish();
    // Stacks of all frames and of Python's, and what they hold.
    let told = |profile: &Profile| {
        let mut told = BTreeMap::new();
        for entry in &profile.entries {
            let python = profile.stacks.python(entry.stack);
            let labels = (label(profile, entry.stack), label(profile, python));
            *told.entry(labels).or_default() += entry.figures.live.bytes;
        }
        told
    };
    let doubled: BTreeMap<_, u64> = told(&alone)
        .into_iter()
        .map(|(stacks, bytes)| (stacks, 2 * bytes))
        .collect();
    assert_eq!(told(&merged), doubled);
    let by_c = (format!("by_c:x.c:7 < {PYTHON}"), PYTHON.to_owned());
    assert_eq!(doubled[&by_c], 2 * 64);
}

/// Of `by_c < inner < C < outer < main`, with two Python frames.
#[test]
fn the_outermost_python_frames_go_with_what_called_them() {
    let mut builder = fixtures::tiny_native();
    // main, the evaluation of the outer frame, by_c, that of the inner one, by_c
    let addresses = [0x3000, 0x1000, 0x2000, 0x1000, 0x2000];
    builder.native_nodes.truncate(1);
    for (parent, address) in addresses.into_iter().enumerate() {
        builder.native_nodes.push(NativeNode {
            parent: parent as u32,
            module: 0,
            address,
        });
    }
    let combined = builder.nodes.len() as u32 - 2;
    builder.nodes[combined as usize].code = 5;
    // The outer frame of Python, and the interpreter's start.
    builder.nodes[combined as usize + 1].code = 1;
    let mut capture = Capture::from_bytes(&builder.build(), "x.tide").unwrap();
    for (address, function) in [
        (0x1000, "_PyEval_EvalFrameDefault"),
        (0x2000, "by_c"),
        (0x3000, "main"),
    ] {
        let symbol = NativeSymbol {
            function: function.to_owned(),
            file: "x.c".to_owned(),
            line: 7,
        };
        capture.symbols.insert(0, address, vec![symbol]);
    }
    let profile = Profile::new(&capture);
    let last = profile.entries.len() - 2;
    let [hybrid, alone] = [last, last + 1].map(|index| profile.entries[index].stack);
    let (inner, outer) = PYTHON.split_once(" < ").unwrap();
    let c = "by_c:x.c:7";
    assert_eq!(
        label(&profile, hybrid),
        format!("{c} < {inner} < {c} < {outer} < main:x.c:7")
    );
    let above = |stack| [0, 1, 2, 3].map(|outermost| profile.stacks.frames_above(stack, outermost));
    assert_eq!(above(hybrid), [5, 2, 1, 1]);
    // Of its native frames none is shown, as they tell of one evaluation too few.
    assert_eq!(label(&profile, alone), PYTHON);
    assert_eq!(above(alone), [2, 1, 0, 0]);
    let python = profile.stacks.python(hybrid);
    assert_eq!(above(python), [2, 1, 0, 0]);
}
