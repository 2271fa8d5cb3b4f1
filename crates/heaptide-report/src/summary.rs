//! `heaptide summary`: memory per function.

use std::cmp::Reverse;
use std::io::{self, Write};

use heaptide_engine::{FunctionRow, Metric, Profile, by_function, by_function_of};

use crate::SCHEMA_VERSION;
use crate::format::{bytes_text, count_text, percent, percent_text, visible};
use crate::object::{Field, Object, object, write_pretty};
use crate::text::TextOptions;

/// What `summary` shows.
#[derive(Clone, Copy, Debug)]
pub struct SummaryOptions {
    /// What is counted.
    pub metric: Metric,
    /// The column to sort by, from the largest.
    pub sort: SummaryColumn,
    /// How many rows.
    pub max_rows: usize,
    /// A row per thread instead of all threads together.
    pub split_threads: bool,
    /// What is said after the number of rows that are left out.
    pub how_to_see_more: &'static str,
}

impl Default for SummaryOptions {
    fn default() -> Self {
        Self {
            metric: Metric::Peak,
            sort: SummaryColumn::Total,
            max_rows: usize::MAX,
            split_threads: false,
            how_to_see_more: ", show them with -r",
        }
    }
}

/// The columns that can be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SummaryColumn {
    /// Bytes of the function and what it called.
    Total,
    /// Bytes of the function itself.
    Own,
    /// Blocks of the function and what it called.
    Count,
    /// The name of the function and its file, from A.
    Location,
}

impl SummaryColumn {
    /// The column with this number in Memray's table: 1 and 2 are total bytes and their share, 3
    /// and 4 own bytes and their share, 5 is the count.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 | 2 => Some(Self::Total),
            3 | 4 => Some(Self::Own),
            5 => Some(Self::Count),
            _ => None,
        }
    }

    /// The column of this name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let columns = [
            ("total", Self::Total),
            ("own", Self::Own),
            ("count", Self::Count),
            ("location", Self::Location),
        ];
        columns
            .into_iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, column)| column)
    }
}

/// A function, of one thread or of all.
struct Row {
    thread: Option<u32>,
    row: FunctionRow,
}

fn sorted_rows(profile: &Profile, options: SummaryOptions) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    if options.split_threads {
        let mut threads: Vec<u32> = profile.entries.iter().map(|entry| entry.thread).collect();
        threads.sort_unstable();
        threads.dedup();
        for thread in threads {
            let of_thread = by_function_of(profile, options.metric, |entry| entry.thread == thread);
            rows.extend(of_thread.into_iter().map(|row| Row {
                thread: Some(thread),
                row,
            }));
        }
        rows.sort_by_key(|Row { row, .. }| {
            Reverse((row.total.bytes, row.total.count, row.own.bytes))
        });
    } else {
        let of_all = by_function(profile, options.metric);
        rows.extend(of_all.into_iter().map(|row| Row { thread: None, row }));
    }
    match options.sort {
        SummaryColumn::Total => {}
        SummaryColumn::Own => rows.sort_by_key(|row| Reverse(row.row.own.bytes)),
        SummaryColumn::Count => rows.sort_by_key(|row| Reverse(row.row.total.count)),
        SummaryColumn::Location => rows.sort_by_cached_key(|row| name_of(profile, row)),
    }
    rows
}

fn name_of(profile: &Profile, row: &Row) -> String {
    let name = function_name(profile, &row.row);
    match row.thread {
        Some(thread) => {
            let thread = &profile.threads[thread as usize];
            format!("{name} in {} ({})", visible(&thread.name), thread.thread_id)
        }
        None => name,
    }
}

fn function_name(profile: &Profile, row: &FunctionRow) -> String {
    match row.function {
        Some((function, file)) => {
            let text = |id| visible(profile.stacks.text(id));
            format!("{} ({})", text(function), text(file))
        }
        None => "<no Python frame>".to_owned(),
    }
}

/// A table: location, total, share, own, share, count.
///
/// # Errors
/// When writing fails.
pub fn summary_text(
    profile: &Profile,
    options: SummaryOptions,
    text: TextOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let whole = profile.totals.figures.get(options.metric).bytes;
    let mut rows = sorted_rows(profile, options);
    let all = rows.len();
    rows.truncate(options.max_rows);
    let names: Vec<String> = rows.iter().map(|row| name_of(profile, row)).collect();
    let width = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0)
        .max("<Location>".len());
    let mark = |column: SummaryColumn, name: &str| {
        if column == options.sort {
            format!("<{name}>")
        } else {
            name.to_owned()
        }
    };
    let titles = format!(
        "{:<width$}  {:>10}  {:>6}  {:>10}  {:>6}  {:>12}",
        mark(SummaryColumn::Location, "Location"),
        mark(SummaryColumn::Total, "Total"),
        "%",
        mark(SummaryColumn::Own, "Own"),
        "%",
        mark(SummaryColumn::Count, "Count")
    );
    writeln!(out, "{}", text.styled("1", titles))?;
    for (Row { row, .. }, name) in rows.iter().zip(names) {
        let figures = format!(
            "{:>10}  {:>6}  {:>10}  {:>6}  {:>12}",
            bytes_text(row.total.bytes),
            percent_text(row.total.bytes, whole),
            bytes_text(row.own.bytes),
            percent_text(row.own.bytes, whole),
            count_text(row.total.count)
        );
        writeln!(
            out,
            "{name:<width$}  {}",
            text.by_share(percent(row.total.bytes, whole), figures)
        )?;
    }
    if all > rows.len() {
        writeln!(
            out,
            "({} more functions{})",
            count_text((all - rows.len()) as u64),
            options.how_to_see_more
        )?;
    }
    Ok(())
}

/// The same rows as JSON.
///
/// # Errors
/// When writing fails.
pub fn summary_json(
    profile: &Profile,
    options: SummaryOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let whole = profile.totals.figures.get(options.metric);
    let rows = sorted_rows(profile, options);
    let rows: Vec<Object> = rows
        .iter()
        .take(options.max_rows)
        .map(|Row { thread, row }| {
            let text = |id| profile.stacks.text(id);
            let mut object = object! {
                "function": row.function.map(|(function, _)| text(function)),
                "file": row.function.map(|(_, file)| text(file)),
                "total_bytes": row.total.bytes,
                "own_bytes": row.own.bytes,
                "total_count": row.total.count,
                "own_count": row.own.count,
            };
            if let Some(thread) = thread {
                let thread = &profile.threads[*thread as usize];
                object.push("thread_id", thread.thread_id);
                object.push("thread_name", thread.name.as_str());
            }
            object
        })
        .collect();
    let report = object! {
        "schema_version": SCHEMA_VERSION,
        "metric": options.metric.name(),
        "total_bytes": whole.bytes,
        "total_count": whole.count,
        "rows": Field::List(rows),
    };
    write_pretty(out, &report)
}
