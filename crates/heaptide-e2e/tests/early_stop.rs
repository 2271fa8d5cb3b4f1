//! Walks that end early, at marked frames or at the start of the stack's newest chunk, each compared with a whole one; and that
//! the program does not notice the marks.

use heaptide_e2e::{Python, Sandbox, each_python, own_cost, run, with_package};

/// From this version on frames lie in chunks.
const CHUNKS: u32 = 11;

fn check(python: &Python, sandbox: &Sandbox, mode: &str) {
    check_program(python, sandbox, mode, "early_stop.py", &["1"]);
}

fn check_program(python: &Python, sandbox: &Sandbox, mode: &str, name: &str, arguments: &[&str]) {
    let program = sandbox.inside(name);
    let plain = run(sandbox.plain().arg(&program).args(arguments));
    plain.expect_success(name);
    let profiled = run(sandbox
        .profiled_with_small_objects()
        .env("HEAPTIDE_EARLY_STOP", mode)
        .args(["--stack-budget", "4000000"])
        .arg(&program)
        .args(arguments));
    profiled.expect_success(&format!("{name}, under heaptide"));
    assert_eq!(profiled.text(), plain.text(), "stdout");
    assert_eq!(profiled.errors(), plain.errors(), "stderr");
    let own_cost = own_cost(&sandbox.capture());
    let number = |key: &str| own_cost[key].as_u64().expect("a number");
    assert_eq!(number("early_stop_mismatches"), 0, "{own_cost:?}");
    assert_eq!(
        number("folded_stacks"),
        0,
        "walks are not compared from then on"
    );
    let compared = number("early_stops_compared");
    if python.minor >= CHUNKS || mode == "check" {
        assert!(compared > 20_000, "only {compared} walks were compared");
    } else {
        assert_eq!(compared, 0, "this version has no chunks");
    }
}

#[test]
fn early_stops_at_frames_are_right_whatever_happens_to_them() {
    each_python(|python| check(python, &Sandbox::new(python), "check"));
}

#[test]
fn early_stops_at_chunks_are_right_whatever_happens_to_the_frames() {
    each_python(|python| check(python, &Sandbox::new(python), "check-chunks"));
}

/// Of random functions that wait for one another in every way there is.
#[test]
fn early_stops_are_right_in_random_programs() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        check_program(python, &sandbox, "check", "waits.py", &["1", "8"]);
    });
}

#[test]
fn early_stops_are_right_among_greenlets() {
    each_python(|python| {
        if let Some(sandbox) = with_package(python, "greenlet") {
            check(python, &sandbox, "check");
            check(python, &sandbox, "check-chunks");
        }
    });
}

/// What the comparisons above are worth: a frame further out that is changed behind the interpreter's back, while the chunks and frames
/// above it keep their marks, is a difference each time, and reports tell of it.
#[test]
fn a_mark_that_is_wrong_is_found_out() {
    let code = "
import ctypes, sys
def word(frame):
    # PyFrameObject.f_frame, and in that frame the pointer to its instruction.
    inner = ctypes.c_size_t.from_address(id(frame) + object.__basicsize__ + 8).value
    return ctypes.c_size_t.from_address(inner + 56)
def innermost(forges):
    frame = sys._getframe(150)
    word_of_it = word(frame)
    whole = word_of_it.value
    forged = whole - 2
    kept = [bytes(600) for _ in range(100)]
    if forges:
        word_of_it.value = forged
    kept += [bytes(600), bytes(600), bytes(600), bytes(600), bytes(600)]
    word_of_it.value = whole
    kept += [bytes(600) for _ in range(100)]
def deep(depth, forges):
    if depth:
        return deep(depth - 1, forges)
    innermost(forges)
deep(300, len(sys.argv) > 1)
";
    each_python(|python| {
        if python.minor < CHUNKS {
            return;
        }
        for mode in ["check-chunks", "check"] {
            let mismatches = |arguments: &[&str]| {
                let sandbox = Sandbox::new(python);
                let profiled = run(sandbox
                    .profiled_with_small_objects()
                    .env("HEAPTIDE_EARLY_STOP", mode)
                    .args(["-c", code])
                    .args(arguments));
                profiled.expect_success("under heaptide");
                let own_cost = own_cost(&sandbox.capture());
                let number = |key: &str| own_cost[key].as_u64().expect("a number");
                assert!(number("early_stops_compared") > 200, "{own_cost:?}");
                let stats = run(sandbox
                    .command(sandbox.heaptide())
                    .arg("stats")
                    .arg(sandbox.inside("capture.tide")));
                (
                    number("early_stop_mismatches"),
                    stats.text() + &stats.errors(),
                )
            };
            let (none, text) = mismatches(&[]);
            assert_eq!(none, 0, "{mode}");
            assert!(!text.contains("early"), "{text}");
            let (some, text) = mismatches(&["forges"]);
            assert!(some >= 5, "{some} with {mode}");
            assert!(text.contains("early"), "{text}");
        }
    });
}

/// What a program can see of its frames is the same with marks and without.
#[test]
fn marks_are_not_seen() {
    let code = "
import sys
def f(a):
    b = bytes(600)
    frame = sys._getframe()
    c = bytes(600)
    print(frame.f_trace_lines, sorted(frame.f_locals), sorted(locals()), frame.f_lineno)
    frame.f_trace_lines = False
    d = bytes(600)
    print(frame.f_trace_lines)
    frame.f_trace_lines = True
    d = bytes(600)
    print(frame.f_trace_lines, a)
def g():
    bytes(600)
    f(1)
    bytes(600)
    f(2)
g()
def lines():
    seen = []
    def trace(frame, event, argument):
        seen.append((frame.f_code.co_name, event, frame.f_lineno))
        return trace
    def traced():
        x = bytes(600)
        return x
    sys.settrace(trace)
    traced()
    sys.settrace(None)
    print(seen)
lines()
exec(g.__code__, {'f': f})
";
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let plain = run(sandbox.plain().args(["-c", code]));
        plain.expect_success("plain");
        for mode in ["1", "", "0"] {
            let mut command = sandbox.profiled();
            let profiled = run(command.env("HEAPTIDE_EARLY_STOP", mode).args(["-c", code]));
            profiled.expect_success("under heaptide");
            assert_eq!(profiled.text(), plain.text());
            assert_eq!(profiled.errors(), plain.errors());
        }
    });
}
