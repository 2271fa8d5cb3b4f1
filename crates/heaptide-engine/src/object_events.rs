//! Every creation and destruction of a Python object of a capture, one by one, in the order in which they happened.

use std::collections::VecDeque;
use std::fmt;

use heaptide_capture::{Capture, EventOrder, EventVisitor};
use heaptide_format::{Event, Moment, Receiver, Site};
use rustc_hash::FxHashMap;

use crate::options::EngineError;
use crate::profile::Profile;
use crate::stacks::StackId;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectEventKind {
    /// It was made.
    Made {
        /// Where.
        stack: StackId,
        /// Number of the string that is the name of its type, or [`heaptide_format::NO_STRING`].
        type_name: u32,
    },
    /// It is destroyed. It may have been made before tracking began.
    Gone,
}

/// The creation or the destruction of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectEvent {
    /// Which of both.
    pub kind: ObjectEventKind,
    /// Index into [`Profile::threads`]; `u32::MAX` for a thread that is not described.
    pub thread: u32,
    /// Where the object is, as `id()` tells it.
    pub address: u64,
}

/// The objects that survived, in the order in which they were made, as events of their creation; `None` where the capture does
/// not tell. `profile` is that capture's.
#[must_use]
pub fn surviving_objects(capture: &Capture, profile: &Profile) -> Option<Vec<ObjectEvent>> {
    let survivors = capture.survivors.as_ref()?;
    let threads = indices(profile);
    let made = survivors.iter().map(|(_, survivor)| {
        let stack = profile.nodes.stack_of(survivor.node);
        ObjectEvent {
            kind: ObjectEventKind::Made {
                stack: stack.unwrap_or(StackId::LOST),
                type_name: survivor.type_name,
            },
            thread: threads.get(&survivor.thread).copied().unwrap_or(u32::MAX),
            address: survivor.address,
        }
    });
    Some(made.collect())
}

/// Index of each thread by its number.
fn indices(profile: &Profile) -> FxHashMap<u32, u32> {
    let threads = profile.threads.iter().zip(0..);
    threads
        .map(|(thread, index)| (thread.number, index))
        .collect()
}

/// Iterates over all of them; see [`ObjectEvents::new`].
pub struct ObjectEvents<'a> {
    order: EventOrder<'a>,
    told: Told<'a>,
}

impl fmt::Debug for ObjectEvents<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ObjectEvents")
            .field("waiting", &self.told.events.len())
            .finish_non_exhaustive()
    }
}

impl<'a> ObjectEvents<'a> {
    /// All events of objects of a capture; `profile` is that capture's. They are read while it is asked for them. There are
    /// none where [`heaptide_format::Identity::holds_object_events`] is false.
    ///
    /// # Errors
    /// [`EngineError::NoHistory`] when the capture has counters instead of events.
    pub fn new(capture: &'a Capture, profile: &'a Profile) -> Result<Self, EngineError> {
        if !capture.holds_events() {
            return Err(EngineError::NoHistory);
        }
        let told = Told {
            events: VecDeque::with_capacity(BATCH),
            profile,
            threads: indices(profile),
            number: None,
            thread: u32::MAX,
        };
        Ok(Self {
            order: capture.events.in_order(),
            told,
        })
    }
}

impl Iterator for ObjectEvents<'_> {
    type Item = ObjectEvent;

    fn next(&mut self) -> Option<ObjectEvent> {
        // What is told may be of blocks, for a long time.
        while self.told.events.is_empty() && self.order.visit_some(&mut self.told) {}
        self.told.events.pop_front()
    }
}

/// So many are decoded in one go.
const BATCH: usize = 256;

/// Takes the events of a capture, and keeps those of objects.
struct Told<'a> {
    events: VecDeque<ObjectEvent>,
    profile: &'a Profile,
    threads: FxHashMap<u32, u32>,
    /// The thread that is told of, as the capture numbers it, and its index.
    number: Option<u32>,
    thread: u32,
}

impl Told<'_> {
    fn push(&mut self, kind: ObjectEventKind, address: u64) {
        let thread = self.thread;
        self.events.push_back(ObjectEvent {
            kind,
            thread,
            address,
        });
    }
}

impl Receiver for Told<'_> {
    #[inline(always)]
    fn allocated(&mut self, _address: u64, _site: &Site) {}

    #[inline(always)]
    fn freed(&mut self, _address: u64) {}

    #[inline(always)]
    fn has_room(&self) -> bool {
        self.events.len() < BATCH
    }
}

impl EventVisitor for Told<'_> {
    #[inline]
    fn place(&mut self, _moment: Moment, _stream: usize, thread: u32) {
        if self.number != Some(thread) {
            let index = self.threads.get(&thread).copied();
            (self.number, self.thread) = (Some(thread), index.unwrap_or(u32::MAX));
        }
    }

    fn rare(&mut self, event: Event) {
        match event {
            Event::ObjectMade {
                address,
                node,
                type_name,
            } => {
                let stack = self.profile.nodes.stack_of(node);
                let stack = stack.unwrap_or(StackId::LOST);
                self.push(ObjectEventKind::Made { stack, type_name }, address);
            }
            Event::ObjectGone { address } => self.push(ObjectEventKind::Gone, address),
            Event::Allocated { .. }
            | Event::Freed { .. }
            | Event::FreeUndone
            | Event::Unmapped { .. }
            | Event::UnmapUndone => {}
        }
    }

    fn read(&mut self, _bytes: u64) {}
}
