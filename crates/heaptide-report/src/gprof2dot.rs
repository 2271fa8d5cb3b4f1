//! `heaptide transform gprof2dot`: JSON for `gprof2dot -f json`.

use std::io::{self, Write};

use heaptide_engine::{Metric, Profile, TextId};
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::chains::Chains;

#[derive(Serialize)]
struct File<'a> {
    version: u32,
    costs: [Cost; 1],
    events: Vec<Event>,
    functions: Vec<Function<'a>>,
}

#[derive(Serialize)]
struct Cost {
    description: &'static str,
    unit: &'static str,
}

#[derive(Serialize)]
struct Event {
    /// Innermost first.
    callchain: Vec<u32>,
    cost: [u64; 1],
}

#[derive(Clone, Copy, Serialize)]
struct Function<'a> {
    name: &'a str,
    module: &'a str,
}

/// Bytes per call stack, functions merged by name and file.
///
/// # Errors
/// When writing fails.
pub fn gprof2dot_json(profile: &Profile, metric: Metric, out: &mut dyn Write) -> io::Result<()> {
    let chains = Chains::new(profile, metric);
    let stacks = chains.stacks;
    let mut functions = Vec::new();
    let mut indices: FxHashMap<(TextId, TextId), u32> = FxHashMap::default();
    let mut events = Vec::new();
    for (node, amount) in chains.iter().filter(|(_, amount)| amount.bytes > 0) {
        let callchain = chains.innermost_first(node).map(|location| {
            let place = stacks.locations[location.index()];
            *indices
                .entry((place.function, place.file))
                .or_insert_with(|| {
                    functions.push(Function {
                        name: stacks.text(place.function),
                        module: stacks.text(place.file),
                    });
                    (functions.len() - 1) as u32
                })
        });
        events.push(Event {
            callchain: callchain.collect(),
            cost: [amount.bytes],
        });
    }
    let file = File {
        version: 0,
        costs: [Cost {
            description: "Memory",
            unit: "bytes",
        }],
        events,
        functions,
    };
    serde_json::to_writer(&mut *out, &file)?;
    out.write_all(b"\n")
}
