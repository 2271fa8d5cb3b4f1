//! Reports of some threads only, and of each thread by itself.

use heaptide_engine::{
    Frame, FrameId, Location, LocationId, NO_FILE, Position, Profile, StackId, StackNode, TextId,
    ThreadInfo, Totals,
};
use heaptide_format::HISTOGRAM_BINS;
use rustc_hash::FxHashMap;

/// Leaves only what the threads that `keep` likes have allocated, and counts anew. Sizes are not
/// known by thread, so there is no histogram; the deallocations are those of what is left.
///
/// Gives how many threads are left.
pub fn keep_threads(profile: &mut Profile, keep: impl Fn(&ThreadInfo) -> bool) -> usize {
    let kept: Vec<bool> = profile.threads.iter().map(keep).collect();
    let entries = &mut profile.entries;
    entries.retain(|entry| kept[entry.thread as usize]);
    profile.histogram = [0; HISTOGRAM_BINS];
    count_anew(profile);
    kept.iter().filter(|kept| **kept).count()
}

/// Sums over the entries that are left.
pub(crate) fn count_anew(profile: &mut Profile) {
    let mut totals = Totals::default();
    for entry in &profile.entries {
        totals.figures.add(&entry.figures);
    }
    let figures = &totals.figures;
    totals.deallocations = figures.allocated.count.saturating_sub(figures.live.count);
    profile.totals = totals;
}

/// The outermost frames that stand for threads.
#[derive(Clone, Debug, Default)]
pub struct ThreadFrames {
    threads: FxHashMap<LocationId, u32>,
}

impl ThreadFrames {
    /// The index of the thread that a frame stands for.
    pub(crate) fn thread_of(&self, location: LocationId) -> Option<u32> {
        self.threads.get(&location).copied()
    }
}

/// Gives every stack an outermost frame more, which is its thread.
pub fn split_by_thread(profile: &mut Profile) -> ThreadFrames {
    let mut frames = ThreadFrames::default();
    let stacks = &mut profile.stacks;
    stacks.forget_parts();
    let first_two = stacks.nodes.iter().take(2).copied().collect();
    let old = std::mem::replace(&mut stacks.nodes, first_two);
    let file = TextId(stacks.texts.len() as u32);
    stacks.texts.push(NO_FILE.to_owned());
    let mut roots: FxHashMap<u32, StackId> = FxHashMap::default();
    let mut moved: FxHashMap<(u32, StackId), StackId> = FxHashMap::default();
    let mut way = Vec::new();
    for entry in &mut profile.entries {
        let thread = entry.thread;
        let root = *roots.entry(thread).or_insert_with(|| {
            let info = &profile.threads[thread as usize];
            let function = TextId(stacks.texts.len() as u32);
            stacks
                .texts
                .push(format!("<thread {} ({})>", info.name, info.thread_id));
            let location = LocationId(stacks.locations.len() as u32);
            stacks.locations.push(Location {
                function,
                file,
                line: 0,
            });
            frames.threads.insert(location, thread);
            let frame = FrameId(stacks.frames.len() as u32);
            stacks.frames.push(Frame {
                location,
                qualified_name: function,
                position: Position::default(),
            });
            push(&mut stacks.nodes, StackId::ROOT, frame, false)
        });
        // From the innermost frame outwards to what is there already, then back.
        let mut at = entry.stack;
        let mut parent = loop {
            if let Some(&known) = moved.get(&(thread, at)) {
                break known;
            }
            way.push(at);
            if at == StackId::ROOT || old[at.index()].parent == StackId::ROOT {
                break root;
            }
            at = old[at.index()].parent;
        };
        while let Some(stack) = way.pop() {
            let node = old[stack.index()];
            let (frame, folded) = match stack {
                StackId::ROOT => (stacks.frameless, false),
                _ => (node.frame, node.folded),
            };
            parent = push(&mut stacks.nodes, parent, frame, folded);
            moved.insert((thread, stack), parent);
        }
        entry.stack = parent;
    }
    frames
}

fn push(nodes: &mut Vec<StackNode>, parent: StackId, frame: FrameId, folded: bool) -> StackId {
    nodes.push(StackNode {
        parent,
        frame,
        folded,
    });
    StackId((nodes.len() - 1) as u32)
}
