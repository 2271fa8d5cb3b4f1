//! The page that the HTML reports are: one application, built from `web/` of the repository, and
//! the data of one capture as a compressed block inside of it (`docs/design/008-web-report.md`).
//! It opens from a file, needs no network and may not use one.

mod block;
mod facts;
mod sources;
mod time;
mod tree;

use std::io::{self, Write};

use heaptide_capture::{Capture, Liveness};
use heaptide_engine::{Metric, ProcessHistory, Profile};
use heaptide_format::Allocator;
use serde_json::{Value, json};

use crate::format::visible;
use crate::html::escape_html;
use crate::stats::Part;

pub(crate) use block::Block;
pub use sources::ConfidentialFiles;
pub(crate) use tree::{PageTree, Shape};

/// Built by `npm run build` in `web/`; a test there holds that it is fresh.
const PAGE: &str = include_str!("../page/page.html");
const STYLE: &str = include_str!("../page/app.css");
const SCRIPT: &str = include_str!("../page/app.js");

/// The four metrics, in the order in which the page offers them.
pub(crate) const METRICS: [Metric; 4] = [
    Metric::Peak,
    Metric::Live,
    Metric::Allocated,
    Metric::Temporary,
];

/// What a page is made of, whichever report it is.
pub(crate) struct PageRequest<'a> {
    /// `flamegraph` or `table`; decides what the page opens with.
    pub(crate) report: &'static str,
    pub(crate) capture: &'a Capture,
    pub(crate) profile: &'a Profile,
    pub(crate) liveness: &'a Liveness,
    pub(crate) metric: Metric,
    pub(crate) inverted: bool,
    pub(crate) split_threads: bool,
    pub(crate) confidential_files: ConfidentialFiles,
    pub(crate) max_memory_records: usize,
    pub(crate) histories: &'a [ProcessHistory],
    pub(crate) part: Part,
    /// The part in words; empty: everything.
    pub(crate) shown: &'a str,
}

/// Writes the page.
///
/// # Errors
/// When writing fails.
pub(crate) fn write_page(request: &PageRequest, out: &mut dyn Write) -> io::Result<()> {
    let command = visible(&request.capture.metadata.command_line()).into_owned();
    let kind = match request.report {
        "table" => "table",
        _ => "flame graph",
    };
    let title = match command.as_str() {
        "" => format!("heaptide {kind}"),
        command => format!("{command} - heaptide {kind}"),
    };
    let mut rest = PAGE;
    // The template is split once; what is put in is never looked at again, so a name that looks
    // like a placeholder stays a name.
    while let Some((before, placeholder)) = rest.split_once("{{") {
        out.write_all(before.as_bytes())?;
        let (name, after) = placeholder.split_once("}}").unwrap_or((placeholder, ""));
        match name {
            "style" => out.write_all(STYLE.as_bytes())?,
            "script" => out.write_all(SCRIPT.as_bytes())?,
            "data" => block_of(request).write(out)?,
            "status" => {
                let status = request.liveness.to_string();
                out.write_all(escape_html(&visible(&status)).as_bytes())?;
            }
            _ => out.write_all(escape_html(&title).as_bytes())?,
        }
        rest = after;
    }
    out.write_all(rest.as_bytes())
}

/// The data of the page.
fn block_of(request: &PageRequest) -> Block {
    let shape = match request.report {
        "table" => Shape::Flat,
        _ => Shape::Tree,
    };
    let mut block = Block::default();
    let over_time = !request.histories.is_empty();
    let tree = PageTree::new(request.profile, shape, request.split_threads, over_time);
    let names = tree.write(request.capture, request.profile, &mut block);
    let sources = sources::sources(
        request.capture,
        request.profile,
        &tree,
        request.confidential_files,
    );
    let time = time::write_time(request, &tree, &mut block);
    block.head = json!({
        "schema_version": crate::SCHEMA_VERSION,
        "report": request.report,
        "command": visible(&request.capture.metadata.command_line()),
        "metric": request.metric.name(),
        "inverted": request.inverted,
        "split_threads": request.split_threads,
        "state": { "word": request.liveness.word(), "text": visible(&request.liveness.to_string()) },
        "metrics": facts::metrics(request),
        "facts": facts::facts(request),
        "histogram": facts::histogram(request.profile),
        "notes": facts::notes(request),
        "threads": threads(request),
        "allocators": tree.allocators.iter().copied().map(allocator_text).collect::<Vec<_>>(),
        "functions": names.functions,
        "files": names.files,
        "modules": names.modules,
        "sources": sources,
        "time": time,
        "temporal": over_time,
    });
    block
}

/// Its name, and the domain where Python's own allocators are told apart.
fn allocator_text(allocator: Allocator) -> String {
    let name = allocator.name().to_lowercase();
    match allocator.python_domain() {
        Some(domain) => format!("{name} ({})", domain.name()),
        None => name,
    }
}

fn threads(request: &PageRequest) -> Vec<Value> {
    if !request.split_threads {
        return Vec::new();
    }
    let threads = request.profile.threads.iter();
    threads
        .map(|thread| Value::from(crate::transform_csv::thread_label(thread)))
        .collect()
}
