//! The command line as users and scripts meet it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use heaptide_testkit::fixtures;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(
            directory.path().join("heaptide-app.tide"),
            fixtures::killed_service().build(),
        )
        .expect("the capture can be written");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        heaptide(self.directory.path())
            .args(arguments)
            .output()
            .expect("heaptide starts")
    }
}

fn heaptide(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heaptide"));
    command
        .current_dir(directory)
        .env_clear()
        .env("LC_ALL", "C.UTF-8");
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("stdout is UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("stderr is UTF-8")
}

const STATUS: &str = "heaptide: heaptide-app.tide: killed by SIGKILL (the OOM killer, memory cgroup limit 100 MiB)\n";

#[test]
fn without_a_command_help_goes_to_stderr() {
    let output = Place::new().run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("Usage: heaptide"));
}

#[test]
fn wrong_usage_is_two_and_failure_is_one() {
    let place = Place::new();
    assert_eq!(place.run(&["stats"]).status.code(), Some(2));
    assert_eq!(
        place
            .run(&["stats", "-n", "0", "heaptide-app.tide"])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(
        place
            .run(&["tree", "--focus", "(", "heaptide-app.tide"])
            .status
            .code(),
        Some(2)
    );
    let missing = place.run(&["stats", "no.tide"]);
    assert_eq!(missing.status.code(), Some(1));
    let expected = "heaptide: error: cannot read no.tide\n  no.tide: cannot be opened: No such file or directory \
                    (os error 2)\n  check the path and its permissions\n";
    assert_eq!(stderr(&missing), expected);
}

#[test]
fn what_is_no_script_is_refused_before_anything_is_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &[u8]| {
        std::fs::write(directory.path().join(name), text).expect("it can be written");
    };
    write("program", b"\x7fELF\x02\x01\x01\0");
    write("start.sh", b"#!/bin/sh\nexec python3 app.py\n");
    std::fs::create_dir(directory.path().join("package")).expect("a directory");
    for (words, code, what, hint) in [
        (
            "sh x.sh",
            2,
            "can't open file 'sh': No such file or directory",
            "a command goes after dashes: heaptide run -o x.tide -- sh x.sh",
        ),
        (
            "./program x",
            2,
            "'./program' is no Python script: it is a program in machine code (ELF)",
            "give the script that it is loaded by",
        ),
        (
            "start.sh x",
            2,
            "'start.sh' is no Python script: it is a script for /bin/sh",
            "run it as a command: heaptide run -o x.tide -- /bin/sh ./start.sh x",
        ),
        (
            "package",
            1,
            "can't find '__main__' module in 'package'",
            "a directory is run by its __main__.py; a package by -m, from the directory above it",
        ),
        (
            "nothing.py",
            1,
            "can't open file 'nothing.py': No such file or directory",
            "check the path: it is relative to the directory that heaptide is run in",
        ),
    ] {
        let output = heaptide(directory.path())
            .env("PATH", "/bin:/usr/bin")
            .args(["run", "-o", "x.tide"])
            .args(words.split(' '))
            .output()
            .expect("heaptide starts");
        let expected = format!("heaptide: error: {what}\n  {hint}\n");
        assert_eq!(stderr(&output), expected, "{words}");
        assert_eq!(output.status.code(), Some(code), "{words}");
        assert_eq!(stdout(&output), "", "{words}");
        assert!(!directory.path().join("x.tide").exists(), "{words}");
    }
}

#[test]
fn stdout_has_data_and_stderr_the_state() {
    let place = Place::new();
    let json = |arguments: &[&str]| {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(stderr(&output), STATUS);
        stdout(&output)
    };
    let whole =
        |text: String| serde_json::from_str::<serde_json::Value>(&text).expect("stdout is JSON");
    let stats = whole(json(&["stats", "--json", "heaptide-app.tide"]));
    assert_eq!(stats["schema_version"], 1);
    assert_eq!(stats["total_num_allocations"], 112);
    assert_eq!(stats["metadata"]["peak_memory"], 77_595_648);
    assert_eq!(
        stats["top_allocations_by_size"][0]["location"],
        "load_table:/srv/tables.py:31"
    );
    assert_eq!(stats["heaptide"]["status"]["state"], "died");
    let summary = whole(json(&["summary", "--json", "--leaks", "heaptide-app.tide"]));
    assert_eq!(summary["metric"], "live");
    for command in ["parse", "tree", "flamegraph"] {
        let lines = json(&[command, "--json", "heaptide-app.tide"]);
        assert!(lines.lines().count() > 3);
        lines
            .lines()
            .for_each(|line| assert!(whole(line.to_owned()).is_object()));
    }
}

#[test]
fn cells_of_parse_carry_the_ground_truth() {
    let output = Place::new().run(&["parse", "--json", "heaptide-app.tide"]);
    let text = stdout(&output);
    let records = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let cells: Vec<_> = records
        .filter(|record| record["record"] == "cell")
        .collect();
    assert_eq!(cells.len(), 5);
    let cached = cells
        .iter()
        .find(|cell| cell["thread_name"] == "worker-1" && cell["stack"][0].is_object())
        .unwrap();
    assert_eq!(cached["stack"][0]["function"], "put");
    assert_eq!(cached["stack"][0]["qualified_name"], "Cache.put");
    assert_eq!(cached["stack"][2]["line"], 3);
    assert_eq!(cached["allocator"], "MALLOC");
    assert_eq!(
        (&cached["allocated_count"], &cached["live_count"]),
        (&8.into(), &6.into())
    );
}

#[test]
fn pages_are_named_after_the_capture_and_not_overwritten() {
    let place = Place::new();
    let page = place.path("heaptide-flamegraph-app.html");
    let first = place.run(&["flamegraph", "heaptide-app.tide"]);
    assert_eq!(
        stderr(&first),
        format!("{STATUS}Wrote heaptide-flamegraph-app.html\n")
    );
    assert_eq!(stdout(&first), "");
    std::fs::write(&page, "mine").unwrap();
    let again = place.run(&["flamegraph", "heaptide-app.tide"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("-f (--force)"));
    assert_eq!(std::fs::read_to_string(&page).unwrap(), "mine");
    assert!(
        place
            .run(&["flamegraph", "-f", "heaptide-app.tide"])
            .status
            .success()
    );
    assert!(
        std::fs::read_to_string(&page)
            .unwrap()
            .starts_with("<!DOCTYPE html>")
    );
    let elsewhere = place.run(&["flamegraph", "-o", "-", "heaptide-app.tide"]);
    assert!(stdout(&elsewhere).starts_with("<!DOCTYPE html>"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    std::fs::write(
        place.path("wide.tide"),
        fixtures::wide_tree(20_000, false).build(),
    )
    .unwrap();
    let mut child = heaptide(place.directory.path())
        .args(["parse", "wide.tide"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "heaptide: wide.tide: finished\n");
}

#[test]
fn a_damaged_capture_is_read_as_far_as_it_goes() {
    let place = Place::new();
    let bytes = fixtures::killed_service().build();
    std::fs::write(place.path("cut.tide"), &bytes[..bytes.len() - 4000]).unwrap();
    let output = place.run(&["stats", "cut.tide"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("warning: the file ends inside a segment of cells"));
    assert!(stdout(&output).contains("Allocated in total"));
}

#[test]
fn colours_only_where_they_are_wanted() {
    let place = Place::new();
    assert!(!stdout(&place.run(&["tree", "heaptide-app.tide"])).contains('\x1b'));
    assert!(
        stdout(&place.run(&["--color", "always", "tree", "heaptide-app.tide"])).contains('\x1b')
    );
    let ascii = heaptide(place.directory.path())
        .env("LC_ALL", "C")
        .args(["tree", "heaptide-app.tide"])
        .output();
    assert!(stdout(&ascii.unwrap()).is_ascii());
}

#[test]
fn version() {
    let output = Place::new().run(&["-V"]);
    assert_eq!(stdout(&output), concat!(env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn shells_complete_commands_and_options() {
    let place = Place::new();
    for (shell, sign) in [
        ("bash", "complete -F _heaptide"),
        ("zsh", "#compdef heaptide"),
        ("fish", "complete -c heaptide"),
    ] {
        let output = place.run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = stdout(&output);
        for word in [
            sign,
            "flamegraph",
            "temporary-allocation-threshold",
            "speedscope",
        ] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(place.run(&["completions", "dos"]).status.code(), Some(2));
}

/// Every page of the help is there, and the examples name commands that there are.
#[test]
fn help_pages() {
    let place = Place::new();
    let whole = stdout(&place.run(&["--help"]));
    let commands: Vec<&str> = whole
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Lines that go on are further in.
        .filter_map(|line| {
            line.strip_prefix("  ")
                .filter(|line| !line.starts_with(' '))
        })
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() >= 11, "{commands:?}");
    for command in commands.iter().filter(|command| **command != "help") {
        let help = place.run(&[command, "--help"]);
        assert_eq!(help.status.code(), Some(0));
        assert!(stderr(&help).is_empty());
        let text = stdout(&help);
        assert!(
            text.contains(&format!("Usage: heaptide {command}")),
            "{text}"
        );
    }
    let pages = commands.iter().filter(|command| **command != "help");
    let pages = pages.map(|command| stdout(&place.run(&[command, "--help"])));
    for page in pages.chain([whole.clone()]) {
        for example in page
            .lines()
            .filter_map(|line| line.strip_prefix("  heaptide "))
        {
            let command = example.split(' ').next().unwrap_or_default();
            assert!(commands.contains(&command), "{example}");
        }
    }
}
