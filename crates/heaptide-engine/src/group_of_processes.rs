//! Several processes as one: their heaps added up over time, and their profiles merged.
//!
//! The samples of a group are taken by one clock, so curves can be added: between two samples a heap is
//! taken for what it was at the first, and it is nothing before tracking began and after the process ended.

use std::collections::HashMap;

use heaptide_capture::{Capture, Liveness};
use heaptide_format::{Origin, Sample, State};
use rustc_hash::FxHashMap;

use crate::figures::Figures;
use crate::profile::{Entry, Profile};
use crate::stacks::{Frame, FrameId, Location, LocationId, StackId, StackNode, Stacks, TextId};
use crate::temporal::Temporal;

/// What a group needs to know of one of its processes.
#[derive(Clone, Debug)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Process id of the parent.
    pub parent_pid: u32,
    /// How it came into the group; `None` where processes were not followed.
    pub origin: Option<Origin>,
    /// Its arguments.
    pub command_line: String,
    /// When tracking began, nanoseconds since the Unix epoch; zero: never.
    pub start_unix_ns: u64,
    /// When its heap was gone; `None`: it still runs.
    pub end_unix_ns: Option<u64>,
    /// The largest its heap was, by itself and exactly.
    pub peak_bytes: u64,
    /// Live at its end, or now.
    pub live_bytes: u64,
    /// Everything it did.
    pub figures: Figures,
    /// Its memory over time.
    pub samples: Vec<Sample>,
}

impl Process {
    /// From a capture and its profile, after [`Profile::complete`].
    #[must_use]
    pub fn new(capture: &Capture, profile: &Profile, liveness: &Liveness) -> Self {
        let lifecycle = &capture.lifecycle;
        let seen = capture.samples.last().map_or(0, |sample| sample.unix_ns);
        let replaced = if lifecycle.state == State::Tracking as u32 {
            lifecycle.exec_unix_ns
        } else {
            0
        };
        let known = [
            replaced,
            lifecycle.ended_unix_ns,
            lifecycle.tracking_end_unix_ns,
            lifecycle.heartbeat_unix_ns.max(seen),
        ];
        let running = matches!(liveness, Liveness::Running { .. });
        let end = known.into_iter().find(|&time| time != 0);
        let start_unix_ns = lifecycle.tracking_start_unix_ns;
        Self {
            pid: capture.identity.pid,
            parent_pid: capture.identity.parent_pid,
            origin: Origin::from_raw(capture.identity.origin),
            command_line: capture.metadata.command_line(),
            start_unix_ns,
            end_unix_ns: (!running).then(|| end.unwrap_or(start_unix_ns).max(start_unix_ns)),
            peak_bytes: profile.heap.peak_bytes,
            live_bytes: profile.totals.figures.live.bytes,
            figures: profile.totals.figures,
            samples: capture.samples.clone(),
        }
    }
}

/// All processes at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// Sum of the heaps.
    pub heap_bytes: u64,
    /// Sum of the resident sets; pages that processes share count in each.
    pub resident_bytes: u64,
    /// How many are alive.
    pub processes: u32,
    /// Sum of the own peaks of those that are alive: the heaps cannot be more.
    pub at_most_bytes: u64,
}

/// What changes at a moment.
#[derive(Clone, Copy)]
enum Change {
    Begins,
    Sample(Sample),
    Ends,
}

/// The sum of all processes over time.
#[must_use]
pub fn combined_curve(processes: &[Process]) -> Vec<Moment> {
    let mut changes: Vec<(u64, usize, Change)> = Vec::new();
    for (index, process) in processes.iter().enumerate() {
        if process.start_unix_ns == 0 {
            continue;
        }
        let end = process.end_unix_ns.unwrap_or(u64::MAX);
        changes.push((process.start_unix_ns, index, Change::Begins));
        let within = |sample: &&Sample| (process.start_unix_ns..end).contains(&sample.unix_ns);
        let samples = process.samples.iter().filter(within);
        changes.extend(samples.map(|sample| (sample.unix_ns, index, Change::Sample(*sample))));
        if let Some(end) = process.end_unix_ns {
            changes.push((end, index, Change::Ends));
        }
    }
    // Stable: a process that begins and ends at one moment does it in this order.
    changes.sort_by_key(|change| change.0);
    let mut now = vec![(0u64, 0u64); processes.len()];
    let mut curve: Vec<Moment> = Vec::new();
    let mut sum = Moment::default();
    for (unix_ns, index, change) in changes {
        let (heap, resident) = match change {
            Change::Begins => {
                sum.processes += 1;
                sum.at_most_bytes = sum
                    .at_most_bytes
                    .saturating_add(processes[index].peak_bytes);
                (0, 0)
            }
            // A sample is taken from outside, a moment after the peak was stored.
            Change::Sample(sample) => (
                sample.heap_bytes.min(processes[index].peak_bytes),
                sample.resident_bytes,
            ),
            Change::Ends => {
                sum.processes = sum.processes.saturating_sub(1);
                sum.at_most_bytes = sum
                    .at_most_bytes
                    .saturating_sub(processes[index].peak_bytes);
                (0, 0)
            }
        };
        let before = std::mem::replace(&mut now[index], (heap, resident));
        sum.heap_bytes = sum.heap_bytes.saturating_sub(before.0).saturating_add(heap);
        sum.resident_bytes = sum
            .resident_bytes
            .saturating_sub(before.1)
            .saturating_add(resident);
        sum.unix_ns = unix_ns;
        match curve.last_mut() {
            Some(last) if last.unix_ns == unix_ns => *last = sum,
            _ => curve.push(sum),
        }
    }
    curve
}

/// The peak of all processes together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CombinedPeak {
    /// The last moment at which the sampled sum was at its largest.
    pub moment: Moment,
    /// What each process held then, in the order of the processes.
    pub heap_bytes: Vec<u64>,
    /// The peak cannot have been less: the largest of the own peaks, or what was sampled.
    pub at_least_bytes: u64,
    /// Nor more: the largest sum of the own peaks of processes that were alive together.
    pub at_most_bytes: u64,
}

/// The peak of all processes together; `None` when nothing was tracked.
#[must_use]
pub fn combined_peak(processes: &[Process], curve: &[Moment]) -> Option<CombinedPeak> {
    let moment = *curve.iter().max_by_key(|moment| moment.heap_bytes)?;
    let heap_bytes = processes
        .iter()
        .map(|process| {
            let alive = process.start_unix_ns != 0
                && process.start_unix_ns <= moment.unix_ns
                && process.end_unix_ns.is_none_or(|end| moment.unix_ns < end);
            let before = process
                .samples
                .partition_point(|sample| sample.unix_ns <= moment.unix_ns);
            let sample = before.checked_sub(1).map(|last| process.samples[last]);
            sample
                .filter(|sample| alive && sample.unix_ns >= process.start_unix_ns)
                .map_or(0, |sample| sample.heap_bytes.min(process.peak_bytes))
        })
        .collect();
    let largest = processes.iter().map(|process| process.peak_bytes).max();
    let at_most = curve.iter().map(|moment| moment.at_most_bytes).max();
    let at_most_bytes = at_most.unwrap_or(0);
    Some(CombinedPeak {
        moment,
        heap_bytes,
        at_least_bytes: largest
            .unwrap_or(0)
            .max(moment.heap_bytes)
            .min(at_most_bytes),
        at_most_bytes,
    })
}

/// Adds profiles of other processes to one.
///
/// Stacks of equal frames are one stack. Threads stay apart, under names that begin with the process.
/// Peak figures are those of each process at its own peak.
#[derive(Debug)]
pub struct Merger {
    profile: Profile,
    texts: HashMap<String, TextId>,
    locations: FxHashMap<Location, LocationId>,
    frames: FxHashMap<Frame, FrameId>,
    nodes: FxHashMap<NodeKey, StackId>,
}

/// What tells nodes apart: caller, frame, whether it is folded, and of a combined stack the Python part.
type NodeKey = (StackId, FrameId, bool, Option<StackId>);

impl Merger {
    /// Starts with the profile of process `pid`.
    #[must_use]
    pub fn new(mut profile: Profile, pid: u32) -> Self {
        name_threads(&mut profile, pid);
        let stacks = &profile.stacks;
        let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let nodes = stacks.nodes.iter().enumerate().skip(INVENTED);
        Self {
            texts: (stacks.texts.iter().enumerate())
                .map(|(index, text)| (text.clone(), TextId(number(index))))
                .collect(),
            locations: (stacks.locations.iter().enumerate())
                .map(|(index, location)| (*location, LocationId(number(index))))
                .collect(),
            frames: (stacks.frames.iter().enumerate())
                .map(|(index, frame)| (*frame, FrameId(number(index))))
                .collect(),
            nodes: nodes
                .map(|(index, node)| {
                    let stack = StackId(number(index));
                    let python = stacks.parts.combined(stack).map(|combined| combined.python);
                    (key(node, python), stack)
                })
                .collect(),
            profile,
        }
    }

    /// Adds the profile of process `pid`.
    pub fn add(&mut self, other: Profile, pid: u32) {
        self.add_with_history(other, &mut Temporal::default(), pid);
    }

    /// Adds the profile of process `pid`, and makes the keys of its history those of the merged profile.
    /// The history itself stays by itself: between two samples events of two processes have no order.
    pub fn add_with_history(&mut self, mut other: Profile, history: &mut Temporal, pid: u32) {
        name_threads(&mut other, pid);
        let stacks = self.add_stacks(&other.stacks);
        let profile = &mut self.profile;
        let first_thread = u32::try_from(profile.threads.len()).unwrap_or(u32::MAX);
        for key in &mut history.keys {
            key.stack = stacks[key.stack.index()];
            key.thread = key.thread.saturating_add(first_thread);
        }
        profile.threads.append(&mut other.threads);
        let entries = other.entries.iter().map(|entry| Entry {
            stack: stacks[entry.stack.index()],
            thread: entry.thread.saturating_add(first_thread),
            ..*entry
        });
        profile.entries.extend(entries);
        profile.totals.figures.add(&other.totals.figures);
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(
            &mut profile.totals.deallocations,
            other.totals.deallocations,
        );
        for (sum, count) in profile.histogram.iter_mut().zip(other.histogram) {
            add(sum, count);
        }
        let (own, its) = (&mut profile.own, other.own);
        add(&mut own.events, its.events);
        add(&mut own.missed_reentrant, its.missed_reentrant);
        add(&mut own.unknown_frees, its.unknown_frees);
        add(&mut own.missed_frees, its.missed_frees);
        add(&mut own.timed_events, its.timed_events);
        add(&mut own.timed_ns, its.timed_ns);
        add(&mut profile.heap.peak_bytes, other.heap.peak_bytes);
        add(&mut profile.heap.headroom, other.heap.headroom);
        profile.in_flight.clamped_cells += other.in_flight.clamped_cells;
        profile.in_flight.newer_cells += other.in_flight.newer_cells;
        let sum = &mut profile.in_flight;
        sum.peak_bytes = sum.peak_bytes.saturating_add(other.in_flight.peak_bytes);
        sum.live_bytes = sum.live_bytes.saturating_add(other.in_flight.live_bytes);
        profile.warnings.append(&mut other.warnings);
    }

    /// All of them as one. The samples are for the caller to add up ([`combined_curve`]).
    #[must_use]
    pub fn finish(mut self) -> Profile {
        self.profile.sample_heap.clear();
        self.profile
    }

    /// Which stack of ours each of theirs is.
    fn add_stacks(&mut self, theirs: &Stacks) -> Vec<StackId> {
        let ours = &mut self.profile.stacks;
        let texts: Vec<TextId> = theirs
            .texts
            .iter()
            .map(|text| {
                if let Some(&id) = self.texts.get(text) {
                    return id;
                }
                let id = TextId(ours.texts.len() as u32);
                ours.texts.push(text.clone());
                self.texts.insert(text.clone(), id);
                id
            })
            .collect();
        let locations: Vec<LocationId> = theirs
            .locations
            .iter()
            .map(|location| {
                let location = Location {
                    function: texts[location.function.index()],
                    file: texts[location.file.index()],
                    ..*location
                };
                *self.locations.entry(location).or_insert_with(|| {
                    ours.locations.push(location);
                    LocationId((ours.locations.len() - 1) as u32)
                })
            })
            .collect();
        let frames: Vec<FrameId> = theirs
            .frames
            .iter()
            .map(|frame| {
                let frame = Frame {
                    location: locations[frame.location.index()],
                    qualified_name: texts[frame.qualified_name.index()],
                    ..*frame
                };
                *self.frames.entry(frame).or_insert_with(|| {
                    ours.frames.push(frame);
                    FrameId((ours.frames.len() - 1) as u32)
                })
            })
            .collect();
        let mut stacks: Vec<StackId> = vec![StackId::ROOT, StackId::LOST];
        for (index, node) in theirs.nodes.iter().enumerate().skip(INVENTED) {
            let combined = theirs.parts.combined(StackId(index as u32));
            // As a caller, it comes before.
            let python = combined.map(|combined| stacks[combined.python.index()]);
            let node = StackNode {
                // A parent comes before its children.
                parent: stacks[node.parent.index()],
                frame: frames[node.frame.index()],
                ..*node
            };
            let stack = *self.nodes.entry(key(&node, python)).or_insert_with(|| {
                ours.nodes.push(node);
                StackId((ours.nodes.len() - 1) as u32)
            });
            if let (Some(combined), Some(python)) = (combined, python) {
                ours.parts
                    .add_merged(stack, python, combined, &theirs.parts);
            }
            stacks.push(stack);
        }
        stacks
    }
}

/// The root and the lost stack are in every profile.
const INVENTED: usize = 2;

fn key(node: &StackNode, python: Option<StackId>) -> NodeKey {
    (node.parent, node.frame, node.folded, python)
}

fn name_threads(profile: &mut Profile, pid: u32) {
    for thread in &mut profile.threads {
        thread.name = format!("{pid} {}", thread.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heaptide_testkit::fixtures;

    fn process(start: u64, end: Option<u64>, peak: u64, samples: &[(u64, u64)]) -> Process {
        Process {
            pid: 1,
            parent_pid: 0,
            origin: None,
            command_line: String::new(),
            start_unix_ns: start,
            end_unix_ns: end,
            peak_bytes: peak,
            live_bytes: 0,
            figures: Figures::default(),
            samples: samples
                .iter()
                .map(|&(unix_ns, heap_bytes)| Sample {
                    unix_ns,
                    heap_bytes,
                    resident_bytes: heap_bytes * 2,
                    ..Sample::default()
                })
                .collect(),
        }
    }

    #[test]
    fn heaps_are_added_up_over_time() {
        let processes = [
            process(10, Some(50), 100, &[(5, 9), (12, 80), (20, 100), (40, 10)]),
            process(15, Some(30), 70, &[(22, 60), (29, 70), (35, 1)]),
            // Too short for a sample
            process(31, Some(32), 500, &[]),
            process(0, None, 7, &[(1, 7)]),
        ];
        let curve = combined_curve(&processes);
        let at = |time: u64| {
            let before = curve.partition_point(|moment| moment.unix_ns <= time);
            let moment = curve[before - 1];
            (moment.heap_bytes, moment.processes)
        };
        assert_eq!(at(10), (0, 1));
        assert_eq!(at(13), (80, 1));
        assert_eq!(at(21), (100, 2));
        assert_eq!(at(25), (160, 2));
        assert_eq!(at(29), (170, 2));
        assert_eq!(at(30), (100, 1));
        assert_eq!(at(45), (10, 1));
        assert_eq!(at(50), (0, 0));
        let peak = combined_peak(&processes, &curve).unwrap();
        assert_eq!(peak.moment.unix_ns, 29);
        assert_eq!(peak.moment.resident_bytes, 340);
        assert_eq!(peak.heap_bytes, [100, 70, 0, 0]);
        assert_eq!((peak.at_least_bytes, peak.at_most_bytes), (500, 600));
        assert_eq!(combined_peak(&[], &[]), None);
    }

    #[test]
    fn a_profile_merged_with_itself_is_twice_as_much_of_the_same() {
        let capture = Capture::from_bytes(&fixtures::tiny().build(), "tiny").unwrap();
        let single = Profile::new(&capture);
        let mut merger = Merger::new(Profile::new(&capture), 1);
        merger.add(Profile::new(&capture), 2);
        let merged = merger.finish();
        assert_eq!(merged.stacks.nodes.len(), single.stacks.nodes.len());
        assert_eq!(merged.stacks.texts, single.stacks.texts);
        assert_eq!(merged.entries.len(), single.entries.len() * 2);
        let twice = |single: u64, merged: u64| assert_eq!(single * 2, merged);
        let (one, two) = (single.totals.figures, merged.totals.figures);
        twice(one.peak.bytes, two.peak.bytes);
        twice(one.live.count, two.live.count);
        twice(one.allocated.bytes, two.allocated.bytes);
        let rows = (crate::by_location(&single), crate::by_location(&merged));
        assert_eq!(rows.0.len(), rows.1.len());
        for (one, two) in rows.0.iter().zip(&rows.1) {
            assert_eq!(one.location, two.location);
            twice(one.figures.peak.bytes, two.figures.peak.bytes);
        }
        assert!(merged.threads[0].name.starts_with("1 "));
        assert_eq!(merged.threads.len(), single.threads.len() * 2);
    }
}
