//! The call tree as it is shown: only the stacks that have most, without the frames that are hidden.

use heaptide_engine::{Amount, CallTree, FrameId, LocationId, Metric, Profile};
use rustc_hash::FxHashMap;

/// What rows are sorted by, from the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Bytes,
    Blocks,
}

/// A node that is shown when its callers are open.
#[derive(Debug)]
pub(crate) struct ShownNode {
    /// The caller; always a smaller index. The root is its own.
    pub(crate) parent: usize,
    /// Largest first.
    pub(crate) children: Vec<usize>,
    pub(crate) kind: Kind,
    pub(crate) own: Amount,
    pub(crate) total: Amount,
    /// The place among all nodes, callers first, and that of the first node that is not below.
    pub(crate) enter: usize,
    pub(crate) exit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Root,
    /// A frame; the number of its node in the call tree stays when the tree is made anew.
    Frame {
        frame: FrameId,
        origin: u32,
    },
    /// The stacks that are too small to be shown.
    Rest {
        stacks: usize,
    },
}

#[derive(Debug)]
pub(crate) struct ShownTree {
    /// The root first.
    pub(crate) nodes: Vec<ShownNode>,
    /// Nodes by their place, callers first.
    pub(crate) order: Vec<usize>,
    /// The innermost node on the way to each node of the call tree.
    of_tree: Vec<usize>,
    /// Which nodes of the call tree are too small to be shown.
    is_cut: Vec<bool>,
}

impl ShownTree {
    pub(crate) fn new(
        profile: &Profile,
        tree: &CallTree,
        metric: Metric,
        sort: Sort,
        biggest: usize,
        is_hidden: impl Fn(LocationId) -> bool,
    ) -> Self {
        let own = tree.own(profile, metric);
        let (kept, rest) = biggest_stacks(&own, biggest);
        let mut needed = kept.clone();
        for index in (1..needed.len()).rev() {
            if needed[index] {
                needed[tree.nodes[index].parent as usize] = true;
            }
        }
        let mut shown = Self {
            nodes: vec![ShownNode::new(0, Kind::Root)],
            order: Vec::new(),
            of_tree: vec![0; own.len()],
            is_cut: vec![false; own.len()],
        };
        let mut below: FxHashMap<(usize, LocationId), usize> = FxHashMap::default();
        for (index, node) in tree.nodes.iter().enumerate().skip(1) {
            let parent = shown.of_tree[node.parent as usize];
            let location = profile.stacks.frames[node.frame.index()].location;
            let at = if !needed[index] || is_hidden(location) {
                parent
            } else {
                *below.entry((parent, location)).or_insert_with(|| {
                    let kind = Kind::Frame {
                        frame: node.frame,
                        origin: index as u32,
                    };
                    shown.nodes.push(ShownNode::new(parent, kind));
                    shown.nodes.len() - 1
                })
            };
            shown.of_tree[index] = at;
            if kept[index] {
                shown.nodes[at].own.add(own[index]);
            } else {
                shown.is_cut[index] = !own[index].is_zero();
            }
        }
        if rest.stacks > 0 {
            let mut node = ShownNode::new(
                0,
                Kind::Rest {
                    stacks: rest.stacks,
                },
            );
            node.own = rest.amount;
            shown.nodes.push(node);
        }
        shown.finish(sort);
        shown
    }

    fn finish(&mut self, sort: Sort) {
        for node in &mut self.nodes {
            node.total = node.own;
        }
        for index in (1..self.nodes.len()).rev() {
            let ShownNode { parent, total, .. } = self.nodes[index];
            self.nodes[parent].total.add(total);
            self.nodes[parent].children.push(index);
        }
        for index in 0..self.nodes.len() {
            let mut children = std::mem::take(&mut self.nodes[index].children);
            children.sort_by_key(|&child| {
                let node = &self.nodes[child];
                let Amount { bytes, count } = node.total;
                let key = match sort {
                    Sort::Bytes => (bytes, count),
                    Sort::Blocks => (count, bytes),
                };
                (
                    matches!(node.kind, Kind::Rest { .. }),
                    std::cmp::Reverse(key),
                    child,
                )
            });
            self.nodes[index].children = children;
        }
        // Programs can be deeper than our own stack, hence no recursion.
        let mut pending = vec![(0usize, false)];
        while let Some((index, left)) = pending.pop() {
            if left {
                self.nodes[index].exit = self.order.len();
                continue;
            }
            self.nodes[index].enter = self.order.len();
            self.order.push(index);
            pending.push((index, true));
            let children = self.nodes[index].children.iter().rev();
            pending.extend(children.map(|&child| (child, false)));
        }
    }

    /// The innermost node on the way to a node of the call tree.
    pub(crate) fn node_of(&self, tree_node: u32) -> usize {
        self.of_tree[tree_node as usize]
    }

    /// The node that what a node of the call tree itself has is counted in; `None` when that is
    /// too little to be shown.
    pub(crate) fn counted_in(&self, tree_node: u32) -> Option<usize> {
        (!self.is_cut[tree_node as usize]).then(|| self.node_of(tree_node))
    }

    /// Whether `inner` is `outer` or below it.
    pub(crate) fn is_within(&self, inner: usize, outer: usize) -> bool {
        let outer = &self.nodes[outer];
        (outer.enter..outer.exit).contains(&self.nodes[inner].enter)
    }

    /// What stays the same of a node when the tree is made anew.
    pub(crate) fn origin(&self, node: usize) -> u32 {
        match self.nodes[node].kind {
            Kind::Root => 0,
            Kind::Frame { origin, .. } => origin,
            Kind::Rest { .. } => u32::MAX,
        }
    }
}

impl ShownNode {
    fn new(parent: usize, kind: Kind) -> Self {
        Self {
            parent,
            children: Vec::new(),
            kind,
            own: Amount::default(),
            total: Amount::default(),
            enter: 0,
            exit: 0,
        }
    }
}

struct Rest {
    stacks: usize,
    amount: Amount,
}

/// Which nodes are the `limit` that have most by themselves, and what the others have.
fn biggest_stacks(own: &[Amount], limit: usize) -> (Vec<bool>, Rest) {
    let mut stacks: Vec<usize> = (1..own.len())
        .filter(|&index| !own[index].is_zero())
        .collect();
    stacks.sort_by_key(|&index| std::cmp::Reverse((own[index].bytes, own[index].count)));
    let mut kept = vec![false; own.len()];
    let mut rest = Rest {
        stacks: stacks.len().saturating_sub(limit),
        amount: Amount::default(),
    };
    for (place, &index) in stacks.iter().enumerate() {
        if place < limit {
            kept[index] = true;
        } else {
            rest.amount.add(own[index]);
        }
    }
    (kept, rest)
}
