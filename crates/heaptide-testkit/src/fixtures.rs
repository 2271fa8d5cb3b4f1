//! Captures with known answers, shared by the tests of several crates.

use heaptide_format::{
    Allocator, Event, FEATURE_OBJECT_EVENTS, MetadataKey, Module, NATIVE_ROOT, NO_MODULE,
    NO_STRING, NODE_COMBINED, NODE_ENTRY, NativeNode, Node, Outcome, PYTHON_OBJECTS, Sample, Site,
    State, Survivor,
};

use crate::EventWriter;
use crate::Random;
use crate::builder::{CaptureBuilder, START_UNIX_NS};
use crate::simulation::Simulation;

/// One KiB.
pub const KIB: u64 = 1 << 10;
/// One MiB.
pub const MIB: u64 = 1 << 20;

/// A small service that was killed by the OOM killer:
///
/// | stack (outermost first) | thread | allocated | live | peak | temporary |
/// |---|---|---|---|---|---|
/// | `<module>`:3, `serve`:12, `load_table`:31 | main | 64 MiB × 1 (mmap) | all | all | |
/// | `<module>`:3, `serve`:14, `Cache.put`:22 | worker | 1 MiB × 8 | 6 | 6 | |
/// | `<module>`:3, `serve`:13, `walk`:41, `walk`:42, `walk`:42 | main | 4 KiB × 100 | 0 | 0 | 100 |
/// | no Python frame | worker | 512 × 2 | 1 | 2 | |
///
/// Two of the worker's blocks are freed by the main thread.
#[must_use]
pub fn killed_service() -> CaptureBuilder {
    let mut capture = CaptureBuilder::new();
    capture.ended(State::Tracking, Outcome::Signaled, 9);
    capture.header.lifecycle.oom_kills = 1;
    capture
        .metadata(
            MetadataKey::CommandLine,
            b"python\0app.py\0--name=big one\0",
        )
        .metadata(MetadataKey::Hostname, b"box")
        .metadata(MetadataKey::PythonVersion, b"3.12.13 (main)")
        .metadata(MetadataKey::Writer, b"0.1.0")
        .metadata(MetadataKey::MemoryCgroup, b"/app");
    let main = capture.thread(4711, "python", "");
    let worker = capture.thread(4712, "python", "worker-1");

    let module = capture.function("<module>", "/srv/app.py", 1, 20);
    let serve = capture.function("serve", "/srv/app.py", 10, 20);
    let load_table = capture.function("load_table", "/srv/tables.py", 30, 20);
    let put = capture.function("Cache.put", "/srv/cache.py", 20, 20);
    let walk = capture.function("walk", "/srv/tree.py", 40, 20);
    let top = capture.frame(0, module, 2);
    let serving_load = capture.frame(top, serve, 2);
    let loading = capture.frame(serving_load, load_table, 1);
    let serving_walk = capture.frame(top, serve, 3);
    let walk_outer = capture.frame(serving_walk, walk, 1);
    let walk_middle = capture.frame(walk_outer, walk, 2);
    let walk_inner = capture.frame(walk_middle, walk, 2);
    let serving_put = capture.frame(top, serve, 4);
    let putting = capture.frame(serving_put, put, 2);

    let mut program = Simulation::new();
    program.allocate(&mut capture, main, loading, Allocator::Mmap, 64 * MIB);
    for _ in 0..100 {
        let block = program.allocate(&mut capture, main, walk_inner, Allocator::Malloc, 4 * KIB);
        program.free(&mut capture, main, block, true);
    }
    let cached: Vec<_> = (0..8)
        .map(|_| program.allocate(&mut capture, worker, putting, Allocator::Malloc, MIB))
        .collect();
    // Before the peak, so that the peak has six of them.
    program.free(&mut capture, main, cached[0], false);
    program.free(&mut capture, main, cached[1], false);
    program.allocate(&mut capture, worker, 0, Allocator::Calloc, 512);
    let last = program.allocate(&mut capture, main, loading, Allocator::Malloc, 4 * MIB);
    let other = program.allocate(&mut capture, worker, 0, Allocator::Calloc, 512);
    program.free(&mut capture, worker, other, false);
    program.free(&mut capture, main, last, false);

    for (step, (resident, heap)) in [(10, 0), (40, 32), (80, 64), (90, 74), (96, 70)]
        .into_iter()
        .enumerate()
    {
        capture.samples.push(Sample {
            unix_ns: START_UNIX_NS + 50_000_000 + step as u64 * 500_000_000,
            resident_bytes: resident * MIB,
            heap_bytes: heap * MIB,
            cgroup_bytes: resident * MIB + 2 * MIB,
            cgroup_limit_bytes: 100 * MIB,
            turn: 0,
        });
    }
    let slot = &mut capture.slots[0];
    slot.timed_events = 10;
    slot.timed_ns = 450;
    capture.header.own.anonymous_bytes = 300 * KIB;
    capture.header.own.mapped_bytes = 64 * KIB;
    capture.header.own.patched_objects = 40;
    capture.header.own.patched_slots = 400;
    capture
}

/// The smallest capture that has one of everything.
#[must_use]
pub fn tiny() -> CaptureBuilder {
    let mut capture = CaptureBuilder::new();
    capture.metadata(MetadataKey::CommandLine, b"python\0t.py\0");
    let main = capture.thread(4711, "python", "");
    let worker = capture.thread(4712, "python", "w");
    let module = capture.function("<module>", "/t.py", 1, 4);
    let outer = capture.frame(0, module, 0);
    let inner = capture.frame(outer, module, 1);
    let mut program = Simulation::new();
    let block = program.allocate(&mut capture, main, inner, Allocator::Malloc, 100);
    program.allocate(&mut capture, worker, outer, Allocator::Mmap, 4 * KIB);
    program.free(&mut capture, worker, block, false);
    capture.samples.push(Sample {
        unix_ns: START_UNIX_NS,
        resident_bytes: MIB,
        ..Sample::default()
    });
    capture
}

/// [`tiny`] with two native stacks, one of two frames, from which one Python line allocated.
#[must_use]
pub fn tiny_native() -> CaptureBuilder {
    let mut capture = tiny();
    let file_name = capture.string("/nowhere/python");
    capture.modules.push(Module {
        file_name,
        build_id_bytes: 20,
        base: 0x40_0000,
        build_id: [7; 32],
    });
    let node = |parent, module, address| NativeNode {
        parent,
        module,
        address,
    };
    capture.native_nodes = vec![
        node(NATIVE_ROOT, NO_MODULE, 0),
        node(NATIVE_ROOT, 0, 0x1000),
        node(1, 0, 0x2000),
        node(1, NO_MODULE, 0x7000_0000_3000),
    ];
    let inner = capture.nodes.len() as u32 - 1;
    capture.nodes[inner as usize].flags |= NODE_ENTRY;
    let mut program = Simulation::new();
    for (native, size) in [(2, 64), (3, 32)] {
        let stack = capture.node(Node {
            parent: inner,
            code: native,
            last_instruction: 0,
            flags: NODE_COMBINED,
        });
        program.allocate(&mut capture, 1, stack, Allocator::Malloc, size);
    }
    capture
}

/// [`tiny`] with two Python objects that survived, of one of which the type is known.
#[must_use]
pub fn tiny_objects() -> CaptureBuilder {
    let mut capture = tiny();
    capture.header.identity.options |= PYTHON_OBJECTS;
    let type_name = capture.string("t.Kept");
    let survivor = |address, type_name| Survivor {
        address,
        node: 2,
        thread: 1,
        type_name,
        reserved: 0,
    };
    capture.survivors = Some(vec![
        survivor(0x7f00_0000_1000, type_name),
        survivor(0x7f00_0000_2000, NO_STRING),
    ]);
    capture
}

/// The smallest capture of every event that has one of each sort, in own and in shared turns.
#[must_use]
pub fn tiny_events() -> CaptureBuilder {
    let mut capture = CaptureBuilder::new();
    capture.metadata(MetadataKey::CommandLine, b"python\0e.py\0");
    let threads = [
        capture.thread(4711, "python", ""),
        capture.thread(4712, "python", "w"),
    ];
    let module = capture.function("<module>", "/e.py", 1, 4);
    let outer = capture.frame(0, module, 0);
    let inner = capture.frame(outer, module, 1);
    let mut writer = EventWriter::new(&threads, 4096);
    let allocated = |node, allocator, address, size| Event::Allocated {
        address,
        site: Site {
            node,
            allocator: allocator as u8,
            size,
        },
    };
    let freed = |address| Event::Freed { address };
    let sample = |capture: &mut CaptureBuilder, writer: &mut EventWriter| {
        let turn = writer.sample();
        capture.samples.push(Sample {
            unix_ns: START_UNIX_NS + turn,
            resident_bytes: MIB,
            turn,
            ..Sample::default()
        });
    };
    writer.event(0, allocated(inner, Allocator::Malloc, 0x1000, 100));
    writer.event(0, allocated(inner, Allocator::Malloc, 0x2000, 100));
    writer.event(0, freed(0x1000));
    sample(&mut capture, &mut writer);
    writer.share_turns(true);
    writer.event(1, allocated(outer, Allocator::Mmap, 0x10_0000, 8 * KIB));
    writer.event(0, allocated(inner, Allocator::Calloc, 0x1000, 3000));
    writer.event(1, freed(0x2000));
    writer.event(1, Event::FreeUndone);
    let part = Event::Unmapped {
        address: 0x10_1000,
        length: 4 * KIB,
    };
    writer.event(1, part);
    writer.event(1, Event::UnmapUndone);
    writer.share_turns(false);
    sample(&mut capture, &mut writer);
    writer.event(1, part);
    writer.event(0, freed(0x2000));
    writer.event(0, freed(0x3000));
    writer.finish(&mut capture);
    capture
}

/// The smallest capture with events of Python objects among those of blocks, in own and in shared turns: one survives, one
/// is destroyed by another thread, and one that is destroyed was made before.
#[must_use]
pub fn tiny_object_events() -> CaptureBuilder {
    let mut capture = CaptureBuilder::new();
    capture.metadata(MetadataKey::CommandLine, b"python\0o.py\0");
    capture.header.identity.options |= PYTHON_OBJECTS;
    capture.header.identity.required_features |= FEATURE_OBJECT_EVENTS;
    let threads = [
        capture.thread(4711, "python", ""),
        capture.thread(4712, "python", "w"),
    ];
    let module = capture.function("<module>", "/o.py", 1, 4);
    let outer = capture.frame(0, module, 0);
    let inner = capture.frame(outer, module, 1);
    let kept = capture.string("Kept");
    let mut writer = EventWriter::new(&threads, 4096);
    let made = |address, node, type_name| Event::ObjectMade {
        address,
        node,
        type_name,
    };
    let gone = |address| Event::ObjectGone { address };
    let block = Event::Allocated {
        address: OBJECTS,
        site: Site {
            node: inner,
            allocator: Allocator::Malloc as u8,
            size: 4 * KIB,
        },
    };
    writer.event(0, block);
    writer.event(0, made(OBJECTS + 0x10, inner, kept));
    writer.event(0, made(OBJECTS + 0x40, outer, kept));
    writer.event(0, gone(OBJECTS + 0x8000));
    writer.share_turns(true);
    writer.event(1, gone(OBJECTS + 0x10));
    writer.event(0, made(OBJECTS + 0x80, inner, NO_STRING));
    writer.event(1, made(OBJECTS + 0x10, outer, NO_STRING));
    writer.share_turns(false);
    writer.event(1, gone(OBJECTS + 0x10));
    writer.event(0, gone(OBJECTS + 0x80));
    writer.event(0, Event::Freed { address: 0x3000 });
    writer.finish(&mut capture);
    capture.survivors = Some(vec![Survivor {
        address: OBJECTS + 0x40,
        node: outer,
        thread: threads[0],
        type_name: kept,
        reserved: 0,
    }]);
    capture
}

/// Where the objects of [`tiny_object_events`] lie.
pub const OBJECTS: u64 = 0x7f00_0000_0000;

/// A tree of about `nodes` stacks with names as hostile as they come when `hostile` is set.
#[must_use]
pub fn wide_tree(nodes: u32, hostile: bool) -> CaptureBuilder {
    let mut capture = CaptureBuilder::new();
    capture.metadata(MetadataKey::CommandLine, b"python\0wide.py\0");
    let thread = capture.thread(4711, "python", "");
    let name = |index: u32| {
        if hostile {
            format!("</script><img src=x onerror=alert({index})>\u{202e}\x1b[31m\n'\"&")
        } else {
            format!("function_{index}")
        }
    };
    let codes: Vec<u32> = (0..97)
        .map(|index| {
            capture.function(
                &name(index),
                &format!("/srv/module_{}.py", index % 13),
                1,
                50,
            )
        })
        .collect();
    let mut program = Simulation::new();
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let mut stacks = vec![0u32];
    for _ in 0..nodes {
        let random = random.next();
        let recent = stacks.len().min(64);
        let parent = if random.is_multiple_of(3) {
            stacks[(random >> 8) as usize % stacks.len()]
        } else {
            stacks[stacks.len() - 1 - (random >> 8) as usize % recent]
        };
        let node = capture.frame(
            parent,
            codes[(random >> 20) as usize % codes.len()],
            (random >> 30) as i32 & 31,
        );
        let block = program.allocate(
            &mut capture,
            thread,
            node,
            Allocator::Malloc,
            16 + (random >> 40) % 5000,
        );
        if random & 0x8000 != 0 {
            program.free(&mut capture, thread, block, random & 0x1_0000 != 0);
        }
        stacks.push(node);
    }
    capture
}

/// A program of two seconds, every event of it, with samples after 0.5, 1 and 1.5 seconds:
///
/// | seconds | thread | |
/// |---|---|---|
/// | 0 – 0.5 | main | `load` takes 8 MiB |
/// | 0.5 – 1 | main | `burst` takes 3 × 1 MiB and frees them |
/// | | worker | then `put` takes 2 MiB, kept |
/// | 1 – 1.5 | main | `load`'s block is freed, `late` takes 1 MiB, kept |
/// | 1.5 – 2 | main | `churn` takes 3 × 4 KiB and frees them in the same order |
#[must_use]
pub fn phases() -> CaptureBuilder {
    let mut capture = CaptureBuilder::new();
    capture.metadata(MetadataKey::CommandLine, b"python\0phases.py\0");
    let main = capture.thread(4711, "python", "");
    let worker = capture.thread(4712, "python", "worker-1");
    let mut node = |name: &str| {
        let code = capture.function(name, "/srv/phases.py", 10, 20);
        capture.frame(0, code, 1)
    };
    let [load, burst, put, late, churn] = ["load", "burst", "put", "late", "churn"].map(&mut node);
    let mut events = EventWriter::new(&[main, worker], 4096);
    let take = |events: &mut EventWriter, stream: usize, node: u32, address: u64, size: u64| {
        let site = Site {
            node,
            allocator: Allocator::Malloc as u8,
            size,
        };
        events.event(stream, Event::Allocated { address, site });
    };
    let free = |events: &mut EventWriter, address: u64| {
        events.event(0, Event::Freed { address });
    };
    let mut samples = Vec::new();
    let mut sample = |events: &mut EventWriter, half_seconds: u64, resident: u64| {
        samples.push(Sample {
            unix_ns: START_UNIX_NS + 50_000_000 + half_seconds * 500_000_000,
            resident_bytes: resident * MIB,
            turn: events.sample(),
            ..Sample::default()
        });
    };
    take(&mut events, 0, load, 0x1000, 8 * MIB);
    sample(&mut events, 1, 20);
    for block in 1..=3 {
        take(&mut events, 0, burst, block << 20, MIB);
    }
    (1..=3).for_each(|block| free(&mut events, block << 20));
    take(&mut events, 1, put, 0x2000, 2 * MIB);
    sample(&mut events, 2, 24);
    free(&mut events, 0x1000);
    take(&mut events, 0, late, 0x3000, MIB);
    sample(&mut events, 3, 16);
    for block in 1..=3 {
        take(&mut events, 0, churn, block << 16, 4 * KIB);
    }
    (1..=3).for_each(|block| free(&mut events, block << 16));
    events.finish(&mut capture);
    capture.samples = samples;
    capture
}
