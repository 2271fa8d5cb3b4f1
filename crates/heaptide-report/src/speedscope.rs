//! `heaptide transform speedscope`: the file format of <https://www.speedscope.app>.

use std::io::{self, Write};

use heaptide_engine::{Amount, LocationId, Metric, NO_FILE, Profile};
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::chains::Chains;

const SCHEMA: &str = "https://www.speedscope.app/file-format-schema.json";
const EXPORTER: &str = concat!("heaptide@", env!("CARGO_PKG_VERSION"));

#[derive(Serialize)]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    shared: Shared<'a>,
    profiles: [Samples<'a>; 2],
    name: &'a str,
    #[serde(rename = "activeProfileIndex")]
    active_profile_index: u32,
    exporter: &'static str,
}

#[derive(Serialize)]
struct Shared<'a> {
    frames: Vec<Frame<'a>>,
}

#[derive(Serialize)]
struct Frame<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<i32>,
}

#[derive(Serialize)]
struct Samples<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'static str,
    unit: &'static str,
    #[serde(rename = "startValue")]
    start_value: u64,
    #[serde(rename = "endValue")]
    end_value: u64,
    /// Frames of each stack, outermost first.
    samples: Vec<&'a [u32]>,
    weights: Vec<u64>,
}

impl<'a> Samples<'a> {
    fn new(
        name: &'static str,
        unit: &'static str,
        stacks: &'a [(Vec<u32>, Amount)],
        weight: impl Fn(Amount) -> u64,
    ) -> Self {
        let weighted = stacks
            .iter()
            .map(|(frames, amount)| (frames.as_slice(), weight(*amount)));
        let (samples, weights): (Vec<_>, Vec<_>) =
            weighted.filter(|&(_, weight)| weight > 0).unzip();
        Self {
            kind: "sampled",
            name,
            unit,
            start_value: 0,
            end_value: weights
                .iter()
                .fold(0, |sum: u64, &weight| sum.saturating_add(weight)),
            samples,
            weights,
        }
    }
}

/// Two profiles, bytes and allocations, over the same stacks, by the name of the program's command line.
///
/// # Errors
/// When writing fails.
pub fn speedscope_json(
    command: &str,
    profile: &Profile,
    metric: Metric,
    out: &mut dyn Write,
) -> io::Result<()> {
    let chains = Chains::new(profile, metric);
    let mut frames = Vec::new();
    let mut indices: FxHashMap<LocationId, u32> = FxHashMap::default();
    let mut index_of = |location: LocationId| {
        *indices.entry(location).or_insert_with(|| {
            let place = chains.stacks.locations[location.index()];
            let file = chains.stacks.text(place.file);
            frames.push(Frame {
                name: chains.stacks.text(place.function),
                file: Some(file).filter(|&file| file != NO_FILE && !file.is_empty()),
                line: Some(place.line).filter(|&line| line > 0),
            });
            (frames.len() - 1) as u32
        })
    };
    let stacks: Vec<(Vec<u32>, Amount)> = chains
        .iter()
        .map(|(node, amount)| {
            let places = chains.outermost_first(node);
            (places.into_iter().map(&mut index_of).collect(), amount)
        })
        .collect();
    let file = File {
        schema: SCHEMA,
        shared: Shared { frames },
        profiles: [
            Samples::new("Memory", "bytes", &stacks, |amount| amount.bytes),
            Samples::new("Allocations", "none", &stacks, |amount| amount.count),
        ],
        name: if command.is_empty() {
            "heaptide"
        } else {
            command
        },
        active_profile_index: 0,
        exporter: EXPORTER,
    };
    serde_json::to_writer(&mut *out, &file)?;
    out.write_all(b"\n")
}
