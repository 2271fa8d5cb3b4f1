//! Creations and destructions of Python objects: told in order, and nothing that counts blocks is led astray by them.

use heaptide_capture::Capture;
use heaptide_engine::{
    AllocationEvents, EngineError, EventKind, ObjectEventKind, ObjectEvents, Profile, StackId,
    Temporal, TemporalOptions, allocation_sizes, surviving_objects,
};
use heaptide_format::{Allocator, Event, NO_STRING, Site};
use heaptide_testkit::fixtures::{self, OBJECTS};
use heaptide_testkit::{CaptureBuilder, EventWriter};

fn open(builder: &CaptureBuilder) -> Capture {
    Capture::from_bytes(&builder.build(), "objects.tide").unwrap()
}

/// The thread, the address above [`OBJECTS`], and of a creation the depth of the stack and the type.
type Told = (u32, u64, Option<(usize, Option<String>)>);

fn told(capture: &Capture, profile: &Profile) -> Vec<Told> {
    let events = ObjectEvents::new(capture, profile).unwrap();
    let told = events.map(|event| {
        let thread = profile.threads[event.thread as usize].thread_id;
        let made = match event.kind {
            ObjectEventKind::Made { stack, type_name } => {
                let name = capture.definitions.string(type_name);
                let depth = profile.stacks.walk(stack).count();
                Some((depth, name.map(ToOwned::to_owned)))
            }
            ObjectEventKind::Gone => None,
        };
        (thread, event.address - OBJECTS, made)
    });
    told.collect()
}

#[test]
fn events_of_all_threads_in_their_order() {
    let capture = open(&fixtures::tiny_object_events());
    let profile = Profile::new(&capture);
    assert_eq!(profile.warnings, []);
    let kept = |depth| Some((depth, Some("Kept".to_owned())));
    assert_eq!(
        told(&capture, &profile),
        [
            (4711, 0x10, kept(2)),
            (4711, 0x40, kept(1)),
            (4711, 0x8000, None),
            (4712, 0x10, None),
            (4711, 0x80, Some((2, None))),
            (4712, 0x10, Some((1, None))),
            (4712, 0x10, None),
            (4711, 0x80, None),
        ]
    );
    let survivors = surviving_objects(&capture, &profile).unwrap();
    let survivor = survivors[0];
    assert_eq!(survivors.len(), 1);
    assert_eq!(survivor.address, OBJECTS + 0x40);
    assert_eq!(profile.threads[survivor.thread as usize].thread_id, 4711);
}

#[test]
fn what_is_said_of_blocks_is_as_if_there_were_none() {
    let with = open(&fixtures::tiny_object_events());
    let mut builder = fixtures::tiny_object_events();
    builder.event_chunks.clear();
    let mut writer = EventWriter::new(&[1, 2], 4096);
    let site = Site {
        node: 3,
        allocator: Allocator::Malloc as u8,
        size: 4096,
    };
    writer.event(
        0,
        Event::Allocated {
            address: OBJECTS,
            site,
        },
    );
    writer.event(0, Event::Freed { address: 0x3000 });
    writer.finish(&mut builder);
    let without = open(&builder);
    let (profile, same) = (Profile::new(&with), Profile::new(&without));
    assert_eq!(profile.entries, same.entries);
    assert_eq!(profile.totals, same.totals);
    assert_eq!(profile.totals.figures.allocated.count, 1);
    assert_eq!(profile.own, same.own);
    assert_eq!(profile.histogram, same.histogram);
    assert_eq!(allocation_sizes(&with), allocation_sizes(&without));
    let kinds = |capture, profile| -> Vec<_> {
        let events = AllocationEvents::new(capture, profile).unwrap();
        events
            .map(|event| (event.kind, event.address, event.bytes))
            .collect()
    };
    assert_eq!(kinds(&with, &profile), kinds(&without, &same));
    let history = |capture, profile| {
        let temporal = Temporal::new(capture, profile, TemporalOptions::default()).unwrap();
        (temporal.lifetimes, temporal.peak_bytes)
    };
    assert_eq!(history(&with, &profile), history(&without, &same));
    assert_eq!(told(&without, &same), []);
}

/// A free that did not happen is found by its place, in which objects do not count.
#[test]
fn what_did_not_happen_is_found_among_objects() {
    let mut builder = CaptureBuilder::new();
    let code = builder.function("work", "work.py", 1, 10);
    let node = builder.frame(0, code, 0);
    let thread = builder.thread(100, "python3", "MainThread");
    let mut writer = EventWriter::new(&[thread], 1 << 16);
    let object = OBJECTS + 64;
    let block = |address| Event::Allocated {
        address,
        site: Site {
            node,
            allocator: Allocator::Malloc as u8,
            size: 10,
        },
    };
    for event in [
        block(OBJECTS),
        Event::ObjectMade {
            address: object,
            node,
            type_name: NO_STRING,
        },
        Event::Freed { address: OBJECTS },
        Event::ObjectGone { address: object },
        Event::FreeUndone,
        block(OBJECTS + 16),
        Event::ObjectGone { address: object },
        Event::Freed {
            address: OBJECTS + 16,
        },
    ] {
        writer.event(0, event);
    }
    writer.finish(&mut builder);
    let capture = open(&builder);
    let profile = Profile::new(&capture);
    let events: Vec<_> = AllocationEvents::new(&capture, &profile)
        .unwrap()
        .map(|event| (event.kind, event.address))
        .collect();
    let made = EventKind::Allocated(Allocator::Malloc);
    assert_eq!(
        events,
        [
            (made, OBJECTS),
            (made, OBJECTS + 16),
            (EventKind::Freed, OBJECTS + 16)
        ]
    );
    assert_eq!(profile.totals.figures.live.count, 1);
    assert_eq!(told(&capture, &profile).len(), 3);
}

#[test]
fn what_is_named_and_not_there() {
    let mut builder = CaptureBuilder::new();
    let thread = builder.thread(100, "python3", "MainThread");
    let mut writer = EventWriter::new(&[thread, 77], 1 << 16);
    let made = Event::ObjectMade {
        address: OBJECTS,
        node: 4000,
        type_name: 12,
    };
    writer.event(0, made);
    writer.event(1, Event::ObjectGone { address: OBJECTS });
    writer.finish(&mut builder);
    let capture = open(&builder);
    let profile = Profile::new(&capture);
    let events: Vec<_> = ObjectEvents::new(&capture, &profile).unwrap().collect();
    assert_eq!(
        events[0].kind,
        ObjectEventKind::Made {
            stack: StackId::LOST,
            type_name: 12
        }
    );
    assert_eq!((events[1].thread, events.len()), (u32::MAX, 2));
}

#[test]
fn counters_have_no_events() {
    let capture = open(&fixtures::tiny_objects());
    let profile = Profile::new(&capture);
    let refused = ObjectEvents::new(&capture, &profile).unwrap_err();
    assert_eq!(refused, EngineError::NoHistory);
    let survivors = surviving_objects(&capture, &profile).unwrap();
    assert_eq!(survivors.len(), 2);
    assert!(surviving_objects(&open(&fixtures::tiny()), &profile).is_none());
}
