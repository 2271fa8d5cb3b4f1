//! Captures of every event against a model that looks at everything after every step.

mod model;

use heaptide_capture::{Capture, EventVisitor};
use heaptide_engine::{
    Amount, EngineError, Metric, Profile, ProfileOptions, Progress, StackId, Temporal,
    TemporalOptions,
};
use heaptide_format::{Allocator, Event, Moment, Receiver, Sample, Site};
use heaptide_testkit::builder::START_UNIX_NS;
use heaptide_testkit::{CaptureBuilder, EventWriter, fixtures};

use model::{Amounts, Key, Model, Truth};

fn key_of(
    profile: &Profile,
    truth: &Truth,
    stack: StackId,
    allocator: Allocator,
    thread: u32,
) -> Key {
    let line = profile.stacks.innermost(stack).unwrap().position.line;
    (
        truth.first_node + line as u32 - 1,
        allocator as u8,
        profile.threads[thread as usize].number,
    )
}

fn amounts_of(profile: &Profile, truth: &Truth, metric: Metric) -> Amounts {
    let mut amounts = Amounts::new();
    for entry in &profile.entries {
        let key = key_of(profile, truth, entry.stack, entry.allocator, entry.thread);
        let amount = entry.figures.get(metric);
        if !amount.is_zero() {
            assert!(amounts.insert(key, amount).is_none(), "{key:?} twice");
        }
    }
    amounts
}

fn by_key(
    profile: &Profile,
    truth: &Truth,
    temporal: &Temporal,
    list: Vec<(u32, Amount)>,
) -> Amounts {
    let mut amounts = Amounts::new();
    for (key, amount) in list {
        let key = temporal.keys[key as usize];
        let key = key_of(profile, truth, key.stack, key.allocator, key.thread);
        assert!(amounts.insert(key, amount).is_none(), "{key:?} twice");
    }
    amounts
}

fn with_threshold(capture: &Capture, threshold: u32) -> Profile {
    let options = ProfileOptions {
        temporary_threshold: Some(threshold),
        ..ProfileOptions::default()
    };
    Profile::with(capture, options).unwrap()
}

fn with_most_records(capture: &Capture, profile: &Profile, max_records: usize) -> Temporal {
    let options = TemporalOptions {
        max_records,
        ..TemporalOptions::default()
    };
    Temporal::new(capture, profile, options).unwrap()
}

#[test]
fn profiles_agree_with_the_model() {
    for seed in 1..150 {
        let mut model = Model::new(seed);
        model.run(600);
        let (bytes, truth) = model.finish();
        let capture = Capture::from_bytes(&bytes, "model.tide").unwrap();
        let profile = Profile::new(&capture);
        assert_eq!(profile.warnings, [], "seed {seed}");
        let amounts = |metric| amounts_of(&profile, &truth, metric);
        assert_eq!(amounts(Metric::Allocated), truth.allocated, "seed {seed}");
        let end = truth.alive(|_| true, truth.ends.len() - 1);
        assert_eq!(amounts(Metric::Live), end, "seed {seed}");
        let peak = truth.peak(|_| true);
        assert_eq!(amounts(Metric::Peak), peak.live, "seed {seed}");
        assert_eq!(profile.heap.peak_bytes, peak.heap, "seed {seed}");
        assert_eq!(profile.totals.deallocations, truth.deallocations);
        assert_eq!(profile.own.unknown_frees, truth.unknown_frees);
        assert_eq!(profile.own.missed_frees, truth.missed_frees);
        for threshold in [0, 1, 2, 7, 100, u32::MAX] {
            let profile = with_threshold(&capture, threshold);
            assert_eq!(profile.temporary_threshold, threshold);
            assert_eq!(
                amounts_of(&profile, &truth, Metric::Temporary),
                truth.temporary(threshold as usize),
                "seed {seed}, threshold {threshold}"
            );
        }
        assert_eq!(amounts(Metric::Temporary), truth.temporary(1));
    }
}

#[test]
fn histories_agree_with_the_model() {
    for seed in 1..100 {
        let mut model = Model::new(seed);
        model.run(800);
        let (bytes, truth) = model.finish();
        let capture = Capture::from_bytes(&bytes, "model.tide").unwrap();
        let profile = Profile::new(&capture);
        for max_records in [usize::MAX, 10, 3, 1, 0] {
            let temporal = with_most_records(&capture, &profile, max_records);
            check_history(seed, &profile, &truth, &temporal, max_records);
            let options = ProfileOptions::default();
            let at_once = Profile::with_history(&capture, options, max_records).unwrap();
            assert_eq!(at_once.1, temporal, "seed {seed}");
            assert_eq!(at_once.0.entries, profile.entries, "seed {seed}");
            let (heap, alone) = (at_once.0.heap, profile.heap);
            assert_eq!(heap.peak_bytes, alone.peak_bytes, "seed {seed}");
            assert_eq!(heap.headroom, alone.headroom, "seed {seed}");
            assert_eq!(at_once.0.sample_heap, profile.sample_heap, "seed {seed}");
            assert_eq!(at_once.0.histogram, profile.histogram, "seed {seed}");
        }
    }
}

fn check_history(
    seed: u64,
    profile: &Profile,
    truth: &Truth,
    temporal: &Temporal,
    max_records: usize,
) {
    let samples = &truth.samples;
    let stride = samples.len().div_ceil(max_records.max(1)).max(1);
    let kept: Vec<usize> = (0..samples.len()).step_by(stride).collect();
    assert!(kept.len() <= max_records.max(1));
    let times: Vec<u64> = kept.iter().map(|&at| samples[at].unix_ns).collect();
    assert_eq!(temporal.times_unix_ns, times);
    let resident: Vec<u64> = kept.iter().map(|&at| samples[at].resident_bytes).collect();
    assert_eq!(temporal.resident_bytes, resident);
    let heap: Vec<u64> = resident.iter().map(|resident| resident / 2).collect();
    assert_eq!(temporal.heap_bytes, heap, "seed {seed}");
    let last = kept.len();
    assert_eq!(temporal.intervals(), last + 1);
    // The model counts all samples: an interval of ours is several of the model's.
    let ours = |theirs: usize| kept.partition_point(|&sample| sample < theirs);
    let ends: Vec<usize> = kept.iter().copied().chain([truth.ends.len() - 1]).collect();
    for from in 0..=last {
        // All ranges of few intervals, some of many.
        for to in (from..=last).step_by(1 + last / 10) {
            let within = |theirs: usize| (from..=to).contains(&ours(theirs));
            let peak = truth.peak(within);
            assert_eq!(temporal.peak_within(from..=to).1, peak.heap);
            let held = temporal.held_at_peak(from..=to);
            assert_eq!(
                by_key(profile, truth, temporal, held),
                peak.live,
                "seed {seed}, at most {max_records}, {from}..={to}"
            );
            let alive = temporal.allocated_in_and_alive_at_end(from..=to);
            assert_eq!(
                by_key(profile, truth, temporal, alive),
                truth.alive(within, ends[to]),
                "seed {seed}, at most {max_records}, {from}..={to}"
            );
        }
    }
    for life in &temporal.lifetimes {
        let freed = life.freed_before.unwrap_or(u32::MAX);
        assert!(life.allocated_before < freed);
        assert!(life.count > 0 || life.bytes > 0);
    }
    for run in &temporal.at_peaks {
        assert!(run.from < run.to && run.to as usize <= temporal.intervals());
        assert!(run.count > 0 || run.bytes > 0);
    }
}

/// One thread, one stack, blocks at `address`.
struct Small {
    capture: CaptureBuilder,
    writer: EventWriter,
    node: u32,
}

impl Small {
    fn new() -> Self {
        let mut capture = CaptureBuilder::new();
        let thread = capture.thread(1, "t", "");
        let code = capture.function("f", "/f.py", 1, 2);
        let node = capture.frame(0, code, 0);
        Self {
            capture,
            writer: EventWriter::new(&[thread], 4096),
            node,
        }
    }

    fn allocated(&mut self, address: u64, allocator: Allocator, size: u64) {
        let site = Site {
            node: self.node,
            allocator: allocator as u8,
            size,
        };
        self.writer.event(0, Event::Allocated { address, site });
    }

    fn sample(&mut self) {
        let turn = self.writer.sample();
        let unix_ns = START_UNIX_NS + turn;
        self.capture.samples.push(Sample {
            unix_ns,
            turn,
            ..Sample::default()
        });
    }

    fn read(mut self) -> (Profile, Temporal) {
        self.writer.finish(&mut self.capture);
        let capture = Capture::from_bytes(&self.capture.build(), "small.tide").unwrap();
        let profile = Profile::new(&capture);
        let temporal = Temporal::new(&capture, &profile, TemporalOptions::default()).unwrap();
        (profile, temporal)
    }
}

#[test]
fn a_mapping_that_is_unmapped_in_pieces_counts_until_the_last() {
    let mut small = Small::new();
    small.allocated(0x10000, Allocator::Mmap, 0x4000);
    small.sample();
    let unmapped = |address, length| Event::Unmapped { address, length };
    small.writer.event(0, unmapped(0x11000, 0x1000));
    small.sample();
    small.writer.event(0, unmapped(0x10000, 0x1000));
    small.writer.event(0, unmapped(0x12000, 0x2000));
    let (_, temporal) = small.read();
    let lives: Vec<_> = temporal
        .lifetimes
        .iter()
        .map(|life| {
            (
                life.allocated_before,
                life.freed_before,
                life.count,
                life.bytes,
            )
        })
        .collect();
    assert_eq!(
        lives,
        [(0, Some(1), 0, 0x1000), (0, Some(2), 1, 0x3000)],
        "{temporal:?}"
    );
    let alive = |range| temporal.allocated_in_and_alive_at_end(range);
    let amount = |count, bytes| Amount { count, bytes };
    assert_eq!(alive(0..=0), [(0, amount(1, 0x4000))]);
    assert_eq!(alive(0..=1), [(0, amount(1, 0x3000))]);
    assert_eq!(alive(0..=2), []);
    assert_eq!(temporal.peak_bytes, [0x4000, 0x4000, 0x3000]);
}

#[test]
fn a_capture_without_samples_is_one_interval() {
    let mut small = Small::new();
    small.allocated(0x1000, Allocator::Malloc, 100);
    small.allocated(0x2000, Allocator::Malloc, 50);
    small.writer.event(0, Event::Freed { address: 0x1000 });
    let (profile, temporal) = small.read();
    assert_eq!(temporal.peak_bytes, [150]);
    assert_eq!(temporal.peak_within(0..=0), (0, 150));
    assert_eq!(temporal.heap_bytes, []);
    assert_eq!(
        temporal.held_at_peak(0..=9)[0].1,
        profile.totals.figures.peak
    );
    assert_eq!(
        temporal.allocated_in_and_alive_at_end(0..=9)[0].1,
        profile.totals.figures.live
    );
    assert_eq!(temporal.peak_within(3..=4), (0, 0));
}

#[test]
fn counters_have_one_threshold_and_no_history() {
    let capture = Capture::from_bytes(&fixtures::tiny().build(), "tiny.tide").unwrap();
    let profile = with_threshold(&capture, 1);
    let options = ProfileOptions {
        temporary_threshold: Some(5),
        ..ProfileOptions::default()
    };
    let error = Profile::with(&capture, options).unwrap_err();
    let expected = EngineError::ThresholdNotRecorded {
        asked: 5,
        recorded: 1,
    };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("record without --aggregate"));
    let error = Temporal::new(&capture, &profile, TemporalOptions::default()).unwrap_err();
    assert_eq!(error, EngineError::NoHistory);
}

#[test]
fn progress_ends_with_everything() {
    let mut model = Model::new(7);
    model.run(5000);
    let (bytes, _) = model.finish();
    let capture = Capture::from_bytes(&bytes, "model.tide").unwrap();
    let mut seen: Vec<Progress> = Vec::new();
    let mut note = |progress| seen.push(progress);
    let options = ProfileOptions {
        temporary_threshold: None,
        progress: Some(&mut note),
    };
    Profile::with(&capture, options).unwrap();
    let total = capture.events.bytes();
    assert!(
        seen.windows(2).all(|pair| pair[0].done <= pair[1].done)
            && seen.iter().all(|progress| progress.total == total)
    );
    assert_eq!(seen.last().unwrap().done, total);
}

#[test]
fn damage_is_survived_and_sums_still_hold() {
    for seed in 1..200 {
        let mut model = Model::new(seed);
        model.run(300);
        let mut damage: Vec<u64> = (0..12).map(|_| model.below(1 << 40)).collect();
        let (mut bytes, _) = model.finish();
        // Behind the header page; the checksums of segment headers do not matter to every hit.
        while let Some(place) = damage.pop() {
            let at = 4096 + place as usize % (bytes.len() - 4096);
            bytes[at] ^= (place >> 32) as u8 | 1;
        }
        let Ok(capture) = Capture::from_bytes(&bytes, "damaged.tide") else {
            continue;
        };
        let profile = with_threshold(&capture, seed as u32 % 4);
        let temporal = with_most_records(&capture, &profile, 1 + seed as usize % 9);
        let last = temporal.intervals() - 1;
        let sum = |list: Vec<(u32, Amount)>| {
            let bytes = list.iter().map(|(_, amount)| amount.bytes);
            bytes.fold(0, u64::saturating_add)
        };
        let figures = profile.totals.figures;
        assert_eq!(sum(temporal.held_at_peak(0..=last)), figures.peak.bytes);
        let alive = temporal.allocated_in_and_alive_at_end(0..=last);
        assert_eq!(sum(alive), figures.live.bytes, "seed {seed}");
    }
}

/// Notes all events with the place that was told last.
#[derive(Default)]
struct Notes {
    place: (Moment, usize, u32),
    events: Vec<((Moment, usize, u32), Event)>,
    read: u64,
}

impl Receiver for Notes {
    fn allocated(&mut self, address: u64, site: &Site) {
        let site = *site;
        let event = Event::Allocated { address, site };
        self.events.push((self.place, event));
    }

    fn freed(&mut self, address: u64) {
        self.events.push((self.place, Event::Freed { address }));
    }
}

impl EventVisitor for Notes {
    fn place(&mut self, moment: Moment, stream: usize, thread: u32) {
        self.place = (moment, stream, thread);
    }

    fn rare(&mut self, event: Event) {
        self.events.push((self.place, event));
    }

    fn read(&mut self, bytes: u64) {
        assert!(self.read < bytes);
        self.read = bytes;
    }
}

#[test]
fn many_streams_are_visited_in_the_order_of_single_steps() {
    let mut capture = CaptureBuilder::new();
    let threads: Vec<u32> = (0..300).map(|id| capture.thread(id + 1, "t", "")).collect();
    let mut writer = EventWriter::new(&threads, 300);
    let mut model = Model::new(11);
    let mut written = Vec::new();
    for _ in 0..40_000 {
        match model.below(1000) {
            0 => writer.share_turns(true),
            1..4 => writer.share_turns(false),
            4 => drop(writer.sample()),
            _ => {
                // A few at a time, so that some begin late and end early.
                let stream = model.below(20) + model.below(281);
                let address = model.below(1 << 30) * 16;
                writer.event(stream as usize, Event::Freed { address });
                written.push((threads[stream as usize], Event::Freed { address }));
            }
        }
    }
    writer.finish(&mut capture);
    let capture = Capture::from_bytes(&capture.build(), "many.tide").unwrap();
    let mut notes = Notes::default();
    let warnings = capture.events.in_order().visit(&mut notes).into_vec();
    assert_eq!(warnings, []);
    assert_eq!(notes.read, capture.events.bytes());
    let steps: Vec<_> = capture
        .events
        .in_order()
        .collect()
        .into_iter()
        .map(|placed| {
            let place = (placed.moment, placed.stream, placed.thread);
            (place, placed.event)
        })
        .collect();
    assert!(steps.len() > 39_000);
    assert_eq!(notes.events, steps);
    let read: Vec<_> = (steps.iter())
        .map(|((_, _, thread), event)| (*thread, *event))
        .collect();
    assert_eq!(read, written);
}
