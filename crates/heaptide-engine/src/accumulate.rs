//! From cells to entries.

use heaptide_capture::{Capture, WarningKind, Warnings};
use heaptide_format::{Allocator, Cell, CellKind, HeapWord};
use rustc_hash::FxHashMap;

use crate::figures::{Amount, Figures};
use crate::numbering::Numbering;
use crate::profile::{Entry, ThreadInfo};
use crate::stacks::{NodeMap, StackId};

/// Figures that may be negative on the way: a remote cell only ever takes away.
#[derive(Clone, Copy, Default)]
struct Balance {
    live_count: i128,
    live_bytes: i128,
    peak_count: i128,
    peak_bytes: i128,
}

impl Balance {
    fn add_cell(&mut self, cell: &Cell, heap: &HeapWord) {
        let live_count = i128::from(cell.allocated_count) - i128::from(cell.freed_count);
        let live_bytes = i128::from(cell.allocated_bytes) - i128::from(cell.freed_bytes);
        self.live_count += live_count;
        self.live_bytes += live_bytes;
        // A cell of a newer epoch than the heap word was written after the word was read; its
        // snapshot is nearer to the peak than its present state.
        let snapshot = heap.headroom != 0 && cell.epoch >= heap.epoch;
        self.peak_count += if snapshot {
            i128::from(cell.peak_count)
        } else {
            live_count
        };
        self.peak_bytes += if snapshot {
            i128::from(cell.peak_bytes)
        } else {
            live_bytes
        };
    }

    /// Below zero is impossible but for a writer caught between two stores, or damage.
    fn is_whole(self) -> bool {
        self.live_count >= 0 && self.live_bytes >= 0 && self.peak_count >= 0 && self.peak_bytes >= 0
    }
}

fn clamped(value: i128) -> u64 {
    u64::try_from(value.max(0)).unwrap_or(u64::MAX)
}

/// The entries of a capture and how many of them had to be clamped.
pub(crate) struct Accumulated {
    pub(crate) entries: Vec<Entry>,
    pub(crate) clamped_cells: u64,
    pub(crate) in_flight_cells: u64,
}

pub(crate) fn accumulate(
    capture: &Capture,
    nodes: &NodeMap,
    threads: &mut Threads,
    warnings: &mut Warnings,
) -> Accumulated {
    let heap = &capture.heap;
    let mut numbering = Numbering::default();
    let mut entries: Vec<Entry> = Vec::new();
    let mut balances: Vec<Balance> = Vec::new();
    let mut result = Accumulated {
        entries: Vec::new(),
        clamped_cells: 0,
        in_flight_cells: 0,
    };
    for (number, cell) in capture.cells.iter() {
        result.in_flight_cells += u64::from(cell.epoch > heap.epoch);
        if CellKind::from_raw(cell.kind) != Some(CellKind::Own) {
            continue;
        }
        let Some(allocator) = Allocator::from_raw(cell.allocator) else {
            warnings.add(WarningKind::DamagedCell, None, || {
                format!(
                    "cell {number} has allocator {}, which does not exist; it was left out",
                    cell.allocator
                )
            });
            continue;
        };
        let stack = nodes.stack_of(cell.target).unwrap_or_else(|| {
            warnings.add(WarningKind::DanglingReference, None, || {
                format!(
                    "cell {number} has stack {}, which is not there",
                    cell.target
                )
            });
            StackId::LOST
        });
        let thread = threads.index_of(cell.thread, warnings);
        let mut balance = Balance::default();
        balance.add_cell(cell, heap);
        numbering.push(number);
        balances.push(balance);
        let mut figures = Figures::default();
        if capture.identity.knows_totals() {
            figures.allocated = Amount {
                count: cell.allocated_count,
                bytes: cell.allocated_bytes,
            };
            figures.temporary = Amount {
                count: cell.temporary_count,
                bytes: cell.temporary_bytes,
            };
        }
        entries.push(Entry {
            stack,
            allocator,
            thread,
            figures,
        });
    }
    add_remote_cells(capture, &numbering, &mut balances, warnings);
    for (entry, balance) in entries.iter_mut().zip(&balances) {
        if !balance.is_whole() {
            result.clamped_cells += 1;
        }
        entry.figures.live = Amount {
            count: clamped(balance.live_count),
            bytes: clamped(balance.live_bytes),
        };
        entry.figures.peak = Amount {
            count: clamped(balance.peak_count),
            bytes: clamped(balance.peak_bytes),
        };
    }
    result.entries = entries;
    result
}

fn add_remote_cells(
    capture: &Capture,
    own: &Numbering,
    balances: &mut [Balance],
    warnings: &mut Warnings,
) {
    for (number, cell) in capture.cells.iter() {
        match CellKind::from_raw(cell.kind) {
            Some(CellKind::Own) => {}
            Some(CellKind::Remote) => match own.index_of(cell.target) {
                Some(index) => balances[index].add_cell(cell, &capture.heap),
                None => warnings.add(WarningKind::DanglingReference, None, || {
                    format!(
                        "cell {number} counts frees of cell {}, which is not there",
                        cell.target
                    )
                }),
            },
            // Space that was taken and not yet filled.
            None if cell.kind == 0 => {}
            None => warnings.add(WarningKind::DamagedCell, None, || {
                format!(
                    "cell {number} has kind {}, which does not exist; it was left out",
                    cell.kind
                )
            }),
        }
    }
}

/// The threads of a profile by their numbers in the file.
#[derive(Default)]
pub(crate) struct Threads {
    pub(crate) list: Vec<ThreadInfo>,
    indices: FxHashMap<u32, u32>,
}

impl Threads {
    pub(crate) fn of(capture: &Capture) -> Self {
        let mut threads = Self::default();
        for (number, thread) in capture.threads.iter() {
            let python_name = padded_text(&thread.python_name);
            let os_name = padded_text(&thread.os_name);
            let main =
                thread.thread_id != 0 && thread.thread_id == capture.lifecycle.main_thread_id;
            let name = match () {
                () if number == heaptide_format::THREAD_OVERFLOW => "<other threads>".to_owned(),
                () if !python_name.is_empty() => python_name,
                () if main => "MainThread".to_owned(),
                () => os_name,
            };
            threads.push(
                number,
                ThreadInfo {
                    number,
                    thread_id: thread.thread_id,
                    name,
                },
            );
        }
        threads
    }

    fn push(&mut self, number: u32, thread: ThreadInfo) -> u32 {
        let index = self.list.len() as u32;
        self.list.push(thread);
        self.indices.insert(number, index);
        index
    }

    pub(crate) fn index_of(&mut self, number: u32, warnings: &mut Warnings) -> u32 {
        if let Some(&index) = self.indices.get(&number) {
            return index;
        }
        if number != heaptide_format::THREAD_OVERFLOW {
            warnings.add(WarningKind::DanglingReference, None, || {
                format!("thread {number} counts and is not described")
            });
        }
        self.push(
            number,
            ThreadInfo {
                number,
                thread_id: 0,
                name: format!("<thread {number}>"),
            },
        )
    }
}

fn padded_text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    heaptide_capture::escape_bytes(&bytes[..end])
}
