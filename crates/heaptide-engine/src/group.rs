//! Figures per location, function, allocator and thread.

use heaptide_format::Allocator;
use rustc_hash::FxHashMap;

use crate::figures::{Amount, Figures, Metric};
use crate::profile::{Entry, Profile};
use crate::stacks::{LocationId, StackId, TextId};

/// What was allocated at one place: the innermost Python frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocationRow {
    /// The place; `None` for allocations without a Python frame.
    pub location: Option<LocationId>,
    /// How much.
    pub figures: Figures,
}

/// What a function allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionRow {
    /// Function and file; `None` for allocations without a Python frame.
    pub function: Option<(TextId, TextId)>,
    /// By itself.
    pub own: Amount,
    /// By itself and what it called; each stack counts once, however often the function is in it.
    pub total: Amount,
}

/// Figures per innermost frame, in the order of the capture.
#[must_use]
pub fn by_location(profile: &Profile) -> Vec<LocationRow> {
    let mut rows: Vec<LocationRow> = Vec::new();
    let mut indices: FxHashMap<Option<LocationId>, usize> = FxHashMap::default();
    for entry in &profile.entries {
        let location = profile
            .stacks
            .innermost(profile.stacks.python(entry.stack))
            .map(|frame| frame.location);
        let index = *indices.entry(location).or_insert_with(|| {
            rows.push(LocationRow {
                location,
                figures: Figures::default(),
            });
            rows.len() - 1
        });
        rows[index].figures.add(&entry.figures);
    }
    rows
}

/// Figures per allocator, ascending by its number.
#[must_use]
pub fn by_allocator(profile: &Profile) -> Vec<(Allocator, Figures)> {
    let mut rows: Vec<(Allocator, Figures)> = Vec::new();
    for entry in &profile.entries {
        let index = match rows.binary_search_by_key(&entry.allocator, |row| row.0) {
            Ok(index) => index,
            Err(index) => {
                rows.insert(index, (entry.allocator, Figures::default()));
                index
            }
        };
        rows[index].1.add(&entry.figures);
    }
    rows
}

/// Figures per thread, by the index of the thread.
#[must_use]
pub fn by_thread(profile: &Profile) -> Vec<Figures> {
    let mut rows = vec![Figures::default(); profile.threads.len()];
    for entry in &profile.entries {
        rows[entry.thread as usize].add(&entry.figures);
    }
    rows
}

/// Figures per (function, file), the largest total first.
#[must_use]
pub fn by_function(profile: &Profile, metric: Metric) -> Vec<FunctionRow> {
    by_function_of(profile, metric, |_| true)
}

/// As [`by_function`], of the entries that `keep` likes.
#[must_use]
pub fn by_function_of(
    profile: &Profile,
    metric: Metric,
    keep: impl Fn(&Entry) -> bool,
) -> Vec<FunctionRow> {
    let stacks = &profile.stacks;
    let mut own = vec![Amount::default(); stacks.nodes.len()];
    for entry in profile.entries.iter().filter(|entry| keep(entry)) {
        own[entry.stack.index()].add(entry.figures.get(metric));
    }
    let mut total = own.clone();
    for index in (1..total.len()).rev() {
        let amount = total[index];
        total[stacks.nodes[index].parent.index()].add(amount);
    }

    let mut rows: Vec<FunctionRow> = Vec::new();
    let mut indices: FxHashMap<(TextId, TextId), usize> = FxHashMap::default();
    let row_of_stack: Vec<usize> = stacks
        .nodes
        .iter()
        .map(|node| {
            let location = stacks.locations[stacks.frames[node.frame.index()].location.index()];
            let function = (location.function, location.file);
            *indices.entry(function).or_insert_with(|| {
                rows.push(FunctionRow {
                    function: Some(function),
                    own: Amount::default(),
                    total: Amount::default(),
                });
                rows.len() - 1
            })
        })
        .collect();
    add_once_per_stack(profile, &row_of_stack, &own, &total, &mut rows);
    rows.push(FunctionRow {
        function: None,
        own: own[0],
        total: own[0],
    });
    rows.retain(|row| !row.total.is_zero());
    rows.sort_by_key(|row| std::cmp::Reverse((row.total.bytes, row.total.count, row.own.bytes)));
    rows
}

/// Goes down the stacks depth first, without recursion, and keeps in mind how often each function
/// is on the way: only the outermost of a function's frames adds to its total.
fn add_once_per_stack(
    profile: &Profile,
    row_of_stack: &[usize],
    own: &[Amount],
    total: &[Amount],
    rows: &mut [FunctionRow],
) {
    let nodes = &profile.stacks.nodes;
    // Lists of siblings, linked through their indices; zero, the root, ends a list.
    let mut first_child = vec![0u32; nodes.len()];
    let mut next_sibling = vec![0u32; nodes.len()];
    for index in (1..nodes.len()).rev() {
        let parent = nodes[index].parent.index();
        next_sibling[index] = first_child[parent];
        first_child[parent] = index as u32;
    }
    let mut active = vec![0u32; rows.len()];
    let mut at = first_child[0];
    while at != 0 {
        let index = at as usize;
        let row = row_of_stack[index];
        rows[row].own.add(own[index]);
        if active[row] == 0 {
            rows[row].total.add(total[index]);
        }
        active[row] += 1;
        at = first_child[index];
        let mut leave = index;
        while at == 0 && leave != StackId::ROOT.index() {
            active[row_of_stack[leave]] -= 1;
            at = next_sibling[leave];
            leave = nodes[leave].parent.index();
        }
    }
}
