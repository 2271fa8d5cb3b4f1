//! The heap of a program, rebuilt from its events.
//!
//! What is live is kept here, once, for every kind of analysis; what is counted is the business of a
//! [`Ledger`]. The meanings are those of the recorder's counters, event by event, so that a program gives
//! the same figures in both modes. Memory is proportional to what is live and to the distinct stacks.

use std::collections::BTreeMap;

use heaptide_format::{Allocator, Event, Site};
use rustc_hash::FxHashMap;

use crate::live_table::LiveTable;

/// Some of what an entry allocated: a block, or a part of a mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// 1; 0 for a part of a mapping of which something is left.
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    /// [`Ledger::interval`] when it was allocated.
    pub(crate) born: u32,
}

/// Counts what happens.
pub(crate) trait Ledger {
    /// There is one more entry; they are numbered from zero.
    fn add_entry(&mut self);
    /// An entry allocates a block or a mapping.
    fn allocated(&mut self, entry: u32, bytes: u64);
    /// Something is given back; temporary is what its own thread gave back soon.
    fn freed(&mut self, entry: u32, share: Share, temporary: bool);
    /// The giving back, in interval `freed`, did not happen.
    fn unfreed(&mut self, entry: u32, share: Share, temporary: bool, freed: u32);
    /// The present interval, for ledgers that look at time.
    fn interval(&self) -> u32;
    /// All events up to a sample of the capture have been told; samples come in order.
    fn sample(&mut self, index: usize);
}

/// What makes an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) node: u32,
    /// As in the file; it may not exist.
    pub(crate) allocator: u8,
    pub(crate) thread: u32,
}

/// Which allocation of which stream made a block: ordinals of different streams are far apart.
///
/// The stream is in the upper 24 bits. Below, ordinals count from 2³² on, so that a distance of at most 2³² is
/// one within a stream, up to 2³⁹ allocations of each of 2²⁴ streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ordinal(u64);

impl Ordinal {
    const fn first(stream: usize) -> Self {
        Self(((stream as u64) << 40).wrapping_add(1 << 32))
    }

    const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// How many allocations of the stream came after this one; huge for another stream's.
    const fn others_since(self, next: Self) -> u64 {
        next.0.wrapping_sub(self.0).wrapping_sub(1)
    }
}

/// A live block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    size: u64,
    ordinal: Ordinal,
    pub(crate) entry: u32,
    born: u32,
}

impl Block {
    /// One of which nothing else is known.
    pub(crate) const fn with_entry(entry: u32) -> Self {
        Self {
            size: 0,
            ordinal: Ordinal(0),
            entry,
            born: 0,
        }
    }

    const fn share(&self) -> Share {
        Share {
            count: 1,
            bytes: self.size,
            born: self.born,
        }
    }
}

/// What is left of a mapping lies in one or more ranges; partial unmaps cut it.
#[derive(Clone, Copy, Debug)]
struct Range {
    end: u64,
    mapping: u32,
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    start: u64,
    entry: u32,
    born: u32,
    ordinal: Ordinal,
    /// Ranges left of it.
    ranges: u32,
    /// Pieces of it that a stream may still put back.
    pieces: u32,
}

/// What an unmapping took out of a range.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u64,
    end: u64,
    mapping: u32,
    /// Nothing was left of the mapping.
    last: bool,
    temporary: bool,
    /// The interval in which it was unmapped.
    when: u32,
}

/// A block that a stream may still put back.
#[derive(Clone, Copy)]
struct Freed {
    address: u64,
    block: Block,
    temporary: bool,
    /// The interval in which it was freed.
    when: u32,
}

/// What a stream freed last.
#[derive(Clone, Copy, Default)]
enum LastFree {
    #[default]
    None,
    Unknown,
    Known(Freed),
}

/// What is known of a stream: where its allocations stand, and what it did last, to take it back.
struct Stream {
    next: Ordinal,
    freed: LastFree,
    unmapped: Vec<Piece>,
}

impl Stream {
    fn new(number: usize) -> Self {
        Self {
            next: Ordinal::first(number),
            freed: LastFree::None,
            unmapped: Vec::new(),
        }
    }
}

/// How many events of each sort there were.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) allocations: u64,
    pub(crate) deallocations: u64,
    pub(crate) unknown_frees: u64,
    pub(crate) missed_frees: u64,
    /// Deallocations that did not happen.
    pub(crate) undone: u64,
}

const LATELY: usize = 256;

/// An entry that was asked for lately.
#[derive(Clone, Copy)]
struct Lately {
    /// [`site_word`] of its key.
    site: u64,
    thread: u32,
    entry: u32,
}

impl Lately {
    const NOTHING: Self = Self {
        site: u64::MAX,
        thread: 0,
        entry: 0,
    };
}

/// Node and allocator, in 40 bits.
#[inline(always)]
const fn site_word(site: &Site) -> u64 {
    site.node as u64 | (site.allocator as u64) << 32
}

/// Where the entry of such a word is kept at hand.
#[inline(always)]
const fn lately_place(word: u64) -> usize {
    (word ^ word >> 27) as usize % LATELY
}

/// See the module.
pub(crate) struct Heap<L> {
    pub(crate) ledger: L,
    pub(crate) counts: Counts,
    /// Of the entries, by number.
    pub(crate) keys: Vec<Key>,
    by_key: FxHashMap<Key, u32>,
    lately: Box<[Lately; LATELY]>,
    live: LiveTable,
    ranges: BTreeMap<u64, Range>,
    mappings: Vec<Mapping>,
    unused_mappings: Vec<u32>,
    /// But for the one that is told of.
    streams: Vec<Stream>,
    here: Stream,
    stream: usize,
    thread: u32,
    threshold: u64,
}

impl<L: Ledger> Heap<L> {
    /// Nothing is live. Temporary is what its stream frees after at most `threshold` other allocations.
    pub(crate) fn new(ledger: L, streams: usize, threshold: u32) -> Self {
        Self {
            ledger,
            counts: Counts::default(),
            keys: Vec::new(),
            by_key: FxHashMap::default(),
            lately: Box::new([Lately::NOTHING; LATELY]),
            live: LiveTable::new(),
            ranges: BTreeMap::new(),
            mappings: Vec::new(),
            unused_mappings: Vec::new(),
            streams: (0..streams).map(Stream::new).collect(),
            here: Stream::new(0),
            stream: 0,
            thread: 0,
            threshold: u64::from(threshold),
        }
    }

    /// What is live, in no order of meaning.
    pub(crate) fn survivors(&self) -> Vec<(u32, Share)> {
        let mut survivors: Vec<(u32, Share)> = self
            .live
            .blocks()
            .map(|block| (block.entry, block.share()))
            .collect();
        let mut counted = vec![false; self.mappings.len()];
        for (&start, range) in &self.ranges {
            let mapping = &self.mappings[range.mapping as usize];
            let first = !std::mem::replace(&mut counted[range.mapping as usize], true);
            let share = Share {
                count: u64::from(first),
                bytes: range.end - start,
                born: mapping.born,
            };
            survivors.push((mapping.entry, share));
        }
        survivors
    }

    /// The events that follow are of this stream and thread.
    #[inline]
    pub(crate) fn enter(&mut self, stream: usize, thread: u32) {
        if stream != self.stream {
            std::mem::swap(&mut self.here, &mut self.streams[self.stream]);
            std::mem::swap(&mut self.here, &mut self.streams[stream]);
            self.stream = stream;
        }
        self.thread = thread;
    }

    /// Takes an event of a sort that is rare.
    pub(crate) fn event(&mut self, event: Event) {
        match event {
            Event::Allocated { address, site } => self.allocate(address, &site),
            Event::Freed { address } => self.free(address),
            Event::FreeUndone => {
                self.counts.undone += 1;
                self.undo_free();
            }
            Event::Unmapped { address, length } => self.unmap(address, length),
            Event::UnmapUndone => {
                self.counts.undone += 1;
                self.undo_unmap();
            }
            // Objects lie in blocks, which have events of their own.
            Event::ObjectMade { .. } | Event::ObjectGone { .. } => {}
        }
    }

    #[inline(always)]
    fn entry(&mut self, site: &Site) -> u32 {
        let word = site_word(site);
        let lately = self.lately[lately_place(word)];
        if lately.site == word && lately.thread == self.thread {
            return lately.entry;
        }
        self.find_entry(word)
    }

    #[inline(never)]
    fn find_entry(&mut self, word: u64) -> u32 {
        let key = Key {
            node: word as u32,
            allocator: (word >> 32) as u8,
            thread: self.thread,
        };
        let next = self.keys.len() as u32;
        let entry = *self.by_key.entry(key).or_insert(next);
        if entry == next {
            self.keys.push(key);
            self.ledger.add_entry();
        }
        self.lately[lately_place(word)] = Lately {
            site: word,
            thread: self.thread,
            entry,
        };
        entry
    }

    /// An allocation.
    #[inline(always)]
    pub(crate) fn allocate(&mut self, address: u64, site: &Site) {
        let entry = self.entry(site);
        if u32::from(site.allocator) == Allocator::Mmap as u32 {
            self.allocate_mapping(address, site.size, entry);
            return;
        }
        let block = self.born(entry, site.size);
        self.insert(address, block);
    }

    #[inline(never)]
    fn allocate_mapping(&mut self, start: u64, bytes: u64, entry: u32) {
        self.unmap(start, bytes);
        let block = self.born(entry, bytes);
        self.map(start, block);
    }

    #[inline(always)]
    fn born(&mut self, entry: u32, size: u64) -> Block {
        self.ledger.allocated(entry, size);
        self.counts.allocations += 1;
        let next = &mut self.here.next;
        let ordinal = *next;
        *next = ordinal.next();
        Block {
            size,
            ordinal,
            entry,
            born: self.ledger.interval(),
        }
    }

    #[inline(always)]
    fn insert(&mut self, address: u64, block: Block) {
        if let Some(old) = self.live.insert(address, block) {
            self.counts.missed_frees += 1;
            self.counts.deallocations += 1;
            self.ledger.freed(old.entry, old.share(), false);
        }
    }

    /// Did this stream make it, with at most `threshold` other allocations since?
    #[inline(always)]
    fn is_temporary(&self, ordinal: Ordinal) -> bool {
        ordinal.others_since(self.here.next) <= self.threshold
    }

    /// A free.
    #[inline(always)]
    pub(crate) fn free(&mut self, address: u64) {
        let block = self.live.remove(address);
        let Some(block) = block else {
            self.counts.unknown_frees += 1;
            self.here.freed = LastFree::Unknown;
            return;
        };
        let temporary = self.is_temporary(block.ordinal);
        self.ledger.freed(block.entry, block.share(), temporary);
        self.counts.deallocations += 1;
        self.here.freed = LastFree::Known(Freed {
            address,
            block,
            temporary,
            when: self.ledger.interval(),
        });
    }

    #[cold]
    fn undo_free(&mut self) {
        let freed = match std::mem::take(&mut self.here.freed) {
            LastFree::Known(freed) => freed,
            LastFree::None => return,
            LastFree::Unknown => {
                self.counts.unknown_frees = self.counts.unknown_frees.saturating_sub(1);
                return;
            }
        };
        let block = freed.block;
        self.ledger
            .unfreed(block.entry, block.share(), freed.temporary, freed.when);
        self.counts.deallocations = self.counts.deallocations.saturating_sub(1);
        self.insert(freed.address, block);
    }

    fn map(&mut self, start: u64, block: Block) {
        let end = start.saturating_add(block.size);
        if start >= end {
            return;
        }
        let mapping = Mapping {
            start,
            entry: block.entry,
            born: block.born,
            ordinal: block.ordinal,
            ranges: 1,
            pieces: 0,
        };
        let number = match self.unused_mappings.pop() {
            Some(number) => {
                self.mappings[number as usize] = mapping;
                number
            }
            None => {
                self.mappings.push(mapping);
                (self.mappings.len() - 1) as u32
            }
        };
        self.ranges.insert(
            start,
            Range {
                end,
                mapping: number,
            },
        );
    }

    /// Ends whatever is mapped in a range.
    fn unmap(&mut self, start: u64, bytes: u64) {
        let end = start.saturating_add(bytes);
        let before = std::mem::take(&mut self.here.unmapped);
        let mut pieces = self.cut(start, end);
        for piece in &mut pieces {
            let mapping = self.mappings[piece.mapping as usize];
            let bytes = piece.end - piece.start;
            piece.temporary =
                piece.last && piece.start == mapping.start && self.is_temporary(mapping.ordinal);
            let count = u64::from(piece.last);
            let share = Share {
                count,
                bytes,
                born: mapping.born,
            };
            self.ledger.freed(mapping.entry, share, piece.temporary);
            self.counts.deallocations += count;
        }
        self.here.unmapped = pieces;
        for piece in before {
            self.forget(piece);
        }
    }

    /// Takes a range out of all mappings.
    fn cut(&mut self, start: u64, end: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if start >= end {
            return pieces;
        }
        // Ranges never overlap, so only the one before can reach into this one.
        let first = self.ranges.range(..=start).next_back();
        let mut at = first.map_or(start, |(&at, _)| at);
        while let Some((&from, &range)) = self.ranges.range(at..end).next() {
            at = range.end.max(from + 1).min(end);
            if range.end <= start {
                continue;
            }
            self.ranges.remove(&from);
            let mapping = &mut self.mappings[range.mapping as usize];
            mapping.ranges -= 1;
            if from < start {
                mapping.ranges += 1;
                self.ranges.insert(
                    from,
                    Range {
                        end: start,
                        ..range
                    },
                );
            }
            if range.end > end {
                mapping.ranges += 1;
                self.ranges.insert(end, range);
            }
            mapping.pieces += 1;
            pieces.push(Piece {
                start: from.max(start),
                end: range.end.min(end),
                mapping: range.mapping,
                last: mapping.ranges == 0,
                temporary: false,
                when: self.ledger.interval(),
            });
        }
        pieces
    }

    #[cold]
    fn undo_unmap(&mut self) {
        for piece in std::mem::take(&mut self.here.unmapped) {
            // Another thread may have mapped something there since.
            let taken = self.ranges.range(..piece.end).next_back();
            if taken.is_some_and(|(_, range)| range.end > piece.start) {
                self.forget(piece);
                continue;
            }
            let bytes = piece.end - piece.start;
            let mapping = &mut self.mappings[piece.mapping as usize];
            let share = Share {
                count: u64::from(mapping.ranges == 0),
                bytes,
                born: mapping.born,
            };
            mapping.pieces -= 1;
            mapping.ranges += 1;
            self.ledger
                .unfreed(mapping.entry, share, piece.temporary, piece.when);
            self.counts.deallocations = self.counts.deallocations.saturating_sub(share.count);
            self.put_back(piece);
        }
    }

    /// A range is there again, as one with what is left of its mapping beside it.
    fn put_back(&mut self, piece: Piece) {
        let (mut start, mut end) = (piece.start, piece.end);
        let ranges = &mut self.mappings[piece.mapping as usize].ranges;
        let before = self.ranges.range(..start).next_back();
        if let Some((&from, range)) = before
            && range.mapping == piece.mapping
            && range.end == start
        {
            *ranges -= 1;
            start = from;
        }
        if let Some(range) = self.ranges.get(&end).copied()
            && range.mapping == piece.mapping
        {
            *ranges -= 1;
            self.ranges.remove(&end);
            end = range.end;
        }
        let mapping = piece.mapping;
        self.ranges.insert(start, Range { end, mapping });
    }

    /// A piece cannot come back any more.
    fn forget(&mut self, piece: Piece) {
        let mapping = &mut self.mappings[piece.mapping as usize];
        mapping.pieces -= 1;
        if mapping.pieces == 0 && mapping.ranges == 0 {
            self.unused_mappings.push(piece.mapping);
        }
    }
}
