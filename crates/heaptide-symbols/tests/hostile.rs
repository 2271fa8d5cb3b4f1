//! Files that are broken in any way give an answer or a problem, in bounded time.

mod support;

use std::fs;
use std::path::Path;

use heaptide_symbols::Symbolizer;
use support::{GROW, Library, PLAIN};

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 16).expect("48 bits") % end
    }
}

/// Asks for every mark and some more in a fresh symbolizer; how many frames there were.
fn ask(library: &Library, path: &Path) -> usize {
    let mut symbolizer = Symbolizer::with_debug_directory("/nowhere");
    let more = [0, 1, 0x1000, 0x1234, u64::MAX - 1, u64::MAX, 1 << 63];
    let addresses = library.marks.values().copied().chain(more);
    let mut frames = 0;
    for address in addresses {
        frames += symbolizer.resolve(path, None, address).len();
    }
    for (_, problem) in symbolizer.problems() {
        assert!(!problem.to_string().is_empty());
    }
    frames
}

/// Makes the file anew: some file systems wait for the disk when one is overwritten.
fn put(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).expect("a file");
}

#[test]
fn truncated_anywhere() {
    for options in [&["-g"][..], &["-g", "-gz=zlib"]] {
        let library = Library::build(options);
        let whole = fs::read(&library.path).expect("the library");
        let damaged = library.directory.path().join("damaged.so");
        let all = ask(&library, &library.path);
        assert!(all > 10, "{all}");
        for part in 0..200 {
            let length = whole.len() * part / 200;
            put(&damaged, &whole[..length]);
            assert!(ask(&library, &damaged) <= all);
        }
    }
}

#[test]
fn bytes_changed_anywhere() {
    let mut numbers = Numbers(0x5eed);
    let mut known = 0;
    for options in [
        &["-g"][..],
        &["-g", "-gdwarf-4"],
        &["-g", "-gz=zlib"],
        &["-s"],
    ] {
        let library = Library::build(options);
        let whole = fs::read(&library.path).expect("the library");
        let damaged = library.directory.path().join("damaged.so");
        // Where the debug information is, behind the code and its data.
        let tail = whole.len() / 2;
        for round in 0..500 {
            let mut bytes = whole.clone();
            for _ in 0..=numbers.below(8) {
                let place = match round % 4 {
                    0 => numbers.below(whole.len()),
                    1 => numbers.below(64),
                    _ => tail + numbers.below(whole.len() - tail),
                };
                bytes[place] = numbers.next().to_le_bytes()[0];
            }
            put(&damaged, &bytes);
            known += usize::from(ask(&library, &damaged) > 0);
        }
    }
    assert!(known > 1000, "{known}");
}

#[test]
fn random_bytes_behind_a_header() {
    let mut numbers = Numbers(0xbad);
    let library = Library::build(&["-g"]);
    let whole = fs::read(&library.path).expect("the library");
    let damaged = library.directory.path().join("damaged.so");
    for round in 0..200 {
        let mut bytes = whole.clone();
        let start = if round % 2 == 0 { 64 } else { 0 };
        bytes[start..]
            .iter_mut()
            .for_each(|byte| *byte = numbers.next().to_le_bytes()[0]);
        put(&damaged, &bytes);
        ask(&library, &damaged);
    }
}

/// A section that says it unpacks to more than any file could.
#[test]
fn a_section_that_claims_to_unpack_to_all_memory() {
    let library = Library::build(&["-g", "-gz=zlib"]);
    let mut bytes = fs::read(&library.path).expect("the library");
    let mut changed = 0;
    // `Elf64_Chdr`: the type is 1, then a reserved word, the size, the alignment 1; then comes zlib.
    for place in 0..bytes.len() - 26 {
        let header = &bytes[place..place + 26];
        if header[..8] == [1, 0, 0, 0, 0, 0, 0, 0]
            && header[16..24] == [1, 0, 0, 0, 0, 0, 0, 0]
            && header[24] == 0x78
        {
            bytes[place + 8..place + 16].copy_from_slice(&(1u64 << 46).to_le_bytes());
            changed += 1;
        }
    }
    assert!(changed >= 4, "{changed}");
    fs::write(&library.path, bytes).expect("a file");
    let mut symbolizer = Symbolizer::new();
    assert_eq!(library.at(&mut symbolizer, "mark_grow"), ["outer"]);
    let problems: Vec<String> = symbolizer
        .problems()
        .map(|(_, problem)| problem.to_string())
        .collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("impossibly"), "{problems:?}");
    // The same library in order, so that it was the size.
    let library = Library::build(&["-g", "-gz=zlib"]);
    let mut symbolizer = Symbolizer::new();
    assert_eq!(library.at(&mut symbolizer, "mark_grow"), GROW);
    assert_eq!(library.at(&mut symbolizer, "mark_plain"), PLAIN);
}

/// DWARF of one function with `depth` functions inlined into each other, each of which is one byte.
fn nested(depth: usize) -> Library {
    let source = format!(
        r#"
        .text
        .globl deep
        .type deep, @function
deep:   nop
        ret
        .size deep, . - deep
.Lend:
        .section .debug_abbrev, "", @progbits
.Labbrev:
        .byte 1, 0x11, 1, 0x11, 1, 0x12, 7, 0, 0
        .byte 2, 0x2e, 1, 0x11, 1, 0x12, 7, 0, 0
        .byte 3, 0x1d, 1, 0, 0
        .byte 0
        .section .debug_info, "", @progbits
        .long .Lafter - .Lbefore
.Lbefore:
        .short 4
        .long .Labbrev
        .byte 8
        .byte 1
        .quad deep, .Lend - deep
        .byte 2
        .quad deep, .Lend - deep
        .fill {depth}, 1, 3
        .fill {depth} + 2, 1, 0
.Lafter:
        "#
    );
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("nested.s");
    fs::write(&file, source).expect("a file");
    Library::build_from(&file, &[])
}

#[test]
fn functions_inlined_into_each_other_without_end() {
    for (depth, problems) in [(20, 0), (100_000, 1), (3_000_000, 1)] {
        let library = nested(depth);
        let mut symbolizer = Symbolizer::new();
        assert_eq!(library.at(&mut symbolizer, "deep"), ["deep"], "{depth}");
        let found: Vec<String> = symbolizer
            .problems()
            .map(|(_, problem)| problem.to_string())
            .collect();
        assert_eq!(found.len(), problems, "{depth}: {found:?}");
        assert!(found.iter().all(|problem| problem.contains("nested")));
    }
}
