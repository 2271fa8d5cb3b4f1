//! What to say about a program that has just died.

use std::fmt::Write as _;

use heaptide_capture::{Capture, Liveness, shell_quote};
use heaptide_engine::{Amount, Entry, Metric, Profile, StackId};
use rustc_hash::FxHashMap;

use crate::format::{bytes_text, percent, percent_text, visible};
use crate::stats::{amount_text, place_text};

/// What [`death_summary`] shows.
#[derive(Clone, Copy, Debug)]
pub struct DeathOptions {
    /// How many stacks of each kind.
    pub stacks: usize,
    /// How many of the innermost frames of each.
    pub frames: usize,
}

impl Default for DeathOptions {
    fn default() -> Self {
        Self {
            stacks: 3,
            frames: 4,
        }
    }
}

/// Top holders at death and at the peak, and the next command to type. For stderr.
#[must_use]
pub fn death_summary(
    capture: &Capture,
    profile: &Profile,
    liveness: &Liveness,
    options: DeathOptions,
) -> String {
    let mut text = String::new();
    // Infallible: writing to a `String`.
    let _ = write_summary(capture, profile, liveness, options, &mut text);
    text
}

fn write_summary(
    capture: &Capture,
    profile: &Profile,
    liveness: &Liveness,
    options: DeathOptions,
    out: &mut String,
) -> std::fmt::Result {
    let figures = &profile.totals.figures;
    writeln!(out, "{} {liveness}", subject(capture))?;
    writeln!(
        out,
        "tracked heap: {} at death, {} at its peak, {} allocated in total",
        bytes_text(figures.live.bytes),
        bytes_text(figures.peak.bytes),
        bytes_text(figures.allocated.bytes)
    )?;
    if let Some(sample) = capture.samples.last() {
        write!(
            out,
            "last sample: resident {}",
            bytes_text(sample.resident_bytes)
        )?;
        match (sample.cgroup_bytes, sample.cgroup_limit_bytes) {
            (0, _) => writeln!(out)?,
            (used, 0) => writeln!(out, ", memory cgroup {}", bytes_text(used))?,
            (used, limit) => {
                writeln!(
                    out,
                    ", memory cgroup {} of {}",
                    bytes_text(used),
                    bytes_text(limit)
                )?;
            }
        }
    }
    let live = largest_stacks(profile, Metric::Live, options.stacks);
    let peak = largest_stacks(profile, Metric::Peak, options.stacks);
    write_stacks(profile, "held at death", &live, Metric::Live, options, out)?;
    // Twice the same list would only push the first one off the screen.
    if peak != live {
        write_stacks(
            profile,
            "held at the peak",
            &peak,
            Metric::Peak,
            options,
            out,
        )?;
    }
    for warning in &profile.warnings {
        writeln!(out, "warning: {}", visible(&warning.to_string()))?;
    }
    let file = visible(&shell_quote(&capture.path.to_string_lossy())).into_owned();
    writeln!(out, "\nnext: heaptide flamegraph --leaks {file}")?;
    writeln!(out, "      heaptide tree --leaks {file}")
}

fn subject(capture: &Capture) -> String {
    let command = capture.metadata.command_line();
    let command = visible(&command);
    if command.is_empty() {
        format!("process {}:", capture.identity.pid)
    } else {
        format!("{command}:")
    }
}

/// Stacks with a smaller share of the whole explain nothing.
const SMALLEST_PERCENT: f64 = 1.0;

/// The Python stacks with most bytes; allocators, threads and native frames are taken together.
fn largest_stacks(profile: &Profile, metric: Metric, limit: usize) -> Vec<(StackId, Amount)> {
    let mut indices: FxHashMap<StackId, usize> = FxHashMap::default();
    let mut stacks: Vec<(StackId, Amount)> = Vec::new();
    let with_some = |entry: &&Entry| entry.figures.get(metric).bytes > 0;
    for entry in profile.entries.iter().filter(with_some) {
        let stack = profile.stacks.python(entry.stack);
        let index = *indices.entry(stack).or_insert_with(|| {
            stacks.push((stack, Amount::default()));
            stacks.len() - 1
        });
        stacks[index].1.add(entry.figures.get(metric));
    }
    stacks.sort_by_key(|(_, amount)| std::cmp::Reverse(amount.bytes));
    stacks.truncate(limit);
    let whole = profile.totals.figures.get(metric).bytes;
    stacks.retain(|(_, amount)| percent(amount.bytes, whole) >= SMALLEST_PERCENT);
    stacks
}

fn write_stacks(
    profile: &Profile,
    title: &str,
    stacks: &[(StackId, Amount)],
    metric: Metric,
    options: DeathOptions,
    out: &mut String,
) -> std::fmt::Result {
    if stacks.is_empty() {
        return Ok(());
    }
    let whole = profile.totals.figures.get(metric).bytes;
    writeln!(out, "\n{title}:")?;
    for (stack, amount) in stacks {
        writeln!(
            out,
            "  {:>6}  {}",
            percent_text(amount.bytes, whole),
            amount_text(*amount)
        )?;
        let frames = useful_frames(profile, *stack, options.frames);
        if frames.is_empty() {
            writeln!(out, "      <no Python frame>")?;
        }
        for frame in frames {
            writeln!(out, "      {frame}")?;
        }
    }
    Ok(())
}

/// The innermost frames, repeated ones (recursion) once with a count, those of the import system
/// left out.
fn useful_frames(profile: &Profile, stack: StackId, limit: usize) -> Vec<String> {
    let stacks = &profile.stacks;
    let mut shown: Vec<(String, usize)> = Vec::new();
    let mut previous = None;
    for stack in stacks.walk(stack) {
        let location = stacks.frames[stacks.nodes[stack.index()].frame.index()].location;
        let place = stacks.locations[location.index()];
        if previous == Some(location) {
            if let Some((_, count)) = shown.last_mut() {
                *count += 1;
            }
            continue;
        }
        if stacks.text(place.file).starts_with("<frozen importlib") {
            continue;
        }
        if shown.len() == limit {
            break;
        }
        shown.push((place_text(profile, location), 1));
        previous = Some(location);
    }
    let with_count = |(text, count)| {
        if count > 1 {
            format!("{text}  ({count} times)")
        } else {
            text
        }
    };
    shown.into_iter().map(with_count).collect()
}
