//! Counts and bytes.

/// A number of blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Blocks.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Amount {
    /// Adds; hostile figures saturate.
    pub fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// Whether there is neither a block nor a byte.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.count == 0 && self.bytes == 0
    }
}

/// What a report ranks by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Live at the last instant at which the heap was at its largest.
    Peak,
    /// Live at the end, or now: what is never given back.
    Live,
    /// Allocated in total.
    Allocated,
    /// Freed by its own thread right after it was allocated.
    Temporary,
}

impl Metric {
    /// The name used in reports and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peak => "peak",
            Self::Live => "live",
            Self::Allocated => "allocated",
            Self::Temporary => "temporary",
        }
    }
}

/// One amount per metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// [`Metric::Allocated`]
    pub allocated: Amount,
    /// [`Metric::Live`]
    pub live: Amount,
    /// [`Metric::Peak`]
    pub peak: Amount,
    /// [`Metric::Temporary`]
    pub temporary: Amount,
}

impl Figures {
    /// The amount of one metric.
    #[must_use]
    pub const fn get(&self, metric: Metric) -> Amount {
        match metric {
            Metric::Peak => self.peak,
            Metric::Live => self.live,
            Metric::Allocated => self.allocated,
            Metric::Temporary => self.temporary,
        }
    }

    /// Adds all amounts.
    pub fn add(&mut self, other: &Self) {
        self.allocated.add(other.allocated);
        self.live.add(other.live);
        self.peak.add(other.peak);
        self.temporary.add(other.temporary);
    }
}
