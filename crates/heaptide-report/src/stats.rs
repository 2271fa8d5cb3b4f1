//! `heaptide stats` for people.

use std::io::{self, Write};

use heaptide_capture::{Capture, Liveness};
use heaptide_engine::{
    Amount, Figures, LocationId, LocationRow, Metric, NO_FILE, Profile, ThreadInfo, by_allocator,
    by_location, by_thread,
};
use heaptide_format::{Identity, Origin, histogram_bounds};

use crate::format::{bytes_text, count_text, percent_text, time_text, visible};
use crate::modules::{by_module, largest_modules};
use crate::status::{live_title, own_cost_text};

/// What `stats` shows.
#[derive(Clone, Copy, Debug)]
pub struct StatsOptions {
    /// How many locations.
    pub num_largest: usize,
    /// Of what the figures are.
    pub part: Part,
}

/// Of what the figures of a profile are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Of the whole capture.
    #[default]
    Whole,
    /// Of some threads; sizes and deallocations are not known.
    Threads,
    /// Of a stretch of time; only the peak within it and what outlives it are known.
    Interval,
    /// Of records that somebody has chosen; only the metric that is asked for is known, and nothing of the capture.
    Records,
}

impl Part {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Threads => "threads",
            Self::Interval => "interval",
            Self::Records => "records",
        }
    }
}

impl Default for StatsOptions {
    fn default() -> Self {
        Self {
            num_largest: 5,
            part: Part::Whole,
        }
    }
}

/// A program may have thousands of threads in its life.
const MOST_THREADS: usize = 10;
/// Width of the longest bar of a histogram.
const BAR_CELLS: u64 = 40;

/// Totals, sizes, allocators and the largest locations.
///
/// # Errors
/// When writing fails.
pub fn stats_text(
    capture: &Capture,
    profile: &Profile,
    liveness: &Liveness,
    options: StatsOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let figures = &profile.totals.figures;
    writeln!(out, "Status             {liveness}")?;
    writeln!(
        out,
        "Command line       {}",
        visible(&capture.metadata.command_line())
    )?;
    writeln!(
        out,
        "Process            {}",
        process_text(&capture.identity)
    )?;
    let started = capture.lifecycle.tracking_start_unix_ns;
    if started != 0 {
        writeln!(out, "Tracking started   {}", time_text(started))?;
    }
    if capture.identity.traces_python_allocators() {
        writeln!(out, "Python allocators  traced, request by request")?;
    }
    writeln!(out)?;
    writeln!(out, "Peak memory        {}", amount_text(figures.peak))?;
    let live_title = match options.part {
        Part::Interval => "Outlives it",
        _ => live_title(liveness),
    };
    writeln!(out, "{live_title:<18} {}", amount_text(figures.live))?;
    let rows = by_location(profile);
    if options.part == Part::Interval {
        for (metric, title) in [
            (Metric::Peak, "at the peak of the interval, by bytes"),
            (
                Metric::Live,
                "allocated in the interval and alive at its end, by bytes",
            ),
        ] {
            let rows = largest(&rows, metric, true, options.num_largest);
            write_locations(profile, &rows, metric, title, out)?;
        }
        return Ok(());
    }
    writeln!(out, "Allocated in total {}", amount_text(figures.allocated))?;
    writeln!(
        out,
        "Temporary          {}, {} of the blocks",
        amount_text(figures.temporary),
        percent_text(figures.temporary.count, figures.allocated.count)
    )?;
    writeln!(
        out,
        "Deallocations      {}",
        count_text(profile.totals.deallocations)
    )?;
    writeln!(
        out,
        "The profiler       {}",
        own_cost_text(capture, profile)
    )?;
    write_histogram(profile, out)?;
    write_allocators(profile, out)?;
    write_threads(profile, out)?;
    for metric in [Metric::Peak, Metric::Live, Metric::Allocated] {
        let title = match metric {
            Metric::Peak => "at the peak, by bytes".to_owned(),
            Metric::Live => format!("{}, by bytes", live_title.to_lowercase()),
            _ => "allocated in total, by bytes".to_owned(),
        };
        write_locations(
            profile,
            &largest(&rows, metric, true, options.num_largest),
            metric,
            &title,
            out,
        )?;
    }
    let by_count = largest(&rows, Metric::Allocated, false, options.num_largest);
    write_locations(
        profile,
        &by_count,
        Metric::Allocated,
        "allocated in total, by blocks",
        out,
    )?;
    write_modules(capture, profile, options.num_largest, out)
}

/// The process, and whose child it is where processes were followed.
pub(crate) fn process_text(identity: &Identity) -> String {
    let pid = identity.pid;
    match Origin::from_raw(identity.origin) {
        None => pid.to_string(),
        Some(Origin::Root) => format!("{pid}, the root of its group"),
        Some(Origin::Forked) => format!("{pid}, forked by {}", identity.parent_pid),
        Some(Origin::Started) => format!("{pid}, started by {}", identity.parent_pid),
    }
}

pub(crate) fn amount_text(amount: Amount) -> String {
    let blocks = if amount.count == 1 { "block" } else { "blocks" };
    format!(
        "{} in {} {blocks}",
        bytes_text(amount.bytes),
        count_text(amount.count)
    )
}

/// The rows with most, ties in the order of the capture.
pub(crate) fn largest(
    rows: &[LocationRow],
    metric: Metric,
    bytes: bool,
    limit: usize,
) -> Vec<LocationRow> {
    let key = |row: &LocationRow| {
        let amount = row.figures.get(metric);
        if bytes {
            (amount.bytes, amount.count)
        } else {
            (amount.count, amount.bytes)
        }
    };
    let mut rows: Vec<LocationRow> = rows
        .iter()
        .copied()
        .filter(|row| !row.figures.get(metric).is_zero())
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(key(row)));
    rows.truncate(limit);
    rows
}

fn write_histogram(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let largest = profile.histogram.iter().copied().max().unwrap_or(0);
    let Some(last) = profile.histogram.iter().rposition(|&count| count > 0) else {
        return Ok(());
    };
    let first = profile
        .histogram
        .iter()
        .position(|&count| count > 0)
        .unwrap_or(0);
    writeln!(out, "\nAllocation sizes")?;
    let width = count_text(largest).len();
    for (bin, &count) in profile
        .histogram
        .iter()
        .enumerate()
        .take(last + 1)
        .skip(first)
    {
        let (_, high) = histogram_bounds(bin);
        let bar =
            (u128::from(count) * u128::from(BAR_CELLS)).div_ceil(u128::from(largest)) as usize;
        let limit = if high == u64::MAX {
            "more".to_owned()
        } else {
            format!("< {}", bytes_text(high + 1))
        };
        let line = format!(
            "  {limit:>10}  {:>width$}  {}",
            count_text(count),
            "#".repeat(bar)
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn write_allocators(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let mut rows = by_allocator(profile);
    if rows.is_empty() {
        return Ok(());
    }
    rows.sort_by_key(|(_, figures)| std::cmp::Reverse(figures.allocated.count));
    writeln!(out, "\nAllocators")?;
    let rows: Vec<(String, Amount)> = rows
        .into_iter()
        .map(|(allocator, figures)| {
            let name = allocator.name();
            let text = match allocator.python_domain() {
                Some(domain) => format!("{name} ({})", domain.name()),
                None => name.to_owned(),
            };
            (text, figures.allocated)
        })
        .collect();
    let width = rows.iter().map(|row| row.0.len()).max().unwrap_or(0);
    for (name, amount) in rows {
        writeln!(
            out,
            "  {name:<width$}  {}",
            amount_text(amount),
            width = width.max(14)
        )?;
    }
    Ok(())
}

/// One thread needs no list.
fn write_threads(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let mut rows: Vec<(&ThreadInfo, Figures)> = profile
        .threads
        .iter()
        .zip(by_thread(profile))
        .filter(|(_, figures)| !figures.allocated.is_zero())
        .collect();
    if rows.len() < 2 {
        return Ok(());
    }
    rows.sort_by_key(|(_, figures)| std::cmp::Reverse(figures.peak.bytes));
    let hidden = rows.len().saturating_sub(MOST_THREADS);
    writeln!(out, "\nThreads: at the peak, allocated in total")?;
    for (thread, figures) in rows.iter().take(MOST_THREADS) {
        writeln!(
            out,
            "  {:>10}  {:>10}  {} ({})",
            bytes_text(figures.peak.bytes),
            bytes_text(figures.allocated.bytes),
            visible(&thread.name),
            thread.thread_id
        )?;
    }
    if hidden > 0 {
        writeln!(out, "  ({hidden} more threads)")?;
    }
    Ok(())
}

fn write_locations(
    profile: &Profile,
    rows: &[LocationRow],
    metric: Metric,
    title: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let whole = profile.totals.figures.get(metric);
    writeln!(out, "\nLargest locations {title}")?;
    for row in rows {
        let amount = row.figures.get(metric);
        writeln!(
            out,
            "  {:>10}  {:>6}  {:>12}  {}",
            bytes_text(amount.bytes),
            percent_text(amount.bytes, whole.bytes),
            count_text(amount.count),
            location_text(profile, row)
        )?;
    }
    Ok(())
}

fn write_modules(
    capture: &Capture,
    profile: &Profile,
    limit: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    let rows = by_module(capture, profile, Metric::Allocated);
    let whole = profile.totals.figures.allocated.bytes;
    for (bytes, title) in [(true, "bytes"), (false, "blocks")] {
        if rows.is_empty() {
            break;
        }
        writeln!(out, "\nLargest modules allocated in total, by {title}")?;
        for row in largest_modules(&rows, bytes, limit) {
            writeln!(
                out,
                "  {:>10}  {:>6}  {:>12}  {}",
                bytes_text(row.amount.bytes),
                percent_text(row.amount.bytes, whole),
                count_text(row.amount.count),
                visible(&row.module)
            )?;
        }
    }
    Ok(())
}

/// `function  file:line`, or the function alone where there is no file.
pub(crate) fn place_text(profile: &Profile, location: LocationId) -> String {
    let location = profile.stacks.locations[location.index()];
    let function = visible(profile.stacks.text(location.function));
    let file = profile.stacks.text(location.file);
    if file == NO_FILE {
        function.into_owned()
    } else {
        format!("{function}  {}:{}", visible(file), location.line)
    }
}

fn location_text(profile: &Profile, row: &LocationRow) -> String {
    let Some(location) = row.location else {
        return "<no Python frame>".to_owned();
    };
    let location = profile.stacks.locations[location.index()];
    let function = visible(profile.stacks.text(location.function));
    format!(
        "{function}  {}:{}",
        visible(profile.stacks.text(location.file)),
        location.line
    )
}
