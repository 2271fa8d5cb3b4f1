//! Reports on a heaptide profile: text, JSON and one self-contained HTML page.
//!
//! Every function writes data to a writer and nothing else; what a user should know besides (the
//! state of the program, warnings) comes from [`status_lines`] and belongs on stderr. Names come
//! from the profiled program and are hostile: text goes through [`visible`], JSON and HTML are
//! escaped.
//!
//! Sizes are in binary units (KiB, MiB); JSON has raw bytes. The schemas are in `docs/json.md`.
#![forbid(unsafe_code)]

mod death;
mod flamegraph;
mod format;
mod html;
mod object;
mod parse;
mod parse_json;
mod processes;
mod stats;
mod stats_json;
mod status;
mod summary;
mod text;
mod tree;

pub use death::{DeathOptions, death_summary};
pub use flamegraph::{FlamegraphOptions, flamegraph_html};
pub use format::{bytes_text, count_text, percent_text, time_text, visible};
pub use parse::parse_text;
pub use parse_json::{ParseOptions, parse_json};
pub use processes::{Reported, processes_json, processes_text};
pub use stats::{StatsOptions, stats_text};
pub use stats_json::stats_json;
pub use status::status_lines;
pub use summary::{SummaryColumn, SummaryOptions, summary_json, summary_text};
pub use text::TextOptions;
pub use tree::{TreeOptions, tree_json, tree_text};

/// Version of all JSON schemas; a reader should refuse one it does not know. Fields may be added
/// without a new version.
pub const SCHEMA_VERSION: u32 = 1;
