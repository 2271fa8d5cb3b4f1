//! Native stacks whose right answer is known, on every interpreter: which functions of C and of Python, in which order, with which
//! lines, and to the byte what they have allocated.

use heaptide_e2e::{
    Mode, NativeLibraries, Python, Sandbox, check_native_stacks, each_python,
    each_python_in_each_mode, pythons_of, run, virtual_environment, with_package,
};

/// Runs sections of `native_truth.py`, with and without the requests to Python's allocators, and compares. Of the stacks that may be
/// cut, how many are whole is printed.
fn check_with(sections: &[&str], options: &[&str]) {
    each_python_in_each_mode(|python, mode| {
        for more in [&[][..], &["--trace-python-allocators"]] {
            let options: Vec<&str> = options.iter().chain(more).copied().collect();
            check_one(python, mode, sections, &options);
        }
    });
}

#[track_caller]
fn check_one(python: &Python, mode: Mode, sections: &[&str], options: &[&str]) {
    let name = format!(
        "{sections:?}, Python {}, {mode:?} {options:?}",
        python.version()
    );
    let sandbox = Sandbox::in_mode(python, mode);
    check_in(&sandbox, &name, sections, options);
}

#[track_caller]
fn check_in(sandbox: &Sandbox, name: &str, sections: &[&str], options: &[&str]) {
    NativeLibraries::put_into(sandbox);
    let mut command = sandbox.profiled_with(&["--native"]);
    command
        .args(options)
        .arg(sandbox.inside("native_truth.py"))
        .args(sections);
    let finished = run(&mut command);
    finished.expect_success(name);
    assert_eq!(finished.errors(), "", "{name}: stderr");
    match check_native_stacks(sandbox) {
        Ok((_, 0)) => {}
        Ok((whole, all)) => println!("{name}: {whole} of {all} loose stacks are whole"),
        Err(error) => panic!("{name}: {error}"),
    }
}

fn check(sections: &[&str]) {
    check_with(sections, &[]);
}

#[test]
fn libraries_built_in_every_way() {
    check(&["builds"]);
}

#[test]
fn deep_stacks_of_python_of_c_and_of_both() {
    // Without the requests: each would have a stack as deep as that.
    each_python_in_each_mode(|python, mode| check_one(python, mode, &["depth"], &[]));
}

#[test]
fn from_c_to_python_and_back() {
    check(&["callbacks"]);
}

#[test]
fn frames_entered_from_c_and_from_python_in_turn() {
    check(&["interleaved"]);
}

#[test]
fn random_interleavings() {
    check(&["randomly"]);
}

#[test]
fn threads_of_python_and_of_c() {
    check(&["threads"]);
}

#[test]
fn threads_with_little_stack() {
    check(&["small_threads"]);
}

#[test]
fn handlers_of_signals() {
    check(&["signals"]);
}

#[test]
fn handlers_that_come_at_any_instruction() {
    check(&["storms"]);
}

#[test]
fn stacks_that_are_not_the_threads_own() {
    check(&["contexts"]);
}

#[test]
fn code_without_unwind_information() {
    check(&["unknown"]);
    check(&["without_tables"]);
}

#[test]
fn exceptions_of_cpp_through_recorded_frames() {
    check(&["exceptions"]);
}

#[test]
fn requests_to_pythons_allocators() {
    each_python_in_each_mode(|python, mode| {
        check_one(python, mode, &["requests"], &["--trace-python-allocators"]);
    });
}

#[test]
fn forked_children() {
    check_with(&["forks"], &["--follow-fork"]);
}

#[test]
fn children_that_are_started() {
    check_with(&["children"], &["--follow-children"]);
}

#[test]
fn libraries_that_come_and_go() {
    check(&["goes"]);
}

/// A file that is another when the capture is read is told by its build-id.
#[test]
fn a_library_that_was_replaced() {
    check(&["replaced"]);
}

#[test]
fn greenlets() {
    each_python(|python| {
        if let Some(sandbox) = with_package(python, "greenlet") {
            let name = format!("greenlets, Python {}", python.version());
            check_in(&sandbox, &name, &["greenlets"], &[]);
        }
    });
}

#[test]
fn one_after_the_other() {
    check(&[
        "callbacks",
        "builds",
        "goes",
        "interleaved",
        "threads",
        "exceptions",
        "unknown",
        "signals",
    ]);
}

/// What the program tells is also what Memray records of it.
#[test]
fn memray_records_the_same() {
    for python in pythons_of(&[9, 10, 11, 12, 13]) {
        let name = match python.minor {
            12 => "memray-13".to_owned(),
            _ => format!("memray-13-{}", python.version()),
        };
        let packages = ["memray==1.20.0", "typing_extensions"];
        let Some(interpreter) = virtual_environment(python, &name, &packages) else {
            continue;
        };
        let mut failures = Vec::new();
        for section in [
            "builds",
            "callbacks",
            "interleaved",
            "randomly",
            "threads",
            "exceptions",
            "goes",
        ] {
            let sandbox = Sandbox::new(python);
            NativeLibraries::put_into(&sandbox);
            let mut command = sandbox.command(&interpreter);
            command
                .args(["-m", "memray", "run", "-q", "-f", "--native", "-o"])
                .arg(sandbox.inside("capture.tide"))
                .arg(sandbox.inside("native_truth.py"))
                .arg(section);
            run(&mut command).expect_success(section);
            if let Err(error) = check_native_stacks(&sandbox) {
                failures.push(format!("{section}: {error}"));
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}
