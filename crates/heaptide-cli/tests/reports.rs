//! Reports that become files, and Memray's options of the others.

mod page;

use std::path::PathBuf;
use std::process::{Command, Output};

use heaptide_testkit::fixtures;

use page::page_head;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(
            directory.path().join("heaptide-app.py.17.tide"),
            fixtures::killed_service().build(),
        )
        .expect("the capture can be written");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `arguments` are separated by blanks; the capture comes last.
    fn run(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_heaptide"))
            .current_dir(self.directory.path())
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .args(arguments.split(' '))
            .arg("heaptide-app.py.17.tide")
            .output()
            .expect("heaptide starts")
    }

    fn stdout(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments}");
        String::from_utf8(output.stdout).expect("stdout is UTF-8")
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("stderr is UTF-8")
}

const FILES: [(&str, &str); 8] = [
    ("flamegraph --no-web", "heaptide-flamegraph-app.py.17.html"),
    ("transform csv", "heaptide-csv-app.py.17.csv"),
    ("transform gprof2dot", "heaptide-gprof2dot-app.py.17.json"),
    (
        "transform speedscope",
        "heaptide-speedscope-app.py.17.speedscope.json",
    ),
    ("export pprof", "heaptide-pprof-app.py.17.pb.gz"),
    ("export collapsed", "heaptide-collapsed-app.py.17.txt"),
    ("export firefox", "heaptide-firefox-app.py.17.json.gz"),
    ("table --no-web", "heaptide-table-app.py.17.html"),
];

#[test]
fn files_are_named_after_the_capture_and_not_overwritten() {
    let place = Place::new();
    for (command, name) in FILES {
        let first = place.run(command);
        assert_eq!(first.status.code(), Some(0), "{command}");
        assert!(first.stdout.is_empty());
        assert!(
            stderr(&first).contains(&format!("Wrote {name}\n")),
            "{command}"
        );
        let content = std::fs::read(place.path(name)).expect("it was written");
        assert_eq!(content.starts_with(b"\x1f\x8b"), name.ends_with(".gz"));

        std::fs::write(place.path(name), "mine").unwrap();
        let again = place.run(command);
        assert_eq!(again.status.code(), Some(1), "{command}");
        assert!(stderr(&again).contains(&format!("{name} exists already")));
        assert!(stderr(&again).contains("-f (--force)"));
        assert_eq!(std::fs::read(place.path(name)).unwrap(), b"mine");

        let forced = place.run(&format!("{command} -f"));
        assert_eq!(forced.status.code(), Some(0), "{command}");
        assert_eq!(std::fs::read(place.path(name)).unwrap(), content);
    }
}

#[test]
fn formats_that_are_not_known_are_wrong_usage() {
    let place = Place::new();
    let output = place.run("export csv");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("possible values"));
    // To `transform` it is a failure, as in Memray.
    for (format, hint) in [
        ("yaml", "give csv, gprof2dot or speedscope"),
        ("pprof", "`heaptide export pprof` writes it"),
    ] {
        let output = place.run(&format!("transform {format}"));
        assert_eq!(output.status.code(), Some(1), "{format}");
        assert!(stderr(&output).contains(&format!("error: Format not supported: {format}\n")));
        assert!(stderr(&output).contains(hint));
    }
    assert!(place.run("transform CSV").status.success());
}

#[test]
fn a_missing_capture_and_a_missing_directory_are_failures() {
    let place = Place::new();
    let missing = Command::new(env!("CARGO_BIN_EXE_heaptide"))
        .current_dir(place.directory.path())
        .args(["transform", "csv", "no.tide"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("cannot read no.tide"));
    let nowhere = place.run("export collapsed -o no/where.txt");
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stderr(&nowhere).contains("cannot write no/where.txt"));
}

#[test]
fn stdout_on_demand() {
    let place = Place::new();
    let csv = place.stdout("transform csv -o -");
    assert_eq!(
        csv.lines().next(),
        Some("allocator,num_allocations,size,tid,thread_name,stack_trace")
    );
    assert!(csv.contains("MMAP,1,67108864,4711,"));
    let firefox = place.stdout("export firefox -o -");
    assert!(firefox.starts_with("{\"meta\":"));
    assert!(place.stdout("table -o -").starts_with("<!DOCTYPE html>"));
    let collapsed = place.stdout("export collapsed --leaks -o -");
    assert!(collapsed.contains(";put (/srv/cache.py:22) 6291456\n"));
    let table = place.stdout("table --json --split-threads");
    let table: serde_json::Value = serde_json::from_str(&table).unwrap();
    assert_eq!(table["rows"][0]["thread_id"], 4711);
    assert_eq!(table["total_bytes"], 77_595_648);
    let plain = place.run("export firefox -o plain.json");
    assert!(plain.status.success());
    assert!(
        std::fs::read(place.path("plain.json"))
            .unwrap()
            .starts_with(b"{")
    );
}

#[test]
fn gprof2dot_says_how_to_go_on() {
    let place = Place::new();
    let output = place.run("transform gprof2dot");
    assert!(stderr(&output).contains("heaptide: gprof2dot is not installed"));
    assert!(
        stderr(&output).contains("heaptide: Graphviz, which draws the graph, is not installed")
    );
    assert!(stderr(&output).ends_with(
        "next: gprof2dot -f json heaptide-gprof2dot-app.py.17.json | dot -Tsvg -o heap.svg\n"
    ));
}

#[test]
fn summary_takes_memrays_columns_and_rows() {
    let place = Place::new();
    for (number, title) in [
        (1, "<Total>"),
        (2, "<Total>"),
        (3, "<Own>"),
        (4, "<Own>"),
        (5, "<Count>"),
    ] {
        let text = place.stdout(&format!("summary -s {number} -r 1"));
        assert!(text.lines().next().unwrap().contains(title));
        assert!(text.contains("more functions, show them with -r"));
        let long = format!("summary --sort-column {number} --max-rows 1");
        assert_eq!(place.stdout(&long), text);
    }
    for (name, number) in [("total", 1), ("OWN", 3), ("count", 5)] {
        assert_eq!(
            place.stdout(&format!("summary -s {name}")),
            place.stdout(&format!("summary -s {number}"))
        );
    }
    let by_name = place.stdout("summary -s location");
    let names: Vec<&str> = by_name.lines().skip(1).collect();
    assert!(
        by_name.starts_with("<Location>") && names.is_sorted() && names.len() == 5,
        "{by_name}"
    );
    assert_eq!(place.run("summary -s 6").status.code(), Some(2));
    assert_eq!(place.run("summary -s size").status.code(), Some(2));
    assert_eq!(place.run("summary -s 0").status.code(), Some(2));
}

#[test]
fn tree_shows_the_biggest_alone() {
    let place = Place::new();
    let output = place.run("tree -p 0 -b 1");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.contains("load_table") && !text.contains("put"));
    assert!(stderr(&output).contains("1 of 3 stacks, those that have most: 68.0 MiB"));
    let all = place.run("tree -p 0 --biggest-allocs 200");
    assert!(!stderr(&all).contains("have most"));
    assert_eq!(place.run("tree -b 0").status.code(), Some(2));
}

#[test]
fn stats_has_memrays_keys() {
    let place = Place::new();
    let stats = place.stdout("stats --json -n 1");
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    for key in [
        "total_num_allocations",
        "total_bytes_allocated",
        "allocation_size_histogram",
        "allocator_type_distribution",
        "top_allocations_by_size",
        "top_allocations_by_count",
        "top_modules_by_allocation_size",
        "top_modules_by_allocation_count",
        "metadata",
    ] {
        assert!(stats.get(key).is_some(), "{key}");
    }
    for list in ["top_allocations_by_size", "top_modules_by_allocation_count"] {
        assert_eq!(stats[list].as_array().unwrap().len(), 1);
    }
    assert_eq!(
        stats["top_modules_by_allocation_size"][0]["module"],
        "tables"
    );
    assert_eq!(
        stats["top_modules_by_allocation_count"][0]["num_allocations"],
        100
    );
    assert_eq!(stats["metadata"]["file_format"], 1);
}

#[test]
fn long_options_may_be_abbreviated_as_in_memray() {
    let place = Place::new();
    let whole = place.stdout("stats --num-largest 2 --json");
    assert_eq!(place.stdout("stats --num 2 --js"), whole);
    // Of two that begin so neither is meant.
    let unclear = place.run("tree --temporary-allocation");
    assert_eq!(unclear.status.code(), Some(2));
    assert!(unclear.stdout.is_empty());
}

#[test]
fn kinds_of_allocations_exclude_each_other() {
    let place = Place::new();
    // The later one is at fault, whole or abbreviated.
    for (report, options, later, earlier) in [
        (
            "tree",
            "--leaks --temporary-allocations",
            "--temporary-allocations",
            "--leaks",
        ),
        (
            "summary",
            "--temporary-allocations --leaks",
            "--leaks",
            "--temporary-allocations",
        ),
        (
            "transform csv",
            "--temporary-allocation-t=3 --lea",
            "--leaks",
            "--temporary-allocation-threshold",
        ),
        (
            "export pprof",
            "--leaks --temporary-allocation-threshold 3",
            "--temporary-allocation-threshold",
            "--leaks",
        ),
    ] {
        let output = place.run(&format!("{report} {options}"));
        assert_eq!(output.status.code(), Some(2), "{report}");
        let text = stderr(&output);
        let command = report.split(' ').next().unwrap();
        assert!(
            text.starts_with(&format!("Usage: heaptide {command} ")),
            "{text}"
        );
        assert!(
            text.ends_with(&format!(
                "heaptide {command}: error: argument {later}: not allowed with argument {earlier}\n"
            )),
            "{text}"
        );
    }
    let both = "tree --temporary-allocations --temporary-allocation-threshold=1";
    assert_eq!(place.run(both).status.code(), Some(2));
}

#[test]
fn temporary_allocations_are_reported() {
    let place = Place::new();
    let json = |arguments: &str| -> serde_json::Value {
        serde_json::from_str(&place.stdout(arguments)).unwrap()
    };
    let summary = json("summary --json --temporary-allocations");
    assert_eq!(summary["metric"], "temporary");
    assert_eq!(summary["total_bytes"], 400 << 10);
    assert_eq!(summary["total_count"], 100);
    assert_eq!(summary["rows"][0]["function"], "walk");
    assert_eq!(summary["rows"][0]["own_bytes"], 400 << 10);
    assert_eq!(
        json("summary --json --temporary-allocation-threshold 1"),
        summary
    );
    assert!(
        place
            .stdout("tree --temporary-allocations")
            .contains("walk")
    );
    let csv = place.stdout("transform csv -o - --temporary-allocations");
    assert_eq!(csv.lines().count(), 2);
    assert!(csv.contains("MALLOC,100,409600,4711,"));
    let other = place.run("tree --temporary-allocation-threshold 3");
    assert_eq!(other.status.code(), Some(1));
    assert!(stderr(&other).contains("record without --aggregate"));
}

#[test]
fn stats_files_are_not_overwritten() {
    let place = Place::new();
    let written = place.run("stats --json -o stats.json");
    assert!(written.status.success() && written.stdout.is_empty());
    let text = std::fs::read_to_string(place.path("stats.json")).unwrap();
    assert_eq!(text, place.stdout("stats --json"));
    assert_eq!(
        place.run("stats --json -o stats.json").status.code(),
        Some(1)
    );
    assert!(place.run("stats --json -f -o stats.json").status.success());
}

#[test]
fn sizes_have_memrays_ten_bins() {
    let stats = Place::new().stdout("stats --json");
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let bins = stats["allocation_size_histogram"].as_array().unwrap();
    assert_eq!(bins.len(), 10);
    let field = |bin: &serde_json::Value, name: &str| bin[name].as_u64().unwrap();
    assert_eq!(field(&bins[0], "min_bytes"), 0);
    for pair in bins.windows(2) {
        assert_eq!(
            field(&pair[0], "max_bytes") + 1,
            field(&pair[1], "min_bytes")
        );
    }
    let counts = bins.iter().map(|bin| field(bin, "count"));
    assert_eq!(counts.sum::<u64>(), 112);
    // The smallest are two of 512 bytes.
    assert_eq!(field(&bins[0], "count"), 2);
    assert!(field(&bins[9], "max_bytes") >= 64 << 20);
}

#[test]
fn what_is_no_capture_is_told_apart() {
    let place = Place::new();
    std::fs::write(
        place.path("foreign"),
        "#!/usr/bin/env python3\nprint('hello, this is no capture')\n",
    )
    .unwrap();
    std::fs::write(place.path("empty"), "").unwrap();
    std::os::unix::fs::symlink("loop", place.path("loop")).unwrap();
    std::fs::create_dir(place.path("nothing")).unwrap();
    for (name, why) in [
        ("foreign", "not a heaptide capture"),
        ("empty", "the file is empty"),
        ("loop", "cannot be opened"),
        ("missing", "No such file"),
        ("nothing", "there are no captures here"),
    ] {
        for report in ["stats", "summary", "tree", "export collapsed"] {
            let output = Command::new(env!("CARGO_BIN_EXE_heaptide"))
                .current_dir(place.directory.path())
                .args(report.split(' '))
                .arg(name)
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(1), "{report} {name}");
            assert!(output.stdout.is_empty());
            assert!(stderr(&output).contains(why), "{}", stderr(&output));
        }
    }
}

#[test]
fn flame_graphs_take_memrays_options() {
    let place = Place::new();
    let head = |options: &str| page_head(&place.stdout(&format!("flamegraph -o - {options}")));
    assert_eq!(head("--no-web")["metric"], "peak");
    assert_eq!(head("--leaks")["metric"], "live");
    assert_eq!(head("--temporary-allocations")["metric"], "temporary");
    let threshold = head("--temporary-allocation-threshold 1 --confidential-files none");
    assert_eq!(threshold["metric"], "temporary");
    assert_eq!(head("--inverted")["inverted"], true);
    let split = head("--split-threads --confidential-files all --max-memory-records 2");
    assert_eq!(split["threads"][2], "0x1268 (worker-1)");
    assert_eq!(
        page_head(&place.stdout("table --leaks -o -"))["metric"],
        "live"
    );
    let tree = place.stdout("flamegraph --json");
    assert!(tree.lines().all(|line| line.starts_with('{')));
}

#[test]
fn flame_graphs_that_cannot_be() {
    let place = Place::new();
    let both = place.run("flamegraph --leaks --temporary-allocations");
    assert_eq!(both.status.code(), Some(2));
    let temporary = place.run("flamegraph --temporal --temporary-allocations");
    assert_eq!(temporary.status.code(), Some(2));
    assert!(
        stderr(&temporary).contains("Can't create a temporal flame graph of temporary allocations")
    );
    let counters = place.run("flamegraph --temporal");
    assert_eq!(counters.status.code(), Some(1));
    assert!(stderr(&counters).contains("record without --aggregate"));
    assert!(!place.path("heaptide-flamegraph-app.py.17.html").exists());
    let threshold = place.run("flamegraph --temporary-allocation-threshold 7");
    assert_eq!(threshold.status.code(), Some(1));
    let unknown = place.run("flamegraph --confidential-files some");
    assert_eq!(unknown.status.code(), Some(2));
}
