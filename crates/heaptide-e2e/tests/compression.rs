//! Captures that were made small after a clean end say what they said before, to the last figure.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use heaptide_capture::{Capture, PlacedEvent};
use heaptide_e2e::{
    Sandbox, TinyDisk, each, each_python, every_event, heaptide, kill, not_tested, pythons_of, run,
};
use heaptide_format::SegmentKind;

/// Every report that there is, as text that does not name the file.
fn reports(capture: &Path) -> Vec<(String, String)> {
    let name = capture.display().to_string();
    let commands: [&[&str]; 10] = [
        &["stats", "--json"],
        &["stats"],
        &["parse", "--json"],
        &["tree", "--json"],
        &["tree", "--leaks"],
        &["summary", "--json"],
        &["summary", "--temporary-allocations"],
        &["table", "--json"],
        &["transform", "csv", "-o", "-"],
        &["export", "collapsed", "-o", "-"],
    ];
    commands
        .iter()
        .map(|words| {
            let finished = run(Command::new(heaptide()).args(*words).arg(capture));
            finished.expect_success(&words.join(" "));
            (words.join(" "), finished.text().replace(&name, "CAPTURE"))
        })
        .collect()
}

fn events(capture: &Capture) -> Vec<PlacedEvent> {
    capture.events.in_order().collect()
}

fn holds(capture: &Capture, kind: SegmentKind) -> bool {
    let mut segments = capture.segments.iter();
    segments.any(|segment| segment.kind == Some(kind) && segment.readable > 0)
}

/// The original is kept by a second name, so both are of the very same run.
#[test]
fn every_report_is_the_same_before_and_after() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let mut command = sandbox.profiled();
        command.arg("-c").arg(format!(
            "import os, json\nos.link({:?}, {:?})\n\
                 kept = [bytearray(600 + n % 5000) for n in range(20000)]\n\
                 text = json.dumps([[n] * 5 for n in range(20000)])\ndel kept[::3]\nos._exit(0)",
            sandbox.inside("capture.tide"),
            sandbox.inside("original.tide"),
        ));
        run(&mut command).expect_success("the program");
        let (original, compressed) = (sandbox.outside("original.tide"), sandbox.capture());
        let (before, after) = (
            Capture::open(&original).unwrap(),
            Capture::open(&compressed).unwrap(),
        );
        assert!(holds(&before, SegmentKind::Scratch));
        assert!(!holds(&after, SegmentKind::Scratch) && !holds(&after, SegmentKind::Events));
        assert_eq!(holds(&after, SegmentKind::PackedEvents), every_event());
        assert_eq!((before.warnings.len(), after.warnings.len()), (0, 0));
        assert!(before.nodes.iter().eq(after.nodes.iter()));
        assert!(before.cells.iter().eq(after.cells.iter()));
        assert!(events(&before) == events(&after), "events differ");
        assert!(
            after.file_bytes * 2 < before.file_bytes,
            "{}",
            after.file_bytes
        );
        let (before, after) = (reports(&original), reports(&compressed));
        for ((name, before), (_, after)) in before.iter().zip(&after) {
            let of_the_program = |text: &str| -> Vec<String> {
                let lines = text.lines().filter(|line| !of_the_file(line));
                lines.map(str::to_owned).collect()
            };
            let (before, after) = (of_the_program(before), of_the_program(after));
            let differs = before
                .iter()
                .zip(&after)
                .find(|(before, after)| before != after);
            assert_eq!(differs, None, "{name}");
            assert_eq!(before.len(), after.len(), "{name}");
            assert!(before.len() > 5, "{name}: {before:?}");
        }
    });
}

/// Lines that tell of the file and not of the program.
fn of_the_file(line: &str) -> bool {
    [
        "allocated_end",
        "The profiler",
        "capture_bytes",
        "original.tide",
        "capture.tide",
        "file_bytes",
        "file_size",
        "segment",
    ]
    .iter()
    .any(|word| line.contains(word))
}

#[test]
fn it_can_be_left_out_and_a_trivial_capture_is_small() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let sizes = |option: &str| {
            let mut command = sandbox.command(sandbox.heaptide());
            command
                .args(["run", option, "-q", "-f"])
                .args((!every_event()).then_some("--aggregate"))
                .arg("--python")
                .arg(&sandbox.python.path)
                .arg("-o")
                .arg(sandbox.inside("capture.tide"))
                .args(["-c", "x = bytearray(100000)"]);
            run(&mut command).expect_success(option);
            let file = std::fs::metadata(sandbox.capture()).unwrap();
            (file.len(), file.blocks() * 512)
        };
        let (left, on_disk) = sizes("--no-compress");
        let (compressed, _) = sizes("--compress-on-exit");
        assert!(left > 300_000, "{left}");
        // Working memory and unused room were given back.
        assert!(on_disk < left - 150_000, "{on_disk} of {left}");
        assert!(compressed < 150_000, "{compressed}");
    });
}

#[test]
fn a_capture_that_the_program_takes_away_is_said_to_be_gone() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        for option in ["--no-compress", "--compress-on-exit"] {
            let mut command = sandbox.command(sandbox.heaptide());
            command
                .args(["run", option, "-f", "--python"])
                .arg(&sandbox.python.path)
                .arg("-o")
                .arg(sandbox.inside("capture.tide"))
                .arg("-c")
                .arg(format!(
                    "import os; os.unlink({:?})",
                    sandbox.inside("capture.tide")
                ));
            let done = run(&mut command);
            done.expect_success(option);
            let text = done.errors();
            assert!(text.contains("the program has taken it away"), "{text}");
            assert!(!text.contains("could not be compressed"), "{text}");
            assert!(!sandbox.capture().exists());
        }
    });
}

/// Does the supervisor have a file open in `directory` that has no name yet?
fn compresses(supervisor: u32, directory: &Path) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{supervisor}/fd"));
    descriptors.into_iter().flatten().flatten().any(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| {
            target.starts_with(directory) && target.to_string_lossy().ends_with(" (deleted)")
        })
    })
}

/// Whatever instant the supervisor dies at while it compresses, a whole capture is there.
#[test]
fn the_supervisor_is_killed_while_it_compresses() {
    // How the capture was made matters in nothing
    each(pythons_of(&[12]), |python| {
        let sandbox = Sandbox::new(python);
        let code = "kept = [bytearray(600 + n % 5000) for n in range(60000)]\n\
                    for n in range(150000): bytearray(700 + n % 900)\n";
        let (mut before, mut after) = (0, 0);
        let mut expected = None;
        for attempt in 0..10 {
            // Mode "all" always: with counters alone it takes no time at all.
            let mut command = sandbox.command(sandbox.heaptide());
            command
                .args(["run", "-q", "-f", "-o"])
                .arg(sandbox.inside("capture.tide"))
                .arg("--python")
                .arg(&sandbox.python.path)
                .args(["-c", code])
                .stdin(Stdio::null());
            let mut child = command.stderr(Stdio::null()).spawn().expect("heaptide");
            while !compresses(child.id(), &sandbox.outside("")) {
                assert!(
                    child.try_wait().expect("wait").is_none(),
                    "it never compressed"
                );
            }
            // The instant to die at: nothing is waited for here.
            std::thread::sleep(Duration::from_micros(attempt * 4001));
            kill(i32::try_from(child.id()).expect("a pid"), libc::SIGKILL);
            child.wait().expect("wait");
            let capture = Capture::open(sandbox.capture()).expect("a capture");
            assert!(capture.warnings.is_empty(), "{:?}", capture.warnings);
            if holds(&capture, SegmentKind::Scratch) {
                before += 1;
            } else {
                after += 1;
            }
            let finished = heaptide_e2e::Capture::read(&sandbox.capture());
            finished.consistency().expect("consistent");
            assert_eq!(finished.status(), "finished");
            let seen = finished.sum(|cell| {
                cell.allocator == "MALLOC"
                    && cell
                        .stack
                        .first()
                        .is_some_and(|frame| frame.file == "<string>")
                    && cell.counters.allocated_bytes > 1_000_000
            });
            let seen = (seen.allocated_count, seen.allocated_bytes);
            assert_eq!(*expected.get_or_insert(seen), seen, "attempt {attempt}");
        }
        println!("{before} originals, {after} compressed");
        let names = std::fs::read_dir(sandbox.outside("")).unwrap().flatten();
        let left = names.filter(|entry| entry.file_name().to_string_lossy().ends_with(".partial"));
        // An instant in which the new file has a name of its own exists; to die in it twice would be odd.
        assert!(left.count() < 2);
    });
}

/// On a disk without room for a second file the first one stays, and a line says so.
#[test]
fn no_space_for_a_second_file() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let Some(_disk) = TinyDisk::mount(sandbox.outside("disk"), "size=16m") else {
            return not_tested("a full disk: mounts are not allowed here");
        };
        let ballast = sandbox.inside("disk").join("ballast");
        let mut command = sandbox.command(sandbox.heaptide());
        command
            .args(["run", "-q", "-f"])
            .args((!every_event()).then_some("--aggregate"))
            .arg("--python")
            .arg(&sandbox.python.path)
            .arg("-o")
            .arg(sandbox.inside("disk").join("capture.tide"))
            .arg("-c")
            .arg(format!(
                "kept = [bytearray(600 + n % 5000) for n in range(20000)]\n\
                 with open({ballast:?}, 'wb', 0) as ballast:\n    try:\n        while ballast.write(bytes(4096)): pass\n    except OSError: pass"
            ));
        let finished = run(&mut command);
        finished.expect_success("the program");
        let errors = finished.errors();
        let path = sandbox.outside("disk").join("capture.tide");
        let capture = Capture::open(&path).unwrap();
        assert!(holds(&capture, SegmentKind::Scratch), "{errors}");
        let told = errors.contains("could not be compressed") && errors.contains("No space");
        // With the disk that full tracking may have stopped before, which is said instead.
        assert!(
            told || errors.contains("tracking stopped early"),
            "{errors}"
        );
        assert_eq!(
            std::fs::read_dir(sandbox.outside("disk")).unwrap().count(),
            2
        );
    });
}
