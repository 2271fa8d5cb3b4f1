//! Only the stacks that have most.

use heaptide_engine::{Amount, CallTree, Metric, Profile};

/// What [`keep_biggest`] kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// How many stacks.
    pub stacks: usize,
    /// Of how many.
    pub of_stacks: usize,
    /// What they have.
    pub amount: Amount,
}

/// Leaves only the entries of the `limit` stacks that have most of `metric`. The profile's totals
/// stay as they are, so that shares are shares of the whole.
pub fn keep_biggest(profile: &mut Profile, metric: Metric, limit: usize) -> Kept {
    let tree = CallTree::new(profile);
    let own = tree.own(profile, metric);
    let mut stacks: Vec<usize> = (1..own.len())
        .filter(|&index| !own[index].is_zero())
        .collect();
    let of_stacks = stacks.len();
    stacks.sort_by_key(|&index| std::cmp::Reverse((own[index].bytes, own[index].count)));
    stacks.truncate(limit);
    let mut kept = vec![false; own.len()];
    let mut amount = Amount::default();
    for &index in &stacks {
        kept[index] = true;
        amount.add(own[index]);
    }
    let entries = &mut profile.entries;
    entries.retain(|entry| kept[tree.node_of(entry.stack) as usize]);
    Kept {
        stacks: stacks.len(),
        of_stacks,
        amount,
    }
}
