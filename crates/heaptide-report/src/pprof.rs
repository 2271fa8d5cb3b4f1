//! `heaptide export pprof`: a gzipped `profile.proto`, as `go tool pprof` and its kin read it.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use heaptide_capture::Capture;
use heaptide_engine::{Entry, Frame, FrameId, Metric, Profile, StackId, TextId};
use rustc_hash::FxHashMap;

use crate::protobuf::Message;
use crate::stats_json::end_unix_ns;

/// Field numbers of `profile.proto`.
mod field {
    pub(super) const SAMPLE_TYPE: u64 = 1;
    pub(super) const SAMPLE: u64 = 2;
    pub(super) const LOCATION: u64 = 4;
    pub(super) const FUNCTION: u64 = 5;
    pub(super) const STRING_TABLE: u64 = 6;
    pub(super) const TIME_NANOS: u64 = 9;
    pub(super) const DURATION_NANOS: u64 = 10;
    pub(super) const PERIOD_TYPE: u64 = 11;
    pub(super) const PERIOD: u64 = 12;
    pub(super) const COMMENT: u64 = 13;
    pub(super) const DEFAULT_SAMPLE_TYPE: u64 = 14;
}

/// The values of a sample: a count and bytes each. The first four are those of Go's heap profiles.
const METRICS: [(Metric, &str); 4] = [
    (Metric::Allocated, "alloc"),
    (Metric::Live, "inuse"),
    (Metric::Peak, "peak"),
    (Metric::Temporary, "temporary"),
];

/// All metrics of all stacks; `metric` is the one a reader shows first. Samples are labelled with
/// `thread`, `thread_id` and `allocator`.
///
/// # Errors
/// When writing fails.
pub fn pprof(
    capture: &Capture,
    profile: &Profile,
    metric: Metric,
    out: &mut dyn Write,
) -> io::Result<()> {
    gzipped(out, |out| write_profile(capture, profile, metric, out))
}

/// Runs `write` on a compressing writer.
///
/// # Errors
/// When writing fails.
pub fn gzipped(
    out: &mut dyn Write,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut gzip = GzEncoder::new(out, Compression::default());
    write(&mut gzip)?;
    gzip.finish()?.flush()
}

fn write_profile(
    capture: &Capture,
    profile: &Profile,
    metric: Metric,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut strings = Strings::default();
    // Index zero is the empty string, always.
    strings.index_of("");
    let mut head = Message::default();
    let value_type = |message: &mut Message, kind: u64, unit: u64| {
        message.integer(1, kind);
        message.integer(2, unit);
    };
    for (_, name) in METRICS {
        for (noun, unit) in [("objects", "count"), ("space", "bytes")] {
            let kind = strings.index_of(&format!("{name}_{noun}"));
            let unit = strings.index_of(unit);
            head.message(field::SAMPLE_TYPE, |message| {
                value_type(message, kind, unit);
            });
        }
    }
    let start = capture.lifecycle.tracking_start_unix_ns;
    head.integer(field::TIME_NANOS, start);
    if start != 0 {
        let duration = end_unix_ns(capture).saturating_sub(start);
        head.integer(field::DURATION_NANOS, duration);
    }
    let (space, bytes) = (strings.index_of("space"), strings.index_of("bytes"));
    head.message(field::PERIOD_TYPE, |message| {
        value_type(message, space, bytes);
    });
    // Every allocation is counted: a period of one byte.
    head.integer(field::PERIOD, 1);
    let comments = [
        concat!("heaptide ", env!("CARGO_PKG_VERSION")).to_owned(),
        capture.metadata.command_line(),
    ];
    let comments: Vec<u64> = comments.iter().map(|text| strings.index_of(text)).collect();
    head.packed(field::COMMENT, comments);
    let shown = METRICS.iter().find(|(known, _)| *known == metric);
    let shown = shown.map_or("peak", |(_, name)| name);
    let shown = strings.index_of(&format!("{shown}_space"));
    head.integer(field::DEFAULT_SAMPLE_TYPE, shown);
    out.write_all(head.as_bytes())?;

    write_samples(profile, &mut strings, out)?;
    write_places(profile, &mut strings, out)?;

    let mut message = Message::default();
    for text in &strings.list {
        message.clear();
        message.bytes(field::STRING_TABLE, text.as_bytes());
        out.write_all(message.as_bytes())?;
    }
    Ok(())
}

fn write_samples(profile: &Profile, strings: &mut Strings, out: &mut dyn Write) -> io::Result<()> {
    let keys = ["thread", "thread_id", "allocator"].map(|key| strings.index_of(key));
    let mut outer = Message::default();
    for entry in &profile.entries {
        if METRICS
            .iter()
            .all(|&(metric, _)| entry.figures.get(metric).is_zero())
        {
            continue;
        }
        let thread = &profile.threads[entry.thread as usize];
        let name = strings.index_of(&thread.name);
        let allocator = strings.index_of(entry.allocator.name());
        outer.clear();
        outer.message(field::SAMPLE, |sample| {
            sample.packed(1, frames(profile, entry).map(location_id));
            let values = METRICS.iter().flat_map(|&(metric, _)| {
                let amount = entry.figures.get(metric);
                // The fields are signed.
                [amount.count, amount.bytes].map(|value| value.min(i64::MAX as u64))
            });
            sample.packed(2, values);
            sample.message(3, |label| {
                label.integer(1, keys[0]);
                label.integer(2, name);
            });
            sample.message(3, |label| {
                label.integer(1, keys[1]);
                label.integer(3, u64::from(thread.thread_id));
            });
            sample.message(3, |label| {
                label.integer(1, keys[2]);
                label.integer(2, allocator);
            });
        });
        out.write_all(outer.as_bytes())?;
    }
    Ok(())
}

/// Locations are frames, functions are qualified names in files; numbers start at one.
fn write_places(profile: &Profile, strings: &mut Strings, out: &mut dyn Write) -> io::Result<()> {
    let stacks = &profile.stacks;
    let mut functions: FxHashMap<(TextId, TextId), u64> = FxHashMap::default();
    let mut outer = Message::default();
    for (index, used) in used_frames(profile).into_iter().enumerate() {
        if !used {
            continue;
        }
        let frame: Frame = stacks.frames[index];
        let place = stacks.locations[frame.location.index()];
        let next = functions.len() as u64 + 1;
        let function = *functions
            .entry((frame.qualified_name, place.file))
            .or_insert(next);
        if function == next {
            let name = strings.index_of(stacks.text(frame.qualified_name));
            let system_name = strings.index_of(stacks.text(place.function));
            let file = strings.index_of(stacks.text(place.file));
            outer.clear();
            outer.message(field::FUNCTION, |message| {
                message.integer(1, next);
                message.integer(2, name);
                // Where both are the same, readers take the name for a mangled one of C++, and `<module>` for
                // parameters of a template, which they cut off.
                if system_name != name {
                    message.integer(3, system_name);
                }
                message.integer(4, file);
            });
            out.write_all(outer.as_bytes())?;
        }
        outer.clear();
        outer.message(field::LOCATION, |message| {
            message.integer(1, location_id(FrameId(index as u32)));
            message.message(4, |line| {
                line.integer(1, function);
                line.integer(2, u64::try_from(place.line).unwrap_or(0));
            });
        });
        out.write_all(outer.as_bytes())?;
    }
    Ok(())
}

fn location_id(frame: FrameId) -> u64 {
    u64::from(frame.0) + 1
}

/// The frames of an entry, innermost first; never none.
fn frames<'a>(profile: &'a Profile, entry: &Entry) -> impl Iterator<Item = FrameId> + 'a {
    let stacks = &profile.stacks;
    let frameless = (entry.stack == StackId::ROOT).then_some(stacks.frameless);
    let nodes = stacks.walk(entry.stack);
    nodes
        .map(|node| stacks.nodes[node.index()].frame)
        .chain(frameless)
}

fn used_frames(profile: &Profile) -> Vec<bool> {
    let stacks = &profile.stacks;
    let mut used = vec![false; stacks.frames.len()];
    let mut seen = vec![false; stacks.nodes.len()];
    for entry in &profile.entries {
        if entry.stack == StackId::ROOT {
            used[stacks.frameless.index()] = true;
        }
        for node in stacks.walk(entry.stack) {
            if std::mem::replace(&mut seen[node.index()], true) {
                break;
            }
            used[stacks.nodes[node.index()].frame.index()] = true;
        }
    }
    used
}

/// The string table.
#[derive(Default)]
struct Strings {
    list: Vec<String>,
    indices: FxHashMap<String, u64>,
}

impl Strings {
    fn index_of(&mut self, text: &str) -> u64 {
        if let Some(&index) = self.indices.get(text) {
            return index;
        }
        let index = self.list.len() as u64;
        self.list.push(text.to_owned());
        self.indices.insert(text.to_owned(), index);
        index
    }
}
