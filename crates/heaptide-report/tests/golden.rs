//! Every report against a file in `tests/golden`. `HEAPTIDE_UPDATE_GOLDEN=1` writes them anew.

use std::io::{self, Write};
use std::path::PathBuf;

use heaptide_capture::{Capture, Liveness, NativeSymbol, ProcessState};
use heaptide_engine::{Metric, Profile};
use heaptide_report as report;
use heaptide_testkit::fixtures;

struct Loaded {
    capture: Capture,
    profile: Profile,
    liveness: Liveness,
}

fn killed_service() -> Loaded {
    let bytes = fixtures::killed_service().build();
    let capture = Capture::from_bytes(&bytes, "out dir/app.4711.tide").expect("readable");
    let profile = Profile::new(&capture);
    let liveness = capture.liveness_given(|| ProcessState::Gone);
    Loaded {
        capture,
        profile,
        liveness,
    }
}

/// With creations and destructions of Python objects.
fn objects() -> Loaded {
    let bytes = fixtures::tiny_object_events().build();
    let capture = Capture::from_bytes(&bytes, "o.tide").expect("readable");
    let profile = Profile::new(&capture);
    let liveness = capture.liveness_given(|| ProcessState::Gone);
    Loaded {
        capture,
        profile,
        liveness,
    }
}

fn check(name: &str, write: impl FnOnce(&Loaded, &mut dyn Write) -> io::Result<()>) {
    check_of(&killed_service(), name, write);
}

fn check_of(
    loaded: &Loaded,
    name: &str,
    write: impl FnOnce(&Loaded, &mut dyn Write) -> io::Result<()>,
) {
    let mut actual = Vec::new();
    write(loaded, &mut actual).expect("memory takes everything");
    let actual = String::from_utf8(actual).expect("reports are UTF-8");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("HEAPTIDE_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &actual).expect("golden files can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        actual, expected,
        "{name}: run with HEAPTIDE_UPDATE_GOLDEN=1 if this is wanted"
    );
}

const UNICODE: report::TextOptions = report::TextOptions {
    color: false,
    unicode: true,
};
const ASCII: report::TextOptions = report::TextOptions {
    color: false,
    unicode: false,
};
const COLOR: report::TextOptions = report::TextOptions {
    color: true,
    unicode: true,
};

#[test]
fn stats() {
    let options = report::StatsOptions::default();
    check("stats.txt", |it, out| {
        report::stats_text(&it.capture, &it.profile, &it.liveness, options, out)
    });
    check("stats.json", |it, out| {
        report::stats_json(&it.capture, &it.profile, &it.liveness, options, out)
    });
}

#[test]
fn summary() {
    let peak = report::SummaryOptions::default();
    let live = report::SummaryOptions {
        metric: Metric::Live,
        sort: report::SummaryColumn::Own,
        max_rows: 2,
        split_threads: false,
        ..report::SummaryOptions::default()
    };
    let split = report::SummaryOptions {
        metric: Metric::Allocated,
        split_threads: true,
        ..peak
    };
    check("summary-threads.txt", |it, out| {
        report::summary_text(&it.profile, split, UNICODE, out)
    });
    check("summary-threads.json", |it, out| {
        report::summary_json(&it.profile, split, out)
    });
    check("summary.txt", |it, out| {
        report::summary_text(&it.profile, peak, UNICODE, out)
    });
    check("summary-color.txt", |it, out| {
        report::summary_text(&it.profile, peak, COLOR, out)
    });
    check("summary-leaks.txt", |it, out| {
        report::summary_text(&it.profile, live, UNICODE, out)
    });
    check("summary.json", |it, out| {
        report::summary_json(&it.profile, peak, out)
    });
}

#[test]
fn tree() {
    let all = report::TreeOptions {
        min_percent: 0.0,
        ..report::TreeOptions::default()
    };
    let large = report::TreeOptions {
        depth: 3,
        min_percent: 10.0,
        metric: Metric::Live,
        ..report::TreeOptions::default()
    };
    let put = |frame: &str| frame.contains("put");
    let focused = report::TreeOptions {
        focus: Some(&put),
        ..report::TreeOptions::default()
    };
    let recursion = report::TreeOptions {
        metric: Metric::Allocated,
        min_percent: 0.1,
        ..report::TreeOptions::default()
    };
    let mut split = killed_service();
    let threads = report::split_by_thread(&mut split.profile);
    let by_thread = report::TreeOptions {
        threads: Some(&threads),
        ..all
    };
    check("tree-threads.txt", |_, out| {
        report::tree_text(&split.profile, by_thread, UNICODE, out)
    });
    check("tree-threads.jsonl", |_, out| {
        report::tree_json(&split.profile, by_thread, out)
    });
    check("tree-recursion.txt", |it, out| {
        report::tree_text(&it.profile, recursion, UNICODE, out)
    });
    check("tree.txt", |it, out| {
        report::tree_text(&it.profile, all, UNICODE, out)
    });
    check("tree-ascii.txt", |it, out| {
        report::tree_text(&it.profile, all, ASCII, out)
    });
    check("tree-leaks.txt", |it, out| {
        report::tree_text(&it.profile, large, UNICODE, out)
    });
    check("tree-focus.txt", |it, out| {
        report::tree_text(&it.profile, focused, UNICODE, out)
    });
    check("tree.jsonl", |it, out| {
        report::tree_json(&it.profile, all, out)
    });
}

#[test]
fn parse() {
    let options = report::ParseOptions {
        max_stack_frames: 4,
    };
    check("parse.txt", |it, out| {
        report::parse_text(&it.capture, &it.profile, &it.liveness, options, out)
    });
    check("parse.jsonl", |it, out| {
        report::parse_json(&it.capture, &it.profile, &it.liveness, options, out)
    });
    check_of(&objects(), "parse_objects.txt", |it, out| {
        report::parse_text(&it.capture, &it.profile, &it.liveness, options, out)
    });
    check_of(&objects(), "parse_objects.jsonl", |it, out| {
        report::parse_json(&it.capture, &it.profile, &it.liveness, options, out)
    });
}

#[test]
fn death() {
    let options = report::DeathOptions::default();
    check("death.txt", |it, out| {
        write!(
            out,
            "{}",
            report::death_summary(&it.capture, &it.profile, &it.liveness, options)
        )
    });
}

/// What differs in native frames only is one holder, by its Python frames.
#[test]
fn death_with_native_stacks() {
    let mut builder = fixtures::tiny_native();
    // Called without leaving the interpreter, so that the stacks can be put together.
    builder.nodes[3].flags = 0;
    let mut capture = Capture::from_bytes(&builder.build(), "n.tide").expect("readable");
    for (address, function) in [(0x1000, "_PyEval_EvalFrameDefault"), (0x2000, "by_c")] {
        let symbol = NativeSymbol {
            function: function.to_owned(),
            file: "x.c".to_owned(),
            line: 7,
        };
        capture.symbols.insert(0, address, vec![symbol]);
    }
    let profile = Profile::new(&capture);
    let liveness = capture.liveness_given(|| ProcessState::Gone);
    let options = report::DeathOptions::default();
    let text = report::death_summary(&capture, &profile, &liveness, options);
    let holder = "    2.3%  96 B in 2 blocks\n      <module>  /t.py:2\n      <module>  /t.py:1\n\n";
    assert!(text.contains(holder), "{text}");
}

#[test]
fn status() {
    check("status.txt", |it, out| {
        report::status_lines(&it.capture, &it.profile, &it.liveness)
            .iter()
            .try_for_each(|line| writeln!(out, "{line}"))
    });
}

#[test]
fn table() {
    let merged = report::TableOptions {
        metric: Metric::Peak,
        split_threads: false,
        confidential_files: report::ConfidentialFiles::All,
        part: report::Part::Whole,
        shown: "",
    };
    let split = report::TableOptions {
        metric: Metric::Live,
        split_threads: true,
        confidential_files: report::ConfidentialFiles::All,
        part: report::Part::Whole,
        shown: "",
    };
    check("table.json", |it, out| {
        report::table_json(&it.profile, merged, out)
    });
    check("table-leaks-threads.json", |it, out| {
        report::table_json(&it.profile, split, out)
    });
}

#[test]
fn transform() {
    check("transform.csv", |it, out| {
        report::transform_csv(&it.profile, Metric::Peak, out)
    });
    check("gprof2dot.json", |it, out| {
        report::gprof2dot_json(&it.profile, Metric::Peak, out)
    });
    check("speedscope.json", |it, out| {
        report::speedscope_json(
            &it.capture.metadata.command_line(),
            &it.profile,
            Metric::Live,
            out,
        )
    });
}

#[test]
fn export() {
    check("collapsed.txt", |it, out| {
        report::collapsed_stacks(&it.profile, Metric::Allocated, out)
    });
    check("firefox.json", |it, out| {
        report::firefox_json(&it.capture, &it.profile, Metric::Peak, out)
    });
}
