//! The table.

use std::fmt::Write;

use super::measure::Measurement;
use super::statistics::{geometric_mean, median, paired};

/// Everything measured of one workload.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) workload: String,
    pub(crate) plain: Vec<Measurement>,
    pub(crate) heaptide: Vec<Measurement>,
    /// Empty without Memray.
    pub(crate) memray: Vec<Measurement>,
    /// Allocations and deallocations that heaptide recorded.
    pub(crate) events: f64,
    /// Blocks live at the peak: the table of live blocks grows with them.
    pub(crate) live_blocks: f64,
    pub(crate) heaptide_bytes: u64,
    pub(crate) memray_bytes: u64,
}

/// Wall time that an empty script takes longer, milliseconds.
#[derive(Debug, Default)]
pub(crate) struct StartUp {
    pub(crate) plain: f64,
    pub(crate) heaptide: f64,
    pub(crate) memray: Option<f64>,
}

/// The report in Markdown.
pub(crate) fn markdown(rows: &[Rows], start_up: &StartUp, machine: &str, rounds: usize) -> String {
    let mut text = String::from("# Benchmarks\n\n");
    let _ = writeln!(
        text,
        "Made by `cargo xtask bench` on {machine}.\n\n\
         {rounds} interleaved rounds on one pinned core (`w21` on all); medians of the ratios within a round. *Body* is the CPU time of the\n\
         workload alone, without the start of interpreter and profiler; *whole* is the CPU time of the whole process, for heaptide with its\n\
         supervisor. Memory is the program's largest resident set (`VmHWM`). Both profilers run with `--aggregate`.\n"
    );
    let cpu_ratio = |ours: &[Measurement], plain: &[Measurement]| {
        paired(ours, plain, |a, b| a.body_cpu / b.body_cpu)
    };
    let whole_ratio =
        |ours: &[Measurement], plain: &[Measurement]| paired(ours, plain, |a, b| a.cpu / b.cpu);
    let memory = |ours: &[Measurement], plain: &[Measurement]| {
        paired(ours, plain, |a, b| a.peak_resident - b.peak_resident)
    };
    text.push_str(
        "| workload | plain body s | heaptide | Memray | heaptide whole | Memray whole | events | heaptide ns/event | Memray ns/event | \
         plain MiB | heaptide MiB | Memray MiB | live blocks | heaptide capture kB | Memray capture kB |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        let per_event = |ours: &[Measurement]| {
            paired(ours, &row.plain, |a, b| {
                (a.body_cpu - b.body_cpu) * 1e9 / row.events.max(1.0)
            })
        };
        let memray = |value: f64, digits: usize, sign: bool| match (row.memray.is_empty(), sign) {
            (true, _) => "–".to_owned(),
            (false, true) => format!("{value:+.digits$}"),
            (false, false) => format!("{value:.digits$}"),
        };
        let _ = writeln!(
            text,
            "| {} | {:.3} | {:.2} | {} | {:.2} | {} | {} | {:.1} | {} | {:.0} | {:+.1} | {} | {} | {} | {} |",
            row.workload,
            median(row.plain.iter().map(|run| run.body_cpu)),
            cpu_ratio(&row.heaptide, &row.plain),
            memray(cpu_ratio(&row.memray, &row.plain), 2, false),
            whole_ratio(&row.heaptide, &row.plain),
            memray(whole_ratio(&row.memray, &row.plain), 2, false),
            grouped(row.events),
            per_event(&row.heaptide),
            memray(per_event(&row.memray), 1, false),
            median(row.plain.iter().map(|run| run.peak_resident)),
            memory(&row.heaptide, &row.plain),
            memray(memory(&row.memray, &row.plain), 1, true),
            grouped(row.live_blocks),
            row.heaptide_bytes / 1000,
            memray(row.memray_bytes as f64 / 1000.0, 0, false),
        );
    }
    // glibc's trimming distorts w02: its plain run is slower than a profiled one. w21 is two threads
    // that do little but allocate, on two cores: a measure of contention, given apart.
    let mean = |ours: fn(&Rows) -> &Vec<Measurement>, left_out: &[&str]| {
        let ratios: Vec<f64> = rows
            .iter()
            .filter(|row| !left_out.iter().any(|name| row.workload.starts_with(name)))
            .filter(|row| !ours(row).is_empty())
            .map(|row| cpu_ratio(ours(row), &row.plain))
            .collect();
        geometric_mean(&ratios)
    };
    text.push_str("\nGeometric mean of the body ratios:");
    for (left_out, words) in [
        (&["w02", "w21"][..], " without `w02` and `w21`:"),
        (&["w02"][..], "; without `w02` alone:"),
    ] {
        let _ = write!(
            text,
            "{words} heaptide {:.3}",
            mean(|row| &row.heaptide, left_out)
        );
        let memray = mean(|row| &row.memray, left_out);
        if memray > 0.0 {
            let _ = write!(text, ", Memray {memray:.3}");
        }
    }
    let _ = write!(
        text,
        ".\n\nStart-up (wall time of an empty script, {:.0} ms plain): heaptide {:+.1} ms",
        start_up.plain, start_up.heaptide
    );
    if let Some(memray) = start_up.memray {
        let _ = write!(text, ", Memray {memray:+.1} ms");
    }
    text.push_str(".\n");
    text
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

    #[test]
    fn a_report_without_memray_has_dashes() {
        let run = Measurement {
            body_cpu: 1.0,
            wall: 1.0,
            cpu: 1.0,
            peak_resident: 10.0,
            ..Measurement::default()
        };
        let rows = Rows {
            workload: "w01".into(),
            plain: vec![run.clone()],
            heaptide: vec![run],
            ..Rows::default()
        };
        let text = markdown(&[rows], &StartUp::default(), "a machine", 1);
        assert!(text.contains("| w01 | 1.000 | 1.00 | – |"), "{text}");
        assert!(!text.contains(", Memray"), "{text}");
    }
}
