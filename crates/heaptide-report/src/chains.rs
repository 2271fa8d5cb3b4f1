//! Call stacks as lists of places, for formats that have no tree.

use heaptide_engine::{Amount, CallTree, LocationId, Metric, Profile, Stacks};

/// The distinct stacks of a profile that have something of a metric.
pub(crate) struct Chains<'a> {
    pub(crate) stacks: &'a Stacks,
    tree: CallTree,
    own: Vec<Amount>,
}

impl<'a> Chains<'a> {
    pub(crate) fn new(profile: &'a Profile, metric: Metric) -> Self {
        let tree = CallTree::new(profile);
        let own = tree.own(profile, metric);
        Self {
            stacks: &profile.stacks,
            tree,
            own,
        }
    }

    /// Every stack as a node and its amount, in the order of the capture.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Amount)> {
        let own = self.own.iter().enumerate().skip(1);
        own.filter(|(_, amount)| !amount.is_zero())
            .map(|(index, &amount)| (index as u32, amount))
    }

    /// Places from the innermost outwards; of what has no Python frame a place that says so.
    pub(crate) fn innermost_first(&self, node: u32) -> impl Iterator<Item = LocationId> {
        let nodes = &self.tree.nodes;
        std::iter::successors(Some(node), move |&at| {
            Some(nodes[at as usize].parent).filter(|&parent| parent != 0)
        })
        .map(move |at| self.stacks.frames[nodes[at as usize].frame.index()].location)
    }

    /// Places from the outermost inwards.
    pub(crate) fn outermost_first(&self, node: u32) -> Vec<LocationId> {
        let mut places: Vec<LocationId> = self.innermost_first(node).collect();
        places.reverse();
        places
    }
}
