//! Stacks: nodes of a trie, each once.

use heaptide_format::{NO_CODE, NODE_BELOW, NODE_COMBINED, NODE_ROOT, Node};
use rustc_hash::FxHashMap;

/// A place that a frame stood at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// Number of the code object in our capture.
    pub(crate) code: u32,
    /// Byte offset of the instruction.
    pub(crate) offset: i32,
    /// As in [`Node::flags`].
    pub(crate) flags: u32,
}

impl Place {
    /// As a frame that is older than tracking.
    pub(crate) const fn below(self) -> Self {
        Self {
            flags: self.flags | NODE_BELOW,
            ..self
        }
    }
}

/// All stacks so far.
pub(crate) struct Stacks {
    nodes: Vec<Node>,
    numbers: FxHashMap<(u32, Place), u32>,
}

impl Stacks {
    pub(crate) fn new() -> Self {
        let bare = Node {
            parent: NODE_ROOT,
            code: NO_CODE,
            last_instruction: -1,
            flags: 0,
        };
        Self {
            // The root, and the one for stacks beyond a budget.
            nodes: vec![bare; 2],
            numbers: FxHashMap::default(),
        }
    }

    /// The stack of a frame that `parent` called.
    pub(crate) fn node(&mut self, parent: u32, place: Place) -> u32 {
        let nodes = &mut self.nodes;
        *self.numbers.entry((parent, place)).or_insert_with(|| {
            nodes.push(Node {
                parent,
                code: place.code,
                last_instruction: place.offset,
                flags: place.flags,
            });
            u32::try_from(nodes.len() - 1).unwrap_or(NODE_ROOT)
        })
    }

    /// A Python stack together with a native one.
    pub(crate) fn combined(&mut self, python: u32, native: u32) -> u32 {
        self.node(
            python,
            Place {
                code: native,
                offset: 0,
                flags: NODE_COMBINED,
            },
        )
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}

/// The stacks of a file of sums, which numbers them from 1 on, each after its caller's.
#[derive(Default)]
pub(crate) struct NumberedStacks {
    stacks: Vec<Numbered>,
    /// By number, of the main thread: without Memray's own frames.
    of_main: FxHashMap<usize, u32>,
}

struct Numbered {
    parent: usize,
    place: Place,
    node: u32,
    depth: u64,
}

impl NumberedStacks {
    pub(crate) fn add(&mut self, parent: u64, place: Place, all: &mut Stacks) {
        // One that does not come before is damage; its callers are lost.
        let parent = usize::try_from(parent)
            .ok()
            .filter(|&parent| parent <= self.stacks.len())
            .unwrap_or(0);
        let (above, depth) = self
            .get(parent)
            .map_or((NODE_ROOT, 0), |stack| (stack.node, stack.depth));
        self.stacks.push(Numbered {
            parent,
            place,
            node: all.node(above, place),
            depth: depth + 1,
        });
    }

    fn get(&self, number: usize) -> Option<&Numbered> {
        self.stacks.get(number.checked_sub(1)?)
    }

    /// The node of a stack, or `None` where there is none of the number.
    pub(crate) fn node(&self, number: u64) -> Option<u32> {
        let number = usize::try_from(number).ok()?;
        if number == 0 {
            return Some(NODE_ROOT);
        }
        Some(self.get(number)?.node)
    }

    /// As [`NumberedStacks::node`], without the outermost `skipped` frames, or, with `keep`, with them as frames that are
    /// older than tracking.
    pub(crate) fn node_without(
        &mut self,
        number: u64,
        skipped: u64,
        keep: bool,
        all: &mut Stacks,
    ) -> Option<u32> {
        self.node(number)?;
        let mut number = usize::try_from(number).ok()?;
        let mut path = Vec::new();
        let mut node = NODE_ROOT;
        let is_wanted = |stack: &&Numbered| keep || stack.depth > skipped;
        while let Some(stack) = self.get(number).filter(is_wanted) {
            if let Some(&known) = self.of_main.get(&number) {
                node = known;
                break;
            }
            let place = match stack.depth > skipped {
                true => stack.place,
                false => stack.place.below(),
            };
            path.push((number, place));
            number = stack.parent;
        }
        for (number, place) in path.into_iter().rev() {
            node = all.node(node, place);
            self.of_main.insert(number, node);
        }
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(code: u32) -> Place {
        Place {
            code,
            offset: 0,
            flags: 0,
        }
    }

    #[test]
    fn frames_of_the_profiler_are_left_out() {
        let mut all = Stacks::new();
        let mut numbered = NumberedStacks::default();
        for (parent, code) in [(0, 10), (1, 11), (2, 12), (2, 13), (99, 14)] {
            numbered.add(parent, place(code), &mut all);
        }
        let codes = |node: u32, all: &Stacks| {
            let mut codes = Vec::new();
            let mut at = node;
            while at != NODE_ROOT {
                let node = all.nodes()[at as usize];
                codes.push(node.code);
                at = node.parent;
            }
            codes
        };
        assert_eq!(codes(numbered.node(3).unwrap(), &all), [12, 11, 10]);
        let main = numbered.node_without(3, 1, false, &mut all).unwrap();
        assert_eq!(codes(main, &all), [12, 11]);
        let other = numbered.node_without(4, 1, false, &mut all).unwrap();
        assert_eq!(codes(other, &all), [13, 11]);
        assert_eq!(
            numbered.node_without(1, 1, false, &mut all),
            Some(NODE_ROOT)
        );
        assert_eq!(codes(numbered.node(5).unwrap(), &all), [14]);
        assert_eq!(numbered.node(6), None);
        assert_eq!(numbered.node_without(6, 1, false, &mut all), None);
    }
}
