//! Reports on a heaptide profile: text, JSON, self-contained HTML pages, and the formats of other
//! tools.
//!
//! Every function writes data to a writer and nothing else; what a user should know besides (the
//! state of the program, warnings) comes from [`status_lines`] and belongs on stderr. Names come
//! from the profiled program and are hostile: text goes through [`visible`], JSON and HTML are
//! escaped.
//!
//! Sizes are in binary units (KiB, MiB); JSON has raw bytes. The schemas are in `docs/json.md`.
#![forbid(unsafe_code)]

mod biggest;
mod chains;
mod collapsed;
mod death;
mod firefox;
mod flamegraph;
mod format;
mod gprof2dot;
mod html;
mod interval;
mod modules;
mod object;
mod page;
mod parse;
mod parse_json;
mod pprof;
mod processes;
mod protobuf;
mod speedscope;
mod stats;
mod stats_json;
mod status;
mod summary;
mod table;
mod text;
mod threads;
mod transform_csv;
mod tree;

pub use biggest::{Kept, keep_biggest};
pub use collapsed::collapsed_stacks;
pub use death::{DeathOptions, death_summary};
pub use firefox::firefox_json;
pub use flamegraph::{FlamegraphOptions, MAX_MEMORY_RECORDS, flamegraph_html};
pub use format::{bytes_text, count_text, percent_text, time_text, visible};
pub use gprof2dot::gprof2dot_json;
pub use interval::keep_interval;
pub use modules::{ModuleRow, by_module};
pub use page::ConfidentialFiles;
pub use parse::parse_text;
pub use parse_json::{ParseOptions, parse_json};
pub use pprof::{gzipped, pprof};
pub use processes::{Reported, processes_json, processes_text};
pub use speedscope::speedscope_json;
pub use stats::{Part, StatsOptions, stats_text};
pub use stats_json::{end_unix_ns, stats_json};
pub use status::status_lines;
pub use summary::{SummaryColumn, SummaryOptions, summary_json, summary_text};
pub use table::{TableOptions, table_html, table_json};
pub use text::TextOptions;
pub use threads::{ThreadFrames, keep_threads, split_by_thread};
pub use transform_csv::transform_csv;
pub use tree::{TreeOptions, tree_json, tree_text};

/// Version of all JSON schemas; a reader should refuse one it does not know. Fields may be added
/// without a new version.
pub const SCHEMA_VERSION: u32 = 1;
