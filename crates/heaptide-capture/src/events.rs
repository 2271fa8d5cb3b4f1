//! The events of all threads in one order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::io;

use heaptide_format::{
    BadEvent, CHUNK_HEADER_BYTES, ChunkHeader, Decoder, Event, Moment, SegmentKind,
};
use zerocopy::FromBytes;

use crate::segments::SegmentSummary;
use crate::source::Source;
use crate::warning::{WarningKind, Warnings};

/// Writers make chunks of at most 256 KiB.
const LARGEST_CHUNK_BYTES: u64 = 16 << 20;

/// A piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventChunk {
    /// Number of the stream.
    pub stream: u32,
    /// Place in the stream.
    pub sequence: u32,
    /// Number of the thread that wrote it.
    pub thread: u32,
    /// File offset of the payload.
    pub offset: u64,
    /// Bytes of the payload, head included.
    pub bytes: u64,
}

/// Where the events of a capture are. Nothing of them is held in memory.
#[derive(Default)]
pub struct EventLog {
    source: Option<Box<dyn Source>>,
    /// Ordered by stream and sequence.
    chunks: Vec<EventChunk>,
}

impl fmt::Debug for EventLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EventLog")
            .field("chunks", &self.chunks.len())
            .finish_non_exhaustive()
    }
}

impl EventLog {
    pub(crate) fn new(
        source: Box<dyn Source>,
        segments: &[SegmentSummary],
        warnings: &mut Warnings,
    ) -> Self {
        let mut chunks = Vec::new();
        for segment in segments {
            if segment.kind != Some(SegmentKind::Events) {
                continue;
            }
            let mut head = [0; CHUNK_HEADER_BYTES];
            let read = source.read_at(segment.payload_offset(), &mut head).ok();
            let header = ChunkHeader::read_from_bytes(&head).unwrap_or_default();
            if segment.readable == 0 {
                // Given out and not begun when the program died.
                continue;
            }
            if read != Some(CHUNK_HEADER_BYTES)
                || segment.readable < CHUNK_HEADER_BYTES as u64
                || segment.readable > LARGEST_CHUNK_BYTES
            {
                warnings.add(WarningKind::DamagedEvents, Some(segment.offset), || {
                    "a chunk of events has an impossible length and was left out".to_owned()
                });
                continue;
            }
            chunks.push(EventChunk {
                stream: header.stream,
                sequence: header.sequence,
                thread: header.thread,
                offset: segment.payload_offset(),
                bytes: segment.readable,
            });
        }
        chunks.sort_by_key(|chunk| (chunk.stream, chunk.sequence));
        Self {
            source: Some(source),
            chunks,
        }
    }

    /// The chunks, by stream and sequence.
    #[must_use]
    pub fn chunks(&self) -> &[EventChunk] {
        &self.chunks
    }

    /// Bytes of all chunks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    /// All events from the first on. Holds one chunk of each stream that has not ended.
    #[must_use]
    pub fn in_order(&self) -> EventOrder<'_> {
        EventOrder::new(self)
    }

    fn read(&self, chunk: &EventChunk, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        buffer.resize(usize::try_from(chunk.bytes).unwrap_or(0), 0);
        let count = match &self.source {
            Some(source) => source.read_at(chunk.offset, buffer)?,
            None => 0,
        };
        buffer.truncate(count);
        Ok(())
    }
}

/// An event and who recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedEvent {
    /// Its place among all events.
    pub moment: Moment,
    /// Index of its stream, counted from zero without gaps.
    pub stream: usize,
    /// Number of the thread.
    pub thread: u32,
    /// What happened.
    pub event: Event,
}

/// Where the reading of a stream stands.
struct Cursor<'a> {
    chunks: std::slice::Iter<'a, EventChunk>,
    buffer: Vec<u8>,
    at: usize,
    decoder: Decoder,
    thread: u32,
    next_sequence: u32,
    head: Option<(Moment, Event)>,
    last: Moment,
}

/// Merges the streams: see [`heaptide_format::Encoder::turn`] for the order.
pub struct EventOrder<'a> {
    log: &'a EventLog,
    cursors: Vec<Cursor<'a>>,
    /// Streams by their next event, but for the one that is being read.
    waiting: BinaryHeap<Reverse<(Moment, usize)>>,
    current: Option<usize>,
    bytes_read: u64,
    warnings: Warnings,
}

impl fmt::Debug for EventOrder<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EventOrder")
            .field("streams", &self.cursors.len())
            .finish_non_exhaustive()
    }
}

impl<'a> EventOrder<'a> {
    fn new(log: &'a EventLog) -> Self {
        let mut order = Self {
            log,
            cursors: Vec::new(),
            waiting: BinaryHeap::new(),
            current: None,
            bytes_read: 0,
            warnings: Warnings::default(),
        };
        for chunks in log
            .chunks
            .chunk_by(|left, right| left.stream == right.stream)
        {
            let mut cursor = Cursor {
                chunks: chunks.iter(),
                buffer: Vec::new(),
                at: 0,
                decoder: Decoder::new(),
                thread: 0,
                next_sequence: 0,
                head: None,
                last: Moment::default(),
            };
            cursor.advance(log, &mut order.bytes_read, &mut order.warnings);
            if let Some((moment, _)) = cursor.head {
                order.waiting.push(Reverse((moment, order.cursors.len())));
            }
            order.cursors.push(cursor);
        }
        order
    }

    /// How many streams there are.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.cursors.len()
    }

    /// Bytes of the chunks that have been read, of [`EventLog::bytes`].
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// What was wrong with the events so far.
    #[must_use]
    pub fn into_warnings(self) -> Warnings {
        self.warnings
    }
}

impl Iterator for EventOrder<'_> {
    type Item = PlacedEvent;

    #[inline]
    fn next(&mut self) -> Option<PlacedEvent> {
        let stream = match self.current {
            Some(stream) => stream,
            None => self.waiting.pop()?.0.1,
        };
        let cursor = &mut self.cursors[stream];
        let (moment, event) = cursor.head?;
        let thread = cursor.thread;
        cursor.advance(self.log, &mut self.bytes_read, &mut self.warnings);
        self.current = None;
        if let Some((next, _)) = cursor.head {
            // Most events follow one of the same turn: the other streams need not be asked.
            if next.turn == moment.turn && moment.turn & 1 == 0 {
                self.current = Some(stream);
            } else {
                self.waiting.push(Reverse((next, stream)));
            }
        }
        Some(PlacedEvent {
            moment,
            stream,
            thread,
            event,
        })
    }
}

impl Cursor<'_> {
    #[inline]
    fn advance(&mut self, log: &EventLog, bytes_read: &mut u64, warnings: &mut Warnings) {
        loop {
            match self.decoder.next(&self.buffer, &mut self.at) {
                Ok(Some((moment, event))) => {
                    // Damage must not turn time around.
                    let moment = moment.max(self.last);
                    self.last = moment;
                    self.head = Some((moment, event));
                    return;
                }
                Ok(None) => {}
                Err(BadEvent { .. }) => warnings.add(WarningKind::DamagedEvents, None, || {
                    format!(
                        "bytes in the events of thread {} are no event; the rest of that chunk is lost",
                        self.thread
                    )
                }),
            }
            if let Some(bytes) = self.next_chunk(log, warnings) {
                *bytes_read += bytes;
            } else {
                self.head = None;
                self.buffer = Vec::new();
                self.at = 0;
                return;
            }
        }
    }

    /// Begins the next chunk and gives its length.
    fn next_chunk(&mut self, log: &EventLog, warnings: &mut Warnings) -> Option<u64> {
        let chunk = self.chunks.next()?;
        if chunk.sequence != self.next_sequence {
            warnings.add(WarningKind::DamagedEvents, Some(chunk.offset), || {
                format!(
                    "a chunk of the events of thread {} is missing or there twice",
                    chunk.thread
                )
            });
        }
        self.next_sequence = chunk.sequence.wrapping_add(1);
        self.thread = chunk.thread;
        self.decoder = Decoder::new();
        self.at = CHUNK_HEADER_BYTES;
        if let Err(error) = log.read(chunk, &mut self.buffer) {
            warnings.add(WarningKind::DamagedEvents, Some(chunk.offset), || {
                format!("a chunk of events could not be read: {error}")
            });
            self.buffer.clear();
        }
        Some(chunk.bytes)
    }
}
