//! Captures of more events than memory could hold.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use heaptide_format::{Allocator, Event, HEADER_BYTES, Mode, Sample, SegmentKind, Site};
use zerocopy::IntoBytes;

use crate::builder::{CaptureBuilder, START_UNIX_NS, push_segment};
use crate::events::EventWriter;

const THREADS: usize = 4;
const SAMPLES: u64 = 1000;
/// A thread goes on for about so many events.
const EVENTS_PER_TURN: u64 = 200;

/// What a storm is made of.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// Allocations and frees.
    pub events: u64,
    /// About so many blocks live at a time, at least one.
    pub live: u64,
    /// Different stacks, ten deep, as a tree; at least one.
    pub stacks: u64,
}

/// Writes a capture of very many events to `path`, without ever holding them. Four threads take turns; most blocks
/// live for long, and are freed by any of the threads.
///
/// # Errors
/// When the file cannot be written.
pub fn write_event_storm(path: &Path, storm: Storm) -> io::Result<()> {
    let Storm {
        events,
        live,
        stacks,
    } = storm;
    let mut capture = CaptureBuilder::new();
    capture.header.identity.mode = Mode::All as u32;
    let threads: Vec<u32> = (1..=THREADS as u32)
        .map(|id| capture.thread(4710 + id, "storm", ""))
        .collect();
    let code = capture.function("storm", "/storm.py", 1, 1000);
    let mut nodes: Vec<u32> = Vec::new();
    for stack in 0..stacks {
        // Ten deep, as a tree.
        let parent = (stack as usize)
            .checked_sub(1)
            .map_or(0, |last| nodes[last / 3]);
        nodes.push(capture.frame(parent, code, (stack % 1000) as i32));
    }
    let head = capture.build();
    let mut end = head.len() as u64;
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&head)?;

    let mut writer = EventWriter::new(&threads, 256 << 10);
    let mut samples: Vec<Sample> = Vec::new();
    // Which of the places of blocks have one.
    let mut taken = vec![false; live as usize * 2];
    let mut random = 0x2545_F491_4F6C_DD1Du64;
    let mut segment = Vec::new();
    for event in 0..events {
        // xorshift: no dependency, the same everywhere.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if event % (events / SAMPLES).max(1) == 0 {
            samples.push(Sample {
                unix_ns: START_UNIX_NS + event,
                resident_bytes: live * 500,
                turn: writer.sample(),
                ..Sample::default()
            });
        }
        let stream = (event / EVENTS_PER_TURN) as usize % THREADS;
        // Mostly near the last places, as programs do, else anywhere.
        let near = event / 64 + random % 64;
        let far = random >> 20;
        let place = if random & 3 == 0 { far } else { near } % (live * 2);
        let address = 0x7f00_0000_0000 + place * 1024;
        let taken = &mut taken[place as usize];
        *taken = !*taken;
        if *taken {
            let site = Site {
                node: nodes[(event / 1000 + (random >> 50) % 8) as usize % nodes.len()],
                allocator: Allocator::Malloc as u8,
                size: 16 + (random >> 40) % 1000,
            };
            writer.event(stream, Event::Allocated { address, site });
        } else {
            writer.event(stream, Event::Freed { address });
        }
        for chunk in writer.take_full_chunks() {
            push_segment(&mut segment, SegmentKind::Events, 0, 0, &chunk);
            file.write_all(&segment)?;
            end += segment.len() as u64;
            segment.clear();
        }
    }
    let mut rest = CaptureBuilder::new();
    writer.finish(&mut rest);
    for chunk in &rest.event_chunks {
        push_segment(&mut segment, SegmentKind::Events, 0, 0, chunk);
    }
    let record = size_of::<Sample>() as u32;
    push_segment(
        &mut segment,
        SegmentKind::Samples,
        0,
        record,
        samples.as_bytes(),
    );
    file.write_all(&segment)?;
    end += segment.len() as u64;

    let mut header = capture.header;
    header.lifecycle.allocated_end = end;
    header.identity.checksum = header.identity.expected_checksum();
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header.as_bytes()[..HEADER_BYTES])?;
    file.flush()
}
