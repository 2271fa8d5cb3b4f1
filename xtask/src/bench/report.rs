//! The tables.

use std::fmt::Write;

use super::measure::Measurement;
use super::modes::Mode;
use super::statistics::{geometric_mean, median, paired};

/// Everything measured of one workload.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) workload: String,
    pub(crate) plain: Vec<Measurement>,
    /// In the order in which the modes were given.
    pub(crate) modes: Vec<ModeRows>,
}

/// Everything measured of one workload in one mode.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModeRows {
    pub(crate) heaptide: Vec<Measurement>,
    /// Empty without Memray.
    pub(crate) memray: Vec<Measurement>,
    /// Allocations and deallocations that heaptide recorded.
    pub(crate) events: f64,
    /// Blocks live at the peak: the table of live blocks of `--aggregate` grows with them.
    pub(crate) live_blocks: f64,
    pub(crate) heaptide_bytes: u64,
    /// Of heaptide's capture, on disk, before it is compressed.
    pub(crate) uncompressed_bytes: u64,
    /// Likewise of Memray's.
    pub(crate) memray_uncompressed_bytes: u64,
    pub(crate) memray_bytes: u64,
}

impl Rows {
    pub(crate) fn new(workload: &str, modes: usize) -> Self {
        Self {
            workload: workload.to_owned(),
            plain: Vec::new(),
            modes: vec![ModeRows::default(); modes],
        }
    }

    fn is(&self, name: &str) -> bool {
        self.workload.starts_with(name)
    }
}

/// Wall time that an empty script takes longer, milliseconds.
#[derive(Debug, Default)]
pub(crate) struct StartUp {
    pub(crate) plain: f64,
    pub(crate) heaptide: f64,
    pub(crate) memray: Option<f64>,
}

/// What stands where nothing was measured.
const NOTHING: &str = "–";

/// Stacks deeper than most: the mean is given without them, and they are bounded on their own.
const DEEP: [&str; 2] = ["w02", "w03"];
/// Threads that do little but allocate, on all cores: a measure of contention, given apart.
const PARALLEL: &str = "w21";

/// Median of the ratios of CPU times of the body within a round.
fn body_ratio(ours: &[Measurement], plain: &[Measurement]) -> f64 {
    paired(ours, plain, |a, b| a.body_cpu / b.body_cpu)
}

/// The report in Markdown.
pub(crate) fn markdown(
    rows: &[Rows],
    modes: &[&Mode],
    start_up: &StartUp,
    machine: &str,
    rounds: usize,
) -> String {
    let mut text = String::from("# Benchmarks\n\n");
    let _ = writeln!(
        text,
        "Made by `cargo xtask bench` on {machine}.\n\n\
         {rounds} interleaved rounds on one pinned core (`w21` on all), all modes of both profilers in each; medians of the ratios within a round.\n\
         *Body* is the CPU time of the workload alone, without the start of interpreter and profiler; *whole* is the CPU time of the whole\n\
         process, for heaptide with its supervisor. Memory is the program's largest resident set (`VmHWM`), as a difference to plain.\n"
    );
    for (index, mode) in modes.iter().enumerate() {
        let _ = writeln!(text, "## {}\n", mode.title);
        write_table(&mut text, rows, index, mode);
        write_means(&mut text, rows, index);
    }
    write_threads(&mut text, rows, modes);
    let _ = write!(
        text,
        "## Start-up\n\nWall time of an empty script, {:.0} ms plain: heaptide {:+.1} ms",
        start_up.plain, start_up.heaptide
    );
    if let Some(memray) = start_up.memray {
        let _ = write!(text, ", Memray {memray:+.1} ms");
    }
    text.push_str(".\n");
    text
}

fn write_table(text: &mut String, rows: &[Rows], index: usize, mode: &Mode) {
    text.push_str(
        "| workload | plain body s | heaptide | Memray | heaptide whole | Memray whole | events | heaptide ns/event | Memray ns/event | \
         plain MiB | heaptide MiB | Memray MiB | live blocks | bytes/event | Memray bytes/event | heaptide capture kB | Memray capture kB |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        let runs = &row.modes[index];
        let whole = |ours: &[Measurement]| paired(ours, &row.plain, |a, b| a.cpu / b.cpu);
        let memory = |ours: &[Measurement]| {
            paired(ours, &row.plain, |a, b| a.peak_resident - b.peak_resident)
        };
        let per_event = |ours: &[Measurement]| {
            paired(ours, &row.plain, |a, b| {
                (a.body_cpu - b.body_cpu) * 1e9 / runs.events.max(1.0)
            })
        };
        let memray = |text: String| {
            if runs.memray.is_empty() {
                NOTHING.to_owned()
            } else {
                text
            }
        };
        let bytes_per_event = |bytes: u64| {
            if mode.holds_events && runs.events > 1e5 {
                format!("{:.1}", bytes as f64 / runs.events)
            } else {
                NOTHING.to_owned()
            }
        };
        let _ = writeln!(
            text,
            "| {} | {:.3} | {:.2} | {} | {:.2} | {} | {} | {:.1} | {} | {:.0} | {:+.1} | {} | {} | {} | {} | {} | {} |",
            row.workload,
            median(row.plain.iter().map(|run| run.body_cpu)),
            body_ratio(&runs.heaptide, &row.plain),
            memray(format!("{:.2}", body_ratio(&runs.memray, &row.plain))),
            whole(&runs.heaptide),
            memray(format!("{:.2}", whole(&runs.memray))),
            grouped(runs.events),
            per_event(&runs.heaptide),
            memray(format!("{:.1}", per_event(&runs.memray))),
            median(row.plain.iter().map(|run| run.peak_resident)),
            memory(&runs.heaptide),
            memray(format!("{:+.1}", memory(&runs.memray))),
            grouped(runs.live_blocks),
            bytes_per_event(runs.uncompressed_bytes),
            memray(bytes_per_event(runs.memray_uncompressed_bytes)),
            runs.heaptide_bytes / 1000,
            memray(format!("{}", runs.memray_bytes / 1000)),
        );
    }
}

fn write_means(text: &mut String, rows: &[Rows], index: usize) {
    let mean = |ours: fn(&ModeRows) -> &Vec<Measurement>, with_deep: bool| {
        let ratios: Vec<f64> = rows
            .iter()
            .filter(|row| !row.is(PARALLEL))
            .filter(|row| with_deep || !DEEP.iter().any(|name| row.is(name)))
            .map(|row| (ours(&row.modes[index]), &row.plain))
            .filter(|(runs, _)| !runs.is_empty())
            .map(|(runs, plain)| body_ratio(runs, plain))
            .collect();
        geometric_mean(&ratios)
    };
    text.push_str("\nGeometric mean of the body ratios,");
    for (with_deep, words) in [
        (false, " without `w02`, `w03` and `w21`:"),
        (true, "; without `w21` alone:"),
    ] {
        let _ = write!(
            text,
            "{words} heaptide {:.3}",
            mean(|runs| &runs.heaptide, with_deep)
        );
        let memray = mean(|runs| &runs.memray, with_deep);
        if memray > 0.0 {
            let _ = write!(text, ", Memray {memray:.3}");
        }
    }
    text.push_str(".\n\n");
}

/// What a second thread costs: wall time, since waiting is what contention does.
fn write_threads(text: &mut String, rows: &[Rows], modes: &[&Mode]) {
    let found = |threads: &str| {
        rows.iter()
            .find(|row| row.is(PARALLEL) && row.workload.ends_with(threads))
    };
    let (Some(one), Some(two)) = (found("=1"), found("=2")) else {
        return;
    };
    text.push_str(
        "## Threads\n\n`w21`, threads that allocate with the GIL released: slow-down of the wall time over plain.\n\n\
         | mode | heaptide, 1 thread | 2 threads | 2 to 1 | Memray, 1 thread | 2 threads | 2 to 1 |\n|---|--:|--:|--:|--:|--:|--:|\n",
    );
    let slow_down = |ours: &[Measurement], plain: &[Measurement]| {
        paired(ours, plain, |a, b| a.body_wall / b.body_wall)
    };
    for (index, mode) in modes.iter().enumerate() {
        let _ = write!(text, "| {} |", mode.title);
        for runs in [
            |runs: &ModeRows| runs.heaptide.clone(),
            |runs: &ModeRows| runs.memray.clone(),
        ] {
            let (runs_one, runs_two) = (runs(&one.modes[index]), runs(&two.modes[index]));
            if runs_one.is_empty() {
                let _ = write!(text, " {NOTHING} | {NOTHING} | {NOTHING} |");
                continue;
            }
            let (one, two) = (
                slow_down(&runs_one, &one.plain),
                slow_down(&runs_two, &two.plain),
            );
            let _ = write!(text, " {one:.2} | {two:.2} | {:.2} |", two / one);
        }
        text.push('\n');
    }
    text.push('\n');
}

fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::modes::MODES;
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [
            (0.0, "0"),
            (999.0, "999"),
            (1000.0, "1,000"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    fn run(body: f64) -> Measurement {
        Measurement {
            body_cpu: body,
            body_wall: body,
            wall: 1.0,
            cpu: 1.0,
            peak_resident: 10.0,
            ..Measurement::default()
        }
    }

    fn rows(workload: &str, body: f64) -> Rows {
        let mut rows = Rows::new(workload, 1);
        rows.plain.push(run(1.0));
        rows.modes[0].heaptide.push(run(body));
        rows
    }

    #[test]
    fn a_report_without_memray_has_dashes() {
        let rows = [rows("w01", 1.0)];
        let text = markdown(&rows, &[&MODES[0]], &StartUp::default(), "a machine", 1);
        assert!(text.contains("| w01 | 1.000 | 1.00 | – |"), "{text}");
        assert!(!text.contains(", Memray"), "{text}");
    }

    #[test]
    fn deep_stacks_and_threads_are_told_apart() {
        let rows = [
            rows("w01", 2.0),
            rows("w02", 8.0),
            rows("w21, THREADS=1", 2.0),
            rows("w21, THREADS=2", 3.0),
        ];
        let text = markdown(&rows, &[&MODES[0]], &StartUp::default(), "a machine", 1);
        assert!(text.contains("`w21`: heaptide 2.000;"), "{text}");
        assert!(text.contains("alone: heaptide 4.000."), "{text}");
        assert!(text.contains("| 2.00 | 3.00 | 1.50 |"), "{text}");
    }
}
