//! Every allocation and deallocation of a capture, one by one, in the order in which they happened.

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Peekable;
use std::vec::IntoIter;

use heaptide_capture::{Capture, EventOrder, EventVisitor};
use heaptide_format::{Allocator, Event, Moment, Receiver, Site};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::options::EngineError;
use crate::profile::Profile;
use crate::stacks::StackId;

/// What an [`AllocationEvent`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A block or a mapping was made, by this function.
    Allocated(Allocator),
    /// A block was given back to the C library.
    Freed,
    /// A block was given back to one of Python's own allocators.
    FreedToPython,
    /// Whatever was mapped in a range ended.
    Unmapped,
}

/// One allocation or deallocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationEvent {
    /// What happened.
    pub kind: EventKind,
    /// Index into [`Profile::threads`].
    pub thread: u32,
    /// The first byte.
    pub address: u64,
    /// Bytes; zero where a block is given back, whose size is that of its allocation.
    pub bytes: u64,
    /// Where it was allocated; deallocations have the empty stack.
    pub stack: StackId,
}

/// Iterates over all of them; see [`AllocationEvents::new`].
///
/// A deallocation that was recorded and then did not happen (a `realloc` or `munmap` that failed) is left out.
pub struct AllocationEvents<'a> {
    order: EventOrder<'a>,
    told: Told<'a>,
    /// How many of those that have been told were given.
    given: usize,
}

impl fmt::Debug for AllocationEvents<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("AllocationEvents");
        shown
            .field("place", &self.told.place)
            .finish_non_exhaustive()
    }
}

impl<'a> AllocationEvents<'a> {
    /// All events of a capture; `profile` is that capture's. They are read while it is asked for them, and once
    /// before where a deallocation did not happen. Memory does not depend on their number, but for blocks of
    /// Python's allocators that are live.
    ///
    /// # Errors
    /// [`EngineError::NoHistory`] when the capture has counters instead of events.
    pub fn new(capture: &'a Capture, profile: &'a Profile) -> Result<Self, EngineError> {
        if !capture.holds_events() {
            return Err(EngineError::NoHistory);
        }
        let threads = profile.threads.iter().zip(0..);
        let tracing = capture.identity.traces_python_allocators();
        let undone = match profile.takes_back {
            true => undone(capture),
            false => Vec::new(),
        };
        let told = Told {
            events: Vec::with_capacity(BATCH),
            profile,
            undone: undone.into_iter().peekable(),
            place: 0,
            threads: threads
                .map(|(thread, index)| (thread.number, index))
                .collect(),
            number: u32::MAX,
            thread: u32::MAX,
            python_blocks: tracing.then(FxHashSet::default),
        };
        Ok(Self {
            order: capture.events.in_order(),
            told,
            given: 0,
        })
    }
}

impl Iterator for AllocationEvents<'_> {
    type Item = AllocationEvent;

    #[inline]
    fn next(&mut self) -> Option<AllocationEvent> {
        if self.given == self.told.events.len() {
            self.given = 0;
            self.told.events.clear();
            // Most of what is told is an allocation or a deallocation, but all of it may be something else.
            while self.told.events.is_empty() && self.order.visit_some(&mut self.told) {}
        }
        let event = self.told.events.get(self.given).copied()?;
        self.given += 1;
        Some(event)
    }
}

/// So many are decoded in one go.
const BATCH: usize = 256;

/// Takes the events of a capture as they are to be given.
struct Told<'a> {
    events: Vec<AllocationEvent>,
    profile: &'a Profile,
    /// Places, among all events, of those that did not happen; ascending.
    undone: Peekable<IntoIter<u64>>,
    /// The place of the next event.
    place: u64,
    threads: FxHashMap<u32, u32>,
    /// The thread that is told of, as the capture numbers it, and its index.
    number: u32,
    thread: u32,
    /// Live blocks of Python's own allocators, where those are traced.
    python_blocks: Option<FxHashSet<u64>>,
}

impl Told<'_> {
    /// Goes on to the next place; `false` for an event that did not happen.
    #[inline(always)]
    fn happened(&mut self) -> bool {
        let place = self.place;
        self.place += 1;
        self.undone.next_if_eq(&place).is_none()
    }

    #[inline(always)]
    fn give_back(&mut self, kind: EventKind, address: u64, bytes: u64) {
        self.events.push(AllocationEvent {
            kind,
            thread: self.thread,
            address,
            bytes,
            stack: StackId::ROOT,
        });
    }
}

impl Receiver for Told<'_> {
    #[inline(always)]
    fn allocated(&mut self, address: u64, site: &Site) {
        if !self.happened() {
            return;
        }
        let Some(allocator) = Allocator::from_raw(u32::from(site.allocator)) else {
            return;
        };
        if let Some(blocks) = &mut self.python_blocks
            && allocator.python_domain().is_some()
        {
            blocks.insert(address);
        }
        let stack = self.profile.nodes.stack_of(site.node);
        self.events.push(AllocationEvent {
            kind: EventKind::Allocated(allocator),
            thread: self.thread,
            address,
            bytes: site.size,
            stack: stack.unwrap_or(StackId::LOST),
        });
    }

    #[inline(always)]
    fn freed(&mut self, address: u64) {
        if !self.happened() {
            return;
        }
        let python = (self.python_blocks.as_mut()).is_some_and(|it| it.remove(&address));
        let kind = match python {
            true => EventKind::FreedToPython,
            false => EventKind::Freed,
        };
        self.give_back(kind, address, 0);
    }

    #[inline(always)]
    fn has_room(&self) -> bool {
        self.events.len() < BATCH
    }
}

impl EventVisitor for Told<'_> {
    #[inline]
    fn place(&mut self, _moment: Moment, _stream: usize, thread: u32) {
        if self.number != thread {
            // The profile has a thread for every number that allocates; who only frees may be unknown.
            let index = self.threads.get(&thread).copied().unwrap_or(u32::MAX);
            (self.number, self.thread) = (thread, index);
        }
    }

    fn rare(&mut self, event: Event) {
        match event {
            Event::Allocated { address, site } => self.allocated(address, &site),
            Event::Freed { address } => self.freed(address),
            Event::Unmapped { address, length } => {
                if self.happened() {
                    self.give_back(EventKind::Unmapped, address, length);
                }
            }
            Event::FreeUndone | Event::UnmapUndone => self.place += 1,
            // No allocations. They have no place in the count: `Search` does not count them either.
            Event::ObjectMade { .. } | Event::ObjectGone { .. } => {}
        }
    }

    fn read(&mut self, _bytes: u64) {}
}

/// How often each size was asked for, by size; `None` when the capture has counters instead of events.
#[must_use]
pub fn allocation_sizes(capture: &Capture) -> Option<BTreeMap<u64, u64>> {
    if !capture.holds_events() {
        return None;
    }
    let mut sizes = Sizes::default();
    // What is wrong with the events is told by the profile.
    let _ = capture.events.in_order().visit(&mut sizes);
    Some(sizes.0.into_iter().collect())
}

/// Counts them.
#[derive(Default)]
struct Sizes(FxHashMap<u64, u64>);

impl Receiver for Sizes {
    #[inline(always)]
    fn allocated(&mut self, _address: u64, site: &Site) {
        *self.0.entry(site.size).or_default() += 1;
    }

    fn freed(&mut self, _address: u64) {}
}

impl EventVisitor for Sizes {
    fn place(&mut self, _moment: Moment, _stream: usize, _thread: u32) {}

    fn rare(&mut self, _event: Event) {}

    fn read(&mut self, _bytes: u64) {}
}

/// The places, among all events, of deallocations that did not happen.
fn undone(capture: &Capture) -> Vec<u64> {
    let mut search = Search::default();
    // What is wrong with the events is told by the profile.
    let _ = capture.events.in_order().visit(&mut search);
    search.undone.sort_unstable();
    search.undone
}

/// Looks for them.
#[derive(Default)]
struct Search {
    place: u64,
    stream: usize,
    /// Where each stream's last free and unmapping are.
    last: Vec<[Option<u64>; 2]>,
    undone: Vec<u64>,
}

const FREED: usize = 0;
const UNMAPPED: usize = 1;

impl Search {
    fn take_back(&mut self, sort: usize) {
        let place = self.last[self.stream][sort].take();
        self.undone.extend(place);
    }
}

impl Receiver for Search {
    #[inline(always)]
    fn allocated(&mut self, _address: u64, _site: &Site) {
        self.place += 1;
    }

    #[inline(always)]
    fn freed(&mut self, _address: u64) {
        self.last[self.stream][FREED] = Some(self.place);
        self.place += 1;
    }
}

impl EventVisitor for Search {
    #[inline]
    fn place(&mut self, _moment: Moment, stream: usize, _thread: u32) {
        if self.last.len() <= stream {
            self.last.resize(stream + 1, [None; 2]);
        }
        self.stream = stream;
    }

    fn rare(&mut self, event: Event) {
        match event {
            Event::Freed { .. } => self.last[self.stream][FREED] = Some(self.place),
            Event::Unmapped { .. } => self.last[self.stream][UNMAPPED] = Some(self.place),
            Event::FreeUndone => self.take_back(FREED),
            Event::UnmapUndone => self.take_back(UNMAPPED),
            Event::Allocated { .. } => {}
            Event::ObjectMade { .. } | Event::ObjectGone { .. } => return,
        }
        self.place += 1;
    }

    fn read(&mut self, _bytes: u64) {}
}
