//! Names, files and lines of native frames: what Memray's own reader finds, ours finds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use heaptide_e2e::{Sandbox, not_tested, pythons_of, run, virtual_environment};
use heaptide_symbols::Symbolizer;
use serde::Deserialize;

/// Function, file, line.
type Frame = (String, String, u32);

/// What `native_answers.py` prints.
#[derive(Deserialize)]
struct Answers {
    stacks: Vec<Vec<Frame>>,
    /// Of each record its stack, or none of a free.
    records: Vec<Option<usize>>,
}

/// A part of a module: from, to, and what to take from an address in it.
struct Segment {
    start: u64,
    end: u64,
    base: u64,
    module: PathBuf,
}

/// What `memray parse` prints.
#[derive(Default)]
struct Parsed {
    /// Instruction pointers and the index of the caller, from 1.
    nodes: Vec<(u64, usize)>,
    maps: Vec<Vec<Segment>>,
    /// Of each allocation its node and the number of maps before it.
    records: Vec<(usize, usize)>,
}

/// `key=value` of a line, up to the next space.
fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!("{key}=")).expect("a key");
    rest.split(' ').next().expect("a value")
}

fn hexadecimal(text: &str) -> u64 {
    if text == "(nil)" {
        return 0;
    }
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a number")
}

fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut module = (PathBuf::new(), 0);
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            "NATIVE_FRAME_ID" => {
                let caller = value(rest, "index").parse().expect("a number");
                parsed.nodes.push((hexadecimal(value(rest, "ip")), caller));
            }
            "MEMORY_MAP_START" => parsed.maps.push(Vec::new()),
            "SEGMENT_HEADER" => {
                module = (
                    PathBuf::from(value(rest, "filename")),
                    hexadecimal(value(rest, "addr")),
                );
            }
            "SEGMENT" => {
                let (from, size) = rest.split_once(' ').expect("two numbers");
                let start = module.1 + hexadecimal(from);
                parsed.maps.last_mut().expect("a map").push(Segment {
                    start,
                    end: start + hexadecimal(size),
                    base: module.1,
                    module: module.0.clone(),
                });
            }
            "ALLOCATION" => {
                let node = value(rest, "native_frame_id").parse().expect("a number");
                parsed.records.push((node, parsed.maps.len()));
            }
            _ => {}
        }
    }
    parsed
}

/// What we find at an instruction pointer. As Memray does, one unknown frame where nothing is known.
fn ours(symbolizer: &mut Symbolizer, map: &[Segment], address: u64) -> Vec<Frame> {
    let unknown = || "<unknown>".to_owned();
    let segment = map
        .iter()
        .find(|segment| (segment.start..segment.end).contains(&address));
    let found = segment.map_or(&[][..], |segment| {
        symbolizer.resolve(&segment.module, None, address - segment.base)
    });
    if found.is_empty() {
        return vec![(unknown(), unknown(), 0)];
    }
    let frames = found.iter().map(|symbol| {
        let file = symbol.file.clone().unwrap_or_else(unknown);
        (symbol.function.clone(), file, symbol.line)
    });
    frames.collect()
}

/// The name up to its parameters.
fn without_parameters(function: &str) -> &str {
    let mut depth = 0;
    for (place, character) in function.char_indices().rev() {
        match character {
            ')' => depth += 1,
            '(' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return &function[..place];
        }
    }
    function
}

/// In what a frame of ours differs from Memray's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    None,
    /// We have the whole path, Memray leaves out the directory of the compilation.
    WholePath,
    /// We know file and line of a function of which Memray knows the name only.
    MoreKnown,
    /// The demangler has other parameters: in constructors that are templates it takes the first one for a result, and
    /// it drops the `&&` of packs of parameters.
    Parameters,
    Unexplained,
}

fn difference(memray: &Frame, ours: &Frame) -> Difference {
    let whole_path = || {
        let relative = !memray.1.starts_with('/');
        relative && ours.1.ends_with(&format!("/{}", memray.1))
    };
    let cpp = || memray.0.contains('<') && memray.0 != "<unknown>";
    if memray == ours {
        Difference::None
    } else if (&memray.0, memray.2) == (&ours.0, ours.2) && whole_path() {
        Difference::WholePath
    } else if memray.0 == ours.0 && memray.1 == "<unknown>" && memray.2 == 0 {
        Difference::MoreKnown
    } else if cpp()
        && without_parameters(&memray.0) == without_parameters(&ours.0)
        && (&memray.1, memray.2) == (&ours.1, ours.2)
    {
        Difference::Parameters
    } else {
        Difference::Unexplained
    }
}

/// A capture of Memray, as `memray parse` and as its own reader give it.
fn capture() -> Option<(Parsed, Answers, Sandbox)> {
    let python = pythons_of(&[12]).next()?;
    let packages = ["memray==1.20.0", "typing_extensions"];
    let interpreter = virtual_environment(python, "memray-13", &packages)?;
    let sandbox = Sandbox::new(python);
    let library = sandbox.outside("libnative.so");
    let compiler = Command::new("g++")
        .args(["-shared", "-fPIC", "-g", "-O2", "-o"])
        .arg(&library)
        .arg(sandbox.outside("native_known.cpp"))
        .status();
    if !compiler.is_ok_and(|status| status.success()) {
        not_tested("native symbols: there is no g++");
        return None;
    }
    let memray = |arguments: &[&str]| {
        let finished = run(sandbox
            .command(&interpreter)
            .args(["-m", "memray"])
            .args(arguments));
        finished.expect_success(&format!("memray {arguments:?}"));
        finished.text()
    };
    let path = library.to_str().expect("UTF-8");
    memray(&[
        "run",
        "-qf",
        "--native",
        "-o",
        "native.bin",
        "native_stacks.py",
        path,
    ]);
    let parsed = parse(&memray(&["parse", "native.bin"]));
    let answers = run(sandbox
        .command(&interpreter)
        .args(["native_answers.py", "native.bin"]));
    answers.expect_success("native_answers.py");
    let answers = serde_json::from_slice(&answers.stdout).expect("JSON");
    Some((parsed, answers, sandbox))
}

#[test]
fn names_files_and_lines_are_those_of_memrays_reader() {
    let Some((parsed, answers, _sandbox)) = capture() else {
        return;
    };
    assert_eq!(answers.records.len(), parsed.records.len());
    let mut symbolizer = Symbolizer::new();
    let mut seen = BTreeSet::new();
    let mut differences: BTreeMap<Difference, BTreeSet<(Frame, Frame)>> = BTreeMap::new();
    let mut functions = BTreeSet::new();
    // Frames that would be others one byte further, at the address that the call returns to.
    let mut off_by_one = 0;
    for (&(node, maps), answer) in parsed.records.iter().zip(&answers.records) {
        let Some(answer) = answer else {
            continue;
        };
        if !seen.insert((node, maps)) {
            continue;
        }
        let map = &parsed.maps[maps - 1];
        let mut stack = Vec::new();
        let mut index = node;
        while index != 0 {
            let (address, caller) = parsed.nodes[index - 1];
            let found = ours(&mut symbolizer, map, address);
            off_by_one += usize::from(found != ours(&mut symbolizer, map, address + 1));
            stack.extend(found);
            index = caller;
        }
        let memray = &answers.stacks[*answer];
        assert_eq!(memray.len(), stack.len(), "{memray:#?}\n{stack:#?}");
        for pair in memray.iter().zip(&stack) {
            functions.insert(pair.1.0.clone());
            let kind = difference(pair.0, pair.1);
            let (theirs, ours) = (pair.0.clone(), pair.1.clone());
            differences.entry(kind).or_default().insert((theirs, ours));
        }
    }
    for (kind, frames) in &differences {
        println!("{kind:?}: {} frames", frames.len());
    }
    println!(
        "{} stacks, {off_by_one} frames differ one further",
        seen.len()
    );
    let unexplained = differences.get(&Difference::Unexplained);
    assert!(unexplained.is_none(), "{unexplained:#?}");
    let count = |kind| differences.get(&kind).map_or(0, BTreeSet::len);
    // None of what may differ is the rule.
    let same = count(Difference::None) + count(Difference::WholePath);
    assert!(count(Difference::MoreKnown) * 20 < same);
    assert!(count(Difference::Parameters) <= 12);
    // Memray records where a call is, not where it returns to.
    assert!(off_by_one > 100, "{off_by_one}");
    // Inlined, and in all kinds of modules.
    for wanted in [
        "shapes::Pool<double>::take(unsigned long)",
        "shapes::Tree::grow(int)",
        "_PyEval_EvalFrameDefault",
        "ffi_call",
    ] {
        assert!(functions.contains(wanted), "no {wanted}");
    }
    let problems: Vec<String> = symbolizer
        .problems()
        .map(|(path, problem)| format!("{}: {problem}", path.display()))
        .collect();
    let real = |problem: &&String| !problem.starts_with("linux-vdso");
    let real: Vec<&String> = problems.iter().filter(real).collect();
    assert!(real.is_empty(), "{real:#?}");
}

#[test]
fn parameters_are_the_last_parentheses() {
    for (function, name) in [
        ("plain", "plain"),
        ("f(int)", "f"),
        (
            "a<void (*)(int)>::f(int (*)(int), int)",
            "a<void (*)(int)>::f",
        ),
    ] {
        assert_eq!(without_parameters(function), name);
    }
}
