//! The HTML pages: what is in them, and that names stay text. What a browser makes of them is tested
//! in `web/`.

mod decoded;

use heaptide_capture::{Capture, ProcessState};
use heaptide_engine::{
    Merger, Metric, ProcessHistory, Profile, ProfileOptions, Temporal, TemporalOptions,
};
use heaptide_report::{
    ConfidentialFiles, FlamegraphOptions, Part, TableOptions, end_unix_ns, flamegraph_html,
    keep_interval, table_html,
};
use heaptide_testkit::{CaptureBuilder, fixtures};

use decoded::Decoded;

/// No source lines: which files there are is not the same everywhere.
const OPTIONS: FlamegraphOptions = FlamegraphOptions {
    metric: Metric::Peak,
    inverted: false,
    split_threads: true,
    confidential_files: ConfidentialFiles::All,
    max_memory_records: 10_000,
    histories: &[],
    part: Part::Whole,
    shown: "",
};

fn flamegraph(builder: &CaptureBuilder, options: FlamegraphOptions) -> String {
    let capture = Capture::from_bytes(&builder.build(), "test.tide").expect("readable");
    let profile = Profile::new(&capture);
    let liveness = capture.liveness_given(|| ProcessState::Gone);
    let mut out = Vec::new();
    flamegraph_html(&capture, &profile, &liveness, options, &mut out)
        .expect("memory takes everything");
    String::from_utf8(out).expect("pages are UTF-8")
}

fn table(builder: &CaptureBuilder, split_threads: bool) -> String {
    let capture = Capture::from_bytes(&builder.build(), "test.tide").expect("readable");
    let profile = Profile::new(&capture);
    let liveness = capture.liveness_given(|| ProcessState::Gone);
    let mut out = Vec::new();
    let options = TableOptions {
        metric: Metric::Live,
        split_threads,
        confidential_files: ConfidentialFiles::All,
        part: Part::Whole,
        shown: "",
    };
    table_html(&capture, &profile, &liveness, options, &mut out).expect("memory takes everything");
    String::from_utf8(out).expect("pages are UTF-8")
}

fn check(name: &str, html: &str) {
    let actual = Decoded::of(html).pretty();
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("HEAPTIDE_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &actual).expect("golden files can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        actual, expected,
        "{name}: run with HEAPTIDE_UPDATE_GOLDEN=1 if this is wanted"
    );
}

#[test]
fn the_data_of_pages() {
    let service = fixtures::killed_service();
    check("flamegraph-data.json", &flamegraph(&service, OPTIONS));
    check("table-data.json", &table(&service, false));
}

#[test]
fn hostile_names_stay_text() {
    let builder = fixtures::wide_tree(200, true);
    for html in [flamegraph(&builder, OPTIONS), table(&builder, true)] {
        assert!(!html.contains("<img"));
        assert_eq!(
            html.matches("</script>").count(),
            2,
            "only the page ends its scripts"
        );
        assert_eq!(html.matches("<script").count(), 2);
        let shown = |character: char| !character.is_control() || "\n\t".contains(character);
        assert!(html.chars().all(shown), "control characters are escaped");
        assert!(!html.contains('\u{202e}'), "as are marks that turn text");
        assert!(!html.contains("{{style}}") && !html.contains("{{script}}"));

        let data = Decoded::of(&html);
        let functions = data.head["functions"].as_array().expect("a list");
        assert!(functions.iter().any(|name| {
            let name = name.as_str().expect("a text");
            name.starts_with("</script><img src=x onerror=alert(") && name.contains("\\u202e\\x1b")
        }));
    }
}

#[test]
fn hostile_command_lines_stay_text() {
    let mut builder = CaptureBuilder::new();
    builder.metadata(
        heaptide_format::MetadataKey::CommandLine,
        "python\0\"><script>alert(1)</script>{{data}}\u{202e}\0".as_bytes(),
    );
    let html = flamegraph(&builder, OPTIONS);
    assert!(
        html.contains("&lt;script&gt;alert(1)"),
        "it is in the title"
    );
    assert_eq!(html.matches("<script").count(), 2);
    assert_eq!(html.matches("</script>").count(), 2);
    assert!(!html.contains('\u{202e}'));
    let data = Decoded::of(&html);
    let command = data.head["command"].as_str().expect("a text");
    assert!(command.contains("<script>alert(1)</script>{{data}}\\u202e"));
}

#[test]
fn the_page_needs_no_network() {
    let service = fixtures::killed_service();
    for html in [flamegraph(&service, OPTIONS), table(&service, false)] {
        assert!(html.contains("default-src 'none'"));
        for forbidden in ["http://", "https://", "<link rel=\"stylesheet", " src="] {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
    }
}

/// Memray's page of ten thousand stacks has 3.8 MB.
#[test]
fn pages_are_small() {
    let empty = flamegraph(&CaptureBuilder::new(), OPTIONS);
    assert!(empty.len() < 150_000, "{} bytes of code", empty.len());
    let html = flamegraph(&fixtures::wide_tree(10_000, false), OPTIONS);
    assert!(html.len() - empty.len() < 200_000, "{} bytes", html.len());
}

#[test]
fn nodes_and_entries_say_what_the_profile_says() {
    let builder = fixtures::wide_tree(500, false);
    let capture = Capture::from_bytes(&builder.build(), "test.tide").expect("readable");
    let profile = Profile::new(&capture);
    for html in [flamegraph(&builder, OPTIONS), table(&builder, true)] {
        let data = Decoded::of(&html);
        let sum = |column: &str| data.column(column).iter().sum::<u64>();
        let figures = &profile.totals.figures;
        for (name, amount) in [
            ("peak", figures.peak),
            ("live", figures.live),
            ("allocated", figures.allocated),
            ("temporary", figures.temporary),
        ] {
            assert_eq!(sum(&format!("{name}.bytes")), amount.bytes, "{name}");
            assert_eq!(sum(&format!("{name}.count")), amount.count, "{name}");
        }
        let nodes = data.column("node.up").len() as u64;
        for (node, &up) in data.column("node.up").iter().enumerate().skip(1) {
            assert!(up >= 1 && up <= node as u64);
        }
        assert!(data.column("entry.node").iter().all(|&node| node < nodes));
        let locations = data.column("location.line").len() as u64;
        assert!(
            data.column("node.location")
                .iter()
                .all(|&at| at < locations)
        );
    }
}

#[test]
fn few_samples_where_few_are_wanted() {
    let options = FlamegraphOptions {
        max_memory_records: 3,
        ..OPTIONS
    };
    let data = Decoded::of(&flamegraph(&fixtures::killed_service(), options));
    assert_eq!(data.column("sample.heap").len(), 3);
    assert!(
        data.column("sample.heap").contains(&(74 << 20)),
        "the peak stays"
    );
    assert_eq!(data.head["time"]["samples"], 5);
}

#[test]
fn source_lines_only_where_they_may_be() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("odd\u{202e}.py");
    std::fs::write(&file, "import os\n\nx = [</script>]\n").expect("it can be written");
    let mut builder = CaptureBuilder::new();
    let thread = builder.thread(1, "python", "");
    let code = builder.function("f", &file.to_string_lossy(), 2, 3);
    let node = builder.frame(0, code, 1);
    heaptide_testkit::Simulation::new().allocate(
        &mut builder,
        thread,
        node,
        heaptide_format::Allocator::Malloc,
        10,
    );
    let sources = |confidential_files| {
        let options = FlamegraphOptions {
            confidential_files,
            ..OPTIONS
        };
        Decoded::of(&flamegraph(&builder, options)).head["sources"].clone()
    };
    assert_eq!(sources(ConfidentialFiles::All), serde_json::json!([]));
    let shown = sources(ConfidentialFiles::Default);
    assert_eq!(shown[0]["lines"][2], "x = [</script>]");
    assert_eq!(shown[0]["first"], 1);
    assert_eq!(
        shown[0]["changed"], true,
        "it was written after the recording"
    );
    let name = shown[0]["file"].as_str().expect("a name");
    assert!(name.ends_with("odd\\u202e.py"));
}

#[test]
fn counters_have_no_history() {
    let bytes = fixtures::killed_service().build();
    let capture = Capture::from_bytes(&bytes, "test.tide").expect("readable");
    let profile = Profile::new(&capture);
    assert!(Temporal::new(&capture, &profile, TemporalOptions::default()).is_err());
}

#[test]
fn leaks_of_pooled_objects_are_warned_of() {
    let notes = |trace: bool, metric| {
        let mut service = fixtures::killed_service();
        if trace {
            service.header.identity.options |= heaptide_format::PYTHON_ALLOCATORS;
        }
        let html = flamegraph(&service, FlamegraphOptions { metric, ..OPTIONS });
        Decoded::of(&html).head["notes"].to_string()
    };
    assert!(notes(false, Metric::Live).contains("may be reported as leaks"));
    assert!(!notes(false, Metric::Peak).contains("may be reported as leaks"));
    assert!(!notes(true, Metric::Live).contains("may be reported as leaks"));
}

fn history(capture: &Capture, temporal: Temporal) -> ProcessHistory {
    ProcessHistory {
        temporal,
        start_unix_ns: capture.lifecycle.tracking_start_unix_ns,
        end_unix_ns: end_unix_ns(capture),
    }
}

#[test]
fn histories_of_several_processes_follow_each_other() {
    let capture = Capture::from_bytes(&fixtures::phases().build(), "test.tide").expect("readable");
    let read = || {
        let options = ProfileOptions::default();
        Profile::with_history(&capture, options, usize::MAX).expect("it has every event")
    };
    let (profile, temporal) = read();
    let alone = [history(&capture, temporal.clone())];
    let (second, mut moved) = read();
    let mut merger = Merger::new(profile, 1);
    merger.add_with_history(second, &mut moved, 2);
    let merged = merger.finish();
    let mut later = history(&capture, moved);
    later.start_unix_ns += 1_000_000_000;
    later.end_unix_ns += 1_000_000_000;
    for time in &mut later.temporal.times_unix_ns {
        *time += 1_000_000_000;
    }
    let both = [alone[0].clone(), later];
    let page = |profile: &Profile, histories| {
        let options = FlamegraphOptions {
            histories,
            split_threads: false,
            ..OPTIONS
        };
        let mut html = Vec::new();
        flamegraph_html(&capture, profile, &capture.liveness(), options, &mut html).unwrap();
        Decoded::of(&String::from_utf8(html).unwrap())
    };
    let one = page(&read().0, &alone);
    let two = page(&merged, &both);
    assert_eq!(two.column("process.boundaries"), [3, 3]);
    assert_eq!(
        two.column("process.start"),
        [0, 1_000_000].map(|later| one.column("process.start")[0] + later)
    );
    // One program twice: the same stacks, hence the same keys where threads are one.
    assert_eq!(two.column("key.node"), one.column("key.node"));
    for (name, offset) in [
        ("boundary.microseconds", 1_000_000),
        ("boundary.heap", 0),
        ("interval.peak", 0),
        ("lifetime.key", 0),
        ("lifetime.allocated_before", 4),
        ("lifetime.bytes", 0),
        ("at_peak.key", 0),
        ("at_peak.from", 4),
        ("at_peak.length", 0),
        ("at_peak.bytes", 0),
    ] {
        let single = one.column(name);
        let shifted = single.iter().map(|number| number + offset);
        let expected: Vec<u64> = single.iter().copied().chain(shifted).collect();
        assert_eq!(two.column(name), expected, "{name}");
    }
    let freed = one.column("lifetime.freed_before");
    let shifted = freed
        .iter()
        .map(|&freed| if freed == 0 { 0 } else { freed + 4 });
    let expected: Vec<u64> = freed.iter().copied().chain(shifted).collect();
    assert_eq!(two.column("lifetime.freed_before"), expected);
}

#[test]
fn histories_add_up() {
    let bytes = fixtures::phases().build();
    let capture = Capture::from_bytes(&bytes, "test.tide").expect("readable");
    let profile = Profile::new(&capture);
    let temporal =
        Temporal::new(&capture, &profile, TemporalOptions::default()).expect("it has every event");
    let histories = [history(&capture, temporal)];
    for split_threads in [false, true] {
        let options = FlamegraphOptions {
            split_threads,
            histories: &histories,
            ..OPTIONS
        };
        let data = Decoded::of(&flamegraph(&fixtures::phases(), options));
        assert_eq!(data.head["temporal"], true);
        assert!(
            data.column("sample.heap").is_empty(),
            "boundaries are samples"
        );
        assert_eq!(data.column("boundary.microseconds").len(), 3);
        let runs = data.column("at_peak.from").iter();
        let runs = runs.zip(data.column("at_peak.length"));
        let runs: Vec<_> = runs.zip(data.column("at_peak.bytes")).collect();
        for (interval, &peak) in data.column("interval.peak").iter().enumerate() {
            let held = runs.iter().filter(|((from, length), _)| {
                (**from..**from + **length).contains(&(interval as u64))
            });
            assert_eq!(held.map(|run| run.1).sum::<u64>(), peak, "{interval}");
        }
        let lives = data.column("lifetime.freed_before").iter();
        let lives = lives.zip(data.column("lifetime.bytes"));
        let alive = lives.filter(|(freed, _)| **freed == 0).map(|life| life.1);
        assert_eq!(alive.sum::<u64>(), profile.totals.figures.live.bytes);
        let keys = data.column("key.node").len() as u64;
        assert!(data.column("at_peak.key").iter().all(|&key| key < keys));
        assert!(data.column("lifetime.key").iter().all(|&key| key < keys));
    }
}

#[test]
fn a_page_of_a_stretch_of_time_says_so_and_shows_only_what_is_known() {
    const MIB: u64 = 1 << 20;
    let bytes = fixtures::phases().build();
    let capture = Capture::from_bytes(&bytes, "test.tide").expect("readable");
    let mut profile = Profile::new(&capture);
    let temporal =
        Temporal::new(&capture, &profile, TemporalOptions::default()).expect("it has every event");
    keep_interval(&mut profile, &temporal, &(1..=1));
    let liveness = capture.liveness_given(|| ProcessState::Gone);
    let options = FlamegraphOptions {
        part: Part::Interval,
        shown: "from 0.50 s to 1.00 s\u{202e}",
        ..OPTIONS
    };
    let mut out = Vec::new();
    flamegraph_html(&capture, &profile, &liveness, options, &mut out)
        .expect("memory takes everything");
    let data = Decoded::of(&String::from_utf8(out).expect("pages are UTF-8"));
    let metrics = data.head["metrics"].as_array().expect("a list");
    let metrics: Vec<_> = metrics
        .iter()
        .map(|metric| (metric["name"].as_str().unwrap(), metric["bytes"].as_u64()))
        .collect();
    assert_eq!(
        metrics,
        [("peak", Some(11 * MIB)), ("live", Some(2 * MIB))],
        "what was allocated and what was temporary is not known"
    );
    let note = data.head["notes"][0].as_str().expect("a note");
    assert!(note.contains("from 0.50 s to 1.00 s\\u202e"), "{note}");
    let facts = data.head["facts"].to_string();
    assert!(facts.contains("Part shown") && !facts.contains("Deallocations"));
}
