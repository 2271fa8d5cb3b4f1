//! A program as large as programs get.

use std::collections::VecDeque;

use heaptide_format::{Allocator, Event, MetadataKey, Sample, Site};

use crate::builder::{CaptureBuilder, START_UNIX_NS};
use crate::{EventWriter, Random};

/// Every so many stacks the program has one more function.
const STACKS_PER_FUNCTION: u32 = 50;
/// Of a minute.
const SAMPLES: u32 = 500;
const SECOND_NS: u64 = 1_000_000_000;

/// Every event of a program of a minute that allocates once from each of `stacks` distinct stacks, in four
/// threads and by three allocators. Half of the blocks stay; of the others one in eight is freed at once, the rest
/// when a twentieth of all stacks has allocated after it. Most stacks end at a place of their own.
#[must_use]
pub fn large_program(stacks: u32) -> CaptureBuilder {
    let mut capture = CaptureBuilder::new();
    capture.metadata(MetadataKey::CommandLine, b"python\0large.py\0");
    let mut threads = vec![capture.thread(4711, "python", "")];
    for worker in 1..4 {
        threads.push(capture.thread(4711 + worker, "python", &format!("worker-{worker}")));
    }
    let codes: Vec<u32> = (0..stacks / STACKS_PER_FUNCTION + 97)
        .map(|index| {
            let file = format!("/srv/package_{}/module_{}.py", index % 13, index / 13);
            capture.function(&format!("function_{index}"), &file, 1, 50)
        })
        .collect();
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let mut events = EventWriter::new(&threads, 1 << 16);
    let mut nodes = vec![0u32];
    let mut waiting = VecDeque::new();
    let mut samples = Vec::new();
    let mut resident = 0;
    let between_samples = (stacks / SAMPLES).max(1);
    for index in 0..stacks {
        if index > 0 && index % between_samples == 0 {
            samples.push(Sample {
                unix_ns: START_UNIX_NS + u64::from(index) * 60 * SECOND_NS / u64::from(stacks),
                resident_bytes: resident + (30 << 20),
                turn: events.sample(),
                ..Sample::default()
            });
        }
        // Programs go on where they are, mostly.
        let recent = nodes.len().min(64);
        let parent = match random.below(3) {
            0 => random.below(nodes.len()),
            _ => nodes.len() - 1 - random.below(recent),
        };
        let code = codes[random.below(codes.len())];
        let node = capture.frame(nodes[parent], code, random.below(32) as i32);
        nodes.push(node);
        let stream = random.below(threads.len());
        let allocators = [Allocator::Malloc, Allocator::Calloc, Allocator::Realloc];
        let site = Site {
            node,
            allocator: allocators[random.below(64).min(allocators.len() - 1)] as u8,
            size: 16 + random.below(5000) as u64,
        };
        let address = 0x7f00_0000_0000 + u64::from(index) * 0x2000;
        events.event(stream, Event::Allocated { address, site });
        resident += site.size;
        match random.below(16) {
            0 => events.event(stream, Event::Freed { address }),
            1..8 => waiting.push_back((stream, address)),
            _ => {}
        }
        if waiting.len() > stacks as usize / 20
            && let Some((stream, address)) = waiting.pop_front()
        {
            events.event(stream, Event::Freed { address });
        }
    }
    events.finish(&mut capture);
    capture.samples = samples;
    capture
}
