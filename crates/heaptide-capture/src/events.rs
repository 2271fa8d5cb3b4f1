//! The events of all threads in one order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use heaptide_format::{BadEvent, Decoder, Event, Moment, Receiver};

use crate::chunks::{ChunkBuffer, EventChunk, EventLog};
use crate::warning::{WarningKind, Warnings};

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

/// Takes all events in their order.
pub trait EventVisitor: Receiver {
    /// The events that follow are of this turn, of this stream and of this thread.
    fn place(&mut self, turn: u64, stream: usize, thread: u32);
    /// An event of a sort that is rare.
    fn rare(&mut self, event: Event);
    /// So many bytes have been read, of [`EventLog::bytes`].
    fn read(&mut self, bytes: u64);
}

/// What happened on the way.
#[derive(Default)]
struct Told {
    bytes_read: u64,
    warnings: Warnings,
}

/// Where the reading of a stream stands.
struct Cursor<'a> {
    /// What is left to be read.
    chunks: &'a [EventChunk],
    buffer: ChunkBuffer,
    at: usize,
    decoder: Option<Box<Decoder>>,
    thread: u32,
    next_sequence: u32,
    head: Option<(Moment, Event)>,
    last: Moment,
}

/// So many streams are opened at once; of others only the first moment is kept until it has come. Each that is
/// open holds a chunk.
const MOST_OPENED_AHEAD: usize = 64;

/// Merges the streams: see [`heaptide_format::Encoder::turn`] for the order.
pub struct EventOrder<'a> {
    log: &'a EventLog,
    cursors: Vec<Cursor<'a>>,
    /// Streams by their next event, but for the one that is being read.
    waiting: BinaryHeap<Reverse<(Moment, usize)>>,
    current: Option<usize>,
    told: Told,
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
    pub(crate) fn new(log: &'a EventLog) -> Self {
        let mut order = Self {
            log,
            cursors: Vec::new(),
            waiting: BinaryHeap::new(),
            current: None,
            told: Told::default(),
        };
        for chunks in log
            .chunks()
            .chunk_by(|left, right| left.stream == right.stream)
        {
            let number = order.cursors.len();
            let mut cursor = Cursor::new(chunks);
            if number < MOST_OPENED_AHEAD {
                cursor.advance(log, &mut order.told);
            } else {
                // What is wrong with it will be told when it is opened again.
                cursor.advance(log, &mut Told::default());
            }
            if let Some((moment, _)) = cursor.head {
                order.waiting.push(Reverse((moment, number)));
            }
            if number >= MOST_OPENED_AHEAD {
                cursor = Cursor::new(chunks);
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

    /// Hands all events over in their order, and gives what was wrong with them. The fast way.
    pub fn visit(mut self, visitor: &mut impl EventVisitor) -> Warnings {
        let mut bytes_read = 0;
        while let Some(Reverse((_, stream))) = self.waiting.pop() {
            let limit = self.waiting.peek().map(|limit| limit.0);
            let cursor = &mut self.cursors[stream];
            cursor.open(self.log, &mut self.told);
            // Until another stream's event comes first.
            while let Some((moment, event)) = cursor.head {
                if limit.is_some_and(|limit| limit < (moment, stream)) {
                    self.waiting.push(Reverse((moment, stream)));
                    break;
                }
                visitor.place(moment.turn, stream, cursor.thread);
                match event {
                    Event::Allocated { address, site } => visitor.allocated(address, &site),
                    Event::Freed { address } => visitor.freed(address),
                    event => visitor.rare(event),
                }
                cursor.run(visitor);
                cursor.advance(self.log, &mut self.told);
                if bytes_read != self.told.bytes_read {
                    bytes_read = self.told.bytes_read;
                    visitor.read(bytes_read);
                }
            }
        }
        self.told.warnings
    }
}

impl Iterator for EventOrder<'_> {
    type Item = PlacedEvent;

    fn next(&mut self) -> Option<PlacedEvent> {
        let stream = match self.current.take() {
            Some(stream) => stream,
            None => self.waiting.pop()?.0.1,
        };
        let cursor = &mut self.cursors[stream];
        cursor.open(self.log, &mut self.told);
        let (moment, event) = cursor.head?;
        let thread = cursor.thread;
        cursor.advance(self.log, &mut self.told);
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

impl<'a> Cursor<'a> {
    fn new(chunks: &'a [EventChunk]) -> Self {
        Self {
            chunks,
            buffer: ChunkBuffer::default(),
            at: 0,
            decoder: None,
            thread: 0,
            next_sequence: 0,
            head: None,
            last: Moment::default(),
        }
    }

    /// Has its first event at hand.
    fn open(&mut self, log: &EventLog, told: &mut Told) {
        if self.decoder.is_none() {
            self.advance(log, told);
        }
    }

    /// Hands over what can be handed over at once.
    #[inline]
    fn run(&mut self, receiver: &mut impl Receiver) {
        if let Some(decoder) = &mut self.decoder {
            decoder.run(self.buffer.events(), &mut self.at, receiver);
        }
    }

    #[inline]
    fn advance(&mut self, log: &EventLog, told: &mut Told) {
        loop {
            if let Some(decoder) = &mut self.decoder {
                match decoder.next(self.buffer.events(), &mut self.at) {
                    Ok(Some((moment, event))) => {
                        // Damage must not turn time around.
                        let moment = moment.max(self.last);
                        self.last = moment;
                        self.head = Some((moment, event));
                        return;
                    }
                    Ok(None) => {}
                    Err(BadEvent { .. }) => {
                        told.warnings.add(WarningKind::DamagedEvents, None, || {
                            format!(
                                "bytes in the events of thread {} are no event; the rest of that chunk is lost",
                                self.thread
                            )
                        });
                    }
                }
            }
            if !self.next_chunk(log, told) {
                *self = Self::new(&[]);
                return;
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn next_chunk(&mut self, log: &EventLog, told: &mut Told) -> bool {
        let Some((chunk, rest)) = self.chunks.split_first() else {
            return false;
        };
        self.chunks = rest;
        if chunk.sequence != self.next_sequence {
            told.warnings
                .add(WarningKind::DamagedEvents, Some(chunk.offset), || {
                    format!(
                        "a chunk of the events of thread {} is missing or there twice",
                        chunk.thread
                    )
                });
        }
        self.next_sequence = chunk.sequence.wrapping_add(1);
        self.thread = chunk.thread;
        match &mut self.decoder {
            Some(decoder) => **decoder = Decoder::new(),
            None => self.decoder = Some(Box::default()),
        }
        self.at = 0;
        if let Err(error) = log.read(chunk, &mut self.buffer) {
            told.warnings
                .add(WarningKind::DamagedEvents, Some(chunk.offset), || {
                    format!("a chunk of events could not be read: {error}")
                });
        }
        told.bytes_read += chunk.bytes;
        true
    }
}
