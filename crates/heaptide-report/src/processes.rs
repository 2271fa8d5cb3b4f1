//! `heaptide merge`: a group of processes, and the peak of all of them together.

use std::io::{self, Write};

use heaptide_capture::Liveness;
use heaptide_engine::{CombinedPeak, Figures, Process, combined_curve, combined_peak};
use heaptide_format::Origin;

use crate::SCHEMA_VERSION;
use crate::format::{bytes_text, time_text, visible};
use crate::object::{Field, Object, object, write_pretty};

/// A process and how it fares.
#[derive(Debug)]
pub struct Reported {
    /// The process.
    pub process: Process,
    /// How it fares.
    pub liveness: Liveness,
}

/// Sums over the group.
struct Group {
    figures: Figures,
    sum_of_peaks: u64,
    peak: Option<CombinedPeak>,
}

impl Group {
    fn new(reported: &[Reported]) -> Self {
        let processes: Vec<Process> = reported.iter().map(|one| one.process.clone()).collect();
        let mut figures = Figures::default();
        for process in &processes {
            figures.add(&process.figures);
        }
        let peaks = processes.iter().map(|process| process.peak_bytes);
        Self {
            figures,
            sum_of_peaks: peaks.fold(0, u64::saturating_add),
            peak: combined_peak(&processes, &combined_curve(&processes)),
        }
    }

    /// What a process held at the peak of all.
    fn share(&self, index: usize) -> u64 {
        let of_all = self
            .peak
            .as_ref()
            .and_then(|peak| peak.heap_bytes.get(index));
        of_all.copied().unwrap_or(0)
    }
}

/// The peak of all together, then a line a process in the order in which they began.
///
/// # Errors
/// When writing fails.
pub fn processes_text(reported: &[Reported], out: &mut dyn Write) -> io::Result<()> {
    let group = Group::new(reported);
    writeln!(out, "Processes            {}", reported.len())?;
    if let Some(peak) = &group.peak {
        writeln!(
            out,
            "Peak of all together {} at {}, in {} processes alive then",
            bytes_text(peak.moment.heap_bytes),
            time_text(peak.moment.unix_ns),
            peak.moment.processes
        )?;
        writeln!(
            out,
            "                     (by samples; at least {}, at most {})",
            bytes_text(peak.at_least_bytes),
            bytes_text(peak.at_most_bytes)
        )?;
    }
    writeln!(
        out,
        "Sum of own peaks     {}",
        bytes_text(group.sum_of_peaks)
    )?;
    writeln!(
        out,
        "Live at their ends   {}",
        bytes_text(group.figures.live.bytes)
    )?;
    writeln!(
        out,
        "Allocated in total   {}",
        bytes_text(group.figures.allocated.bytes)
    )?;
    writeln!(out)?;
    writeln!(
        out,
        "{:>8} {:>8} {:<8} {:>10} {:>12} {:>12} {:>12}  status, command",
        "pid", "parent", "origin", "lasted", "own peak", "peak of all", "at the end"
    )?;
    for (index, one) in reported.iter().enumerate() {
        let process = &one.process;
        let lasted = match process.end_unix_ns {
            _ if process.start_unix_ns == 0 => "-".to_owned(),
            Some(end) => format!("{:.3} s", (end - process.start_unix_ns) as f64 / 1e9),
            None => "runs".to_owned(),
        };
        writeln!(
            out,
            "{:>8} {:>8} {:<8} {lasted:>10} {:>12} {:>12} {:>12}  {}; {}",
            process.pid,
            process.parent_pid,
            process.origin.map_or("-", Origin::name),
            bytes_text(process.peak_bytes),
            bytes_text(group.share(index)),
            bytes_text(process.live_bytes),
            visible(&one.liveness.to_string()),
            visible(&process.command_line)
        )?;
    }
    Ok(())
}

/// As JSON (schema: docs/json.md).
///
/// # Errors
/// When writing fails.
pub fn processes_json(reported: &[Reported], out: &mut dyn Write) -> io::Result<()> {
    let group = Group::new(reported);
    let processes: Vec<Object> = reported
        .iter()
        .enumerate()
        .map(|(index, one)| {
            let process = &one.process;
            object! {
                "pid": process.pid,
                "parent_pid": process.parent_pid,
                "origin": process.origin.map(Origin::name),
                "command_line": process.command_line.clone(),
                "status": one.liveness.word(),
                "status_text": one.liveness.to_string(),
                "start_unix_ns": process.start_unix_ns,
                "end_unix_ns": process.end_unix_ns,
                "peak_bytes": process.peak_bytes,
                "live_bytes": process.live_bytes,
                "allocated_bytes": process.figures.allocated.bytes,
                "bytes_at_combined_peak": group.share(index),
            }
        })
        .collect();
    let peak = group
        .peak
        .as_ref()
        .map_or(Field::Value(serde_json::Value::Null), |peak| {
            object! {
                "unix_ns": peak.moment.unix_ns,
                "heap_bytes": peak.moment.heap_bytes,
                "resident_bytes": peak.moment.resident_bytes,
                "processes": peak.moment.processes,
                "at_least_bytes": peak.at_least_bytes,
                "at_most_bytes": peak.at_most_bytes,
            }
            .into()
        });
    let report = object! {
        "schema_version": SCHEMA_VERSION,
        "combined_peak": peak,
        "sum_of_peaks_bytes": group.sum_of_peaks,
        "live_bytes": group.figures.live.bytes,
        "allocated_bytes": group.figures.allocated.bytes,
        "processes": Field::List(processes),
    };
    write_pretty(out, &report)
}
