//! The call tree: stacks merged by function, file and line.

use rustc_hash::FxHashMap;

use crate::figures::{Amount, Metric};
use crate::profile::Profile;
use crate::stacks::{FrameId, LocationId, StackId};

/// A node of the call tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeNode {
    /// Index of the caller; always smaller. The root is its own.
    pub parent: u32,
    /// One of the frames that were merged; of the root it means nothing.
    pub frame: FrameId,
}

/// Stacks merged by function, file and line. Node 0 is the root.
#[derive(Debug)]
pub struct CallTree {
    /// By index; the parent of each comes before it.
    pub nodes: Vec<TreeNode>,
    /// The node of each stack.
    of_stack: Vec<u32>,
}

impl CallTree {
    /// Merges the stacks of a profile.
    #[must_use]
    pub fn new(profile: &Profile) -> Self {
        let stacks = &profile.stacks;
        let mut nodes = vec![TreeNode {
            parent: 0,
            frame: FrameId(0),
        }];
        let mut of_stack = Vec::with_capacity(stacks.nodes.len());
        let mut children: FxHashMap<(u32, LocationId), u32> = FxHashMap::default();
        // What has no Python frame is a branch of its own, so that the branches add up.
        nodes.push(TreeNode {
            parent: 0,
            frame: stacks.frameless,
        });
        of_stack.push(1);
        // Native stacks of which nothing is known have that frame.
        let frameless = stacks.frames.get(stacks.frameless.index());
        children.extend(frameless.map(|frame| ((0, frame.location), 1)));
        for node in stacks.nodes.iter().skip(1) {
            let parent = match node.parent {
                StackId::ROOT => 0,
                parent => of_stack[parent.index()],
            };
            let location = stacks.frames[node.frame.index()].location;
            let index = *children.entry((parent, location)).or_insert_with(|| {
                nodes.push(TreeNode {
                    parent,
                    frame: node.frame,
                });
                (nodes.len() - 1) as u32
            });
            of_stack.push(index);
        }
        Self { nodes, of_stack }
    }

    /// The node that a stack was merged into.
    #[must_use]
    pub fn node_of(&self, stack: StackId) -> u32 {
        self.of_stack[stack.index()]
    }

    /// What each node itself allocated.
    #[must_use]
    pub fn own(&self, profile: &Profile, metric: Metric) -> Vec<Amount> {
        let mut own = vec![Amount::default(); self.nodes.len()];
        for entry in &profile.entries {
            own[self.of_stack[entry.stack.index()] as usize].add(entry.figures.get(metric));
        }
        own
    }

    /// What each node and everything below it allocated.
    #[must_use]
    pub fn total(&self, own: &[Amount]) -> Vec<Amount> {
        let mut total = own.to_vec();
        for index in (1..self.nodes.len()).rev() {
            let amount = total[index];
            total[self.nodes[index].parent as usize].add(amount);
        }
        total
    }

    /// The children of every node, the largest first; equals stay in the order of the capture.
    /// Nodes with nothing in `total` are left out.
    #[must_use]
    pub fn children(&self, total: &[Amount]) -> Vec<Vec<u32>> {
        let mut children = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate().skip(1) {
            if !total[index].is_zero() {
                children[node.parent as usize].push(index as u32);
            }
        }
        for list in &mut children {
            list.sort_by_key(|&index| {
                let amount = total[index as usize];
                std::cmp::Reverse((amount.bytes, amount.count))
            });
        }
        children
    }
}
