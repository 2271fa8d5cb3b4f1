//! What a report counts: the peak, what is never given back, or what is thrown away at once.

use heaptide_engine::Metric;

/// What a report counts; without any of these, what was live at the peak.
#[derive(Debug, clap::Args)]
#[group(id = "kind", multiple = false)]
#[command(next_help_heading = "What to show")]
pub(crate) struct MomentArgument {
    /// Show what is live at the end (or now), never given back, instead of the peak
    #[arg(long)]
    leaks: bool,
    /// Show what its own thread freed while at most N other allocations of it had happened since
    #[arg(long, value_name = "N")]
    temporary_allocation_threshold: Option<u32>,
    /// The same as --temporary-allocation-threshold=1
    #[arg(long)]
    temporary_allocations: bool,
}

impl MomentArgument {
    /// Of `--temporary-allocations`.
    const DEFAULT_THRESHOLD: u32 = 1;

    pub(crate) fn metric(&self) -> Metric {
        match (self.leaks, self.temporary_threshold()) {
            (true, _) => Metric::Live,
            (_, Some(_)) => Metric::Temporary,
            _ => Metric::Peak,
        }
    }

    pub(super) fn temporary_threshold(&self) -> Option<u32> {
        self.temporary_allocation_threshold.or(self
            .temporary_allocations
            .then_some(Self::DEFAULT_THRESHOLD))
    }
}
