//! Every allocation and deallocation of a capture, one by one, in the order in which they happened.

use std::collections::BTreeMap;
use std::fmt;

use heaptide_capture::{Capture, EventOrder, EventVisitor, PlacedEvent};
use heaptide_format::{Allocator, Event, Receiver, Site};
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
    profile: &'a Profile,
    /// Places, among all events, of those that did not happen; ascending.
    undone: std::iter::Peekable<std::vec::IntoIter<u64>>,
    place: u64,
    threads: FxHashMap<u32, u32>,
    /// The thread of the last event and its index.
    thread: (u32, u32),
    /// Live blocks of Python's own allocators, where those are traced.
    python_blocks: Option<FxHashSet<u64>>,
}

impl fmt::Debug for AllocationEvents<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("AllocationEvents");
        shown.field("place", &self.place).finish_non_exhaustive()
    }
}

impl<'a> AllocationEvents<'a> {
    /// All events of a capture; `profile` is that capture's. Reads the events once for what did not happen, and
    /// then again while it is asked for them. Memory does not depend on their number, but for blocks of
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
        Ok(Self {
            undone: undone(capture).into_iter().peekable(),
            order: capture.events.in_order(),
            profile,
            place: 0,
            threads: threads
                .map(|(thread, index)| (thread.number, index))
                .collect(),
            thread: (u32::MAX, 0),
            python_blocks: tracing.then(FxHashSet::default),
        })
    }

    fn thread_index(&mut self, number: u32) -> u32 {
        if self.thread.0 != number {
            // The profile has a thread for every number that allocates; who only frees may be unknown.
            let index = self.threads.get(&number).copied().unwrap_or(u32::MAX);
            self.thread = (number, index);
        }
        self.thread.1
    }

    fn told(&mut self, placed: PlacedEvent) -> Option<AllocationEvent> {
        let thread = self.thread_index(placed.thread);
        let given_back = |kind, address, bytes| AllocationEvent {
            kind,
            thread,
            address,
            bytes,
            stack: StackId::ROOT,
        };
        match placed.event {
            Event::Allocated { address, site } => {
                let allocator = Allocator::from_raw(u32::from(site.allocator))?;
                if let Some(blocks) = &mut self.python_blocks
                    && allocator.python_domain().is_some()
                {
                    blocks.insert(address);
                }
                let stack = self.profile.nodes.stack_of(site.node);
                Some(AllocationEvent {
                    kind: EventKind::Allocated(allocator),
                    thread,
                    address,
                    bytes: site.size,
                    stack: stack.unwrap_or(StackId::LOST),
                })
            }
            Event::Freed { address } => {
                let python = (self.python_blocks.as_mut()).is_some_and(|it| it.remove(&address));
                let kind = match python {
                    true => EventKind::FreedToPython,
                    false => EventKind::Freed,
                };
                Some(given_back(kind, address, 0))
            }
            Event::Unmapped { address, length } => {
                Some(given_back(EventKind::Unmapped, address, length))
            }
            Event::FreeUndone | Event::UnmapUndone => None,
        }
    }
}

impl Iterator for AllocationEvents<'_> {
    type Item = AllocationEvent;

    fn next(&mut self) -> Option<AllocationEvent> {
        loop {
            let placed = self.order.next()?;
            let place = self.place;
            self.place += 1;
            if self.undone.next_if_eq(&place).is_some() {
                continue;
            }
            if let Some(event) = self.told(placed) {
                return Some(event);
            }
        }
    }
}

/// How often each size was asked for, by size; `None` when the capture has counters instead of events.
#[must_use]
pub fn allocation_sizes(capture: &Capture) -> Option<BTreeMap<u64, u64>> {
    if !capture.holds_events() {
        return None;
    }
    let mut sizes: FxHashMap<u64, u64> = FxHashMap::default();
    for placed in capture.events.in_order() {
        if let Event::Allocated { site, .. } = placed.event {
            *sizes.entry(site.size).or_default() += 1;
        }
    }
    Some(sizes.into_iter().collect())
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
    fn place(&mut self, _turn: u64, stream: usize, _thread: u32) {
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
        }
        self.place += 1;
    }

    fn read(&mut self, _bytes: u64) {}
}
