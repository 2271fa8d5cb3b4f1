//! A heap told in the simplest way: after every step everything is there to be looked at.

use std::collections::{BTreeMap, BTreeSet};

use heaptide_engine::Amount;
use heaptide_format::{Allocator, Event, Sample, Site};
use heaptide_testkit::builder::START_UNIX_NS;
use heaptide_testkit::{CaptureBuilder, EventWriter};

pub(crate) const PAGE: u64 = 4096;

/// Node, allocator, thread.
pub(crate) type Key = (u32, u8, u32);
pub(crate) type Amounts = BTreeMap<Key, Amount>;

#[derive(Clone)]
struct Item {
    key: Key,
    stream: usize,
    /// Place among the allocations of its stream.
    ordinal: usize,
    born: usize,
    /// A block: its address and size. A mapping: its pages.
    block: Option<(u64, u64)>,
    first_page: u64,
    pages: BTreeSet<u64>,
}

impl Item {
    fn amount(&self) -> Amount {
        match self.block {
            Some((_, bytes)) => Amount { count: 1, bytes },
            None => Amount {
                count: u64::from(!self.pages.is_empty()),
                bytes: self.pages.len() as u64 * PAGE,
            },
        }
    }
}

/// The heap at one instant.
#[derive(Clone)]
pub(crate) struct Instant {
    pub(crate) interval: usize,
    pub(crate) heap: u64,
    pub(crate) live: Amounts,
}

/// What a stream will take back.
enum Undo {
    Free(Item),
    Unmap(u64, u64, Vec<(usize, u64)>),
}

/// A program that does things at random, and what is true of it.
pub(crate) struct Model {
    pub(crate) capture: CaptureBuilder,
    writer: EventWriter,
    random: u64,
    threads: Vec<u32>,
    nodes: Vec<u32>,
    items: Vec<Item>,
    made: Vec<usize>,
    undo: Vec<Option<Undo>>,
    pub(crate) interval: usize,
    pub(crate) instants: Vec<Instant>,
    /// At the end of each interval: what is live by key and interval of birth.
    pub(crate) ends: Vec<BTreeMap<(Key, usize), Amount>>,
    pub(crate) allocated: Amounts,
    /// Of each that was freed by its own stream: key, other allocations since, bytes.
    pub(crate) own_frees: Vec<(Key, usize, u64)>,
    pub(crate) deallocations: u64,
    pub(crate) unknown_frees: u64,
    pub(crate) missed_frees: u64,
}

fn add(sums: &mut Amounts, key: Key, amount: Amount) {
    sums.entry(key).or_default().add(amount);
}

impl Model {
    /// Two of the streams are of one thread.
    pub(crate) fn new(seed: u64) -> Self {
        let mut capture = CaptureBuilder::new();
        let mut threads: Vec<u32> = (1..4).map(|id| capture.thread(id, "t", "")).collect();
        threads.push(threads[0]);
        let code = capture.function("f", "/f.py", 1, 6);
        let nodes = (0..6).map(|line| capture.frame(0, code, line)).collect();
        Self {
            writer: EventWriter::new(&threads, 300),
            capture,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            made: vec![0; threads.len()],
            undo: threads.iter().map(|_| None).collect(),
            threads,
            nodes,
            items: Vec::new(),
            interval: 0,
            instants: vec![Instant {
                interval: 0,
                heap: 0,
                live: Amounts::new(),
            }],
            ends: Vec::new(),
            allocated: Amounts::new(),
            own_frees: Vec::new(),
            deallocations: 0,
            unknown_frees: 0,
            missed_frees: 0,
        }
    }

    /// A random number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % bound
    }

    fn look(&mut self) {
        let mut live = Amounts::new();
        for item in &self.items {
            add(&mut live, item.key, item.amount());
        }
        live.retain(|_, amount| !amount.is_zero());
        self.instants.push(Instant {
            interval: self.interval,
            heap: live.values().map(|amount| amount.bytes).sum(),
            live,
        });
    }

    /// A free that will be taken back never happens to a block.
    fn end_interval(&mut self) {
        let mut end: BTreeMap<(Key, usize), Amount> = BTreeMap::new();
        let mut items = self.items.clone();
        for undo in self.undo.iter().flatten() {
            match undo {
                Undo::Free(item) => items.push(item.clone()),
                Undo::Unmap(_, _, pages) => {
                    for &(item, page) in pages {
                        items[item].pages.insert(page);
                    }
                }
            }
        }
        for item in items.iter().filter(|item| !item.amount().is_zero()) {
            let key = (item.key, item.born);
            end.entry(key).or_default().add(item.amount());
        }
        self.ends.push(end);
    }

    fn sample(&mut self) {
        let turn = self.writer.sample();
        let heap = self.instants.last().unwrap().heap;
        self.capture.samples.push(Sample {
            unix_ns: START_UNIX_NS + self.capture.samples.len() as u64 * 1000,
            resident_bytes: heap * 2,
            turn,
            ..Sample::default()
        });
        self.end_interval();
        self.interval += 1;
        self.look();
    }

    fn in_limbo(&self, address: u64, end: u64) -> bool {
        self.undo.iter().flatten().any(|undo| match undo {
            Undo::Free(item) => item.block.is_some_and(|(at, _)| at == address),
            Undo::Unmap(start, stop, _) => *start < end && address < *stop,
        })
    }

    fn new_item(&mut self, stream: usize, allocator: Allocator, bytes: u64) -> Item {
        let line = self.below(6) as usize;
        let node = self.nodes[line];
        let key = (node, allocator as u8, self.threads[stream]);
        add(&mut self.allocated, key, Amount { count: 1, bytes });
        self.made[stream] += 1;
        Item {
            key,
            stream,
            ordinal: self.made[stream],
            born: self.interval,
            block: None,
            first_page: 0,
            pages: BTreeSet::new(),
        }
    }

    fn emit_allocated(&mut self, stream: usize, address: u64, item: &Item, size: u64) {
        let site = Site {
            node: item.key.0,
            allocator: item.key.1,
            size,
        };
        let event = Event::Allocated { address, site };
        self.writer.event(stream, event);
    }

    fn allocate(&mut self, stream: usize) {
        let address = 0x7f00_0000_1000 + self.below(40) * 48;
        // Few sizes, so that a maximum is often reached again.
        let size = self.below(4) * 1000;
        if self.in_limbo(address, address + 1) {
            return;
        }
        let allocator = [Allocator::Malloc, Allocator::Calloc][self.below(2) as usize];
        let old = self.block_at(address);
        let mut item = self.new_item(stream, allocator, size);
        item.block = Some((address, size));
        self.emit_allocated(stream, address, &item, size);
        self.items.push(item);
        self.look();
        if let Some(old) = old {
            self.items.remove(old);
            self.missed_frees += 1;
            self.deallocations += 1;
            self.look();
        }
    }

    fn block_at(&self, address: u64) -> Option<usize> {
        let at = |item: &Item| item.block.is_some_and(|(block, _)| block == address);
        self.items.iter().position(at)
    }

    fn free(&mut self, stream: usize) {
        let address = 0x7f00_0000_1000 + self.below(40) * 48;
        self.writer.event(stream, Event::Freed { address });
        let undone = self.below(8) == 0;
        let Some(place) = self.block_at(address) else {
            if undone {
                self.writer.event(stream, Event::FreeUndone);
            } else {
                self.unknown_frees += 1;
            }
            return;
        };
        let item = self.items.remove(place);
        if undone {
            self.undo[stream] = Some(Undo::Free(item));
        } else {
            self.note_own_free(stream, &item, item.amount().bytes);
            self.deallocations += 1;
        }
        self.look();
    }

    fn note_own_free(&mut self, stream: usize, item: &Item, bytes: u64) {
        if item.stream == stream {
            let others = self.made[stream] - item.ordinal;
            self.own_frees.push((item.key, others, bytes));
        }
    }

    fn map(&mut self, stream: usize) {
        let (first, pages) = (self.below(30), 1 + self.below(6));
        let start = 0x7e00_0000_0000 + first * PAGE;
        let end = start + pages * PAGE;
        if self.in_limbo(start, end) {
            return;
        }
        self.take_pages(stream, start, end, false);
        let mut item = self.new_item(stream, Allocator::Mmap, end - start);
        item.first_page = start;
        item.pages = (start..end).step_by(PAGE as usize).collect();
        self.emit_allocated(stream, start, &item, end - start);
        self.items.push(item);
        self.look();
    }

    /// Takes pages from all mappings; gives which were whose.
    fn take_pages(
        &mut self,
        stream: usize,
        start: u64,
        end: u64,
        undone: bool,
    ) -> Vec<(usize, u64)> {
        let mut taken = Vec::new();
        for place in 0..self.items.len() {
            let before = self.items[place].clone();
            let gone: Vec<u64> = before.pages.range(start..end).copied().collect();
            if gone.is_empty() {
                continue;
            }
            taken.extend(gone.iter().map(|&page| (place, page)));
            self.items[place].pages.retain(|page| !gone.contains(page));
            if undone || !self.items[place].pages.is_empty() {
                continue;
            }
            self.deallocations += 1;
            // What is left must be one piece that begins where the mapping did.
            let whole = (before.first_page..).step_by(PAGE as usize);
            if before.pages.iter().copied().zip(whole).all(|(a, b)| a == b) {
                self.note_own_free(stream, &before, gone.len() as u64 * PAGE);
            }
        }
        taken
    }

    fn unmap(&mut self, stream: usize) {
        let (first, pages) = (self.below(34), 1 + self.below(8));
        let start = 0x7e00_0000_0000 + first * PAGE;
        let end = start + pages * PAGE;
        if self.in_limbo(start, end) {
            return;
        }
        let undone = self.below(6) == 0;
        let event = Event::Unmapped {
            address: start,
            length: end - start,
        };
        self.writer.event(stream, event);
        let taken = self.take_pages(stream, start, end, undone);
        if undone {
            self.undo[stream] = Some(Undo::Unmap(start, end, taken));
        }
        self.look();
    }

    fn take_back(&mut self, stream: usize) {
        match self.undo[stream].take() {
            None => return,
            Some(Undo::Free(item)) => {
                self.writer.event(stream, Event::FreeUndone);
                self.items.push(item);
            }
            Some(Undo::Unmap(_, _, pages)) => {
                self.writer.event(stream, Event::UnmapUndone);
                for (item, page) in pages {
                    self.items[item].pages.insert(page);
                }
            }
        }
        self.look();
    }

    /// Does this many things.
    pub(crate) fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            let stream = self.below(4) as usize;
            // Places of items are remembered until an unmapping is taken back.
            let unmapping = |undo: &Option<Undo>| matches!(undo, Some(Undo::Unmap(..)));
            let unmapping = self.undo.iter().position(unmapping);
            if let Some(stream) = unmapping
                && self.below(3) > 0
            {
                self.take_back(stream);
                continue;
            }
            match self.below(100) {
                0..5 => self.sample(),
                5..7 => {
                    let shared = self.below(2) == 0;
                    self.writer.share_turns(shared);
                }
                _ if self.undo[stream].is_some() => self.take_back(stream),
                7..12 => self.map(stream),
                _ if unmapping.is_some() => {}
                12..18 => self.unmap(stream),
                18..62 => self.allocate(stream),
                _ => self.free(stream),
            }
        }
        for stream in 0..4 {
            self.take_back(stream);
        }
        self.end_interval();
    }

    /// The file.
    pub(crate) fn finish(mut self) -> (Vec<u8>, Truth) {
        self.writer.finish(&mut self.capture);
        let truth = Truth {
            instants: self.instants,
            ends: self.ends,
            allocated: self.allocated,
            own_frees: self.own_frees,
            deallocations: self.deallocations,
            unknown_frees: self.unknown_frees,
            missed_frees: self.missed_frees,
            samples: self.capture.samples.clone(),
            first_node: self.nodes[0],
        };
        (self.capture.build(), truth)
    }
}

/// What is true of a program that has ended.
pub(crate) struct Truth {
    pub(crate) instants: Vec<Instant>,
    pub(crate) ends: Vec<BTreeMap<(Key, usize), Amount>>,
    pub(crate) allocated: Amounts,
    pub(crate) own_frees: Vec<(Key, usize, u64)>,
    pub(crate) deallocations: u64,
    pub(crate) unknown_frees: u64,
    pub(crate) missed_frees: u64,
    pub(crate) samples: Vec<Sample>,
    pub(crate) first_node: u32,
}

impl Truth {
    /// The last of the largest instants among those whose interval is wanted.
    pub(crate) fn peak(&self, wanted: impl Fn(usize) -> bool) -> &Instant {
        let instants = self.instants.iter().filter(|at| wanted(at.interval));
        instants.max_by_key(|at| at.heap).unwrap()
    }

    /// What was allocated in intervals that are wanted and is live at the end of interval `last`.
    pub(crate) fn alive(&self, wanted: impl Fn(usize) -> bool, last: usize) -> Amounts {
        let mut alive = Amounts::new();
        for (&(key, born), &amount) in &self.ends[last] {
            if wanted(born) {
                add(&mut alive, key, amount);
            }
        }
        alive
    }

    pub(crate) fn temporary(&self, threshold: usize) -> Amounts {
        let mut temporary = Amounts::new();
        for &(key, others, bytes) in &self.own_frees {
            if others <= threshold {
                add(&mut temporary, key, Amount { count: 1, bytes });
            }
        }
        temporary
    }
}
