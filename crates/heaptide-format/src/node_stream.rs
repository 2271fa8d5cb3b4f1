//! Stack nodes as they are written: a stream of differences, some three and a half bytes for each node.
//!
//! ```text
//! node        distance to the parent, plus 1      (the root is its own parent)
//!             zigzag difference of the code object's number to that of the node before
//!             last instruction, rotated right by 1 bit
//! flags       0, flags                             of the node that follows
//! fold        0, 0, distance to the node           that recursive frames were folded onto, from the next node
//! ```
//! Numbers are LEB128 varints of 32 bits. Nodes have consecutive numbers, from the segment's first index on; nothing is
//! remembered from segment to segment.

use crate::memory::{unzigzag, zigzag};
use crate::record::{NODE_FOLDED, Node};

/// No node takes more bytes, and no fold.
pub const MOST_NODE_BYTES: usize = 32;

/// Writes the nodes of one segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeEncoder {
    code: u32,
}

impl NodeEncoder {
    /// For a segment that has no nodes yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { code: 0 }
    }

    /// For a segment whose last node has this code object; zero where it has no nodes yet.
    #[must_use]
    pub const fn at(code: u32) -> Self {
        Self { code }
    }

    /// Writes node `number`, the one after the last; returns how many bytes that takes.
    pub fn node(&mut self, out: &mut [u8; MOST_NODE_BYTES], number: u32, node: &Node) -> usize {
        let mut out = Output { out, length: 0 };
        if node.flags != 0 {
            out.number(0);
            out.number(node.flags);
        }
        out.number(number.wrapping_sub(node.parent).wrapping_add(1));
        out.number(narrow_zigzag(node.code.wrapping_sub(self.code)));
        out.number(node.last_instruction.cast_unsigned().rotate_right(1));
        self.code = node.code;
        out.length
    }

    /// Writes that recursive frames were folded onto `node`; the next node will be `next`.
    pub fn fold(out: &mut [u8; MOST_NODE_BYTES], next: u32, node: u32) -> usize {
        let mut out = Output { out, length: 0 };
        out.number(0);
        out.number(0);
        out.number(next.wrapping_sub(node));
        out.length
    }
}

struct Output<'a> {
    out: &'a mut [u8; MOST_NODE_BYTES],
    length: usize,
}

impl Output<'_> {
    fn number(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    fn byte(&mut self, byte: u8) {
        // The mask never changes anything: five numbers of five bytes are fewer.
        self.out[self.length & (MOST_NODE_BYTES - 1)] = byte;
        self.length += 1;
    }
}

/// What a stream says next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeEntry {
    /// The next node.
    Node(Node),
    /// Recursive frames were folded onto the node with this number, which may stand in another segment.
    Fold(u32),
}

/// What cannot be: the rest of the segment is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadNode;

/// Reads the nodes of one segment.
#[derive(Clone, Debug)]
pub struct NodeDecoder<'a> {
    bytes: &'a [u8],
    next: u32,
    code: u32,
}

impl<'a> NodeDecoder<'a> {
    /// Of a segment's payload, whose first node has the number `first`.
    #[must_use]
    pub const fn new(bytes: &'a [u8], first: u32) -> Self {
        Self {
            bytes,
            next: first,
            code: 0,
        }
    }

    fn entry(&mut self) -> Result<NodeEntry, BadNode> {
        let mut flags = 0;
        let mut distance = self.number()?;
        if distance == 0 {
            flags = self.number()?;
            distance = self.number()?;
            if flags == 0 {
                let folded = self.next.checked_sub(distance).ok_or(BadNode)?;
                // Zeros say nothing.
                return if distance == 0 {
                    Err(BadNode)
                } else {
                    Ok(NodeEntry::Fold(folded))
                };
            }
        }
        let parent = distance
            .checked_sub(1)
            .and_then(|distance| self.next.checked_sub(distance))
            .ok_or(BadNode)?;
        self.code = self.code.wrapping_add(narrow_unzigzag(self.number()?));
        let last_instruction = self.number()?.rotate_left(1).cast_signed();
        self.next = self.next.checked_add(1).ok_or(BadNode)?;
        Ok(NodeEntry::Node(Node {
            parent,
            code: self.code,
            last_instruction,
            flags,
        }))
    }

    fn number(&mut self) -> Result<u32, BadNode> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let (&byte, rest) = self.bytes.split_first().ok_or(BadNode)?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| BadNode);
            }
        }
        Err(BadNode)
    }
}

/// [`BadNode`] where the stream ends within an entry or says what cannot be; nothing comes after it.
impl Iterator for NodeDecoder<'_> {
    type Item = Result<NodeEntry, BadNode>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.bytes = &[];
        }
        Some(entry)
    }
}

/// Zigzag of 32 bits.
fn narrow_zigzag(difference: u32) -> u32 {
    zigzag(i64::from(difference.cast_signed()).cast_unsigned()) as u32
}

fn narrow_unzigzag(value: u32) -> u32 {
    unzigzag(u64::from(value)) as u32
}

// What `Node::flags` says of a fold is told by an entry of its own, as it comes later.
const _: () = assert!(NODE_FOLDED == 1);

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::record::{NO_CODE, NODE_ROOT};

    fn node(parent: u32, code: u32, last_instruction: i32, flags: u32) -> Node {
        Node {
            parent,
            code,
            last_instruction,
            flags,
        }
    }

    fn written(nodes: &[Node], first: u32) -> Vec<u8> {
        let mut encoder = NodeEncoder::new();
        let mut bytes = Vec::new();
        let mut out = [0; MOST_NODE_BYTES];
        for (number, node) in (first..).zip(nodes) {
            let length = encoder.node(&mut out, number, node);
            bytes.extend_from_slice(&out[..length]);
        }
        bytes
    }

    fn read(bytes: &[u8], first: u32) -> (Vec<NodeEntry>, bool) {
        let mut entries = Vec::new();
        for entry in NodeDecoder::new(bytes, first) {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(BadNode) => return (entries, false),
            }
        }
        (entries, true)
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let nodes = [
            node(NODE_ROOT, NO_CODE, -1, 0),
            node(NODE_ROOT, NO_CODE, -1, 0),
            node(0, 0, 0, 0),
            node(2, 7, 14, 0),
            node(2, 6, -1, 0),
            node(4, u32::MAX - 1, i32::MAX - 1, 0),
            node(0, 3, i32::MAX, 0),
            node(6, 0, i32::MIN, u32::MAX),
        ];
        for first in [0, 1000, u32::MAX - 100] {
            let moved: Vec<Node> = nodes
                .iter()
                .map(|node| Node {
                    parent: node.parent + first,
                    ..*node
                })
                .collect();
            let (entries, whole) = read(&written(&moved, first), first);
            assert!(whole);
            let expected: Vec<NodeEntry> = moved.into_iter().map(NodeEntry::Node).collect();
            assert_eq!(entries, expected);
        }
    }

    #[test]
    fn a_loop_of_calls_takes_three_bytes_a_node() {
        let nodes: Vec<Node> = (0..60)
            .map(|number: u32| node(number.saturating_sub(number % 4 + 1), number % 9, 40, 0))
            .collect();
        assert_eq!(written(&nodes, 0).len(), 180);
    }

    #[test]
    fn the_longest_node_fits() {
        let mut out = [0; MOST_NODE_BYTES];
        let longest = node(0, u32::MAX / 2 + 1, i32::MAX, u32::MAX);
        let length = NodeEncoder::new().node(&mut out, u32::MAX - 1, &longest);
        assert!(length < MOST_NODE_BYTES, "{length}");
        let first = [NodeEntry::Node(longest)];
        assert_eq!(read(&out[..length], u32::MAX - 1), (first.to_vec(), true));
    }

    #[test]
    fn folds_stand_between_nodes() {
        let mut bytes = written(&[node(0, 1, 2, 0), node(10, 1, 4, 0)], 10);
        let mut out = [0; MOST_NODE_BYTES];
        let length = NodeEncoder::fold(&mut out, 12, 3);
        bytes.extend_from_slice(&out[..length]);
        let (entries, whole) = read(&bytes, 10);
        assert!(whole);
        assert_eq!(entries[2], NodeEntry::Fold(3));
    }

    #[test]
    fn what_cannot_be_ends_the_reading() {
        let good = written(&[node(0, 1, 2, 0)], 1);
        assert_eq!(read(&good, 1).0.len(), 1);
        for cut in 1..good.len() {
            assert_eq!(read(&good[..cut], 1), (Vec::new(), false), "{cut}");
        }
        for bad in [
            &[0, 0, 0, 2, 2, 2][..],
            // A parent and a fold before the first of all, and numbers without an end.
            &[9, 0, 0],
            &[0, 0, 9],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 1],
            &[0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            assert_eq!(read(bad, 1), (Vec::new(), false), "{bad:?}");
        }
    }
}
