//! Stack nodes out of the streams that a running program writes.

use std::io;

use heaptide_format::{NODE_FOLDED, Node, NodeDecoder, NodeEntry, SegmentKind};

use crate::records::{Budget, read_stream};
use crate::segments::SegmentSummary;
use crate::source::Source;
use crate::table::Table;
use crate::warning::{WarningKind, Warnings};

/// What a segment says.
#[derive(Debug, Default)]
pub(crate) struct NodeRun {
    /// Number of the first node.
    pub(crate) first: u32,
    pub(crate) nodes: Vec<Node>,
    /// Nodes of other segments that recursive frames were folded onto.
    pub(crate) folds: Vec<u32>,
    /// Is something wrong with the rest?
    pub(crate) damaged: bool,
}

impl NodeRun {
    /// Decodes the payload of a segment; no more of it than is good.
    pub(crate) fn decode(bytes: &[u8], first_index: u64) -> Self {
        let Ok(first) = u32::try_from(first_index) else {
            return Self {
                damaged: true,
                ..Self::default()
            };
        };
        let mut run = Self {
            first,
            ..Self::default()
        };
        for entry in NodeDecoder::new(bytes, first) {
            match entry {
                Ok(NodeEntry::Node(node)) => run.nodes.push(node),
                Ok(NodeEntry::Fold(number)) => match run.get_mut(number) {
                    Some(node) => node.flags |= NODE_FOLDED,
                    None => run.folds.push(number),
                },
                Err(_) => run.damaged = true,
            }
        }
        run
    }

    /// Node `number`, if it is here.
    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Node> {
        self.nodes.get_mut(number.checked_sub(self.first)? as usize)
    }
}

/// Is it a segment of such a stream?
pub(crate) fn is_node_stream(segment: &SegmentSummary) -> bool {
    segment.kind == Some(SegmentKind::NodeStream) && !segment.in_blocks
}

/// Puts the nodes of all streams into `table`.
pub(crate) fn read_node_streams(
    source: &dyn Source,
    segments: &[SegmentSummary],
    table: &mut Table<Node>,
    budget: &mut Budget,
    warnings: &mut Warnings,
) -> io::Result<()> {
    for segment in segments.iter().filter(|segment| is_node_stream(segment)) {
        let pieces = read_stream(source, segment, budget, warnings)?;
        // There is one: only blocks come in pieces.
        let bytes = pieces.first().map_or(&[][..], Vec::as_slice);
        let run = NodeRun::decode(bytes, segment.first_index);
        if run.damaged {
            warnings.add(WarningKind::DamagedNode, Some(segment.offset), || {
                format!(
                    "a segment of stack nodes is damaged; those behind number {} are lost, up to the next segment's",
                    u64::from(run.first) + run.nodes.len() as u64
                )
            });
        }
        if table.insert(u64::from(run.first), run.nodes).is_err() {
            warnings.add(
                WarningKind::OverlappingSegments,
                Some(segment.offset),
                || {
                    "a segment of stack nodes has numbers that were taken before and was skipped"
                        .to_owned()
                },
            );
        }
        // What was folded onto comes before.
        for number in run.folds {
            if let Some(node) = table.get_mut(number) {
                node.flags |= NODE_FOLDED;
            }
        }
    }
    Ok(())
}
