//! The formats of other tools, read back by readers of their own: their rules hold, and their totals
//! are those of the profile.

mod support;

use std::io::{self, Write};

use heaptide_engine::{Amount, Metric};
use heaptide_report as report;
use heaptide_testkit::fixtures;
use serde_json::Value;

use self::support::{METRICS, captures, load, written};

fn json(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Value {
    serde_json::from_slice(&written(write)).expect("JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn sum(values: &[Value]) -> u64 {
    values
        .iter()
        .map(|value| value.as_u64().expect("a count"))
        .sum()
}

/// An object with exactly the `required` keys and perhaps some of the `optional` ones.
fn check_keys(value: &Value, required: &[&str], optional: &[&str]) {
    let object = value.as_object().expect("an object");
    for key in required {
        assert!(object.contains_key(*key), "{key} is missing");
    }
    for key in object.keys() {
        let known = required.contains(&key.as_str()) || optional.contains(&key.as_str());
        assert!(known, "{key} is not in the schema");
    }
}

/// The rules of <https://www.speedscope.app/file-format-schema.json> for sampled profiles.
fn check_speedscope(file: &Value) {
    check_keys(
        file,
        &["$schema", "shared", "profiles"],
        &["name", "activeProfileIndex", "exporter"],
    );
    assert_eq!(
        file["$schema"],
        "https://www.speedscope.app/file-format-schema.json"
    );
    check_keys(&file["shared"], &["frames"], &[]);
    let frames = list(&file["shared"]["frames"]);
    for frame in frames {
        check_keys(frame, &["name"], &["file", "line", "col"]);
        assert!(frame["name"].is_string());
        assert!(frame.get("file").is_none_or(Value::is_string));
        assert!(frame.get("line").is_none_or(Value::is_number));
    }
    let profiles = list(&file["profiles"]);
    assert!(file["activeProfileIndex"].as_u64().unwrap() < profiles.len() as u64);
    for profile in profiles {
        let keys = [
            "type",
            "name",
            "unit",
            "startValue",
            "endValue",
            "samples",
            "weights",
        ];
        check_keys(profile, &keys, &[]);
        assert_eq!(profile["type"], "sampled");
        let units = [
            "none",
            "nanoseconds",
            "microseconds",
            "milliseconds",
            "seconds",
            "bytes",
        ];
        assert!(units.contains(&profile["unit"].as_str().unwrap()));
        let samples = list(&profile["samples"]);
        let weights = list(&profile["weights"]);
        assert_eq!(samples.len(), weights.len());
        assert_eq!(profile["startValue"], 0);
        assert_eq!(profile["endValue"].as_u64().unwrap(), sum(weights));
        let indices = samples.iter().flat_map(list);
        assert!(
            indices
                .into_iter()
                .all(|index| index.as_u64().unwrap() < frames.len() as u64)
        );
        assert!(samples.iter().all(|sample| !list(sample).is_empty()));
    }
}

#[test]
fn speedscope_keeps_the_schema_and_the_totals() {
    for it in captures() {
        let command = it.capture.metadata.command_line();
        for metric in METRICS {
            let file = json(|out| report::speedscope_json(&command, &it.profile, metric, out));
            check_speedscope(&file);
            let whole = it.profile.totals.figures.get(metric);
            let total = |index: usize| file["profiles"][index]["endValue"].as_u64().unwrap();
            assert_eq!((total(0), total(1)), (whole.bytes, whole.count));
        }
    }
}

#[test]
fn gprof2dot_keeps_the_totals() {
    for it in captures() {
        for metric in METRICS {
            let file = json(|out| report::gprof2dot_json(&it.profile, metric, out));
            check_keys(&file, &["version", "costs", "events", "functions"], &[]);
            let functions = list(&file["functions"]).len() as u64;
            let events = list(&file["events"]);
            let total: u64 = events.iter().map(|event| sum(list(&event["cost"]))).sum();
            assert_eq!(total, it.profile.totals.figures.get(metric).bytes);
            let calls = events.iter().flat_map(|event| list(&event["callchain"]));
            assert!(
                calls
                    .into_iter()
                    .all(|call| call.as_u64().unwrap() < functions)
            );
        }
    }
}

#[test]
fn csv_and_collapsed_keep_the_totals() {
    for it in captures() {
        for metric in METRICS {
            let whole = it.profile.totals.figures.get(metric);
            let csv = written(|out| report::transform_csv(&it.profile, metric, out));
            let csv = String::from_utf8(csv).unwrap();
            let mut total = Amount::default();
            for line in csv.lines().skip(1) {
                // The first four fields are never in quotes.
                let fields: Vec<&str> = line.split(',').collect();
                total.add(Amount {
                    count: fields[1].parse().unwrap(),
                    bytes: fields[2].parse().unwrap(),
                });
            }
            assert_eq!(total, whole);
            let collapsed = written(|out| report::collapsed_stacks(&it.profile, metric, out));
            let collapsed = String::from_utf8(collapsed).unwrap();
            let bytes = collapsed
                .lines()
                .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap());
            assert_eq!(bytes.sum::<u64>(), whole.bytes);
        }
    }
}

#[test]
fn the_biggest_stacks_are_kept() {
    let mut it = load(&fixtures::killed_service());
    let whole = it.profile.totals.figures.peak;
    let kept = report::keep_biggest(&mut it.profile, Metric::Peak, 1);
    assert_eq!((kept.stacks, kept.of_stacks), (1, 3));
    assert_eq!(kept.amount.bytes, 68 * fixtures::MIB);
    let left: u64 = it
        .profile
        .entries
        .iter()
        .map(|entry| entry.figures.peak.bytes)
        .sum();
    assert_eq!(left, kept.amount.bytes);
    assert_eq!(it.profile.totals.figures.peak, whole);
}
