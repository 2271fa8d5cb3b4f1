//! Events that are unpacked ahead are those that are unpacked when they are wanted.

use std::fs::File;

use heaptide_capture::{Capture, EventVisitor, PlacedEvent, WarningKind, rewrite};
use heaptide_format::{Event, Moment, Receiver, Site};
use heaptide_testkit::storm::{Storm, write_event_storm};

/// Keeps what it is given, as the iterator gives it; panics when it has so many.
struct Keeper {
    events: Vec<PlacedEvent>,
    place: (Moment, usize, u32),
    most: usize,
}

impl Keeper {
    fn new(most: usize) -> Self {
        Self {
            events: Vec::new(),
            place: (Moment::default(), 0, 0),
            most,
        }
    }
}

impl Receiver for Keeper {
    fn allocated(&mut self, address: u64, site: &Site) {
        let site = *site;
        self.rare(Event::Allocated { address, site });
    }

    fn freed(&mut self, address: u64) {
        self.rare(Event::Freed { address });
    }
}

impl EventVisitor for Keeper {
    fn place(&mut self, moment: Moment, stream: usize, thread: u32) {
        self.place = (moment, stream, thread);
    }

    fn rare(&mut self, event: Event) {
        assert!(self.events.len() < self.most, "enough");
        let (moment, stream, thread) = self.place;
        self.events.push(PlacedEvent {
            moment,
            stream,
            thread,
            event,
        });
    }

    fn read(&mut self, _: u64) {}
}

/// Several blocks of each of four streams.
fn packed() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let (original, target) = (directory.path().join("a"), directory.path().join("b"));
    let storm = Storm {
        events: 2_000_000,
        live: 1000,
        stacks: 100,
    };
    write_event_storm(&original, storm).unwrap();
    let (from, to) = (File::open(&original), File::create(&target));
    rewrite(&from.unwrap(), &to.unwrap(), &mut |_, _| true).unwrap();
    std::fs::read(target).unwrap()
}

fn read(bytes: &[u8]) -> Capture {
    Capture::from_bytes(bytes, "x.tide").unwrap()
}

#[test]
fn nothing_is_other_than_one_by_one() {
    let packed = packed();
    let capture = read(&packed);
    let events: Vec<PlacedEvent> = capture.events.in_order().collect();
    assert_eq!(events.len(), 2_000_000);
    assert!(
        capture.events.bytes() > 5 << 20,
        "too few to be unpacked ahead"
    );
    for _ in 0..3 {
        let mut keeper = Keeper::new(usize::MAX);
        let warnings = capture.events.in_order().visit(&mut keeper);
        assert!(warnings.into_vec().is_empty());
        assert!(keeper.events == events);
    }

    // A block in the middle is lost to both, and told once.
    let mut damaged = packed;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x10;
    let capture = read(&damaged);
    let left: Vec<PlacedEvent> = capture.events.in_order().collect();
    assert!(left.len() < events.len());
    let mut keeper = Keeper::new(usize::MAX);
    let warnings = capture.events.in_order().visit(&mut keeper).into_vec();
    assert!(keeper.events == left);
    assert!(!warnings.is_empty());
    let of_events = |kind| kind == WarningKind::DamagedEvents;
    assert!(warnings.iter().all(|warning| of_events(warning.kind)));
}

#[test]
fn whoever_panics_on_the_way_is_not_waited_for() {
    let capture = read(&packed());
    for most in [0, 1000, 700_000] {
        let events = capture.events.in_order();
        let visit = std::panic::AssertUnwindSafe(|| events.visit(&mut Keeper::new(most)));
        let panic = std::panic::catch_unwind(visit).expect_err("it had enough");
        assert_eq!(panic.downcast_ref::<&str>().copied(), Some("enough"));
    }
}
