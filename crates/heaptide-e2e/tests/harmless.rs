//! The program must not notice: what it sees, what it prints, how it ends, with and without us,
//! also where the profiler itself is in trouble.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process::{Command, Stdio};

use heaptide_e2e::{
    Capture, Finished, Mode, Sandbox, TinyDisk, check_against_truth, each_python,
    each_python_in_each_mode, limit_file_size, not_tested, run, spawn,
};

/// The same words with plain Python and under the profiler, with the same stdin.
fn both(sandbox: &Sandbox, words: &[OsString], command: bool) -> (Finished, Finished) {
    let start = |mut command: Command| {
        let mut child = spawn(command.args(words).stdin(Stdio::piped()));
        child
            .stdin()
            .expect("piped")
            .write_all("stdin: \u{e4}\n".as_bytes())
            .expect("write");
        child.finish()
    };
    let profiled = if command {
        let mut command = sandbox.command(sandbox.heaptide());
        command
            .args(["run", "--aggregate", "-q", "-f", "-o"])
            .arg(sandbox.inside("capture.tide"));
        command.arg("--").arg(&sandbox.python.path);
        command
    } else {
        sandbox.profiled()
    };
    (start(sandbox.plain()), start(profiled))
}

#[test]
fn the_program_sees_itself() {
    each_python_in_each_mode(|python, mode| {
        let sandbox = Sandbox::in_mode(python, mode);
        let code = std::fs::read_to_string(sandbox.outside("mirror.py")).unwrap();
        let script: OsString = sandbox.inside("mirror.py").into();
        let ways: [(&str, Vec<OsString>, bool); 6] = [
            (
                "script",
                vec![
                    script.clone(),
                    "-x".into(),
                    "--aggregate".into(),
                    "\u{e4}".into(),
                ],
                false,
            ),
            (
                "relative script",
                vec!["mirror.py".into(), "--".into(), "-m".into()],
                false,
            ),
            (
                "module",
                vec![
                    "-m".into(),
                    "mirror".into(),
                    "-q".into(),
                    "--".into(),
                    "-c".into(),
                ],
                false,
            ),
            (
                "code",
                vec!["-c".into(), code.into(), "-f".into(), "a b".into()],
                false,
            ),
            (
                "command",
                vec![
                    "-B".into(),
                    "-X".into(),
                    "faulthandler".into(),
                    script.clone(),
                    "-m".into(),
                ],
                true,
            ),
            (
                "command, isolated",
                vec!["-I".into(), script, "x".into()],
                true,
            ),
        ];
        for (name, words, command) in ways {
            let (plain, profiled) = both(&sandbox, &words, command);
            assert_eq!(plain.ending(), 1, "{name}, plain: {}", plain.errors());
            assert!(
                plain.text().contains("\"argv\""),
                "{name}: {}",
                plain.errors()
            );
            for (line, other) in plain.text().lines().zip(profiled.text().lines()) {
                assert_eq!(line, other, "{name}: stdout");
            }
            assert_eq!(profiled.text(), plain.text(), "{name}: stdout");
            assert_eq!(profiled.errors(), plain.errors(), "{name}: stderr");
            assert_eq!(profiled.ending(), plain.ending(), "{name}: exit code");
            assert_eq!(
                Capture::read(&sandbox.capture()).status(),
                "finished",
                "{name}"
            );
        }
    });
}

#[test]
fn observers_are_undisturbed() {
    each_python_in_each_mode(|python, mode| {
        let sandbox = Sandbox::in_mode(python, mode);
        let program: OsString = sandbox.inside("observers.py").into();
        let (plain, profiled) = both(&sandbox, &[program], false);
        plain.expect_success("plain");
        assert_eq!(profiled.text(), plain.text());
        assert_eq!(profiled.errors(), plain.errors());
        let capture = Capture::read(&sandbox.capture());
        // A profile function of the program's own takes no stack away from us
        let callee = capture.sum(|cell| {
            let names: Vec<&str> = cell
                .stack
                .iter()
                .map(|frame| frame.function.as_str())
                .collect();
            cell.allocator == "MALLOC"
                && names.len() >= 4
                && names[..3] == ["callee", "<genexpr>", "work"]
        });
        assert!(callee.allocated_count >= 20 * 4, "{callee:?}");
    });
}

#[test]
fn children_are_nobody_s_business() {
    each_python_in_each_mode(|python, mode| {
        let sandbox = Sandbox::in_mode(python, mode);
        check_against_truth(&sandbox, OsStr::new("children.py"), &[]);
        let captures = std::fs::read_dir(sandbox.outside("")).unwrap();
        let count = captures
            .filter(|entry| entry.as_ref().unwrap().path().extension() == Some(OsStr::new("tide")))
            .count();
        assert_eq!(count, 1, "children made captures");
    });
}

#[test]
fn libraries_come_and_go() {
    each_python(|python| {
        check_against_truth(&Sandbox::new(python), OsStr::new("libraries.py"), &[]);
    });
}

/// What the program printed and how it ended must be as without us.
#[track_caller]
fn unharmed(name: &str, finished: &Finished) {
    assert_eq!(
        finished.text(),
        "before the end\n",
        "{name}: {}",
        finished.errors()
    );
    assert_eq!(finished.ending(), 3, "{name}: {}", finished.errors());
}

#[test]
fn trouble_before_the_start_is_an_error_and_nothing_runs() {
    each_python_in_each_mode(|python, mode| {
        let sandbox = Sandbox::in_mode(python, mode);
        let start = |output: &OsStr, force: bool| {
            let mut command = sandbox.command(sandbox.heaptide());
            command.args(["run", "--aggregate", "-q", "-o"]).arg(output);
            command
                .args(force.then_some("-f"))
                .arg("--python")
                .arg(&sandbox.python.path);
            run(command.arg(sandbox.inside("deaths.py")).arg("sys.exit"))
        };
        let refused = |name: &str, finished: &Finished| {
            assert_eq!(finished.text(), "", "{name}: the program ran");
            assert_eq!(finished.ending(), 1, "{name}: {}", finished.errors());
            assert!(
                finished.errors().contains("error"),
                "{name}: {}",
                finished.errors()
            );
        };
        // An existing file, with and without -f
        std::fs::write(sandbox.outside("there.tide"), "precious").unwrap();
        let there = sandbox.inside("there.tide");
        let finished = start(there.as_os_str(), false);
        refused("an existing file", &finished);
        assert_eq!(
            std::fs::read(sandbox.outside("there.tide")).unwrap(),
            b"precious"
        );
        assert!(finished.errors().contains("-f"), "{}", finished.errors());
        unharmed("-f", &start(there.as_os_str(), true));
        assert_eq!(
            Capture::read(&sandbox.outside("there.tide")).status(),
            "finished"
        );
        // No such directory; a directory that cannot be written to
        refused(
            "no directory",
            &start(sandbox.inside("none").join("x.tide").as_os_str(), false),
        );
        refused("/proc", &start(OsStr::new("/proc/x.tide"), false));
        refused(
            "a file as directory",
            &start(sandbox.inside("known.py").join("x").as_os_str(), true),
        );
        match TinyDisk::mount(sandbox.outside("disk"), "size=2m") {
            None => not_tested("a read-only file system: mounts are not allowed here"),
            Some(disk) => {
                std::fs::write(sandbox.outside("disk").join("old.tide"), "precious").unwrap();
                disk.remount("ro");
                let output = sandbox.inside("disk");
                refused(
                    "a read-only disk",
                    &start(output.join("new.tide").as_os_str(), false),
                );
                refused(
                    "a read-only file",
                    &start(output.join("old.tide").as_os_str(), true),
                );
            }
        }
    });
}

#[test]
fn a_full_disk_ends_the_tracking_not_the_program() {
    each_python_in_each_mode(|python, mode| {
        let sandbox = Sandbox::in_mode(python, mode);
        let Some(disk) = TinyDisk::mount(sandbox.outside("disk"), "size=2m") else {
            return not_tested("a full disk: mounts are not allowed here");
        };
        let rooms = [0_usize, 64 << 10, 512 << 10, 1 << 20];
        let modes: [&[&str]; 2] = [&["--aggregate"], &[]];
        for (left, mode) in rooms
            .into_iter()
            .flat_map(|left| modes.map(|mode| (left, mode)))
        {
            let ballast = sandbox.outside("disk").join("ballast");
            std::fs::write(&ballast, vec![1; (2 << 20) - left]).unwrap();
            let mut command = sandbox.command(sandbox.heaptide());
            command
                .arg("run")
                .args(mode)
                .args(["-q", "-f", "-o"])
                .arg(sandbox.inside("disk").join("capture.tide"))
                .arg("--python")
                .arg(&sandbox.python.path)
                .arg(sandbox.inside("fib_stacks.py"))
                .arg("16");
            let finished = run(&mut command);
            let errors = finished.errors();
            let path = sandbox.outside("disk").join("capture.tide");
            if finished.ending() == 0 {
                let capture = Capture::read(&path);
                assert!(
                    capture.status() == "finished" || capture.status() == "stopped",
                    "{left} bytes left: {}",
                    capture.lifecycle
                );
                if capture.status() == "stopped" {
                    assert!(errors.contains("no space"), "{left} bytes left: {errors}");
                }
            } else {
                // It could not even begin, and says so
                assert_eq!(finished.ending(), 1, "{left} bytes left: {errors}");
                assert!(
                    errors.contains("error") && errors.to_lowercase().contains("space"),
                    "{left} bytes left: {errors}"
                );
            }
            let _ = std::fs::remove_file(path);
            std::fs::remove_file(ballast).unwrap();
        }
        drop(disk);
    });
}

#[test]
fn a_limit_on_file_sizes_ends_the_tracking_not_the_program() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let limits = [4096, 300 << 10, 1 << 20];
        for (limit, mode) in limits
            .into_iter()
            .flat_map(|limit| Mode::BOTH.map(|mode| (limit, mode)))
        {
            let _ = std::fs::remove_file(sandbox.capture());
            let mut command = sandbox.profiled_in(mode);
            command.arg(sandbox.inside("fib_stacks.py")).arg("16");
            let finished = run(limit_file_size(&mut command, limit));
            let errors = finished.errors();
            if finished.ending() == 0 && !sandbox.capture().exists() {
                assert!(
                    errors.contains("nothing was recorded"),
                    "limit {limit}: {errors}"
                );
            } else if finished.ending() == 0 {
                let capture = Capture::read(&sandbox.capture());
                assert!(std::fs::metadata(sandbox.capture()).unwrap().len() <= limit);
                assert!(
                    matches!(capture.status(), "stopped" | "finished"),
                    "limit {limit}: {}",
                    capture.lifecycle
                );
            } else {
                assert_eq!(finished.ending(), 1, "limit {limit}: {errors}");
                assert!(errors.contains("error"), "limit {limit}: {errors}");
            }
        }
    });
}

/// What a sandbox refuses is not for want of room.
#[test]
fn a_sandbox_that_refuses_growth_ends_the_tracking_not_the_program() {
    each_python_in_each_mode(|python, mode| {
        let sandbox = Sandbox::in_mode(python, mode);
        let forbidding = |calls: &[&str]| {
            let mut command = sandbox.profiled();
            command.arg(sandbox.inside("refused.py")).arg("16");
            run(command.args(calls))
        };
        let finished = forbidding(&["fallocate"]);
        if finished.ending() == 77 {
            return not_tested("system calls that are refused: there is no seccomp here");
        }
        // The zeroes can be written.
        assert_eq!((finished.ending(), finished.errors().as_str()), (0, ""));
        assert_eq!(Capture::read(&sandbox.capture()).status(), "finished");

        let finished = forbidding(&["fallocate", "pwrite64"]);
        let errors = finished.errors();
        assert_eq!(finished.ending(), 0, "{errors}");
        assert_eq!(Capture::read(&sandbox.capture()).status(), "stopped");
        let expected = "the capture could not grow (Operation not permitted)";
        assert!(errors.contains(expected), "{errors}");
    });
}

/// The debug hooks of Python's allocators look at every block, our own included.
#[test]
fn debug_allocators_find_nothing_wrong() {
    each_python_in_each_mode(|python, mode| {
        let sandbox = Sandbox::in_mode(python, mode);
        for &allocator in python.allocators().iter().chain(&["debug", "default"]) {
            let mut command = sandbox.profiled();
            command.env("PYTHONMALLOC", allocator);
            let finished = run(command.arg(sandbox.inside("deaths.py")).arg("sys.exit"));
            let first: String = finished.errors().lines().take(3).collect();
            assert_eq!(
                (finished.ending(), first.as_str()),
                (3, ""),
                "PYTHONMALLOC={allocator}"
            );
        }
        let mut command = sandbox.profiled();
        command.env("PYTHONDEVMODE", "1");
        unharmed(
            "PYTHONDEVMODE=1",
            &run(command.arg(sandbox.inside("deaths.py")).arg("sys.exit")),
        );
    });
}
