//! Writes events as the recorder does: a stream for each thread, ordered by turns.

use heaptide_format::{
    CHUNK_HEADER_BYTES, ChunkHeader, Encoder, Event, MOST_EVENT_BYTES, Mode, next_own_turn,
    next_shared_turn, turn_is_shared,
};
use zerocopy::IntoBytes;

use crate::CaptureBuilder;

struct Stream {
    encoder: Encoder,
    thread: u32,
    sequence: u32,
    turn: u64,
    chunk: Vec<u8>,
}

/// The event streams of a capture under construction; events are told in the order in which they happen.
pub struct EventWriter {
    streams: Vec<Stream>,
    turn: u64,
    shared: bool,
    stamp: u64,
    chunk_bytes: usize,
    finished: Vec<Vec<u8>>,
}

impl EventWriter {
    /// One stream for each of these threads, in chunks of at most `chunk_bytes`.
    #[must_use]
    pub fn new(threads: &[u32], chunk_bytes: usize) -> Self {
        let stream = |&thread: &u32| Stream {
            encoder: Encoder::new(),
            thread,
            sequence: 0,
            turn: 0,
            chunk: Vec::new(),
        };
        Self {
            streams: threads.iter().map(stream).collect(),
            // Of no stream.
            turn: next_own_turn(0),
            shared: false,
            stamp: 1 << 40,
            chunk_bytes: chunk_bytes.max(CHUNK_HEADER_BYTES + 2 * MOST_EVENT_BYTES),
            finished: Vec::new(),
        }
    }

    /// From now on threads share turns (and their events carry time stamps), or no longer.
    pub fn share_turns(&mut self, shared: bool) {
        self.shared = shared;
    }

    /// The turn that a sample takes, for [`heaptide_format::Sample::turn`].
    pub fn sample(&mut self) -> u64 {
        self.turn = next_own_turn(self.turn);
        self.turn
    }

    /// A stream's thread does something.
    pub fn event(&mut self, stream: usize, event: Event) {
        let number = stream as u32;
        let stream = &mut self.streams[stream];
        if stream.chunk.len() + 2 * MOST_EVENT_BYTES > self.chunk_bytes {
            self.finished.push(std::mem::take(&mut stream.chunk));
            stream.sequence += 1;
        }
        let mut out = [0; MOST_EVENT_BYTES];
        let begins = stream.chunk.is_empty();
        if begins {
            let header = ChunkHeader {
                stream: number,
                sequence: stream.sequence,
                thread: stream.thread,
                event_bytes: 0,
            };
            stream.chunk.extend_from_slice(header.as_bytes());
            stream.encoder.begin_chunk();
        }
        let changed = stream.turn != self.turn || turn_is_shared(self.turn) != self.shared;
        if changed && !(turn_is_shared(self.turn) && self.shared) {
            self.turn = if self.shared {
                next_shared_turn(self.turn)
            } else {
                next_own_turn(self.turn)
            };
        }
        if begins || stream.turn != self.turn {
            stream.turn = self.turn;
            let length = stream.encoder.turn(&mut out, self.turn);
            stream.chunk.extend_from_slice(&out[..length]);
        }
        self.stamp += 1;
        let (encoder, stamp) = (&mut stream.encoder, self.stamp);
        let length = match event {
            Event::Allocated { address, site } => encoder.allocated(&mut out, address, site, stamp),
            Event::Freed { address } => encoder.freed(&mut out, address, stamp),
            Event::FreeUndone => encoder.free_undone(&mut out, stamp),
            Event::Unmapped { address, length } => {
                encoder.unmapped(&mut out, address, length, stamp)
            }
            Event::UnmapUndone => encoder.unmap_undone(&mut out, stamp),
            Event::ObjectMade {
                address,
                node,
                type_name,
            } => encoder.object_made(&mut out, address, node, type_name, stamp),
            Event::ObjectGone { address } => encoder.object_gone(&mut out, address, stamp),
        };
        stream.chunk.extend_from_slice(&out[..length]);
    }

    /// The chunks that are full, to be written elsewhere than into a builder.
    pub fn take_full_chunks(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.finished)
    }

    /// Puts all chunks into a capture of every event.
    pub fn finish(mut self, capture: &mut CaptureBuilder) {
        capture.header.identity.mode = Mode::All as u32;
        for stream in &mut self.streams {
            if !stream.chunk.is_empty() {
                self.finished.push(std::mem::take(&mut stream.chunk));
            }
        }
        capture.event_chunks.append(&mut self.finished);
    }
}
