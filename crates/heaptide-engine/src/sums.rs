//! Profiles of sums that somebody else has worked out, stack by stack.

use std::collections::HashMap;

use heaptide_format::{Allocator, HISTOGRAM_BINS, HeapWord};
use rustc_hash::FxHashMap;

use crate::figures::Figures;
use crate::position::Position;
use crate::profile::{Entry, InFlight, OwnFigures, Profile, ThreadInfo, Totals};
use crate::stacks::{
    Frame, FrameId, Location, LocationId, NO_FILE, NodeMap, StackId, StackNode, Stacks, TextId,
};

/// A profile under construction. What is equal is there once: texts, frames, stacks, threads, entries.
#[derive(Debug)]
pub struct Sums {
    stacks: Stacks,
    texts: HashMap<String, TextId>,
    locations: FxHashMap<Location, LocationId>,
    frames: FxHashMap<Frame, FrameId>,
    nodes: FxHashMap<(StackId, FrameId), StackId>,
    threads: Vec<ThreadInfo>,
    thread_numbers: HashMap<(u32, String), u32>,
    entries: Vec<Entry>,
    entry_numbers: FxHashMap<(StackId, Allocator, u32), usize>,
}

impl Default for Sums {
    fn default() -> Self {
        Self::new()
    }
}

impl Sums {
    /// A profile of nothing.
    #[must_use]
    pub fn new() -> Self {
        let mut sums = Self {
            stacks: Stacks::default(),
            texts: HashMap::new(),
            locations: FxHashMap::default(),
            frames: FxHashMap::default(),
            nodes: FxHashMap::default(),
            threads: Vec::new(),
            thread_numbers: HashMap::new(),
            entries: Vec::new(),
            entry_numbers: FxHashMap::default(),
        };
        let frameless = "<no Python frame>";
        let frame = sums.frame(frameless, NO_FILE, frameless, Position::default());
        sums.stacks.frameless = frame;
        // The empty stack and the lost one.
        sums.stacks.nodes = vec![
            StackNode {
                parent: StackId::ROOT,
                frame,
                folded: false,
            };
            2
        ];
        sums
    }

    fn text(&mut self, text: &str) -> TextId {
        if let Some(&id) = self.texts.get(text) {
            return id;
        }
        let id = TextId(number(self.stacks.texts.len()));
        self.stacks.texts.push(text.to_owned());
        self.texts.insert(text.to_owned(), id);
        id
    }

    /// The frame of a function at a place in a file.
    pub fn frame(
        &mut self,
        function: &str,
        file: &str,
        qualified_name: &str,
        position: Position,
    ) -> FrameId {
        let location = Location {
            function: self.text(function),
            file: self.text(file),
            line: position.line,
        };
        let qualified_name = self.text(qualified_name);
        let locations = &mut self.stacks.locations;
        let location = *self.locations.entry(location).or_insert_with(|| {
            locations.push(location);
            LocationId(number(locations.len() - 1))
        });
        let frame = Frame {
            location,
            qualified_name,
            position,
        };
        let frames = &mut self.stacks.frames;
        *self.frames.entry(frame).or_insert_with(|| {
            frames.push(frame);
            FrameId(number(frames.len() - 1))
        })
    }

    /// The stack of frames that call each other, the outermost first.
    pub fn stack(&mut self, frames: impl IntoIterator<Item = FrameId>) -> StackId {
        let nodes = &mut self.stacks.nodes;
        frames.into_iter().fold(StackId::ROOT, |parent, frame| {
            *self.nodes.entry((parent, frame)).or_insert_with(|| {
                nodes.push(StackNode {
                    parent,
                    frame,
                    folded: false,
                });
                StackId(number(nodes.len() - 1))
            })
        })
    }

    /// The index of a thread, by its number in the kernel and its name.
    pub fn thread(&mut self, thread_id: u32, name: &str) -> u32 {
        let threads = &mut self.threads;
        let key = (thread_id, name.to_owned());
        *self.thread_numbers.entry(key).or_insert_with(|| {
            let index = number(threads.len());
            threads.push(ThreadInfo {
                number: index,
                thread_id,
                name: name.to_owned(),
            });
            index
        })
    }

    /// Adds what a stack of a thread did by an allocator; `stack` and `thread` are ours.
    pub fn add(&mut self, stack: StackId, allocator: Allocator, thread: u32, figures: &Figures) {
        let entries = &mut self.entries;
        let key = (stack, allocator, thread);
        let index = *self.entry_numbers.entry(key).or_insert_with(|| {
            entries.push(Entry {
                stack,
                allocator,
                thread,
                figures: Figures::default(),
            });
            entries.len() - 1
        });
        entries[index].figures.add(figures);
    }

    /// The profile. What sums do not tell is zero in it.
    #[must_use]
    pub fn finish(self) -> Profile {
        let mut totals = Totals::default();
        for entry in &self.entries {
            totals.figures.add(&entry.figures);
        }
        let (peak, live) = (totals.figures.peak.bytes, totals.figures.live.bytes);
        let peak_bytes = peak.max(live);
        Profile {
            totals,
            stacks: self.stacks,
            entries: self.entries,
            threads: self.threads,
            histogram: [0; HISTOGRAM_BINS],
            in_flight: InFlight::default(),
            own: OwnFigures::default(),
            heap: HeapWord {
                peak_bytes,
                headroom: peak_bytes - live,
                ..HeapWord::default()
            },
            sample_heap: Vec::new(),
            temporary_threshold: 0,
            warnings: Vec::new(),
            nodes: NodeMap::default(),
            takes_back: false,
        }
    }
}

/// Four thousand million of anything do not fit into memory.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Amount, by_function};

    fn peak(count: u64, bytes: u64) -> Figures {
        Figures {
            peak: Amount { count, bytes },
            ..Figures::default()
        }
    }

    #[test]
    fn what_is_equal_is_one() {
        let mut sums = Sums::new();
        let mut frame =
            |function: &str, line| sums.frame(function, "a.py", function, Position::of_line(line));
        let (outer, inner, other) = (frame("outer", 1), frame("inner", 2), frame("inner", 3));
        assert_eq!(frame("inner", 2), inner);
        let stack = sums.stack([outer, inner]);
        assert_eq!(sums.stack([outer, inner]), stack);
        let sibling = sums.stack([outer, other]);
        assert_ne!(stack, sibling);
        let (main, worker) = (sums.thread(1, "main"), sums.thread(2, "worker"));
        assert_eq!(sums.thread(1, "main"), main);
        sums.add(stack, Allocator::Malloc, main, &peak(1, 100));
        sums.add(stack, Allocator::Malloc, main, &peak(2, 20));
        sums.add(stack, Allocator::Calloc, main, &peak(1, 3));
        sums.add(sibling, Allocator::Malloc, worker, &peak(1, 4));
        sums.add(StackId::ROOT, Allocator::Mmap, worker, &peak(1, 5000));
        let profile = sums.finish();
        assert_eq!(profile.entries.len(), 4);
        assert_eq!(profile.entries[0].figures, peak(3, 120));
        assert_eq!(profile.totals.figures, peak(6, 5127));
        assert_eq!(profile.heap.peak_bytes, 5127);
        assert_eq!(profile.threads.len(), 2);
        let rows = by_function(&profile, crate::Metric::Peak);
        let total = |name: &str| {
            let row = rows.iter().find(|row| {
                row.function
                    .is_some_and(|(function, _)| profile.stacks.text(function) == name)
            });
            row.map(|row| row.total.bytes)
        };
        assert_eq!(total("outer"), Some(127));
        assert_eq!(total("inner"), Some(127));
    }
}
