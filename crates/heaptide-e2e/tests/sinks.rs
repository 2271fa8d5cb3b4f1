//! Captures that go nowhere, and captures on file systems that cannot be mapped.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use heaptide_e2e::{
    Capture, Counters, Mode, Page, Sandbox, UnmappableDisk, each, each_python, kill, kill_stranger,
    modes, not_tested, pythons_of, run, stats,
};

/// Prints the directory of the capture, its length and the bytes of its blocks, as the process has it mapped.
const ITS_OWN_CAPTURE: &str = "import os\n\
    maps = [line.split(None, 5) for line in open('/proc/self/maps')]\n\
    name = next(m[5].strip() for m in maps if len(m) > 5 and '/heaptide-' in m[5] and m[1] == 'rw-s')\n\
    found = os.stat(name)\n\
    print(os.path.dirname(name), found.st_size, found.st_blocks * 512)\n";

fn start(mode: Mode, sandbox: &Sandbox, options: &[&str], output: &Path) -> Command {
    let mut command = sandbox.command(sandbox.heaptide());
    command
        .arg("run")
        .args((mode == Mode::Aggregated).then_some("--aggregate"))
        .args(options)
        .arg("--python")
        .arg(&sandbox.python.path)
        .arg("-o")
        .arg(output);
    command
}

/// The directory in memory in which a process has its capture mapped.
fn held_in(pid: u64) -> PathBuf {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("a process");
    let mapped = maps.lines().filter(|line| line.contains("rw-s"));
    let mut paths = mapped.filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let path = paths
        .find(|path| path.ends_with("x.tide"))
        .expect("a capture");
    path.parent().expect("a directory").to_owned()
}

/// Warnings but for that of events in flight, which a kill may leave.
fn damage(capture: &Capture) -> Vec<String> {
    let warnings = capture.warnings.iter().map(ToString::to_string);
    warnings
        .filter(|text| !text.contains("in_flight"))
        .collect()
}

/// What [`ITS_OWN_CAPTURE`] printed, whose directory must be gone.
fn length_and_blocks(text: &str) -> Vec<u64> {
    let (directory, rest) = text.split_once(' ').expect("a directory and numbers");
    assert!(!Path::new(directory).exists(), "{directory} is still there");
    numbers(rest)
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace()
        .map(|word| word.parse().expect("a number"))
        .collect()
}

#[test]
fn a_null_device_keeps_nothing_and_takes_no_room() {
    each_python(|python| {
        for mode in modes() {
            let sandbox = Sandbox::new(python);
            let files = |sandbox: &Sandbox| std::fs::read_dir(sandbox.outside("")).unwrap().count();
            let before = files(&sandbox);
            let storm = "for n in range(300000): bytearray(700 + n % 900)\n";
            let code = format!("{storm}{ITS_OWN_CAPTURE}raise SystemExit(7)");
            let mut command = start(mode, &sandbox, &[], Path::new("/dev/null"));
            let finished = run(command.args(["-c", &code]));
            let errors = finished.errors();
            assert_eq!(finished.ending(), 7, "{errors}");
            assert!(
                errors.contains("keeping nothing") && errors.contains("nothing was kept"),
                "{errors}"
            );
            assert!(!errors.contains("next:"), "{errors}");
            let found = length_and_blocks(&finished.text());
            assert!(found[0] < 1 << 20, "{found:?}: 600,000 events were kept");
            assert_eq!(files(&sandbox), before, "{errors}");
        }
    });
}

#[test]
fn children_go_nowhere_too() {
    each(pythons_of(&[9, 12]), |python| {
        for mode in modes() {
            let sandbox = Sandbox::new(python);
            let code = "import os\n\
                for _ in range(4):\n    pid = os.fork()\n    if not pid:\n        kept = [bytearray(600 + n) for n in range(1000)]\n        os._exit(3)\n    \
                print(os.waitpid(pid, 0)[1] >> 8)\n";
            let mut command = start(
                mode,
                &sandbox,
                &["--follow-fork", "-q"],
                Path::new("/dev/null"),
            );
            let finished = run(command.args(["-c", code]));
            finished.expect_success("the program");
            assert_eq!(finished.text(), "3\n3\n3\n3\n");
            assert_eq!(finished.errors(), "");
            let names = std::fs::read_dir(sandbox.outside("")).unwrap().flatten();
            assert_eq!(
                names.filter(|entry| entry.path().ends_with("tide")).count(),
                0
            );
        }
    });
}

/// A disk for a sandbox, or a word that there is none.
fn disk(sandbox: &Sandbox) -> Option<UnmappableDisk> {
    let disk = UnmappableDisk::mount(sandbox.outside("disk"), &sandbox.python.path);
    if disk.is_none() {
        not_tested("a file system without shared mappings: FUSE mounts are not allowed here");
    }
    disk
}

/// On one interpreter: nothing here is about interpreters.
fn on_unmappable_disks(test: impl Fn(&Sandbox, Mode)) {
    each(pythons_of(&[12]), |python| {
        for mode in modes() {
            let sandbox = Sandbox::new(python);
            if let Some(_disk) = disk(&sandbox) {
                test(&sandbox, mode);
            }
        }
    });
}

#[test]
fn without_the_flag_it_is_refused_by_its_name() {
    on_unmappable_disks(|sandbox, mode| {
        let output = sandbox.inside("disk").join("x.tide");
        let finished = run(start(mode, sandbox, &[], &output).args(["-c", "print('it ran')"]));
        assert_eq!(finished.ending(), 1);
        assert_eq!(finished.text(), "", "the program must not run");
        let errors = finished.errors();
        assert!(errors.contains("--buffered-file-io"), "{errors}");
        assert_eq!(
            std::fs::read_dir(sandbox.outside("disk")).unwrap().count(),
            0
        );
        // The usual refusals, with the flag.
        std::fs::write(sandbox.outside("disk").join("x.tide"), "precious").unwrap();
        let finished = run(start(mode, sandbox, &["--buffered-file-io"], &output).args(["-c", ""]));
        assert!(
            finished.errors().contains("already exists"),
            "{}",
            finished.errors()
        );
        let finished =
            run(start(mode, sandbox, &["--buffered-file-io", "-f"], &output).args(["-c", ""]));
        finished.expect_success("with force");
        assert_eq!(
            Capture::read(&sandbox.outside("disk").join("x.tide")).status(),
            "finished"
        );
    });
}

/// What the helper counted in `leak.py` or the storm against the capture.
fn same_as_counted(capture: &Capture, page: &Page) {
    for (number, truth) in page.counters.iter().take(3).enumerate() {
        let seen: Counters = capture.sum(|cell| {
            u64::from(cell.thread_id) == truth.thread_id
                && cell
                    .stack
                    .first()
                    .is_some_and(|frame| frame.function == "first")
        });
        let most = truth.allocated_count + u64::from(truth.pending_allocation > 0);
        assert!(
            (truth.allocated_count..=most).contains(&seen.allocated_count),
            "thread {number}: {truth:?}, captured {seen:?}"
        );
    }
}

#[test]
fn everything_arrives_and_memory_is_given_back() {
    on_unmappable_disks(|sandbox, mode| {
        let output = sandbox.inside("disk").join("x.tide");
        let code = format!(
            "import time\nkept = []\n\
             for turn in range(16):\n    for n in range(150000): bytearray(700 + n * 7919 % 60013)\n    kept.append(bytearray(100001))\n\
             {ITS_OWN_CAPTURE}\
             while os.stat(name).st_blocks * 512 > 4 << 20: time.sleep(0.01)
"
        );
        for option in ["--no-compress", "--compress-on-exit"] {
            let mut command = start(
                mode,
                sandbox,
                &["--buffered-file-io", "-f", option],
                &output,
            );
            let finished = run(command.args(["-c", &code]));
            finished.expect_success("the program");
            let errors = finished.errors();
            assert!(errors.contains("not yet written is lost"), "{errors}");
            let found = length_and_blocks(&finished.text());
            if mode == Mode::All {
                assert!(found[0] > 12 << 20, "{found:?}: 4,800,000 events");
            }
            let path = sandbox.outside("disk").join("x.tide");
            let capture = Capture::read(&path);
            assert_eq!(capture.status(), "finished");
            assert_eq!(capture.warnings.len(), 0, "{:?}", capture.warnings);
            capture.consistency().expect("consistent");
            let kept = capture.sum(|cell| cell.counters.allocated_bytes == 16 * 100_002);
            assert_eq!(
                (kept.allocated_count, kept.live_count),
                (16, 16),
                "{kept:?}"
            );
            let all = capture
                .sum(|cell| cell.stack.len() == 1 && cell.counters.allocated_count == 2_400_000);
            assert_eq!(all.allocated_count, 2_400_000);
        }
    });
}

#[test]
fn the_death_of_the_program_loses_nothing() {
    on_unmappable_disks(|sandbox, mode| {
        let output = sandbox.inside("disk").join("x.tide");
        let path = sandbox.outside("disk").join("x.tide");
        for seed in 1..4 {
            let page_path = sandbox.outside("page");
            let _ = std::fs::remove_file(&page_path);
            let mut command = start(mode, sandbox, &["--buffered-file-io", "-q", "-f"], &output);
            let mut child = command
                .arg(sandbox.inside("storm.py"))
                .arg(sandbox.inside("page"))
                .args([&seed.to_string(), "0"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("heaptide");
            let mut word = [0; 6];
            let output = child.stdout.as_mut().expect("piped");
            output.read_exact(&mut word).expect("the storm begins");
            // The instant to die at: nothing is waited for here
            std::thread::sleep(Duration::from_millis(seed * 130));
            let page = Page::read(&page_path).expect("a page");
            kill_stranger(i32::try_from(page.pid).expect("a pid"));
            let status = child.wait().expect("wait");
            assert_eq!(status.signal(), Some(libc::SIGKILL));
            let capture = Capture::read(&path);
            assert_eq!(capture.status(), "died");
            assert_eq!(damage(&capture), [""; 0]);
            same_as_counted(&capture, &Page::read(&page_path).expect("a page"));
        }
    });
}

#[test]
fn it_can_be_read_while_it_runs_and_after_the_supervisor_was_killed() {
    on_unmappable_disks(|sandbox, mode| {
        let output = sandbox.inside("disk").join("x.tide");
        let path = sandbox.outside("disk").join("x.tide");
        let mut command = start(mode, sandbox, &["--buffered-file-io", "-q", "-f"], &output);
        let mut child = command
            .arg(sandbox.inside("storm.py"))
            .arg(sandbox.inside("page"))
            .args(["5", "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("heaptide");
        let mut word = [0; 6];
        let output = child.stdout.as_mut().expect("piped");
        output.read_exact(&mut word).expect("the storm begins");
        let page = Page::read(&sandbox.outside("page")).expect("a page");
        let directory = held_in(page.pid);
        let mut before = 0;
        let mut looks = 0;
        // What has arrived by the first looks may be nothing yet.
        let patience = Instant::now() + Duration::from_secs(30);
        while looks < 10 || before == 0 {
            let now = stats(&path);
            let total = now["total_num_allocations"].as_u64().expect("a number");
            assert!(total >= before, "{before}, then {total}");
            assert_eq!(now["heaptide"]["status"]["state"], "running");
            before = total;
            looks += 1;
            assert!(before > 0 || Instant::now() < patience, "nothing arrives");
        }
        kill(i32::try_from(child.id()).expect("a pid"), libc::SIGKILL);
        child.wait().expect("wait");
        let capture = Capture::read(&path);
        assert_eq!(damage(&capture), [""; 0]);
        kill_stranger(i32::try_from(page.pid).expect("a pid"));
        // What nobody is left to remove.
        std::fs::remove_dir_all(directory).expect("the directory in memory");
    });
}

#[test]
fn children_arrive_too() {
    on_unmappable_disks(|sandbox, mode| {
        let output = sandbox.inside("disk").join("x.tide");
        let code = "import os, sys\n\
            for number in range(5):\n    pid = os.fork()\n    if not pid:\n        kept = [bytearray(50001) for _ in range(100 + number)]\n        os._exit(0)\n    \
            os.waitpid(pid, 0)\n    print(pid)\n";
        let options = ["--buffered-file-io", "--follow-fork", "-q"];
        let finished = run(start(mode, sandbox, &options, &output).args(["-c", code]));
        finished.expect_success("the program");
        let pids = numbers(&finished.text());
        assert_eq!(
            std::fs::read_dir(sandbox.outside("disk")).unwrap().count(),
            6
        );
        for (number, pid) in (0..).zip(pids) {
            let capture = Capture::read(&sandbox.outside("disk").join(format!("x.tide.{pid}")));
            assert_eq!(capture.warnings.len(), 0, "{:?}", capture.warnings);
            let kept = capture.sum(|cell| cell.counters.allocated_bytes == (100 + number) * 50_002);
            assert_eq!(kept.live_count, 100 + number as i64, "{number}");
        }
    });
}

#[test]
fn a_full_disk_ends_the_capture_not_the_program() {
    each(pythons_of(&[12]), |python| {
        for mode in modes() {
            let sandbox = Sandbox::new(python);
            let place = sandbox.outside("disk");
            let Some(_disk) = heaptide_e2e::TinyDisk::mount(place.clone(), "size=1m") else {
                return not_tested("a full disk: mounts are not allowed here");
            };
            let mut ballast = std::fs::File::create(place.join("ballast")).unwrap();
            ballast.write_all(&vec![1; 960 << 10]).unwrap();
            let output = sandbox.inside("disk").join("x.tide");
            let mut command = start(mode, &sandbox, &["--buffered-file-io"], &output);
            let finished = run(command.arg(sandbox.inside("fib_stacks.py")).arg("18"));
            finished.expect_success("the program");
            let errors = finished.errors();
            assert!(errors.contains("could not be written any more"), "{errors}");
            assert!(errors.contains("No space"), "{errors}");
            let capture = Capture::read(&place.join("x.tide"));
            assert_eq!(capture.status(), "stopped", "{}", capture.lifecycle);
        }
    });
}
