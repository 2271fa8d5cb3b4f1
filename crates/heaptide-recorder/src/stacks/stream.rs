//! Nodes for readers: each is written once, as differences, and never changed.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use heaptide_format::{
    MOST_NODE_BYTES, Node, NodeEncoder, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind,
};

use crate::file::{CaptureFile, Stop};

/// Room for some 4,600 nodes: so many are lost where one is damaged.
const SEGMENT_PAYLOAD: usize = (16 << 10) - SEGMENT_HEADER_BYTES;

/// Writer of the nodes. All methods under the growth lock.
pub(crate) struct NodeStream {
    segment: AtomicPtr<u8>,
    /// See [`NodeEncoder`]: of the present segment.
    code: AtomicU32,
}

impl NodeStream {
    pub(crate) const fn new() -> Self {
        Self {
            segment: AtomicPtr::new(core::ptr::null_mut()),
            code: AtomicU32::new(0),
        }
    }

    /// Node `number`, the one after the last.
    pub(crate) fn node(&self, file: &CaptureFile, number: u32, node: &Node) -> Result<(), Stop> {
        let room = self.room(file, number)?;
        let mut encoder = NodeEncoder::at(self.code.load(Ordering::Relaxed));
        let mut bytes = [0; MOST_NODE_BYTES];
        let length = encoder.node(&mut bytes, number, node);
        room.write(&bytes[..length]);
        self.code.store(node.code, Ordering::Relaxed);
        Ok(())
    }

    /// Recursive frames are folded onto `node`; the next node will be `next`.
    pub(crate) fn fold(&self, file: &CaptureFile, next: u32, node: u32) -> Result<(), Stop> {
        let room = self.room(file, next)?;
        let mut bytes = [0; MOST_NODE_BYTES];
        let length = NodeEncoder::fold(&mut bytes, next, node);
        room.write(&bytes[..length]);
        Ok(())
    }

    /// The segment for what comes next, with room for it; a new one begins with node `next`.
    fn room(&self, file: &CaptureFile, next: u32) -> Result<Room, Stop> {
        let mut segment = self.segment.load(Ordering::Relaxed);
        // SAFETY: null, or a live segment of this stream, which only the holder of the growth lock writes.
        let is_full = segment.is_null()
            || unsafe {
                let header = &*segment.cast::<SegmentHeader>();
                SEGMENT_HEADER_BYTES + header.committed as usize + MOST_NODE_BYTES
                    > header.capacity as usize
            };
        if is_full {
            segment = file
                .append(SegmentKind::NodeStream, SEGMENT_PAYLOAD, u64::from(next), 0)?
                .as_ptr();
            self.segment.store(segment, Ordering::Relaxed);
            self.code.store(0, Ordering::Relaxed);
        }
        Ok(Room(segment))
    }
}

/// A segment of the stream with room for [`MOST_NODE_BYTES`] more.
struct Room(*mut u8);

impl Room {
    fn write(self, bytes: &[u8]) {
        // SAFETY: a live segment with enough room, under the growth lock (see `NodeStream::room`).
        unsafe {
            let committed = self
                .0
                .add(core::mem::offset_of!(SegmentHeader, committed))
                .cast::<u64>();
            let at = committed.read();
            let start = self.0.add(SEGMENT_HEADER_BYTES + at as usize);
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len());
            // Release: a reader that sees the length sees the bytes.
            AtomicU64::from_ptr(committed).store(at + bytes.len() as u64, Ordering::Release);
        }
    }
}
