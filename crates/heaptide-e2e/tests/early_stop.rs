//! Walks that end early at marked frames, each compared with a whole one; and that the program does not notice the marks.

use heaptide_e2e::{Capture, Python, Sandbox, each_python, run, with_package};

/// Versions whose frames can be marked.
const MARKED: [u32; 5] = [9, 10, 13, 14, 15];

fn check(python: &Python, sandbox: &Sandbox, rounds: &str) {
    let program = sandbox.inside("early_stop.py");
    let plain = run(sandbox.plain().arg(&program).arg(rounds));
    plain.expect_success("early_stop.py");
    let profiled = run(sandbox
        .profiled()
        .env("PYTHONMALLOC", "malloc")
        .env("HEAPTIDE_EARLY_STOP", "check")
        .arg(&program)
        .arg(rounds));
    profiled.expect_success("early_stop.py, under heaptide");
    assert_eq!(profiled.text(), plain.text(), "stdout");
    assert_eq!(profiled.errors(), plain.errors(), "stderr");
    let capture = Capture::read(&sandbox.capture());
    let number = |key: &str| capture.own_cost[key].as_u64().expect("a number");
    assert_eq!(number("early_stop_mismatches"), 0, "{:?}", capture.own_cost);
    let compared = number("early_stops_compared");
    if MARKED.contains(&python.minor) {
        assert!(compared > 20_000, "only {compared} walks were compared");
    } else {
        assert_eq!(compared, 0, "this version has no marks");
    }
}

#[test]
fn early_stops_are_right_whatever_happens_to_the_frames() {
    each_python(|python| check(python, &Sandbox::new(python), "1"));
}

#[test]
fn early_stops_are_right_among_greenlets() {
    each_python(|python| {
        if let Some(sandbox) = with_package(python, "greenlet") {
            check(python, &sandbox, "1");
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
        let mut command = sandbox.profiled();
        let profiled = run(command.env("HEAPTIDE_EARLY_STOP", "1").args(["-c", code]));
        profiled.expect_success("under heaptide");
        assert_eq!(profiled.text(), plain.text());
        assert_eq!(profiled.errors(), plain.errors());
    });
}
