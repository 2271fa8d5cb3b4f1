//! Programs that live on the edge: little stack, little address space, few descriptors, libraries
//! with search paths and allocators of their own. Each must do what it does without us.

use std::path::{Path, PathBuf};
use std::process::Command;

use heaptide_e2e::{Capture, Sandbox, Stretches, each_python_in_each_mode, run};

/// Compiles `source` of this test's directory into a shared library in the sandbox.
fn library(sandbox: &Sandbox, source: &str, name: &str, options: &[&str]) {
    let target: PathBuf = sandbox.outside(name);
    std::fs::create_dir_all(target.parent().expect("a directory")).expect("create");
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/adversity")
        .join(source);
    let directory = format!("-L{}", sandbox.outside("").display());
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-fno-builtin", "-pthread", "-o"])
        .arg(&target)
        .arg(source)
        .arg(directory)
        .args(options)
        .status()
        .expect("cc");
    assert!(status.success(), "{name} was not compiled");
}

/// The same output and exit code with plain Python and under the profiler.
fn unharmed(sandbox: &Sandbox, code: &str, environment: &[(&str, String)]) -> String {
    let finished = [sandbox.plain(), sandbox.profiled()].map(|mut command| {
        for (name, value) in environment {
            command.env(name, value);
        }
        run(command.arg("-c").arg(code))
    });
    let [plain, profiled] = finished;
    let what = format!("{} {code}", sandbox.python.version());
    assert_eq!(
        plain.ending(),
        profiled.ending(),
        "{what}: {}",
        profiled.errors()
    );
    assert_eq!(
        plain.text(),
        profiled.text(),
        "{what}: {}",
        profiled.errors()
    );
    plain.text()
}

fn inside(sandbox: &Sandbox, name: &str) -> String {
    sandbox.inside(name).display().to_string()
}

#[test]
fn threads_with_the_smallest_stack() {
    each_python_in_each_mode(|python, mode| {
        let sandbox = Sandbox::in_mode(python, mode);
        library(&sandbox, "small_stack.c", "libsmall.so", &[]);
        let path = inside(&sandbox, "libsmall.so");
        let code = format!(
            "import ctypes\nL = ctypes.CDLL({path:?})\nprint([L.go(ctypes.c_long(n), 3) for n in (16384, 20480, 65536)])"
        );
        assert_eq!(unharmed(&sandbox, &code, &[]), "[0, 0, 0]\n");
    });
}

#[test]
fn limits_of_address_space_and_data() {
    each_python_in_each_mode(|python, mode| {
        let sandbox = Sandbox::in_mode(python, mode);
        for limit in ["RLIMIT_AS", "RLIMIT_DATA"] {
            let code = format!(
                "import os, resource\n\
                 def work(): resource.setrlimit(resource.{limit}, (600 << 20,) * 2); return len(bytearray(100 << 20))\n\
                 pid = os.fork()\n\
                 if not pid: os._exit(work() != 100 << 20)\n\
                 print(os.waitpid(pid, 0)[1], work())"
            );
            assert_eq!(unharmed(&sandbox, &code, &[]), "0 104857600\n");
        }
    });
}

#[test]
fn a_deep_bound_library_keeps_its_own_allocator() {
    each_python_in_each_mode(|python, mode| {
        let sandbox = Sandbox::in_mode(python, mode);
        library(&sandbox, "own_malloc.c", "libown.so", &[]);
        library(
            &sandbox,
            "deep_bound.c",
            "libdeep.so",
            &["-Wl,-z,lazy", "-lown"],
        );
        let code = "import ctypes, os\nprint(ctypes.CDLL('libdeep.so', mode=os.RTLD_LAZY | os.RTLD_DEEPBIND).go())";
        let path = [("LD_LIBRARY_PATH", inside(&sandbox, ""))];
        assert_eq!(unharmed(&sandbox, code, &path), "1\n");
    });
}

#[test]
fn a_deep_bound_library_from_before_tracking_keeps_its_own_allocator() {
    each_python_in_each_mode(|python, mode| {
        let sandbox = Sandbox::in_mode(python, mode);
        library(&sandbox, "own_malloc.c", "libown.so", &[]);
        library(
            &sandbox,
            "deep_bound.c",
            "libdeep.so",
            &["-Wl,-z,lazy", "-lown"],
        );
        let code = "import ctypes, os, stretch\n\
                    deep = ctypes.CDLL('libdeep.so', mode=os.RTLD_LAZY | os.RTLD_DEEPBIND)\n\
                    found = [stretch.start('0.tide'), deep.go(), stretch.stop(), deep.go()]\n\
                    print(found + [stretch.start('1.tide'), deep.go(), stretch.stop()])";
        let mut command = sandbox.tracking_itself(&Stretches::of(mode, 2));
        command.env("LD_LIBRARY_PATH", inside(&sandbox, ""));
        let finished = run(command.arg("-c").arg(code));
        let name = format!("Python {}", python.version());
        finished.expect_success(&name);
        assert_eq!(finished.text(), "[0, 1, 0, 2, 0, 3, 0]\n", "{name}");
    });
}

#[test]
fn a_plugin_is_found_where_the_loader_finds_it() {
    each_python_in_each_mode(|python, mode| {
        let sandbox = Sandbox::in_mode(python, mode);
        library(
            &sandbox,
            "plugin.c",
            "own/libplugin.so",
            &["-DWHICH=\"own\""],
        );
        library(
            &sandbox,
            "plugin.c",
            "other/libplugin.so",
            &["-DWHICH=\"other\""],
        );
        library(
            &sandbox,
            "caller.c",
            "libcaller.so",
            &["-Wl,--enable-new-dtags,-rpath,$ORIGIN/own", "-ldl"],
        );
        let path = inside(&sandbox, "libcaller.so");
        let code = format!(
            "import ctypes\nL = ctypes.CDLL({path:?})\nL.go.restype = ctypes.c_char_p\nprint(L.go().decode())"
        );
        assert_eq!(unharmed(&sandbox, &code, &[]), "own\n");
        let capture = Capture::read(&sandbox.capture());
        // Other blocks of the same call may be in the same cell.
        let block = capture
            .sum(|cell| cell.allocator == "MALLOC" && cell.counters.allocated_bytes >= 70_000_001);
        assert!(
            block.allocated_count >= 1,
            "the caller's slots were patched"
        );
        let path = [("LD_LIBRARY_PATH", inside(&sandbox, "other"))];
        assert_eq!(unharmed(&sandbox, &code, &path), "other\n");
    });
}

#[test]
fn a_daemon_that_closes_everything_gets_the_low_descriptors() {
    each_python_in_each_mode(|python, mode| {
        let sandbox = Sandbox::in_mode(python, mode);
        let out = inside(&sandbox, "out");
        let code = format!(
            "import os\nos.closerange(0, 2048)\nspace = {{}}\n\
             for i in range(3000): exec(f'def f{{i}}():\\n    return bytearray(2000)\\nx = f{{i}}()\\n', space)\n\
             first = os.open('/dev/null', os.O_RDWR)\nsecond = os.open({out:?}, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)\n\
             os.write(second, f'{{first}} {{second}}'.encode())"
        );
        unharmed(&sandbox, &code, &[]);
        let written = std::fs::read_to_string(sandbox.outside("out")).expect("out");
        assert_eq!(written, "0 1");
        Capture::read(&sandbox.capture())
            .consistency()
            .expect("consistent");
    });
}

#[test]
fn the_agent_needs_nothing_but_the_c_library() {
    // Another library, the system's libgcc_s above all, would be loaded before the program's own.
    each_python_in_each_mode(|python, mode| {
        let sandbox = Sandbox::in_mode(python, mode);
        let code = "print(any('libgcc_s' in line for line in open('/proc/self/maps')))";
        unharmed(&sandbox, code, &[]);
    });
}
