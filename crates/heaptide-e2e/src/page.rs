//! The counters that a storm keeps in a shared page: the truth after a SIGKILL. See `helper.c`.

use std::path::Path;

/// How many threads one page has room for.
pub const STORM_THREADS: usize = 63;

/// What one thread has completed, and what it was in the middle of.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageCounters {
    /// The kernel's id; zero when the thread never began.
    pub thread_id: u64,
    /// Completed allocations.
    pub allocated_count: u64,
    /// Their bytes.
    pub allocated_bytes: u64,
    /// Completed frees.
    pub freed_count: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Size of the allocation that was under way, or zero.
    pub pending_allocation: u64,
    /// Size of the block that was being freed, or zero.
    pub pending_free: u64,
}

/// A page as its file shows it.
#[derive(Debug)]
pub struct Page {
    /// The process that made it.
    pub pid: u64,
    /// Threads that have begun to storm.
    pub running: u64,
    /// By number of the thread.
    pub counters: Vec<PageCounters>,
}

impl Page {
    /// Reads it; `None` while it is not there.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path)
            .ok()
            .filter(|bytes| bytes.len() == 4096)?;
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
            .collect();
        Some(Self {
            pid: words[0],
            running: words[2],
            counters: words[8..]
                .chunks_exact(8)
                .map(|w| PageCounters {
                    thread_id: w[0],
                    allocated_count: w[1],
                    allocated_bytes: w[2],
                    freed_count: w[3],
                    freed_bytes: w[4],
                    pending_allocation: w[5],
                    pending_free: w[6],
                })
                .collect(),
        })
    }
}
