//! `heaptide flamegraph`: one HTML page that needs no network.

use std::io::{self, Write};

use heaptide_capture::{Capture, Liveness};
use heaptide_engine::{Amount, CallTree, LocationId, Metric, Profile, TextId};
use rustc_hash::FxHashMap;
use serde_json::json;

use crate::format::{count_text, percent_text, visible};
use crate::html::{ScriptWriter, escape_html};
use crate::status::live_title;

const PAGE: &str = include_str!("../web/flamegraph.html");
const STYLE: &str = include_str!("../web/flamegraph.css");
/// Put into one function in this order.
const SCRIPTS: [&str; 4] = [
    include_str!("../web/model.js"),
    include_str!("../web/graph.js"),
    include_str!("../web/controls.js"),
    include_str!("../web/page.js"),
];

/// What the page shows first; the other one of peak and live is a click away.
#[derive(Clone, Copy, Debug)]
pub struct FlamegraphOptions {
    /// [`Metric::Peak`] or [`Metric::Live`].
    pub metric: Metric,
}

/// The page.
///
/// # Errors
/// When writing fails.
pub fn flamegraph_html(
    capture: &Capture,
    profile: &Profile,
    liveness: &Liveness,
    options: FlamegraphOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let command = capture.metadata.command_line();
    let title = if command.is_empty() {
        "heaptide".to_owned()
    } else {
        format!("{command} - heaptide")
    };
    let mut rest = PAGE;
    // The template is split once; what is put in is never looked at again, so a name that looks
    // like a placeholder stays a name.
    while let Some((before, placeholder)) = rest.split_once("{{") {
        out.write_all(before.as_bytes())?;
        let (name, after) = placeholder.split_once("}}").unwrap_or((placeholder, ""));
        match name {
            "style" => out.write_all(STYLE.as_bytes())?,
            "script" => write_script(out)?,
            "data" => write_data(
                capture,
                profile,
                liveness,
                options,
                &mut ScriptWriter::new(out),
            )?,
            "state" => out.write_all(liveness.word().as_bytes())?,
            "status" => out.write_all(escape_html(&visible(&liveness.to_string())).as_bytes())?,
            "command" => out.write_all(escape_html(&visible(&command)).as_bytes())?,
            _ => out.write_all(escape_html(&visible(&title)).as_bytes())?,
        }
        rest = after;
    }
    out.write_all(rest.as_bytes())
}

fn write_script(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"(() => {\n\"use strict\";\n")?;
    SCRIPTS
        .iter()
        .try_for_each(|script| out.write_all(script.as_bytes()))?;
    out.write_all(b"})();\n")
}

/// The call tree as arrays, without what is neither in the peak nor live.
#[derive(Default)]
struct PageTree {
    parent: Vec<u32>,
    location: Vec<u32>,
    own: [Vec<Amount>; 2],
    locations: Vec<LocationId>,
}

const METRICS: [Metric; 2] = [Metric::Peak, Metric::Live];

impl PageTree {
    fn new(profile: &Profile) -> Self {
        let tree = CallTree::new(profile);
        let own = METRICS.map(|metric| tree.own(profile, metric));
        let total = [tree.total(&own[0]), tree.total(&own[1])];
        let mut page = Self::default();
        let mut new_index = vec![0u32; tree.nodes.len()];
        let mut location_indices: FxHashMap<LocationId, u32> = FxHashMap::default();
        for (index, node) in tree.nodes.iter().enumerate() {
            let shown = total.iter().any(|total| total[index].bytes > 0);
            if index != 0 && !shown {
                continue;
            }
            new_index[index] = page.parent.len() as u32;
            page.parent.push(new_index[node.parent as usize]);
            let location = profile.stacks.frames[node.frame.index()].location;
            let locations = &mut page.locations;
            page.location
                .push(*location_indices.entry(location).or_insert_with(|| {
                    locations.push(location);
                    (locations.len() - 1) as u32
                }));
            for (page_own, own) in page.own.iter_mut().zip(&own) {
                page_own.push(own[index]);
            }
        }
        page
    }
}

fn write_data(
    capture: &Capture,
    profile: &Profile,
    liveness: &Liveness,
    options: FlamegraphOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let page = PageTree::new(profile);
    let mut texts = PageTexts::new(profile);
    let places = page
        .locations
        .iter()
        .map(|id| profile.stacks.locations[id.index()]);
    let (mut functions, mut files, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for place in places {
        functions.push(texts.index_of(place.function));
        files.push(texts.index_of(place.file));
        lines.push(place.line);
    }
    let figures = &profile.totals.figures;
    let blocks = |amount: Amount| format!("{} blocks", count_text(amount.count));
    let start = capture.lifecycle.tracking_start_unix_ns;
    let first = if start == 0 {
        capture.samples.first().map_or(0, |sample| sample.unix_ns)
    } else {
        start
    };
    let seconds = |unix_ns: u64| (i128::from(unix_ns) - i128::from(first)) as f64 / 1e9;
    let samples = &capture.samples;
    let bytes = |own: &[Amount]| own.iter().map(|amount| amount.bytes).collect::<Vec<_>>();
    let counts = |own: &[Amount]| own.iter().map(|amount| amount.count).collect::<Vec<_>>();
    let temporary = format!(
        "{} of {}",
        percent_text(figures.temporary.count, figures.allocated.count),
        blocks(figures.allocated)
    );
    let data = json!({
        "schema_version": crate::SCHEMA_VERSION,
        "metric": if options.metric == Metric::Live { "live" } else { "peak" },
        "live_words": live_title(liveness).to_lowercase(),
        "warnings": profile.warnings.iter().map(|warning| visible(&warning.to_string()).into_owned()).collect::<Vec<_>>(),
        "totals": [
            ["At the peak", figures.peak.bytes, blocks(figures.peak)],
            [live_title(liveness), figures.live.bytes, blocks(figures.live)],
            ["Allocated in total", figures.allocated.bytes, blocks(figures.allocated)],
            ["Temporary", figures.temporary.bytes, temporary],
        ],
        "strings": texts.texts,
        "locations": { "function": functions, "file": files, "line": lines },
        "nodes": {
            "parent": page.parent,
            "location": page.location,
            "peak_bytes": bytes(&page.own[0]),
            "peak_count": counts(&page.own[0]),
            "live_bytes": bytes(&page.own[1]),
            "live_count": counts(&page.own[1]),
        },
        "samples": {
            "seconds": samples.iter().map(|sample| seconds(sample.unix_ns)).collect::<Vec<_>>(),
            "resident": samples.iter().map(|sample| sample.resident_bytes).collect::<Vec<_>>(),
            "heap": samples.iter().map(|sample| sample.heap_bytes).collect::<Vec<_>>(),
            "limit": samples.last().map_or(0, |sample| sample.cgroup_limit_bytes),
        },
    });
    serde_json::to_writer(out, &data)?;
    Ok(())
}

/// The texts that the page needs, made visible.
struct PageTexts<'a> {
    profile: &'a Profile,
    indices: FxHashMap<TextId, u32>,
    texts: Vec<String>,
}

impl<'a> PageTexts<'a> {
    fn new(profile: &'a Profile) -> Self {
        Self {
            profile,
            indices: FxHashMap::default(),
            texts: Vec::new(),
        }
    }

    fn index_of(&mut self, id: TextId) -> u32 {
        *self.indices.entry(id).or_insert_with(|| {
            self.texts
                .push(visible(self.profile.stacks.text(id)).into_owned());
            (self.texts.len() - 1) as u32
        })
    }
}
