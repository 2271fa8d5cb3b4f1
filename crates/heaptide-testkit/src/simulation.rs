//! Does to a [`CaptureBuilder`] what the recorder does to a capture, one event after the other.

use std::collections::HashMap;

use heaptide_format::{Allocator, Cell, CellKind, histogram_bin};

use crate::CaptureBuilder;

/// A live block.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    cell: u32,
    size: u64,
}

/// Counts events into the cells, slots and heap word of a builder.
#[derive(Debug, Default)]
pub struct Simulation {
    own: HashMap<(u32, Allocator, u32), u32>,
    remote: HashMap<(u32, u32), u32>,
}

impl Simulation {
    /// Nothing has happened.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A thread allocates.
    pub fn allocate(
        &mut self,
        capture: &mut CaptureBuilder,
        thread: u32,
        node: u32,
        allocator: Allocator,
        size: u64,
    ) -> Block {
        let heap = &mut capture.header.heap;
        let excess = size.saturating_sub(heap.headroom);
        heap.headroom = heap.headroom.saturating_sub(size);
        heap.peak_bytes += excess;
        let epoch = heap.epoch;
        let number = *self
            .own
            .entry((node, allocator, thread))
            .or_insert_with(|| {
                capture.cells.push(Cell {
                    target: node,
                    thread,
                    allocator: allocator as u32,
                    kind: CellKind::Own as u32,
                    epoch,
                    ..Cell::default()
                });
                (capture.cells.len() - 1) as u32
            });
        let cell = &mut capture.cells[number as usize];
        touch(cell, epoch);
        cell.allocated_count += 1;
        cell.allocated_bytes += size;
        if let Some(slot) = slot_of(capture, thread) {
            slot.allocations += 1;
            slot.histogram[histogram_bin(size)] += 1;
        }
        Block { cell: number, size }
    }

    /// A thread frees a block; `temporary` says whether it counts as such.
    pub fn free(
        &mut self,
        capture: &mut CaptureBuilder,
        thread: u32,
        block: Block,
        temporary: bool,
    ) {
        let heap = &mut capture.header.heap;
        if heap.headroom == 0 && block.size > 0 {
            heap.epoch += 1;
        }
        heap.headroom += block.size;
        let epoch = heap.epoch;
        let owner = capture.cells[block.cell as usize];
        let number = if owner.thread == thread {
            block.cell
        } else {
            *self.remote.entry((thread, block.cell)).or_insert_with(|| {
                capture.cells.push(Cell {
                    target: block.cell,
                    thread,
                    allocator: owner.allocator,
                    kind: CellKind::Remote as u32,
                    epoch,
                    ..Cell::default()
                });
                (capture.cells.len() - 1) as u32
            })
        };
        let cell = &mut capture.cells[number as usize];
        touch(cell, epoch);
        cell.freed_count += 1;
        cell.freed_bytes += block.size;
        if temporary {
            cell.temporary_count += 1;
            cell.temporary_bytes += block.size;
        }
        if let Some(slot) = slot_of(capture, thread) {
            slot.deallocations += 1;
        }
    }
}

fn touch(cell: &mut Cell, epoch: u64) {
    if cell.epoch != epoch {
        cell.peak_count = cell.allocated_count as i64 - cell.freed_count as i64;
        cell.peak_bytes = cell.allocated_bytes as i64 - cell.freed_bytes as i64;
        cell.epoch = epoch;
    }
}

fn slot_of(capture: &mut CaptureBuilder, thread: u32) -> Option<&mut heaptide_format::Slot> {
    let slot = capture.threads.get(thread as usize)?.slot;
    capture.slots.get_mut(slot as usize)
}
