//! The events of each thread, in streams that together have the order of the file.

use heaptide_format::{ChunkHeader, Encoder, MOST_EVENT_BYTES, SegmentKind, next_own_turn};
use rustc_hash::FxHashMap;
use zerocopy::IntoBytes;

use crate::output::Output;

const CHUNK_BYTES: usize = 64 << 10;
/// More streams than this are not written at the same time: each takes some 10 KiB and its chunk.
const MOST_OPEN: usize = 1024;

/// A stream that is being written.
struct Stream {
    encoder: Encoder,
    events: Vec<u8>,
    turn: u64,
}

/// All streams.
pub(crate) struct Streams {
    /// The last turn that was taken.
    turn: u64,
    open: FxHashMap<u32, Stream>,
    /// How many chunks each stream has.
    sequences: FxHashMap<u32, u32>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            // Of no stream: the first one that writes takes the next.
            turn: next_own_turn(0),
            open: FxHashMap::default(),
            sequences: FxHashMap::default(),
        }
    }
}

impl Streams {
    /// Writes an event of a thread, after all those before it.
    pub(crate) fn write(
        &mut self,
        thread: u32,
        output: &mut Output,
        encode: impl FnOnce(&mut Encoder, &mut [u8; MOST_EVENT_BYTES]) -> usize,
    ) {
        if self.open.len() >= MOST_OPEN && !self.open.contains_key(&thread) {
            self.close_all(output);
        }
        let stream = self.open.entry(thread).or_insert_with(|| Stream {
            encoder: Encoder::new(),
            events: Vec::new(),
            turn: 0,
        });
        if stream.events.len() + 2 * MOST_EVENT_BYTES > CHUNK_BYTES {
            write_chunk(thread, stream, &mut self.sequences, output);
        }
        let mut out = [0; MOST_EVENT_BYTES];
        if stream.turn != self.turn || stream.events.is_empty() {
            if stream.turn != self.turn {
                self.turn = next_own_turn(self.turn);
                stream.turn = self.turn;
            }
            let length = stream.encoder.turn(&mut out, stream.turn);
            stream.events.extend_from_slice(&out[..length]);
        }
        let length = encode(&mut stream.encoder, &mut out);
        stream.events.extend_from_slice(&out[..length]);
    }

    /// A turn for something that is no event.
    pub(crate) fn take_turn(&mut self) -> u64 {
        self.turn = next_own_turn(self.turn);
        self.turn
    }

    /// Writes out what is open.
    pub(crate) fn close_all(&mut self, output: &mut Output) {
        let mut open: Vec<(u32, Stream)> = self.open.drain().collect();
        open.sort_by_key(|&(thread, _)| thread);
        for (thread, mut stream) in open {
            write_chunk(thread, &mut stream, &mut self.sequences, output);
        }
    }
}

fn write_chunk(
    thread: u32,
    stream: &mut Stream,
    sequences: &mut FxHashMap<u32, u32>,
    output: &mut Output,
) {
    let sequence = sequences.entry(thread).or_default();
    let header = ChunkHeader {
        stream: thread,
        sequence: *sequence,
        thread,
        event_bytes: 0,
    };
    *sequence += 1;
    output.segment(
        SegmentKind::Events,
        0,
        0,
        &[header.as_bytes(), &stream.events],
    );
    stream.events.clear();
    stream.encoder.begin_chunk();
}
