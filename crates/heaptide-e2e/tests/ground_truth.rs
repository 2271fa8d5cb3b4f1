//! Programs whose right answer is a constant, on every interpreter, to the byte.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use heaptide_e2e::{
    Capture, Sandbox, check_against_truth, check_bookkeeping, each_python, ground_truth,
    ground_truth_from_inside, not_tested, run, with_package,
};

fn on_every_python(program: &str, arguments: &[&str]) {
    each_python(|python| ground_truth(python, program, arguments));
}

#[test]
fn every_function_that_makes_memory() {
    on_every_python("allocators.py", &[]);
}

#[test]
fn mappings_by_range() {
    on_every_python("mappings.py", &[]);
}

#[test]
fn a_library_bound_at_load_time_without_a_plt() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        std::fs::rename(
            sandbox.outside("helper-now.so"),
            sandbox.outside("helper.so"),
        )
        .unwrap();
        check_against_truth(&sandbox, OsStr::new("allocators.py"), &[]);
    });
}

#[test]
fn every_kind_of_frame() {
    on_every_python("frames.py", &[]);
}

#[test]
fn coroutines_under_asyncio_and_by_hand() {
    on_every_python("coroutines.py", &[]);
}

#[test]
fn code_freed_and_compiled_again() {
    on_every_python("recompiled.py", &[]);
}

#[test]
fn many_places_in_every_order() {
    on_every_python("places.py", &[]);
}

#[test]
fn recursion_fifty_thousand_deep() {
    on_every_python("deep.py", &[]);
}

#[test]
fn threads_of_every_kind() {
    on_every_python("threads.py", &[]);
}

#[test]
fn threads_at_once_while_code_comes_and_goes() {
    on_every_python("parallel.py", &[]);
    each_python(|python| ground_truth_from_inside(python, "parallel.py", &[]));
}

#[test]
fn threads_from_before_tracking() {
    on_every_python("early_threads.py", &[]);
}

#[test]
fn subinterpreters() {
    on_every_python("subinterpreters.py", &[]);
}

#[test]
fn memory_of_python_objects() {
    on_every_python("objects.py", &[]);
}

#[test]
fn ties_between_peaks() {
    on_every_python("ties.py", &["allocators"]);
    on_every_python("ties.py", &["threads"]);
}

#[test]
fn greenlets() {
    each_python(|python| {
        if let Some(sandbox) = with_package(python, "greenlet") {
            check_against_truth(&sandbox, OsStr::new("greenlets.py"), &[]);
        }
    });
}

#[test]
fn numpy_arrays() {
    each_python(|python| {
        if python.free_threaded {
            return not_tested(
                "numpy without the GIL: it takes locks from malloc on the same lines",
            );
        }
        if let Some(sandbox) = with_package(python, "numpy") {
            check_against_truth(&sandbox, OsStr::new("numpy_arrays.py"), &[]);
        }
    });
}

#[test]
fn names_beyond_ascii() {
    each_python(|python| {
        for name in [
            &b"names.py"[..],
            "pr\u{f6}gr\u{e4}m-\u{65e5}\u{672c}.py".as_bytes(),
            b"bad-\xff\xfe.py",
        ] {
            let sandbox = Sandbox::new(python);
            let name = OsStr::from_bytes(name);
            if name != "names.py" {
                std::fs::rename(sandbox.outside("names.py"), sandbox.outside(name)).unwrap();
            }
            check_against_truth(&sandbox, name, &[]);
        }
    });
}

/// With every small object in malloc the interpreter's own blocks stand beside the program's; the
/// figures of functions that the interpreter never calls stay exact, and totals add up.
#[test]
fn other_allocators_of_python() {
    each_python(|python| {
        for &allocator in python.allocators() {
            let sandbox = Sandbox::new(python);
            let program = OsStr::new("aligned.py");
            check_bookkeeping(&sandbox, program, &[]);
            let mut command = sandbox.profiled();
            command.env("PYTHONMALLOC", allocator);
            run(command.arg(sandbox.inside(program)).arg("real")).expect_success(allocator);
            let capture = Capture::read(&sandbox.capture());
            capture.consistency().unwrap_or_else(|error| {
                panic!(
                    "Python {} with PYTHONMALLOC={allocator}: {error}",
                    python.version()
                )
            });
            let ours = capture.sum(|cell| cell.allocator == "MEMALIGN");
            assert_eq!((ours.allocated_count, ours.live_count), (100_000, 90_000));
            assert_eq!(ours.peak_bytes, 90_000 * 77);
        }
    });
}

#[test]
fn threads_go_by_their_python_names() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        for profiled in check_against_truth(&sandbox, OsStr::new("threads.py"), &[]) {
            assert_eq!(profiled.named_threads.len(), 28);
            for (name, thread_id) in &profiled.named_threads {
                let cells = profiled.capture.cells.iter();
                let seen = cells.filter(|cell| cell.thread_id == *thread_id);
                let names: Vec<&str> = seen.map(|cell| cell.thread_name.as_str()).collect();
                assert!(
                    names.iter().all(|seen| seen == name),
                    "{name:?} is called {:?}",
                    names[0]
                );
            }
        }
    });
}
