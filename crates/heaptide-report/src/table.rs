//! `heaptide table`: allocations per place, as a page that sorts and filters and needs no network.

use std::io::{self, Write};

use heaptide_capture::{Capture, Liveness};
use heaptide_engine::{Amount, LocationId, Metric, NO_FILE, Profile};
use heaptide_format::Allocator;
use rustc_hash::FxHashMap;
use serde_json::json;

use crate::SCHEMA_VERSION;
use crate::format::{bytes_text, count_text, visible};
use crate::html::{ScriptWriter, escape_html};
use crate::object::{Field, object, write_pretty};
use crate::status::live_title;
use crate::transform_csv::thread_label;

const PAGE: &str = include_str!("../table/table.html");
const STYLE: &str = include_str!("../table/table.css");
const SCRIPT: &str = include_str!("../table/table.js");

/// What the table shows.
#[derive(Clone, Copy, Debug)]
pub struct TableOptions {
    /// What is counted.
    pub metric: Metric,
    /// A row per thread.
    pub split_threads: bool,
}

/// What one place allocated by one function.
struct Row {
    thread: Option<u32>,
    allocator: Allocator,
    location: Option<LocationId>,
    amount: Amount,
}

/// Rows by thread (if they are split), allocator and innermost frame, the largest first.
fn rows(profile: &Profile, options: TableOptions) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut indices: FxHashMap<_, usize> = FxHashMap::default();
    for entry in &profile.entries {
        let amount = entry.figures.get(options.metric);
        if amount.is_zero() {
            continue;
        }
        let frame = profile.stacks.innermost(entry.stack);
        let location = frame.map(|frame| frame.location);
        let thread = options.split_threads.then_some(entry.thread);
        let key = (thread, entry.allocator, location);
        let index = *indices.entry(key).or_insert_with(|| {
            rows.push(Row {
                thread,
                allocator: entry.allocator,
                location,
                amount: Amount::default(),
            });
            rows.len() - 1
        });
        rows[index].amount.add(amount);
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.amount.bytes, row.amount.count)));
    rows
}

/// `function at file:line`, as Memray has it.
fn place_text(profile: &Profile, location: Option<LocationId>) -> String {
    let Some(location) = location else {
        return "<no Python frame>".to_owned();
    };
    let place = profile.stacks.locations[location.index()];
    let function = visible(profile.stacks.text(place.function));
    let file = profile.stacks.text(place.file);
    if file == NO_FILE {
        function.into_owned()
    } else {
        format!("{function} at {}:{}", visible(file), place.line)
    }
}

/// The page.
///
/// # Errors
/// When writing fails.
pub fn table_html(
    capture: &Capture,
    profile: &Profile,
    liveness: &Liveness,
    options: TableOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let command = capture.metadata.command_line();
    let whole = profile.totals.figures.get(options.metric);
    let metric = match options.metric {
        Metric::Peak => "At the peak".to_owned(),
        Metric::Live => live_title(liveness).to_owned(),
        Metric::Allocated => "Allocated in total".to_owned(),
        Metric::Temporary => "Temporary".to_owned(),
    };
    let total = format!(
        "{metric}: {} in {} blocks",
        bytes_text(whole.bytes),
        count_text(whole.count)
    );
    let mut rest = PAGE;
    // The template is split once, so a name that looks like a placeholder stays a name.
    while let Some((before, placeholder)) = rest.split_once("{{") {
        out.write_all(before.as_bytes())?;
        let (name, after) = placeholder.split_once("}}").unwrap_or((placeholder, ""));
        let text = match name {
            "style" => {
                out.write_all(STYLE.as_bytes())?;
                String::new()
            }
            "script" => {
                out.write_all(SCRIPT.as_bytes())?;
                String::new()
            }
            "data" => {
                write_data(profile, options, &mut ScriptWriter::new(out))?;
                String::new()
            }
            "status" => liveness.to_string(),
            "total" => total.clone(),
            _ => command.clone(),
        };
        out.write_all(escape_html(&visible(&text)).as_bytes())?;
        rest = after;
    }
    out.write_all(rest.as_bytes())
}

fn write_data(profile: &Profile, options: TableOptions, out: &mut dyn Write) -> io::Result<()> {
    let threads: Vec<String> = profile.threads.iter().map(thread_label).collect();
    let rows = rows(profile, options);
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!([
                row.thread.map_or("", |thread| &threads[thread as usize]),
                row.amount.bytes,
                bytes_text(row.amount.bytes),
                row.allocator.name().to_lowercase(),
                row.amount.count,
                place_text(profile, row.location),
            ])
        })
        .collect();
    let data = json!({ "split_threads": options.split_threads, "rows": rows });
    serde_json::to_writer(out, &data)?;
    Ok(())
}

/// The same rows as JSON.
///
/// # Errors
/// When writing fails.
pub fn table_json(profile: &Profile, options: TableOptions, out: &mut dyn Write) -> io::Result<()> {
    let whole = profile.totals.figures.get(options.metric);
    let rows = rows(profile, options);
    let rows = rows.iter().map(|row| {
        let place = row
            .location
            .map(|location| profile.stacks.locations[location.index()]);
        let thread = row.thread.map(|thread| &profile.threads[thread as usize]);
        object! {
            "thread_id": thread.map(|thread| thread.thread_id),
            "thread_name": thread.map(|thread| thread.name.as_str()),
            "allocator": row.allocator.name(),
            "function": place.map(|place| profile.stacks.text(place.function)),
            "file": place.map(|place| profile.stacks.text(place.file)),
            "line": place.map(|place| place.line),
            "size": row.amount.bytes,
            "count": row.amount.count,
        }
    });
    let report = object! {
        "schema_version": SCHEMA_VERSION,
        "metric": options.metric.name(),
        "total_bytes": whole.bytes,
        "total_count": whole.count,
        "rows": Field::List(rows.collect()),
    };
    write_pretty(out, &report)
}
