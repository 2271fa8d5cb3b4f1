//! pprof profiles, read back field by field.

mod support;
mod wire;

use std::io::Read;

use flate2::read::GzDecoder;
use heaptide_engine::Metric;
use heaptide_report as report;
use heaptide_testkit::fixtures;

use self::support::{METRICS, captures, load, written};
use self::wire::Message;

#[test]
fn pprof_can_be_read_back() {
    for it in captures() {
        let bytes = written(|out| report::pprof(&it.capture, &it.profile, Metric::Live, out));
        let mut plain = Vec::new();
        GzDecoder::new(bytes.as_slice())
            .read_to_end(&mut plain)
            .expect("gzip");
        let file = Message::parse(&plain);
        let strings: Vec<&str> = file
            .all(6)
            .map(|text| std::str::from_utf8(text.bytes()).expect("UTF-8"))
            .collect();
        assert_eq!(strings[0], "");
        let text = |index: u64| strings[index as usize];
        let types: Vec<(&str, &str)> = file
            .messages(1)
            .map(|kind| (text(kind.integer(1)), text(kind.integer(2))))
            .collect();
        assert_eq!(types.len(), 8);
        assert_eq!(types[3], ("inuse_space", "bytes"));
        assert_eq!(text(file.integer(14)), "inuse_space");
        assert_eq!(file.integer(9), it.capture.lifecycle.tracking_start_unix_ns);

        let functions: Vec<u64> = file
            .messages(5)
            .map(|function| function.integer(1))
            .collect();
        let mut locations = Vec::new();
        for location in file.messages(4) {
            locations.push(location.integer(1));
            let line = location.messages(4).next().expect("a line");
            assert!(functions.contains(&line.integer(1)));
        }
        let mut totals = [0u64; 8];
        for sample in file.messages(2) {
            let stack = sample.packed(1);
            assert!(!stack.is_empty());
            assert!(stack.iter().all(|location| locations.contains(location)));
            let values = sample.packed(2);
            assert_eq!(values.len(), totals.len());
            totals
                .iter_mut()
                .zip(values)
                .for_each(|(total, value)| *total += value);
            let keys: Vec<&str> = sample
                .messages(3)
                .map(|label| text(label.integer(1)))
                .collect();
            assert_eq!(keys, ["thread", "thread_id", "allocator"]);
        }
        let figures = &it.profile.totals.figures;
        let expected = METRICS.map(|metric| figures.get(metric));
        let expected = expected.map(|amount| [amount.count, amount.bytes]);
        assert_eq!(totals.as_slice(), expected.as_flattened());
    }
}

#[test]
fn pprof_names_the_frames() {
    let it = load(&fixtures::killed_service());
    let bytes = written(|out| report::pprof(&it.capture, &it.profile, Metric::Peak, out));
    let mut plain = Vec::new();
    GzDecoder::new(bytes.as_slice())
        .read_to_end(&mut plain)
        .unwrap();
    let file = Message::parse(&plain);
    let strings: Vec<String> = file
        .all(6)
        .map(|text| String::from_utf8(text.bytes().to_vec()).unwrap())
        .collect();
    let text = |index: u64| strings[index as usize].as_str();
    let frame = |id: u64| {
        let location = file
            .messages(4)
            .find(|location| location.integer(1) == id)
            .unwrap();
        let line = location.messages(4).next().unwrap();
        let function = file
            .messages(5)
            .find(|function| function.integer(1) == line.integer(1))
            .unwrap();
        format!(
            "{} {}:{}",
            text(function.integer(2)),
            text(function.integer(4)),
            line.integer(2)
        )
    };
    let cached = file
        .messages(2)
        .find(|sample| sample.packed(2)[0] == 8)
        .expect("the eight blocks of the cache");
    let frames: Vec<String> = cached.packed(1).into_iter().map(frame).collect();
    assert_eq!(
        frames,
        [
            "Cache.put /srv/cache.py:22",
            "serve /srv/app.py:14",
            "<module> /srv/app.py:3"
        ]
    );
    // The same name twice would be taken for one of C++.
    for function in file.messages(5) {
        assert_ne!(function.integer(2), function.integer(3));
    }
    let label = cached.messages(3).next().unwrap();
    assert_eq!(text(label.integer(2)), "worker-1");
    assert_eq!(text(file.integer(14)), "peak_space");
}
