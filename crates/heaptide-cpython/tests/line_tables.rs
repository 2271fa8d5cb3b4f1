//! The line-table decoder against the interpreters' own, over the standard library.

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use heaptide_cpython::{LineTableForm, Position, positions, resolve_position};
use serde_json::Value;

#[test]
fn every_instruction_has_the_interpreters_place() {
    for python in support::pythons() {
        check(&python, &[], "4", true);
    }
}

#[test]
fn without_columns_as_well() {
    for python in support::pythons() {
        if python.minor() >= 11 {
            check(&python, &["-X", "no_debug_ranges"], "40", false);
        }
    }
}

/// `stride`: every how many files of the standard library are taken.
fn check(python: &support::Python, options: &[&str], stride: &str, expects_columns: bool) {
    let directory = python.directory();
    let script = directory.path().join("dump_line_tables.py");
    std::fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dump_line_tables.py"),
        &script,
    )
    .unwrap();
    let mut child = python
        .command()
        .args(["-W", "ignore"])
        .args(options)
        .arg(python.inside(&script))
        .arg(stride)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the interpreter starts");
    let (mut codes, mut instructions, mut columns) = (0, 0, 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let code: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let (checked, with_columns) = check_code(&code);
        codes += 1;
        instructions += checked;
        columns += with_columns;
    }
    assert!(child.wait().unwrap().success());
    assert!(codes > 100, "{codes} code objects of {}", python.version);
    assert_eq!(
        columns > 0,
        expects_columns && python.minor() >= 11,
        "columns of {}",
        python.version
    );
    eprintln!(
        "CPython {}: {codes} code objects, {instructions} instructions, {columns} with columns",
        python.version
    );
}

/// Returns how many instructions were compared, and how many of them have columns.
fn check_code(code: &Value) -> (usize, usize) {
    let form =
        LineTableForm::for_version(u32::try_from(code["hexversion"].as_u64().unwrap()).unwrap())
            .unwrap();
    let first_line = i32::try_from(code["first_line"].as_i64().unwrap()).unwrap();
    let table: Vec<u8> = code["table"]
        .as_array()
        .unwrap()
        .iter()
        .map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap())
        .collect();

    let lines = code["lines"].as_array().unwrap();
    for (line, instruction) in lines.iter().zip((-2_i32..).step_by(2)) {
        // -1: no line.
        let expected = u32::try_from(line.as_i64().unwrap()).ok();
        let position = resolve_position(form, &table, first_line, instruction);
        assert_eq!(
            position.line, expected,
            "line at {instruction} of {}",
            code["what"]
        );
    }
    let mut columns = 0;
    for (expected, instruction) in code["positions"]
        .as_array()
        .into_iter()
        .flatten()
        .zip((0_i32..).step_by(2))
    {
        let number = |index: usize| {
            expected[index]
                .as_u64()
                .map(|number| u32::try_from(number).unwrap())
        };
        let expected = Position {
            line: number(0),
            end_line: number(1),
            column: number(2),
            end_column: number(3),
        };
        assert_eq!(
            resolve_position(form, &table, first_line, instruction),
            expected,
            "position at {instruction} of {}",
            code["what"]
        );
        columns += usize::from(expected.column.is_some());
    }
    // The iterator and the look-up are one thing seen twice.
    for (range, position) in positions(form, &table, first_line) {
        assert_eq!(
            resolve_position(form, &table, first_line, range.start),
            position,
            "start of {range:?} of {}",
            code["what"]
        );
    }
    (lines.len(), columns)
}
