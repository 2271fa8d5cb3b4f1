//! What there is to say of the node that is selected.

use std::rc::Rc;

use heaptide_engine::{Amount, CallTree, Figures, LocationId, Metric, Position, Profile, StackId};
use rustc_hash::FxHashMap;

use super::shown::{Kind, ShownTree};
use crate::sources::{SourceFile, Sources};

/// What there is to say of the node that is selected.
#[derive(Debug, Default)]
pub(crate) struct Details {
    /// `co_qualname`
    pub(crate) qualified_name: String,
    pub(crate) file: String,
    /// Zero when unknown.
    pub(crate) line: i32,
    /// All metrics of the node and everything below it.
    pub(crate) figures: Figures,
    /// The largest first.
    pub(crate) threads: Vec<(String, Amount)>,
    /// The largest first.
    pub(crate) allocators: Vec<(String, Amount)>,
    /// Which parts of the line the allocations come from, where the capture has columns.
    pub(crate) positions: Vec<Position>,
    pub(crate) source: Option<Rc<SourceFile>>,
}

impl Details {
    pub(crate) fn new(
        profile: &Profile,
        tree: &CallTree,
        shown: &ShownTree,
        node: usize,
        metric: Metric,
        sources: &mut dyn Sources,
    ) -> Self {
        let mut details = Self::default();
        let stacks = &profile.stacks;
        let mut threads: FxHashMap<u32, Amount> = FxHashMap::default();
        let mut allocators: FxHashMap<&str, Amount> = FxHashMap::default();
        for entry in &profile.entries {
            // The root also has what is too small to be shown.
            let at = shown.counted_in(tree.node_of(entry.stack));
            if node != 0 && !at.is_some_and(|at| shown.is_within(at, node)) {
                continue;
            }
            details.figures.add(&entry.figures);
            let amount = entry.figures.get(metric);
            threads.entry(entry.thread).or_default().add(amount);
            let allocator = allocators.entry(entry.allocator.name()).or_default();
            allocator.add(amount);
        }
        let threads = threads.into_iter().map(|(index, amount)| {
            let thread = &profile.threads[index as usize];
            let name = if thread.name.is_empty() {
                format!("thread {}", thread.thread_id)
            } else {
                format!("{} ({})", thread.name, thread.thread_id)
            };
            (name, amount)
        });
        details.threads = largest_first(threads);
        details.allocators = largest_first(
            allocators
                .into_iter()
                .map(|(name, amount)| (name.to_owned(), amount)),
        );
        let Kind::Frame { frame, .. } = shown.nodes[node].kind else {
            return details;
        };
        let frame = stacks.frames[frame.index()];
        let place = stacks.locations[frame.location.index()];
        details.qualified_name = stacks.text(frame.qualified_name).to_owned();
        details.file = stacks.text(place.file).to_owned();
        details.line = place.line;
        details.source = sources.file(&details.file);
        details.positions = positions(profile, tree, shown, node, frame.location);
        details
    }
}

fn largest_first(amounts: impl Iterator<Item = (String, Amount)>) -> Vec<(String, Amount)> {
    let mut rows: Vec<_> = amounts.filter(|(_, amount)| !amount.is_zero()).collect();
    rows.sort_by(|(one_name, one), (other_name, other)| {
        (other.bytes, other.count, one_name).cmp(&(one.bytes, one.count, other_name))
    });
    rows
}

/// Reports merge frames by line; here is told which parts of the line they were.
fn positions(
    profile: &Profile,
    tree: &CallTree,
    shown: &ShownTree,
    node: usize,
    location: LocationId,
) -> Vec<Position> {
    let stacks = &profile.stacks;
    // Only what holds something counts, not every part that was ever called from.
    let mut leads = vec![false; stacks.nodes.len()];
    for entry in &profile.entries {
        let at = shown.counted_in(tree.node_of(entry.stack));
        leads[entry.stack.index()] |= at.is_some_and(|at| shown.is_within(at, node));
    }
    let mut found: Vec<Position> = Vec::new();
    // Callees come after their callers.
    for index in (1..leads.len()).rev() {
        if !leads[index] {
            continue;
        }
        leads[stacks.nodes[index].parent.index()] = true;
        let frame = &stacks.frames[stacks.nodes[index].frame.index()];
        if frame.location == location
            && frame.position.column.is_some()
            && !found.contains(&frame.position)
            && shown.node_of(tree.node_of(StackId(index as u32))) == node
        {
            found.push(frame.position);
        }
    }
    found
}
