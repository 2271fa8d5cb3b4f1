//! Functions, inlines and lines of a library that is built here, in all the forms that debug information comes in.

mod support;

use std::fs;
use std::path::Path;

use heaptide_symbols::{Problem, Symbolizer};
use support::{GROW, Library, PLAIN, run};

fn expect_all_known(library: &Library, symbolizer: &mut Symbolizer, name: &str) {
    assert_eq!(library.at(symbolizer, "mark_grow"), GROW, "{name}");
    assert_eq!(library.at(symbolizer, "mark_plain"), PLAIN, "{name}");
    assert_eq!(
        library.at(symbolizer, "mark_hidden"),
        ["hidden hidden"],
        "{name}"
    );
    assert_eq!(library.at(symbolizer, "bare"), ["bare"], "{name}");
    let problems: Vec<String> = said(symbolizer);
    assert!(problems.is_empty(), "{name}: {problems:?}");
    let nowhere = symbolizer.resolve(&library.path, None, u64::MAX);
    assert_eq!(nowhere, [], "{name}");
}

fn said(symbolizer: &Symbolizer) -> Vec<String> {
    let problems = symbolizer.problems();
    problems.map(|(_, problem)| problem.to_string()).collect()
}

#[test]
fn dwarf_of_every_version_compressed_or_not() {
    for options in [
        &["-g", "-gdwarf-5"][..],
        &["-g", "-gdwarf-4"],
        &["-g", "-gdwarf-3"],
        &["-g", "-gdwarf-4", "-fdebug-types-section"],
        &["-g", "-gz=zlib"],
        &["-g", "-gz=zlib-gnu"],
    ] {
        let library = Library::build(options);
        expect_all_known(&library, &mut Symbolizer::new(), &format!("{options:?}"));
    }
    let library = Library::build(&["-g"]);
    library.objcopy(&["--compress-debug-sections=zstd"]);
    let sections = run("readelf", ["-SW".as_ref(), library.path.as_os_str()]);
    assert!(
        sections.contains(" C "),
        "nothing is compressed: {sections}"
    );
    expect_all_known(&library, &mut Symbolizer::new(), "zstd");
}

#[test]
fn an_answer_is_the_same_when_it_is_asked_for_again() {
    let library = Library::build(&["-g"]);
    let mut symbolizer = Symbolizer::new();
    for _ in 0..2 {
        assert_eq!(library.at(&mut symbolizer, "mark_grow"), GROW);
    }
}

#[test]
fn without_debug_information_there_are_the_names_of_the_symbol_table() {
    let library = Library::build(&[]);
    let mut symbolizer = Symbolizer::new();
    assert_eq!(library.at(&mut symbolizer, "mark_grow"), ["outer"]);
    assert_eq!(library.at(&mut symbolizer, "mark_hidden"), ["hidden()"]);
    assert_eq!(library.at(&mut symbolizer, "bare"), ["bare"]);
    library.objcopy(&["--strip-all"]);
    let mut symbolizer = Symbolizer::new();
    assert_eq!(library.at(&mut symbolizer, "mark_grow"), ["outer"]);
    assert_eq!(
        library.at(&mut symbolizer, "mark_plain"),
        ["space::plain(int, char const*)"]
    );
    assert!(library.at(&mut symbolizer, "mark_hidden").join("") != "hidden()");
}

/// What seldom runs lies apart, and in a stripped file without a name.
#[test]
fn a_part_of_a_function_is_named_by_where_it_jumps() {
    let directory = tempfile::tempdir().expect("a directory");
    let source = directory.path().join("parts.cpp");
    let seldom = |number: usize| {
        format!(
            "    if (__builtin_expect(next(), 0)) {{ seldom({number}); sum += next(); }}\n    sum ^= next();\n"
        )
    };
    let body = |count: usize| (0..count).map(seldom).collect::<String>();
    let text = format!(
        "extern \"C\" {{\nlong next();\n__attribute__((cold)) void seldom(int);\n\
         long wide() {{\n    long sum = 0;\n{}    return sum;\n}}\n\
         static __attribute__((noinline)) long narrow() {{\n    long sum = 1;\n{}    return sum;\n}}\n\
         long calls() {{ return narrow() + 1; }}\n}}\n",
        body(20),
        body(1)
    );
    fs::write(&source, text).expect("a file");
    let library = Library::build_from(&source, &[]);
    let inside = |mark: &str| library.marks[mark] + 3;
    let [wide, narrow, hidden] = ["wide.cold", "narrow.cold", "narrow"].map(inside);
    library.objcopy(&["--strip-all"]);
    let mut symbolizer = Symbolizer::new();
    let mut at = |address| {
        let found = symbolizer.resolve(&library.path, None, address);
        found.iter().map(support::text).collect::<Vec<_>>()
    };
    assert_eq!(at(wide), ["wide.cold"]);
    // Of a function without a name, or too little to be sure.
    assert_eq!(at(narrow), [""; 0]);
    assert_eq!(at(hidden), [""; 0]);
    assert_eq!(at(library.marks["wide"] + 3), ["wide"]);
}

#[test]
fn split_dwarf_gives_lines_and_the_symbol_table_the_name() {
    let library = Library::build(&["-g", "-gsplit-dwarf"]);
    let mut symbolizer = Symbolizer::new();
    assert_eq!(library.at(&mut symbolizer, "mark_grow"), ["outer grow"]);
}

#[test]
fn a_debug_file_is_found_by_build_id() {
    let library = Library::build(&["-g"]);
    let debug = tempfile::tempdir().expect("a directory");
    let id = library.build_id();
    let hexadecimal: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (first, rest) = hexadecimal.split_at(2);
    let file = debug.path().join(format!(".build-id/{first}/{rest}.debug"));
    library.split_off(&file);
    let mut symbolizer = Symbolizer::with_debug_directory(debug.path());
    expect_all_known(&library, &mut symbolizer, "build-id");
    let found = symbolizer.resolve(&library.path, Some(&id), library.marks["mark_plain"]);
    assert_eq!(found.len(), 1);
    // Without the file.
    let mut symbolizer = Symbolizer::with_debug_directory("/nowhere");
    assert_eq!(library.at(&mut symbolizer, "mark_grow"), ["outer"]);
    assert!(said(&symbolizer).is_empty());
}

#[test]
fn a_debug_file_is_found_by_its_link() {
    let debug = tempfile::tempdir().expect("a directory");
    for options in [&["-g"][..], &["-g", "-Wl,--build-id=none"]] {
        for place in 0..3 {
            let library = Library::build(options);
            let directory = library
                .directory
                .path()
                .canonicalize()
                .expect("a directory");
            let inside = directory.strip_prefix("/").expect("an absolute path");
            let file = match place {
                0 => directory.join("libknown.debug"),
                1 => directory.join(".debug/libknown.debug"),
                _ => debug.path().join(inside).join("libknown.debug"),
            };
            library.split_off(&file);
            library.objcopy(&[&format!("--add-gnu-debuglink={}", file.display())]);
            let mut symbolizer = Symbolizer::with_debug_directory(debug.path());
            expect_all_known(&library, &mut symbolizer, &format!("{options:?} {place}"));
        }
    }
}

#[test]
fn the_debug_file_of_another_build_is_not_used() {
    for options in [&["-g"][..], &["-g", "-Wl,--build-id=none"]] {
        let library = Library::build(options);
        let file = library.directory.path().join("libknown.debug");
        library.split_off(&file);
        library.objcopy(&[&format!("--add-gnu-debuglink={}", file.display())]);
        let other = Library::build(&[options, &["-DOTHER", "-O1"]].concat());
        fs::copy(&other.path, &file).expect("a copy");
        let mut symbolizer = Symbolizer::with_debug_directory("/nowhere");
        assert_eq!(library.at(&mut symbolizer, "mark_grow"), ["outer"]);
        let problems: Vec<&Problem> = symbolizer.problems().map(|(_, problem)| problem).collect();
        if options.len() == 1 {
            assert!(
                matches!(problems[..], [Problem::OtherBuildId { .. }]),
                "{problems:?}"
            );
        } else {
            assert!(
                matches!(problems[..], [Problem::OtherChecksum { .. }]),
                "{problems:?}"
            );
        }
    }
}

#[test]
fn a_file_with_another_build_id_gives_nothing() {
    let library = Library::build(&["-g"]);
    let address = library.marks["mark_plain"];
    let id = library.build_id();
    let mut symbolizer = Symbolizer::new();
    let mut other = id.clone();
    other[0] ^= 1;
    assert_eq!(symbolizer.resolve(&library.path, Some(&other), address), []);
    assert_eq!(symbolizer.resolve(&library.path, Some(&other), address), []);
    let problems: Vec<_> = symbolizer.problems().collect();
    assert!(
        matches!(problems[..], [(path, Problem::OtherBuildId { .. })] if path == library.path),
        "{problems:?}"
    );
    assert_eq!(
        symbolizer.resolve(&library.path, Some(&id), address).len(),
        1
    );

    let library = Library::build(&["-g", "-Wl,--build-id=none"]);
    let mut symbolizer = Symbolizer::new();
    assert_eq!(symbolizer.resolve(&library.path, Some(&id), address), []);
    let problem = said(&symbolizer).concat();
    assert!(problem.contains("(none)"), "{problem}");
}

#[test]
fn what_is_no_library_gives_nothing_and_says_why() {
    let library = Library::build(&["-g"]);
    let directory = library.directory.path();
    let path = |name: &str| directory.join(name);
    fs::write(path("text"), "no ELF file").expect("a file");
    fs::write(path("empty"), "").expect("a file");
    run("mkfifo", [path("pipe")]);
    let object = path("object.o");
    run(
        "g++",
        [
            "-c".as_ref(),
            support::SOURCE.as_ref(),
            "-o".as_ref(),
            object.as_os_str(),
        ],
    );
    let mut symbolizer = Symbolizer::new();
    let mut problem = |path: &Path| {
        assert_eq!(symbolizer.resolve(path, None, 0x1000), []);
        let mut problems = symbolizer.problems();
        let found = problems.find(|(of, _)| *of == path);
        format!("{:?}", found.expect("a problem").1)
    };
    for (name, kind) in [
        ("missing", "Unreadable"),
        ("text", "NotElf"),
        ("pipe", "NotAFile"),
        (".", "NotAFile"),
        ("object.o", "NotLoadable"),
    ] {
        let told = problem(&path(name));
        assert!(told.starts_with(kind), "{name}: {told}");
    }
    problem(&path("empty"));
    assert!(problem(Path::new("/dev/zero")).starts_with("NotAFile"));
}

/// The name is in the alternate file, as `dwz` leaves what several debug files have in common.
#[test]
fn an_alternate_file_is_read_if_it_is_the_right_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    };
    let names = write(
        "names.s",
        r#"
        .section .debug_str, "MS", @progbits, 1
        .string "unused"
        .string "of_the_alternate_file"
        "#,
    );
    let alternate = Library::build_from(&names, &[]);
    let id = alternate.build_id();
    let bytes: Vec<String> = id.iter().map(u8::to_string).collect();
    let source = format!(
        r#"
        .text
        .globl named
        .type named, @function
named:  nop
        ret
        .size named, . - named
.Lend:
        .section .debug_abbrev, "", @progbits
.Labbrev:
        .byte 1, 0x11, 1, 0x11, 1, 0x12, 7, 0, 0
        .byte 2, 0x2e, 0, 0x03
        .uleb128 0x1f21
        .byte 0x11, 1, 0x12, 7, 0, 0
        .byte 0
        .section .debug_info, "", @progbits
        .long .Lafter - .Lbefore
.Lbefore:
        .short 4
        .long .Labbrev
        .byte 8
        .byte 1
        .quad named, .Lend - named
        .byte 2
        .long 7
        .quad named, .Lend - named
        .byte 0
.Lafter:
        .section .gnu_debugaltlink, "", @progbits
        .string "{}"
        .byte {}
        "#,
        alternate.path.display(),
        bytes.join(", "),
    );
    let library = Library::build_from(&write("named.s", &source), &[]);
    let mut symbolizer = Symbolizer::new();
    assert_eq!(
        library.at(&mut symbolizer, "named"),
        ["of_the_alternate_file"]
    );
    assert!(said(&symbolizer).is_empty());
    // Another file in its place.
    fs::copy(&library.path, &alternate.path).expect("a copy");
    let mut symbolizer = Symbolizer::new();
    assert_eq!(library.at(&mut symbolizer, "named"), ["named"]);
    let problems: Vec<&Problem> = symbolizer.problems().map(|(_, problem)| problem).collect();
    assert!(
        matches!(problems[..], [Problem::OtherBuildId { .. }, ..]),
        "{problems:?}"
    );
}
