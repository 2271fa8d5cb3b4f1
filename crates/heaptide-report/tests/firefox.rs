//! The Firefox profile, read back by the rules of the processed format, version 48: its tables fit together,
//! and every thread of every metric has the stacks and bytes that the engine has. Blocks are not in it: the
//! format weighs allocations by bytes.

mod support;

use std::collections::BTreeMap;

use heaptide_engine::{Metric, NO_FILE, Profile, StackId};
use heaptide_report as report;
use heaptide_testkit::fixtures;
use heaptide_testkit::fixtures::{KIB, MIB};
use serde_json::Value;

use self::support::{Loaded, METRICS, captures, load, written};

/// Function, file and line; without a file where there is none.
type Place = (String, Option<String>, Option<i64>);
/// Bytes by stack, the outermost frame first.
type Stacks = BTreeMap<Vec<Place>, u64>;

/// Functions with their lines, the outermost first, and bytes.
type Known<'a> = (&'a [&'a str], u64);

fn exported(it: &Loaded, metric: Metric) -> Value {
    let bytes = written(|out| report::firefox_json(&it.capture, &it.profile, metric, out));
    serde_json::from_slice(&bytes).expect("JSON")
}

/// A list of a table: one value a row.
fn column<'a>(table: &'a Value, name: &str) -> &'a [Value] {
    let values = table[name].as_array();
    values.unwrap_or_else(|| panic!("there is no column {name}"))
}

fn length(table: &Value) -> usize {
    table["length"].as_u64().expect("a length") as usize
}

/// A table has exactly these columns, one value in each per row.
fn check_table(thread: &Value, table: &str, columns: &[&str]) {
    let of = thread[table].as_object().expect("a table");
    let mut found: Vec<&str> = of.keys().map(String::as_str).collect();
    found.retain(|key| !["length", "weightType"].contains(key));
    found.sort_unstable();
    let mut wanted = columns.to_vec();
    wanted.sort_unstable();
    assert_eq!(found, wanted, "columns of {table}");
    for name in columns {
        let rows = column(&thread[table], name).len();
        assert_eq!(rows, length(&thread[table]), "rows of {table}.{name}");
    }
}

/// All values are indices below `end`, or missing where that is allowed.
fn check_indices(table: &Value, name: &str, end: usize, may_miss: bool) {
    for value in column(table, name) {
        match value.as_u64() {
            Some(index) => assert!((index as usize) < end, "{name}: {index} of {end}"),
            None => assert!(may_miss && value.is_null(), "{name}: {value}"),
        }
    }
}

fn check_times(times: &[Value], from: f64, to: f64) {
    let times: Vec<f64> = times.iter().map(|time| time.as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "times ascend");
    assert!(times.iter().all(|time| (from..=to).contains(time)));
}

fn check_thread(thread: &Value, categories: &[Value]) {
    for (table, columns) in [
        ("samples", &["time", "stack", "weight"][..]),
        ("nativeAllocations", &["time", "weight", "stack"]),
        (
            "markers",
            &["data", "name", "startTime", "endTime", "phase", "category"],
        ),
        (
            "stackTable",
            &["frame", "prefix", "category", "subcategory"],
        ),
        (
            "frameTable",
            &[
                "address",
                "inlineDepth",
                "category",
                "subcategory",
                "func",
                "nativeSymbol",
                "innerWindowID",
                "implementation",
                "line",
                "column",
            ],
        ),
        (
            "funcTable",
            &[
                "name",
                "isJS",
                "relevantForJS",
                "resource",
                "fileName",
                "lineNumber",
                "columnNumber",
            ],
        ),
        ("resourceTable", &["lib", "name", "host", "type"]),
        (
            "nativeSymbols",
            &["libIndex", "address", "name", "functionSize"],
        ),
    ] {
        check_table(thread, table, columns);
    }
    let strings = column(thread, "stringArray");
    let mut distinct: Vec<&str> = strings.iter().map(|text| text.as_str().unwrap()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), strings.len(), "each text is there once");

    let [stacks, frames, functions] =
        ["stackTable", "frameTable", "funcTable"].map(|name| &thread[name]);
    check_indices(&thread["samples"], "stack", length(stacks), true);
    check_indices(&thread["nativeAllocations"], "stack", length(stacks), false);
    check_indices(stacks, "frame", length(frames), false);
    check_indices(frames, "func", length(functions), false);
    check_indices(functions, "name", strings.len(), false);
    check_indices(functions, "fileName", strings.len(), true);
    for table in [stacks, frames] {
        check_indices(table, "category", categories.len(), false);
        let rows = column(table, "category").iter();
        for (category, subcategory) in rows.zip(column(table, "subcategory")) {
            let of = column(
                &categories[category.as_u64().unwrap() as usize],
                "subcategories",
            );
            assert!(subcategory.as_u64().unwrap() < of.len() as u64);
        }
    }
    // Callers come first, and no caller has the same frame twice.
    let mut pairs = Vec::new();
    for (index, prefix) in column(stacks, "prefix").iter().enumerate() {
        assert!(prefix.is_null() || prefix.as_u64().unwrap() < index as u64);
        pairs.push((prefix.as_u64(), column(stacks, "frame")[index].as_u64()));
    }
    pairs.sort_unstable();
    pairs.dedup();
    assert_eq!(pairs.len(), length(stacks));

    assert_eq!(thread["nativeAllocations"]["weightType"], "bytes");
    let ends = ["registerTime", "unregisterTime"].map(|name| thread[name].as_f64().unwrap());
    for table in ["samples", "nativeAllocations"] {
        check_times(column(&thread[table], "time"), ends[0], ends[1]);
    }
}

/// The stacks of a thread with their bytes; each is there once.
fn stacks_of(thread: &Value) -> Stacks {
    let text = |index: &Value| {
        let index = index.as_u64()? as usize;
        Some(
            column(thread, "stringArray")[index]
                .as_str()
                .unwrap()
                .to_owned(),
        )
    };
    let place = |stack: usize| -> Place {
        let frame = column(&thread["stackTable"], "frame")[stack]
            .as_u64()
            .unwrap();
        let line = column(&thread["frameTable"], "line")[frame as usize].as_i64();
        let function = column(&thread["frameTable"], "func")[frame as usize]
            .as_u64()
            .unwrap();
        let [name, file] = ["name", "fileName"]
            .map(|name| text(&column(&thread["funcTable"], name)[function as usize]));
        (name.expect("every function has a name"), file, line)
    };
    let prefixes = column(&thread["stackTable"], "prefix");
    let mut found = Stacks::new();
    let allocations = &thread["nativeAllocations"];
    for (stack, weight) in column(allocations, "stack")
        .iter()
        .zip(column(allocations, "weight"))
    {
        let steps = std::iter::successors(stack.as_u64(), |&at| prefixes[at as usize].as_u64());
        let mut places: Vec<Place> = steps.map(|at| place(at as usize)).collect();
        places.reverse();
        let bytes = weight.as_u64().expect("bytes");
        assert!(found.insert(places, bytes).is_none(), "a stack comes twice");
    }
    found
}

/// What the engine knows of a thread, from its stacks themselves and not from a tree of them.
fn stacks_of_engine(profile: &Profile, thread: usize, metric: Metric) -> Stacks {
    let stacks = &profile.stacks;
    let place = |frame: heaptide_engine::FrameId| -> Place {
        let location = stacks.locations[stacks.frames[frame.index()].location.index()];
        let file = stacks.text(location.file);
        (
            stacks.text(location.function).to_owned(),
            Some(file.to_owned()).filter(|file| file != NO_FILE),
            Some(i64::from(location.line)).filter(|&line| line > 0),
        )
    };
    let mut found = Stacks::new();
    let entries = profile
        .entries
        .iter()
        .filter(|entry| entry.thread as usize == thread);
    for entry in entries {
        let bytes = entry.figures.get(metric).bytes;
        if bytes == 0 {
            continue;
        }
        let walk = stacks.walk(entry.stack);
        let mut places: Vec<Place> = walk
            .map(|at| place(stacks.nodes[at.index()].frame))
            .collect();
        places.reverse();
        if entry.stack == StackId::ROOT {
            places.push(place(stacks.frameless));
        }
        *found.entry(places).or_default() += bytes;
    }
    found
}

/// The threads of a metric, in the order of the file.
fn threads_of<'a>(file: &'a Value, it: &Loaded, metric: Metric) -> Vec<&'a Value> {
    let pid = format!("{}-{}", it.capture.identity.pid, metric.name());
    let threads = column(file, "threads").iter();
    threads
        .filter(|thread| thread["pid"] == pid.as_str())
        .collect()
}

fn all_captures() -> Vec<Loaded> {
    let mut all = captures();
    all.push(load(&fixtures::phases()));
    all.push(load(&fixtures::tiny_events()));
    all
}

#[test]
fn tables_fit_together() {
    for it in all_captures() {
        let file = exported(&it, Metric::Peak);
        assert_eq!(file["meta"]["preprocessedProfileVersion"], 48);
        let categories = column(&file["meta"], "categories");
        let threads = column(&file, "threads");
        threads
            .iter()
            .for_each(|thread| check_thread(thread, categories));
        let mut ids: Vec<&str> = threads
            .iter()
            .filter_map(|thread| thread["tid"].as_str())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), threads.len(), "ids of threads differ");
    }
}

#[test]
fn every_thread_has_the_stacks_and_bytes_of_the_engine() {
    for it in all_captures() {
        for first in METRICS {
            let file = exported(&it, first);
            let pid = format!("{}-{}", it.capture.identity.pid, first.name());
            assert_eq!(
                column(&file, "threads")[0]["pid"],
                pid.as_str(),
                "it comes first"
            );
        }
        let file = exported(&it, Metric::Peak);
        for metric in METRICS {
            let threads = threads_of(&file, &it, metric);
            let mains = threads
                .iter()
                .filter(|thread| thread["isMainThread"] == true);
            assert_eq!(mains.count(), 1);
            let mut total = 0;
            let mut seen = 0;
            for (index, info) in it.profile.threads.iter().enumerate() {
                let wanted = stacks_of_engine(&it.profile, index, metric);
                let tid = format!("{}.{}-{}", info.thread_id, info.number, metric.name());
                let found = threads.iter().find(|thread| thread["tid"] == tid.as_str());
                assert_eq!(
                    found.map(|thread| stacks_of(thread)).unwrap_or_default(),
                    wanted
                );
                seen += usize::from(!wanted.is_empty());
                total += wanted.values().sum::<u64>();
            }
            assert_eq!(total, it.profile.totals.figures.get(metric).bytes);
            // One without anything stands for a metric that nobody has.
            assert_eq!(threads.len(), seen.max(1));
        }
    }
}

#[test]
fn a_known_program_is_exact_to_the_byte() {
    let it = load(&fixtures::killed_service());
    let file = exported(&it, Metric::Peak);
    let loading = ["<module>:3", "serve:12", "load_table:31"];
    let putting = ["<module>:3", "serve:14", "put:22"];
    let walking = ["<module>:3", "serve:13", "walk:41", "walk:42", "walk:42"];
    let frameless = ["<no Python frame>"];
    let known: [(Metric, &str, &[Known]); 7] = [
        (Metric::Peak, "MainThread", &[(&loading, 68 * MIB)]),
        (
            Metric::Peak,
            "worker-1",
            &[(&putting, 6 * MIB), (&frameless, KIB)],
        ),
        (Metric::Live, "MainThread", &[(&loading, 64 * MIB)]),
        (
            Metric::Live,
            "worker-1",
            &[(&putting, 6 * MIB), (&frameless, KIB / 2)],
        ),
        (
            Metric::Allocated,
            "MainThread",
            &[(&loading, 68 * MIB), (&walking, 400 * KIB)],
        ),
        (
            Metric::Allocated,
            "worker-1",
            &[(&putting, 8 * MIB), (&frameless, KIB)],
        ),
        (Metric::Temporary, "MainThread", &[(&walking, 400 * KIB)]),
    ];
    for (metric, name, wanted) in known {
        let threads = threads_of(&file, &it, metric);
        let thread = threads.iter().find(|thread| thread["name"] == name);
        let found = stacks_of(thread.expect("the thread has something of the metric"));
        let label = |(function, _, line): &Place| {
            line.map_or_else(|| function.clone(), |line| format!("{function}:{line}"))
        };
        let found: BTreeMap<Vec<String>, u64> = found
            .iter()
            .map(|(stack, &bytes)| (stack.iter().map(label).collect(), bytes))
            .collect();
        let wanted = wanted.iter().map(|&(stack, bytes)| {
            let stack = stack.iter().map(|&place| place.to_owned());
            (stack.collect(), bytes)
        });
        assert_eq!(found, wanted.collect(), "{name}, {}", metric.name());
    }
}

#[test]
fn counters_are_the_samples() {
    for it in all_captures() {
        let file = exported(&it, Metric::Peak);
        let counters = column(&file, "counters");
        let samples = &it.capture.samples;
        if samples.is_empty() {
            assert!(counters.is_empty());
            continue;
        }
        assert_eq!(counters.len(), 2);
        let resident: Vec<u64> = samples.iter().map(|sample| sample.resident_bytes).collect();
        let heap: Vec<u64> = samples.iter().map(|sample| sample.heap_bytes).collect();
        for (counter, (name, values)) in counters
            .iter()
            .zip([("Resident memory", resident), ("Tracked heap", heap)])
        {
            assert_eq!(counter["name"], name);
            let threads = column(&file, "threads");
            let main = counter["mainThreadIndex"].as_u64().unwrap() as usize;
            assert_eq!(threads[main]["pid"], counter["pid"]);
            check_table(counter, "samples", &["time", "count"]);
            check_times(
                column(&counter["samples"], "time"),
                0.0,
                threads[main]["unregisterTime"].as_f64().unwrap(),
            );
            let mut level = 0;
            let levels: Vec<u64> = column(&counter["samples"], "count")
                .iter()
                .map(|change| {
                    level += change.as_i64().unwrap();
                    level as u64
                })
                .collect();
            assert_eq!(levels, values);
        }
    }
    let killed = exported(&load(&fixtures::killed_service()), Metric::Peak);
    let sums = column(&killed, "counters").iter().map(|counter| {
        let changes = column(&counter["samples"], "count").iter();
        let levels = changes.scan(0, |level, change| {
            *level += change.as_i64().unwrap();
            Some(*level as u64 / MIB)
        });
        let levels: Vec<u64> = levels.collect();
        (levels.last().copied(), levels.iter().max().copied())
    });
    // The last and the most, in MiB.
    let sums: Vec<_> = sums.collect();
    assert_eq!(sums, [(Some(96), Some(96)), (Some(70), Some(74))]);
}
