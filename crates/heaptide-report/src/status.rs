//! What a user should know besides the figures.

use heaptide_capture::{Capture, Liveness};
use heaptide_engine::Profile;
use heaptide_format::Identity;

use crate::format::{bytes_text, count_text};

/// Lines for stderr: which state the capture is in, what was lost, what is doubtful.
#[must_use]
pub fn status_lines(capture: &Capture, profile: &Profile, liveness: &Liveness) -> Vec<String> {
    let mut lines = vec![format!("{}: {liveness}", capture.path.display())];
    if let Some(weight) = sampled(&capture.identity) {
        lines.push(format!(
            "sampled: one recorded allocation stands for {weight}; figures are estimates"
        ));
    }
    let own = &capture.own;
    let mut note = |count: u64, text: &str| {
        if count > 0 {
            lines.push(format!("{} {text}", count_text(count)));
        }
    };
    note(
        own.folded_stacks,
        "times a recursive frame was folded onto an outer one (node budget)",
    );
    note(
        own.overflow_stacks,
        "allocations have no stack (node budget)",
    );
    note(
        own.truncated_stacks,
        "allocations have a stack that was cut (too deep)",
    );
    note(
        own.dropped_code,
        "code objects were not described (table full)",
    );
    note(
        own.overflow_threads,
        "threads share a number with an earlier one (too many for a number each)",
    );
    note(
        own.early_stop_mismatches,
        "walks that ended early were wrong (please report this)",
    );
    note(
        profile.own.missed_reentrant,
        "events were missed (signal handler inside a hook)",
    );
    lines.extend(
        profile
            .warnings
            .iter()
            .map(|warning| format!("warning: {warning}")),
    );
    lines
}

/// What the metric "live" means in this capture.
pub(crate) const fn live_title(liveness: &Liveness) -> &'static str {
    match liveness {
        Liveness::Running { .. } => "Live now",
        Liveness::Died(_) => "Live at death",
        _ => "Live at the end",
    }
}

fn sampled(identity: &Identity) -> Option<u64> {
    (identity.sample_weight > 1).then_some(identity.sample_weight)
}

/// What the profiler itself took, in one line.
pub(crate) fn own_cost_text(capture: &Capture, profile: &Profile) -> String {
    let memory = bytes_text(capture.own.anonymous_bytes);
    let file = bytes_text(capture.file_bytes);
    match profile.own.estimated_ns() {
        Some(time) => format!(
            "{memory} private memory, about {:.3} s, file {file}",
            time as f64 / 1e9
        ),
        None => format!("{memory} private memory, file {file}"),
    }
}
