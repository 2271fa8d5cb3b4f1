//! Every event, one by one: what happened is told, and what did not is not.

use heaptide_capture::Capture;
use heaptide_engine::{
    AllocationEvent, AllocationEvents, EngineError, EventKind, Profile, StackId, allocation_sizes,
};
use heaptide_format::{Allocator, Event, PYTHON_ALLOCATORS, Site};
use heaptide_testkit::{CaptureBuilder, EventWriter, fixtures};

const HEAP: u64 = 0x7f00_0000_0000;
/// The only stack: the root and what stands for too many come first.
const NODE: u32 = 2;

fn allocated(address: u64, allocator: Allocator, size: u64) -> Event {
    let site = Site {
        node: NODE,
        allocator: allocator as u8,
        size,
    };
    Event::Allocated { address, site }
}

/// Two threads do these things, in this order.
fn capture_of(events: &[(usize, Event)], python_allocators: bool) -> Capture {
    let mut builder = CaptureBuilder::new();
    let code = builder.function("work", "work.py", 1, 10);
    assert_eq!(builder.frame(0, code, 0), NODE);
    let threads = [
        builder.thread(100, "python3", "MainThread"),
        builder.thread(101, "python3", "worker"),
    ];
    if python_allocators {
        builder.header.identity.options |= PYTHON_ALLOCATORS;
    }
    let mut writer = EventWriter::new(&threads, 1 << 16);
    for &(stream, event) in events {
        writer.event(stream, event);
    }
    writer.finish(&mut builder);
    Capture::from_bytes(&builder.build(), "records.tide").unwrap()
}

fn told(capture: &Capture) -> Vec<(u32, EventKind, u64, u64)> {
    let profile = Profile::new(capture);
    let events = AllocationEvents::new(capture, &profile).unwrap();
    let told = |event: AllocationEvent| {
        let made = matches!(event.kind, EventKind::Allocated(_));
        assert_eq!(event.stack != StackId::ROOT, made);
        let thread = profile.threads[event.thread as usize].thread_id;
        (thread, event.kind, event.address, event.bytes)
    };
    events.map(told).collect()
}

#[test]
fn events_of_all_threads_in_their_order() {
    let capture = capture_of(
        &[
            (0, allocated(HEAP, Allocator::Malloc, 100)),
            (1, allocated(HEAP + 4096, Allocator::Mmap, 8192)),
            (1, Event::Freed { address: HEAP }),
            (
                0,
                Event::Unmapped {
                    address: HEAP + 4096,
                    length: 4096,
                },
            ),
            (0, allocated(HEAP, Allocator::Calloc, 100)),
        ],
        false,
    );
    let made = EventKind::Allocated;
    let expected = [
        (100, made(Allocator::Malloc), HEAP, 100),
        (101, made(Allocator::Mmap), HEAP + 4096, 8192),
        (101, EventKind::Freed, HEAP, 0),
        (100, EventKind::Unmapped, HEAP + 4096, 4096),
        (100, made(Allocator::Calloc), HEAP, 100),
    ];
    assert_eq!(told(&capture), expected);
    let sizes: Vec<_> = allocation_sizes(&capture).unwrap().into_iter().collect();
    assert_eq!(sizes, [(100, 2), (8192, 1)]);
}

#[test]
fn what_was_taken_back_has_not_happened() {
    // A `realloc` of the first thread fails, while the second one goes on.
    let capture = capture_of(
        &[
            (0, allocated(HEAP, Allocator::Malloc, 1)),
            (0, allocated(HEAP + 64, Allocator::Malloc, 2)),
            (0, Event::Freed { address: HEAP }),
            (1, allocated(HEAP + 128, Allocator::Malloc, 3)),
            (
                1,
                Event::Freed {
                    address: HEAP + 128,
                },
            ),
            (0, Event::FreeUndone),
            (0, Event::FreeUndone),
            (0, Event::Freed { address: HEAP + 64 }),
        ],
        false,
    );
    let freed: Vec<_> = told(&capture)
        .into_iter()
        .filter(|event| event.1 == EventKind::Freed)
        .map(|(thread, _, address, _)| (thread, address))
        .collect();
    assert_eq!(freed, [(101, HEAP + 128), (100, HEAP + 64)]);
}

#[test]
fn what_was_taken_back_in_a_turn_of_several_threads_has_not_happened() {
    let capture = Capture::from_bytes(&fixtures::tiny_events().build(), "tiny.tide").unwrap();
    let given_back: Vec<_> = told(&capture)
        .into_iter()
        .filter(|event| !matches!(event.1, EventKind::Allocated(_)))
        .map(|(thread, kind, address, _)| (thread, kind, address))
        .collect();
    let expected = [
        (4711, EventKind::Freed, 0x1000),
        (4712, EventKind::Unmapped, 0x10_1000),
        (4711, EventKind::Freed, 0x2000),
        (4711, EventKind::Freed, 0x3000),
    ];
    assert_eq!(given_back, expected);
}

#[test]
fn blocks_of_pythons_allocators_are_given_back_to_them() {
    let events = [
        (0, allocated(HEAP, Allocator::ObjectMalloc, 32)),
        (0, allocated(HEAP + 64, Allocator::Malloc, 32)),
        (0, Event::Freed { address: HEAP }),
        (0, Event::Freed { address: HEAP + 64 }),
        (0, allocated(HEAP, Allocator::Malloc, 32)),
        (0, Event::Freed { address: HEAP }),
    ];
    let capture = capture_of(&events, true);
    let frees: Vec<_> = told(&capture)
        .into_iter()
        .map(|event| event.1)
        .filter(|kind| !matches!(kind, EventKind::Allocated(_)))
        .collect();
    let expected = [EventKind::FreedToPython, EventKind::Freed, EventKind::Freed];
    assert_eq!(frees, expected);
}

#[test]
fn counters_have_no_events() {
    let capture = Capture::from_bytes(&fixtures::tiny().build(), "tiny.tide").unwrap();
    let profile = Profile::new(&capture);
    let refused = AllocationEvents::new(&capture, &profile).unwrap_err();
    assert_eq!(refused, EngineError::NoHistory);
    assert_eq!(allocation_sizes(&capture), None);
}
