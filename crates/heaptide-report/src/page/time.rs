//! Memory over time.

use heaptide_capture::Capture;
use heaptide_engine::ProcessHistory;
use heaptide_format::Sample;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::block::Block;
use super::{PageRequest, PageTree};
use crate::stats_json::end_unix_ns;

/// Writes memory over time, and with a history what belongs to which stretch of it. Gives what
/// belongs to all of it.
pub(crate) fn write_time(request: &PageRequest, tree: &PageTree, block: &mut Block) -> Value {
    let capture = request.capture;
    let start = start_unix_ns(capture);
    let samples = match request.histories {
        // The boundaries are samples.
        [alone] if alone.temporal.times_unix_ns.len() > 1 => Vec::new(),
        _ => thinned(&capture.samples, request.max_memory_records),
    };
    let samples = || samples.iter();
    let microseconds = |unix_ns: u64| unix_ns.saturating_sub(start) / 1000;
    block.delta(
        "sample.microseconds",
        samples().map(|sample| microseconds(sample.unix_ns)),
    );
    block.delta(
        "sample.resident",
        samples().map(|sample| sample.resident_bytes),
    );
    block.delta("sample.heap", samples().map(|sample| sample.heap_bytes));
    let histories = request.histories;
    let last = histories.iter().map(|history| history.end_unix_ns).max();
    let end = end_unix_ns(capture).max(last.unwrap_or(0));
    if !histories.is_empty() {
        let of_processes = |of: fn(&ProcessHistory) -> u64| histories.iter().map(of);
        block.plain(
            "process.boundaries",
            of_processes(|history| history.temporal.times_unix_ns.len() as u64),
        );
        let starts = of_processes(|history| history.start_unix_ns);
        block.delta("process.start", starts.map(microseconds));
        let ends = of_processes(|history| history.end_unix_ns);
        block.delta("process.end", ends.map(microseconds));
        let times = (histories.iter()).flat_map(|history| &history.temporal.times_unix_ns);
        block.delta(
            "boundary.microseconds",
            times.map(|&time| microseconds(time)),
        );
        write_histories(histories, tree, block);
    }
    let limit_bytes = capture
        .samples
        .last()
        .map_or(0, |last| last.cgroup_limit_bytes);
    json!({
        "start_unix_ms": start / 1_000_000,
        "microseconds": microseconds(end),
        "limit_bytes": limit_bytes,
        "samples": capture.samples.len(),
    })
}

/// One after another: each process's intervals follow those of the one before.
fn write_histories(histories: &[ProcessHistory], tree: &PageTree, block: &mut Block) {
    let all = || histories.iter().map(|history| &history.temporal);
    let resident = all().flat_map(|temporal| &temporal.resident_bytes);
    block.delta("boundary.resident", resident.copied());
    let heap = all().flat_map(|temporal| &temporal.heap_bytes);
    block.delta("boundary.heap", heap.copied());
    let peaks = all().flat_map(|temporal| &temporal.peak_bytes);
    block.delta("interval.peak", peaks.copied());

    // Keys that the page does not tell apart are one.
    let mut keys: Vec<(u32, u32, u32)> = Vec::new();
    let mut known: FxHashMap<(u32, u32, u32), u64> = FxHashMap::default();
    // By process, and the number of its first interval.
    let mut numbers: Vec<(Vec<u64>, u64)> = Vec::new();
    let mut first = 0;
    for temporal in all() {
        let own = temporal.keys.iter().map(|key| {
            let key = tree.key(key);
            *known.entry(key).or_insert_with(|| {
                keys.push(key);
                (keys.len() - 1) as u64
            })
        });
        numbers.push((own.collect(), first));
        first += temporal.intervals() as u64;
    }
    block.delta("key.node", keys.iter().map(|key| key.0.into()));
    block.plain("key.thread", keys.iter().map(|key| key.1.into()));
    block.plain("key.allocator", keys.iter().map(|key| key.2.into()));

    let lives = || {
        all()
            .zip(&numbers)
            .flat_map(|(temporal, (numbers, first))| {
                let lives = temporal.lifetimes.iter();
                lives.map(move |life| (life, numbers[life.key as usize], *first))
            })
    };
    block.delta("lifetime.key", lives().map(|(_, key, _)| key));
    block.delta(
        "lifetime.allocated_before",
        lives().map(|(life, _, first)| first + u64::from(life.allocated_before)),
    );
    block.plain(
        "lifetime.freed_before",
        lives().map(|(life, _, first)| {
            let freed = |before: u32| first + u64::from(before) + 1;
            life.freed_before.map_or(0, freed)
        }),
    );
    block.plain("lifetime.count", lives().map(|(life, ..)| life.count));
    block.plain("lifetime.bytes", lives().map(|(life, ..)| life.bytes));

    let runs = || {
        all()
            .zip(&numbers)
            .flat_map(|(temporal, (numbers, first))| {
                let runs = temporal.at_peaks.iter();
                runs.map(move |run| (run, numbers[run.key as usize], *first))
            })
    };
    block.delta("at_peak.key", runs().map(|(_, key, _)| key));
    block.delta(
        "at_peak.from",
        runs().map(|(run, _, first)| first + u64::from(run.from)),
    );
    block.plain(
        "at_peak.length",
        runs().map(|(run, ..)| u64::from(run.to.saturating_sub(run.from))),
    );
    block.plain("at_peak.count", runs().map(|(run, ..)| run.count));
    block.plain("at_peak.bytes", runs().map(|(run, ..)| run.bytes));
}

/// When tracking started, else the first sample.
pub(crate) fn start_unix_ns(capture: &Capture) -> u64 {
    match capture.lifecycle.tracking_start_unix_ns {
        0 => capture.samples.first().map_or(0, |sample| sample.unix_ns),
        start => start,
    }
}

/// As many samples of as many equal stretches: of each the one with most memory, so that no peak is
/// lost, and the last one of all, because that is where the program ended.
fn thinned(samples: &[Sample], limit: usize) -> Vec<Sample> {
    let limit = limit.max(2);
    if samples.len() <= limit {
        return samples.to_vec();
    }
    let (last, before) = samples.split_last().unwrap_or((&samples[0], &[]));
    let stretches = limit - 1;
    let largest = |stretch: usize| {
        let from = before.len() * stretch / stretches;
        let to = before.len() * (stretch + 1) / stretches;
        let samples = before[from..to].iter();
        samples.max_by_key(|sample| (sample.heap_bytes, sample.resident_bytes))
    };
    let kept = (0..stretches).filter_map(largest);
    kept.chain([last]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_peaks_and_the_end() {
        let samples: Vec<Sample> = (0..1000)
            .map(|index| Sample {
                unix_ns: index,
                heap_bytes: if index == 777 { 9000 } else { index },
                ..Sample::default()
            })
            .collect();
        assert_eq!(thinned(&samples, 1000).len(), 1000);
        let few = thinned(&samples, 10);
        assert_eq!(few.len(), 10);
        assert!(few.iter().any(|sample| sample.heap_bytes == 9000));
        assert_eq!(few.last().map(|sample| sample.unix_ns), Some(999));
        assert!(few.windows(2).all(|pair| pair[0].unix_ns < pair[1].unix_ns));
        assert_eq!(thinned(&samples, 0).len(), 2);
        assert!(thinned(&[], 5).is_empty());
    }
}
