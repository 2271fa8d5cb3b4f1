//! The events of all threads in one order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use heaptide_format::{BadEvent, Decoder, Event, InColumns, Moment, Receiver, Site, Written};

use crate::ahead::Ahead;
use crate::chunks::{ChunkBuffer, EventChunk, EventLog};
use crate::packing::Place;
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
    /// The events that follow are of this stream and of this thread. The next one is of this moment, the others,
    /// up to the next place, of the same one, and there are others only in a turn that is not shared.
    fn place(&mut self, moment: Moment, stream: usize, thread: u32);
    /// An event of a sort that is rare.
    fn rare(&mut self, event: Event);
    /// So many bytes have been read, of [`EventLog::bytes`].
    fn read(&mut self, bytes: u64);
}

/// What happened on the way, and who may help.
#[derive(Default)]
struct Told {
    bytes_read: u64,
    warnings: Warnings,
    ahead: Option<Ahead>,
}

/// Where the reading of a stream stands.
struct Cursor<'a> {
    /// What is left to be read.
    chunks: &'a [EventChunk],
    buffer: ChunkBuffer,
    /// What is left of the present one, in the buffer.
    place: Place,
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
    told: Told,
    /// What the visitor has been told of these.
    bytes_told: u64,
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
            told: Told::default(),
            bytes_told: 0,
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
    pub fn visit(self, visitor: &mut impl EventVisitor) -> Warnings {
        std::thread::scope(|scope| {
            // Dropped in here even if the visitor panics, or the other thread would be waited for in vain.
            let mut order = self;
            order.told.ahead = Ahead::begin(scope, order.log);
            while order.visit_some(visitor) {}
            order.told.warnings
        })
    }

    /// All events at once, in memory, and read by this thread alone: for tests, and where there are few.
    #[must_use]
    pub fn collect(mut self) -> Vec<PlacedEvent> {
        let mut kept = Kept::default();
        while self.visit_some(&mut kept) {}
        kept.events
    }

    /// Hands events over as long as the visitor has room for them, and says whether any are left.
    pub fn visit_some(&mut self, visitor: &mut impl EventVisitor) -> bool {
        while let Some(Reverse((_, stream))) = self.waiting.pop() {
            let limit = self.waiting.peek().map(|limit| limit.0);
            let cursor = &mut self.cursors[stream];
            cursor.open(self.log, &mut self.told);
            // Until another stream's event comes first.
            while let Some((moment, event)) = cursor.head {
                let room = visitor.has_room();
                if !room || limit.is_some_and(|limit| limit < (moment, stream)) {
                    self.waiting.push(Reverse((moment, stream)));
                    if !room {
                        return true;
                    }
                    break;
                }
                visitor.place(moment, stream, cursor.thread);
                match event {
                    Event::Allocated { address, site } => visitor.allocated(address, &site),
                    Event::Freed { address } => visitor.freed(address),
                    event => visitor.rare(event),
                }
                cursor.run(visitor, &mut self.told);
                cursor.advance(self.log, &mut self.told);
                if self.bytes_told != self.told.bytes_read {
                    self.bytes_told = self.told.bytes_read;
                    visitor.read(self.bytes_told);
                }
            }
        }
        false
    }
}

/// Keeps what it is given.
#[derive(Default)]
struct Kept {
    events: Vec<PlacedEvent>,
    moment: Moment,
    stream: usize,
    thread: u32,
}

impl Receiver for Kept {
    fn allocated(&mut self, address: u64, site: &Site) {
        let site = *site;
        self.rare(Event::Allocated { address, site });
    }

    fn freed(&mut self, address: u64) {
        self.rare(Event::Freed { address });
    }
}

impl EventVisitor for Kept {
    fn place(&mut self, moment: Moment, stream: usize, thread: u32) {
        (self.moment, self.stream, self.thread) = (moment, stream, thread);
    }

    fn rare(&mut self, event: Event) {
        self.events.push(PlacedEvent {
            moment: self.moment,
            stream: self.stream,
            thread: self.thread,
            event,
        });
    }

    fn read(&mut self, _bytes: u64) {}
}

impl<'a> Cursor<'a> {
    fn new(chunks: &'a [EventChunk]) -> Self {
        Self {
            chunks,
            buffer: ChunkBuffer::default(),
            place: Place::default(),
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
    fn run(&mut self, receiver: &mut impl Receiver, told: &mut Told) {
        let Some(decoder) = &mut self.decoder else {
            return;
        };
        let ended = match &mut self.place {
            Place::Written(range) => {
                let bytes = self.buffer.bytes().get(..range.end).unwrap_or_default();
                let mut fields = Written::new(bytes, range.start);
                let ended = decoder.run(&mut fields, receiver);
                range.start = fields.at();
                ended
            }
            Place::Columns(places) => {
                let mut fields = InColumns::new(self.buffer.bytes(), **places);
                let ended = decoder.run(&mut fields, receiver);
                **places = fields.places();
                ended
            }
        };
        if ended.is_err() {
            self.lose_chunk(told);
        }
    }

    /// The next event of the present chunk.
    #[inline]
    fn next_event(&mut self) -> Result<Option<(Moment, Event)>, BadEvent> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(None);
        };
        match &mut self.place {
            Place::Written(range) => {
                let bytes = self.buffer.bytes().get(..range.end).unwrap_or_default();
                let mut fields = Written::new(bytes, range.start);
                let event = decoder.next(&mut fields);
                range.start = fields.at();
                event
            }
            Place::Columns(places) => {
                let mut fields = InColumns::new(self.buffer.bytes(), **places);
                let event = decoder.next(&mut fields);
                **places = fields.places();
                event
            }
        }
    }

    /// There is no event where one should be.
    #[cold]
    #[inline(never)]
    fn lose_chunk(&mut self, told: &mut Told) {
        self.place = Place::default();
        told.warnings.add(WarningKind::DamagedEvents, None, || {
            format!(
                "bytes in the events of thread {} are no event; the rest of that chunk is lost",
                self.thread
            )
        });
    }

    #[inline]
    fn advance(&mut self, log: &EventLog, told: &mut Told) {
        loop {
            match self.next_event() {
                Ok(Some((moment, event))) => {
                    // Damage must not turn time around.
                    let moment = moment.max(self.last);
                    self.last = moment;
                    self.head = Some((moment, event));
                    return;
                }
                // Only a file that was made to mislead has fields that belong to no event.
                Ok(None) if self.place.is_empty() => {}
                Ok(None) | Err(BadEvent { .. }) => self.lose_chunk(told),
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
            Some(decoder) => decoder.begin_chunk(),
            None => self.decoder = Some(Box::default()),
        }
        self.place = Place::default();
        if let Some(ahead) = &mut told.ahead {
            ahead.take(chunk, &mut self.buffer);
            ahead.ask(rest, chunk);
        }
        match log.read(chunk, &mut self.buffer) {
            Ok(place) => self.place = place,
            Err(error) => {
                told.warnings
                    .add(WarningKind::DamagedEvents, Some(chunk.offset), || {
                        format!("a chunk of events could not be read: {error}")
                    });
            }
        }
        told.bytes_read += chunk.bytes;
        true
    }
}
