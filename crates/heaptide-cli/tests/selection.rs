//! Reports of a part of a capture: some threads, a stretch of time, another threshold.

mod page;

use std::process::{Command, Output};

use heaptide_testkit::fixtures;
use serde_json::Value;

use page::page_head;

const MIB: u64 = 1 << 20;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, capture) in [
            ("service.tide", fixtures::killed_service()),
            ("phases.tide", fixtures::phases()),
        ] {
            std::fs::write(directory.path().join(name), capture.build())
                .expect("it can be written");
        }
        Self { directory }
    }

    fn run(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_heaptide"))
            .current_dir(self.directory.path())
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .args(arguments.split(' '))
            .output()
            .expect("heaptide starts")
    }

    fn stdout(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{arguments}: {error}");
        String::from_utf8(output.stdout).expect("stdout is UTF-8")
    }

    fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.stdout(arguments)).expect("it is JSON")
    }

    /// What each function has by itself, bytes and blocks.
    fn functions(&self, options: &str) -> Vec<(String, u64, u64)> {
        let summary = self.json(&format!("summary --json {options}"));
        let rows = summary["rows"].as_array().expect("it has rows").iter();
        rows.map(|row| {
            let number = |key: &str| row[key].as_u64().expect("a number");
            let function = row["function"].as_str().unwrap_or("").to_owned();
            (function, number("own_bytes"), number("own_count"))
        })
        .collect()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn rows(rows: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
    let rows = rows.iter();
    rows.map(|&(name, bytes, count)| (name.to_owned(), bytes, count))
        .collect()
}

#[test]
fn any_threshold_on_a_capture_of_every_event() {
    let place = Place::new();
    let churn = |threshold: u32| {
        let options = format!("--temporary-allocation-threshold {threshold} phases.tide");
        let rows = place.functions(&options);
        let churn = rows.iter().find(|row| row.0 == "churn");
        churn.map_or(0, |row| row.2)
    };
    assert_eq!([0, 1, 2, 9].map(churn), [1, 2, 3, 3]);
    let same = place.functions("--temporary-allocations phases.tide");
    assert_eq!(
        same,
        place.functions("--temporary-allocation-threshold=1 phases.tide")
    );
    for report in [
        "tree --json -p 0",
        "export collapsed -o -",
        "transform csv -o -",
    ] {
        let text = place.stdout(&format!(
            "{report} --temporary-allocation-threshold 2 phases.tide"
        ));
        assert!(text.contains("churn"), "{text}");
    }
    // Counters were kept for one threshold.
    let refused = place.run("summary --temporary-allocation-threshold 2 service.tide");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("recorded with (1)"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn a_stretch_of_time() {
    let place = Place::new();
    let second = rows(&[("load", 8 * MIB, 1), ("burst", 3 * MIB, 3)]);
    assert_eq!(place.functions("--between 0.5 1 phases.tide"), second);
    assert_eq!(place.functions("--between 25% 50% phases.tide"), second);
    // Whole intervals between samples, and it says so.
    let output = place.run("summary --between 0.6 0.7s phases.tide");
    assert!(
        stderr(&output).contains("heaptide: from 0.50 s to 1.00 s of 2.00 s, by the samples\n")
    );
    let outlives =
        |between: &str| place.functions(&format!("--leaks --between {between} phases.tide"));
    assert_eq!(outlives("0.5 1"), rows(&[("put", 2 * MIB, 1)]));
    assert_eq!(outlives("0 0.5"), rows(&[("load", 8 * MIB, 1)]));
    assert_eq!(outlives("1.5 100%"), Vec::new());
    let all = rows(&[("put", 2 * MIB, 1), ("late", MIB, 1)]);
    assert_eq!(outlives("0 100%"), all);
    assert_eq!(outlives("0 99999"), all);
    // The whole is what it is without a stretch.
    assert_eq!(
        place.functions("--between 0% 100% phases.tide"),
        place.functions("phases.tide")
    );
    assert_eq!(
        place.functions("--leaks --between 0 2 phases.tide"),
        place.functions("--leaks phases.tide")
    );
}

#[test]
fn statistics_of_a_stretch_of_time() {
    let place = Place::new();
    let stats = place.json("stats --json --between 0.5 1 phases.tide");
    let ours = &stats["heaptide"];
    assert_eq!(ours["part"], "interval");
    assert_eq!(ours["peak_bytes"], 11 * MIB);
    assert_eq!(ours["live_bytes"], 2 * MIB);
    assert_eq!(stats["metadata"]["peak_memory"], 11 * MIB);
    assert_eq!(ours["top_at_peak"][0]["location"], "load:/srv/phases.py:11");
    // What is not known is not zero.
    assert!(stats["total_num_allocations"].is_null() && ours["temporary_count"].is_null());
    let text = place.stdout("stats --between 0.5 1 phases.tide");
    assert!(text.contains(
        "Peak memory        11.0 MiB in 4 blocks\nOutlives it        2.00 MiB in 1 block\n"
    ));
    assert!(!text.contains("Allocated in total") && !text.contains("Allocators"));
}

#[test]
fn pages_of_a_part() {
    let place = Place::new();
    let table = |options: &str| -> Vec<(String, u64, u64)> {
        let table = place.json(&format!("table --json {options}"));
        let rows = table["rows"].as_array().expect("it has rows").iter();
        rows.map(|row| {
            let number = |key: &str| row[key].as_u64().expect("a number");
            let function = row["function"].as_str().unwrap_or("").to_owned();
            (function, number("size"), number("count"))
        })
        .collect()
    };
    let second = rows(&[("load", 8 * MIB, 1), ("burst", 3 * MIB, 3)]);
    assert_eq!(table("--between 0.5 1 phases.tide"), second);
    let put = rows(&[("put", 2 * MIB, 1)]);
    assert_eq!(table("--leaks --between 0.5 1 phases.tide"), put);
    let worker = table("--thread worker-1 service.tide");
    assert_eq!(worker[0], ("put".to_owned(), 6 * MIB, 6));
    let tree = |options: &str| -> Value {
        let text = place.stdout(&format!("flamegraph --json {options}"));
        let root = text.lines().next().expect("a root");
        serde_json::from_str(root).expect("JSON")
    };
    let root = tree("--between 0.5 1 phases.tide");
    assert_eq!(root["total_bytes"], 11 * MIB);
    let root = tree("--leaks --between 0.5 1 phases.tide");
    assert_eq!(root["total_bytes"], 2 * MIB);
    let root = tree("--thread worker-1 service.tide");
    let sum: u64 = worker.iter().map(|row| row.1).sum();
    assert_eq!(root["total_bytes"], sum);
    for report in ["flamegraph", "table"] {
        let output = place.run(&format!(
            "{report} -f -o page.html --between 0.5 1 phases.tide"
        ));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stderr(&output).contains("from 0.50 s to 1.00 s of 2.00 s, by the samples"));
    }
    for (option, hint) in [
        ("--between 0 1", "choose the stretch of time in the page"),
        ("--thread MainThread", "take --split-threads"),
    ] {
        let output = place.run(&format!("flamegraph --temporal {option} phases.tide"));
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(hint), "{}", stderr(&output));
    }
}

#[test]
fn stretches_that_cannot_be() {
    let place = Place::new();
    for (arguments, code, why) in [
        (
            "summary --between 2 1 phases.tide",
            1,
            "ends before it begins",
        ),
        ("summary --between 3 4 phases.tide", 1, "it took 2.00 s"),
        (
            "summary --between 0 1 service.tide",
            1,
            "record without --aggregate",
        ),
        (
            "tree --between 0 1 --temporary-allocations phases.tide",
            1,
            "are not known",
        ),
        (
            "summary --between x 1 phases.tide",
            2,
            "give seconds (2.5) or percent (40%)",
        ),
        ("summary --between -1 1 phases.tide", 2, ""),
    ] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments}");
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn some_threads_only() {
    let place = Place::new();
    let worker = rows(&[("serve", 0, 0), ("<module>", 0, 0)]);
    for thread in ["worker-1", "4712"] {
        let rows = place.functions(&format!("--thread {thread} service.tide"));
        assert_eq!(rows[0], ("put".to_owned(), 6 * MIB, 6));
        assert!(worker.iter().all(|row| rows.contains(row)), "{rows:?}");
        assert!(!rows.iter().any(|row| row.0 == "load_table"));
    }
    let both = place.functions("--thread MainThread --thread worker-1 service.tide");
    assert_eq!(both, place.functions("service.tide"));
    let stats = place.json("stats --json --thread worker-1 service.tide");
    assert_eq!(stats["total_num_allocations"], 10);
    assert_eq!(stats["heaptide"]["deallocations"], 3);
    assert_eq!(stats["heaptide"]["part"], "threads");
    assert_eq!(stats["allocation_size_histogram"], Value::Array(Vec::new()));
    let csv = place.stdout("transform csv -o - --thread worker-1 service.tide");
    assert!(csv.lines().skip(1).all(|line| line.contains(",4712,")));
    let missing = place.run("stats --thread nobody service.tide");
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stderr(&missing)
            .contains("no thread nobody\n  the threads are MainThread (4711), worker-1 (4712)\n")
    );
}

#[test]
fn each_thread_by_itself() {
    let place = Place::new();
    let summary = place.json("summary --json --split-threads service.tide");
    let of_thread = |thread: u64, function: &str| -> u64 {
        let rows = summary["rows"].as_array().unwrap().iter();
        rows.filter(|row| row["thread_id"] == thread && row["function"] == function)
            .map(|row| row["total_bytes"].as_u64().unwrap())
            .sum()
    };
    assert_eq!(of_thread(4711, "serve"), 68 * MIB);
    assert_eq!(of_thread(4712, "serve"), 6 * MIB);
    let tree = place.stdout("tree --json --split-threads -p 0 service.tide");
    let nodes: Vec<Value> = tree
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let threads: Vec<&Value> = nodes.iter().filter(|node| node["depth"] == 1).collect();
    assert_eq!(threads.len(), 2);
    assert_eq!(threads[0]["thread_name"], "MainThread");
    assert!(threads[0]["function"].is_null());
    let sum: u64 = threads
        .iter()
        .map(|node| node["total_bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(nodes[0]["total_bytes"], sum);
    let put = nodes.iter().find(|node| node["function"] == "put").unwrap();
    assert_eq!(put["thread_id"], 4712);
    let text = place.stdout("tree --split-threads service.tide");
    assert!(text.contains("├─ <thread MainThread (4711)>\n"), "{text}");
}

#[test]
fn of_several_processes() {
    let place = Place::new();
    std::fs::create_dir(place.directory.path().join("all")).unwrap();
    for (name, pid) in [("one", 4711), ("two", 4800)] {
        let mut capture = fixtures::phases();
        capture.header.identity.pid = pid;
        capture.header.identity.group_id = [7; 16];
        let path = place.directory.path().join("all").join(name);
        std::fs::write(path, capture.build()).unwrap();
    }
    let twice = rows(&[("load", 16 * MIB, 2), ("burst", 6 * MIB, 6)]);
    assert_eq!(place.functions("--between 0.5 1 all"), twice);
    let one = rows(&[("load", 8 * MIB, 1), ("burst", 3 * MIB, 3)]);
    assert_eq!(place.functions("--between 0.5 1 --process 4800 all"), one);
    let worker = rows(&[("put", 4 * MIB, 2)]);
    assert_eq!(place.functions("--leaks --thread worker-1 all"), worker);
    let stats = place.json("stats --json --process 4800 all");
    assert_eq!(stats["metadata"]["pid"], 4800);
    let output = place.run("transform csv -o - --process 1 all");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no capture of process 1"));
}

/// A directory `all` with two processes of one run; the second began ten seconds later.
fn with_a_later_process(place: &Place) {
    std::fs::create_dir(place.directory.path().join("all")).unwrap();
    for (name, pid, later) in [("one", 4711, 0), ("two", 4800, 10_000_000_000)] {
        let mut capture = fixtures::phases();
        let header = &mut capture.header;
        header.identity.pid = pid;
        header.identity.group_id = [7; 16];
        header.identity.created_unix_ns += later;
        let lifecycle = &mut header.lifecycle;
        for time in [
            &mut lifecycle.tracking_start_unix_ns,
            &mut lifecycle.tracking_end_unix_ns,
            &mut lifecycle.ended_unix_ns,
        ] {
            *time += later;
        }
        for sample in &mut capture.samples {
            sample.unix_ns += later;
        }
        let path = place.directory.path().join("all").join(name);
        std::fs::write(path, capture.build()).unwrap();
    }
}

#[test]
fn processes_that_were_not_there_are_left_out() {
    let place = Place::new();
    with_a_later_process(&place);
    let second = rows(&[("load", 8 * MIB, 1), ("burst", 3 * MIB, 3)]);
    assert_eq!(place.functions("--between 0.5 1 all"), second);
    assert_eq!(place.functions("--between 10.5 11 all"), second);
    assert_eq!(place.functions("--between 4 5 all"), []);
    let both = rows(&[("load", 16 * MIB, 2), ("burst", 6 * MIB, 6)]);
    assert_eq!(place.functions("--between 0.5 11 all"), both);
}

#[test]
fn pages_of_several_processes_take_time_apart() {
    let place = Place::new();
    with_a_later_process(&place);
    for (arguments, processes) in [
        ("all", 2),
        ("all/one all/two", 2),
        ("--process 4800 all", 1),
    ] {
        let page = place.stdout(&format!("flamegraph --temporal -o - {arguments}"));
        let head = page_head(&page);
        assert_eq!(head["temporal"], true);
        let columns = head["columns"].as_array().unwrap();
        let length = |name: &str| {
            let column = columns.iter().find(|column| column[0] == name);
            column.unwrap_or_else(|| panic!("no {name}"))[2].clone()
        };
        assert_eq!(length("process.boundaries"), processes, "{arguments}");
        assert_eq!(length("boundary.heap"), 3 * processes);
        assert_eq!(length("interval.peak"), 4 * processes);
        // To the end of the last one.
        let whole = if processes == 2 {
            12_000_000
        } else {
            2_000_000
        };
        assert_eq!(head["time"]["microseconds"], whole);
    }
    let output = place.run("flamegraph --temporal -o - all service.tide");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("record without --aggregate"));
}
