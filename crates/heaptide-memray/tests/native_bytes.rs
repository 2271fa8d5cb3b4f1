//! Native stacks of files made byte for byte. Their modules are not there, so the tests say what the functions are.

use heaptide_capture::{Capture, NativeSymbol, WarningKind};
use heaptide_engine::{AllocationEvents, FrameId, Profile, StackId};
use heaptide_format::{NO_MODULE, NativeNode};

mod file;

use file::File;

/// LEB128.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// As differences are written.
fn signed(number: i64) -> Vec<u8> {
    varint((number << 1 ^ number >> 63) as u64)
}

/// What is written as differences, and where they are.
#[derive(Default)]
struct Fields {
    instruction: i64,
    native: i64,
    frame: i64,
    address: i64,
}

impl Fields {
    fn native_frame(&mut self, file: &mut File, instruction: i64, parent: i64) {
        let ip = signed(instruction - self.instruction);
        let index = signed(parent - self.native);
        (self.instruction, self.native) = (instruction, parent);
        file.add(&[5]).add(&ip).add(&index);
    }

    /// malloc of so many bytes, with a native stack; versions 12 and 13.
    fn malloc(&mut self, file: &mut File, address: i64, size: u64, native: i64) {
        let pointer = signed(address / 8 - self.address);
        let index = signed(native - self.native);
        (self.address, self.native) = (address / 8, native);
        file.add(&[0b1111_1110]).add(&pointer).add(&index);
        file.add(&varint(size));
    }
}

/// A file at a base; segments are addresses and lengths.
fn module(file: &mut File, name: &str, base: u64, segments: &[(u64, u64)]) {
    file.add(&[7]).add(name.as_bytes()).add(&[0]);
    file.add(&varint(segments.len() as u64));
    file.add(&base.to_le_bytes());
    for &(address, length) in segments {
        file.add(&[8]).add(&address.to_le_bytes());
        file.add(&varint(length));
    }
}

const PYTHON: &str = "/nowhere/python";
const LIBRARY: &str = "/nowhere/library.so";
const OTHER: &str = "/nowhere/other.so";

/// Says what functions the frames are in: the first digits of an address are that of the function, by file.
fn named(capture: &mut Capture) {
    let nodes: Vec<NativeNode> = (capture.native_nodes.iter().skip(1))
        .map(|(_, node)| *node)
        .collect();
    for node in nodes.iter().filter(|node| node.module != NO_MODULE) {
        let module = capture.modules.get(node.module).unwrap();
        let path = capture.definitions.string(module.file_name).unwrap();
        let functions: &[&str] = match (path, node.address >> 8) {
            (PYTHON, 0x10) => &["main"],
            (PYTHON, 0x11) => &["inlined", "_PyEval_EvalFrameDefault"],
            (PYTHON, 0x12) => &["_TAIL_CALL_CALL.llvm"],
            (PYTHON, 0x13) => &["builtin"],
            (LIBRARY, 0x10) => &["inner", "outer"],
            (OTHER, 0x10) => &["other"],
            _ => &[],
        };
        let symbols = functions.iter().map(|&function| NativeSymbol {
            function: function.to_owned(),
            file: "x.c".to_owned(),
            line: 3,
        });
        capture
            .symbols
            .insert(node.module, node.address, symbols.collect());
    }
}

fn open_named(file: &File) -> (Capture, Profile) {
    let mut capture = file.open().unwrap();
    named(&mut capture);
    let profile = Profile::new(&capture);
    (capture, profile)
}

/// Nothing is wrong but that the modules are not there.
fn expect_no_names(profile: &Profile) {
    let kinds: Vec<WarningKind> = (profile.warnings.iter())
        .map(|warning| warning.kind)
        .collect();
    assert_eq!(
        kinds,
        [WarningKind::MissingSymbols],
        "{:?}",
        profile.warnings
    );
}

fn names(profile: &Profile, frames: impl Iterator<Item = FrameId>) -> String {
    let stacks = &profile.stacks;
    let names = frames.map(|frame| {
        let location = stacks.frames[frame.index()].location;
        stacks.text(stacks.locations[location.index()].function)
    });
    names.collect::<Vec<_>>().join(" ")
}

/// Hybrid, Python and native stack, the innermost frame first.
fn told(profile: &Profile, stack: StackId) -> [String; 3] {
    let stacks = &profile.stacks;
    let frame = |node: StackId| stacks.nodes[node.index()].frame;
    let hybrid = if stacks.is_empty_combined(stack) {
        String::new()
    } else {
        names(profile, stacks.walk(stack).map(frame))
    };
    [
        hybrid,
        names(profile, stacks.walk_python(stack).map(frame)),
        names(profile, stacks.native_frames(stack, usize::MAX)),
    ]
}

/// Of the allocations, in order: size, native stack and stacks.
fn allocations(capture: &Capture, profile: &Profile) -> Vec<(u64, u32, [String; 3])> {
    let events = AllocationEvents::new(capture, profile).unwrap();
    let told = events.map(|event| {
        let native = profile.stacks.native_number(event.stack);
        (event.bytes, native, told(profile, event.stack))
    });
    told.collect()
}

fn row(size: u64, native: u32, stacks: [&str; 3]) -> (u64, u32, [String; 3]) {
    (size, native, stacks.map(str::to_owned))
}

const BASE: i64 = 0x40_0000;

/// Python and a library are mapped; main evaluates Memray's own frame, which calls a builtin, which evaluates f2, which calls
/// f3 without leaving the interpreter, which calls the library.
fn begin(file: &mut File, fields: &mut Fields) {
    file.thread(1).add(&[6]);
    module(file, PYTHON, BASE as u64, &[(0x1000, 0x1000)]);
    module(file, LIBRARY, 0x90_0000, &[(0x1000, 0x800), (0x2000, 0x10)]);
    for (instruction, parent) in [
        (BASE + 0x1010, 0),
        (BASE + 0x1110, 1),
        (BASE + 0x1310, 2),
        (BASE + 0x1210, 3),
        (0x90_1020, 4),
        (0x90_1040, 4),
        // In no segment: nothing is known of it.
        (0x90_1800, 4),
        (BASE + 0x1310, 7),
    ] {
        fields.native_frame(file, instruction, parent);
    }
}

fn frames_of_python(file: &mut File) {
    file.code(1).code(2).code(3);
    file.add(&[0b0100_0001, 1, 0, 0b0100_0001, 2, 0, 0b0100_0000, 3, 0]);
}

const HYBRID: &str = "inner outer f3 f2";
const NATIVE: &str =
    "inner outer _TAIL_CALL_CALL.llvm builtin inlined _PyEval_EvalFrameDefault main";

#[test]
fn frames_are_put_where_the_interpreter_evaluates_them() {
    for version in [12, 13] {
        let mut file = File::native(version, false);
        let mut fields = Fields::default();
        begin(&mut file, &mut fields);
        frames_of_python(&mut file);
        fields.malloc(&mut file, 0x1000, 100, 5);
        // From the same line, elsewhere in the library.
        fields.malloc(&mut file, 0x1010, 10, 6);
        fields.malloc(&mut file, 0x1020, 1, 5);
        // Something that is not known is left out, and its caller is there.
        fields.malloc(&mut file, 0x1030, 20, 8);
        // f3 returns, and f2 is still there; then only Memray's frame; then none.
        file.add(&[0b0001_0000]);
        fields.malloc(&mut file, 0x1040, 30, 4);
        file.add(&[0b0001_0000]);
        fields.malloc(&mut file, 0x1050, 40, 2);
        file.add(&[0b0001_0000]);
        fields.malloc(&mut file, 0x1060, 50, 3);
        file.add(&[1]);
        let (capture, profile) = open_named(&file);
        expect_no_names(&profile);
        assert!(capture.identity.holds_native_stacks());
        let caller = "builtin _TAIL_CALL_CALL.llvm builtin inlined _PyEval_EvalFrameDefault main";
        let (own, none) = (
            "inlined _PyEval_EvalFrameDefault main",
            "builtin inlined _PyEval_EvalFrameDefault main",
        );
        let answers = allocations(&capture, &profile);
        let native: Vec<u32> = answers.iter().map(|answer| answer.1).collect();
        let [a, b, c, d, e, f] = native[..6] else {
            panic!("{native:?}")
        };
        assert!(a == c && a != b && b != d && d != e && e != f, "{native:?}");
        assert_eq!(
            answers,
            [
                row(100, a, [HYBRID, "f3 f2", NATIVE]),
                row(10, b, [HYBRID, "f3 f2", NATIVE]),
                row(1, a, [HYBRID, "f3 f2", NATIVE]),
                row(20, d, ["builtin f3 f2", "f3 f2", caller]),
                row(30, e, ["f2", "f2", &NATIVE[12..]]),
                // What is older than tracking is there where nothing else is, and the native frames that called it.
                row(40, f, ["inlined f1 main", "", own]),
                row(50, native[6], [none, "", none]),
            ]
        );
        // The stacks are apart wherever they have another native stack, and the sums are theirs.
        let peak: Vec<_> = (profile.entries.iter())
            .map(|entry| {
                (
                    profile.stacks.native_number(entry.stack),
                    entry.figures.peak.bytes,
                )
            })
            .collect();
        assert_eq!(peak[..2], [(a, 101), (b, 10)]);
        assert_eq!(profile.totals.figures.peak.bytes, 251);
    }
}

#[test]
fn python_frames_that_are_left_over_make_the_stack_pythons() {
    let mut file = File::native(13, false);
    let mut fields = Fields::default();
    begin(&mut file, &mut fields);
    frames_of_python(&mut file);
    // One evaluation for three frames, of which two were entered from C.
    fields.malloc(&mut file, 0x1000, 100, 3);
    fields.malloc(&mut file, 0x1010, 10, 0);
    file.add(&[1]);
    let (capture, profile) = open_named(&file);
    let answers = allocations(&capture, &profile);
    assert_eq!(answers[0].2[0], "f3 f2 f1");
    assert_eq!(answers[1], row(10, 0, ["f3 f2 f1", "f3 f2", ""]));
}

#[test]
fn a_library_in_the_place_of_another_is_another_module() {
    let mut file = File::native(13, false);
    let mut fields = Fields::default();
    begin(&mut file, &mut fields);
    frames_of_python(&mut file);
    fields.malloc(&mut file, 0x1000, 1, 5);
    // One more, and one that is somewhere else: nothing changes for what is known.
    for more in [&[][..], &[0x5000_0000]] {
        file.add(&[6]);
        module(&mut file, PYTHON, BASE as u64, &[(0x1000, 0x1000)]);
        module(&mut file, LIBRARY, 0x90_0000, &[(0x1000, 0x900)]);
        for &base in more {
            module(&mut file, OTHER, base, &[(0x1000, 0x800)]);
        }
        fields.malloc(&mut file, 0x2000, 2, 5);
        // In the larger segment now.
        fields.malloc(&mut file, 0x3000, 3, 7);
    }
    file.add(&[6]);
    module(&mut file, PYTHON, BASE as u64, &[(0x1000, 0x1000)]);
    module(&mut file, OTHER, 0x90_0000, &[(0x1000, 0x800)]);
    fields.malloc(&mut file, 0x4000, 4, 5);
    // At another base.
    file.add(&[6]);
    module(&mut file, PYTHON, 2 * BASE as u64, &[(0x1000, 0x1000)]);
    fields.malloc(&mut file, 0x5000, 5, 4);
    file.add(&[1]);
    let (capture, profile) = open_named(&file);
    expect_no_names(&profile);
    let answers = allocations(&capture, &profile);
    let hybrids: Vec<(u64, &str)> = (answers.iter())
        .map(|(size, _, stacks)| (*size, stacks[0].as_str()))
        .collect();
    assert_eq!(
        hybrids,
        [
            (1, HYBRID),
            (2, HYBRID),
            (3, "f3 f2"),
            (2, HYBRID),
            (3, "f3 f2"),
            (4, "other f3 f2"),
            (5, "f3 f2 f1"),
        ]
    );
    assert_eq!((answers[0].1, answers[1].1), (answers[1].1, answers[3].1));
    assert_ne!(answers[0].1, answers[5].1);
    let modules: Vec<(u64, &str)> = (capture.modules.iter())
        .map(|(_, module)| {
            let name = capture.definitions.string(module.file_name).unwrap();
            (module.base, name)
        })
        .collect();
    assert_eq!(
        modules,
        [
            (BASE as u64, PYTHON),
            (0x90_0000, LIBRARY),
            (0x5000_0000, OTHER),
            (0x90_0000, OTHER),
            (2 * BASE as u64, PYTHON),
        ]
    );
}

#[test]
fn native_stacks_of_versions_before_line_tables() {
    for version in [10, 11] {
        let mut file = File::native(version, false);
        let mut fields = Fields::default();
        begin(&mut file, &mut fields);
        // Frames with function, file and line; a flag means that the interpreter was not entered.
        for (number, flags, name) in [(0, 0, "f1"), (1, 0, "f2"), (2, 1, "f3")] {
            file.add(&[flags << 4 | 3])
                .add(&signed(number - fields.frame));
            file.add(name.as_bytes()).add(b"\0app.py\0").add(&signed(1));
            fields.frame = number;
        }
        for number in 0..3 {
            file.add(&[4]).add(&signed(number - fields.frame));
            fields.frame = number;
        }
        // malloc in the numbering of the time.
        file.add(&[1 << 4 | 2])
            .add(&signed(0x1000))
            .add(&varint(100));
        file.add(&signed(5 - fields.native));
        file.add(&[0x10]);
        let (capture, profile) = open_named(&file);
        expect_no_names(&profile);
        assert_eq!(
            allocations(&capture, &profile),
            [row(100, 5, [HYBRID, "f3 f2", NATIVE])]
        );
    }
}

#[test]
fn native_stacks_of_sums() {
    for version in [10, 11, 12, 13] {
        let mut file = File::native(version, true);
        let mut fields = Fields::default();
        file.thread(1).add(b"\x0amain\0");
        begin(&mut file, &mut fields);
        file.add(&[6]);
        module(&mut file, PYTHON, BASE as u64, &[(0x1000, 0x1000)]);
        module(&mut file, OTHER, 0x90_0000, &[(0x1000, 0x800)]);
        for (number, is_entry) in [(0u8, 1u8), (1, 1), (2, 0)] {
            if version >= 12 {
                file.code(number + 1);
                file.add(&[4, number, number + 1, 0, is_entry]);
                file.add(&[3, number, number]);
            } else {
                file.add(&[4]).add(&u64::from(number).to_le_bytes());
                let name = [b'f', b'1' + number, 0];
                file.add(&name).add(b"app.py\0").add(&7_i32.to_le_bytes());
                file.add(&[is_entry, 3])
                    .add(&u64::from(number).to_le_bytes());
                file.add(&u32::from(number).to_le_bytes());
            }
        }
        let malloc = if version >= 12 { 6 } else { 1 };
        for (thread, native, generation, bytes) in [
            (1, 5, 1, 100),
            (1, 6, 1, 10),
            (1, 5, 2, 1),
            // Not the main thread: nothing is older than tracking.
            (2, 5, 1, 20),
            (1, 99, 1, 30),
        ] {
            file.add(&[2]);
            let words = [thread, malloc, native, 3, generation, 1, 1, bytes, bytes];
            for word in words {
                file.add(&u64::to_le_bytes(word));
            }
        }
        file.add(&[15]);
        let (capture, profile) = open_named(&file);
        let mut rows: Vec<_> = (profile.entries.iter())
            .map(|entry| {
                (
                    entry.figures.peak.bytes,
                    told(&profile, entry.stack)[0].clone(),
                )
            })
            .collect();
        rows.sort();
        let row = |bytes, hybrid: &str| (bytes, hybrid.to_owned());
        let other = "inner outer f3 f2 builtin inlined f1 main";
        assert_eq!(
            rows,
            [
                row(1, "other f3 f2"),
                row(10, HYBRID),
                row(20, other),
                row(30, "f3 f2 f1"),
                row(100, HYBRID),
            ],
            "{version}"
        );
        let kinds: Vec<WarningKind> = capture
            .warnings
            .iter()
            .map(|warning| warning.kind)
            .collect();
        assert_eq!(
            kinds,
            [
                WarningKind::TotalsUnknown,
                WarningKind::DanglingReference,
                WarningKind::MissingSymbols
            ]
        );
    }
}

/// Cut off anywhere, with any byte changed, there is a result.
#[test]
fn damage_is_survived() {
    for aggregated in [false, true] {
        let mut file = File::native(13, aggregated);
        let mut fields = Fields::default();
        begin(&mut file, &mut fields);
        if aggregated {
            file.code(1).add(&[4, 0, 1, 0, 1, 3, 0, 0]).add(&[2]);
            for word in [1_u64, 6, 5, 1, 1, 1, 1, 100, 100] {
                file.add(&word.to_le_bytes());
            }
        } else {
            frames_of_python(&mut file);
            fields.malloc(&mut file, 0x1000, 100, 5);
            file.add(&[6]);
            module(&mut file, OTHER, 0x90_0000, &[(0x1000, 0x800)]);
            fields.malloc(&mut file, 0x2000, 100, 8);
        }
        file.add(&[if aggregated { 15 } else { 1 }]);
        let mut read = 0;
        for place in 0..file.0.len() {
            for change in [1, 0x80, 0xff] {
                let mut changed = File(file.0.clone());
                changed.0[place] ^= change;
                if let Ok(mut capture) = changed.open() {
                    named(&mut capture);
                    read += usize::from(Profile::new(&capture).totals.figures.peak.bytes > 0);
                }
            }
            let cut = File(file.0[..place].to_vec());
            if let Ok(mut capture) = cut.open() {
                named(&mut capture);
                let _ = Profile::new(&capture);
            }
        }
        assert!(read > file.0.len(), "{read}");
    }
}
