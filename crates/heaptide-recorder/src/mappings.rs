//! Events of `mmap`, `munmap` and `mremap`: by range, not by start address.

use heaptide_format::{Allocator, StopReason};

use crate::cells::{CellWriter, Key};
use crate::file::Stop;
use crate::ranges::Pieces;
use crate::recorder::Recorder;
use crate::threads::ThreadRecord;

impl Recorder {
    /// `start..start + bytes` was mapped. After the real `mmap`. What was mapped there before
    /// (`MAP_FIXED`) counts as unmapped first.
    ///
    /// # Errors
    /// No room.
    ///
    /// # Safety
    /// As [`Recorder::allocated`].
    pub unsafe fn mapped(
        &self,
        thread: &mut ThreadRecord,
        node: u32,
        start: u64,
        bytes: u64,
    ) -> Result<(), Stop> {
        if self.holds_events() {
            // SAFETY: the caller's promise.
            return unsafe { self.event_allocated(thread, node, Allocator::Mmap, start, bytes) };
        }
        let end = start.saturating_add(bytes);
        loop {
            // SAFETY: the caller's promise.
            let pieces = unsafe { self.unmapping(thread, start, bytes)? };
            if pieces.as_slice().is_empty() {
                break;
            }
            self.unmapped(&pieces);
        }
        let _one_at_a_time = if thread.shared {
            Some(self.shared_thread.lock())
        } else {
            None
        };
        let cell = self.cell(thread, Key::own(node, Allocator::Mmap, thread.thread))?;
        // SAFETY: the caller's promise.
        unsafe { self.count_allocated(thread, cell, bytes) };
        let inserted = self.ranges.lock().insert(start, end, cell);
        thread.note_recent(start, cell);
        inserted.map_err(|_| {
            self.file.stop(
                StopReason::NoMemory,
                rustix::io::Errno::NOMEM.raw_os_error(),
            )
        })
    }

    /// Part of the address space is about to be unmapped: counts what is mapped there as freed and
    /// returns it, for [`Recorder::unmapped`] or [`Recorder::unmap_failed`]. Call until nothing comes.
    ///
    /// # Errors
    /// No room.
    ///
    /// # Safety
    /// As [`Recorder::allocated`].
    pub unsafe fn unmapping(
        &self,
        thread: &mut ThreadRecord,
        start: u64,
        bytes: u64,
    ) -> Result<Pieces, Stop> {
        let taken = self.ranges.lock().take(start, start.saturating_add(bytes));
        let Ok(mut pieces) = taken else {
            return Err(self.file.stop(
                StopReason::NoMemory,
                rustix::io::Errno::NOMEM.raw_os_error(),
            ));
        };
        pieces.recent = thread.recent;
        for piece in pieces.as_mut_slice() {
            let temporary = piece.count == 1 && thread.was_recent(piece.start, piece.cell);
            piece.temporary = temporary;
            // SAFETY: the caller's promise.
            unsafe {
                self.freed_bytes(
                    thread,
                    piece.cell,
                    piece.count,
                    piece.end - piece.start,
                    temporary,
                )?;
            };
        }
        Ok(pieces)
    }

    /// The unmap went through.
    pub fn unmapped(&self, pieces: &Pieces) {
        self.ranges.lock().forget(pieces);
    }

    /// The unmap failed: the pieces are mapped as before.
    ///
    /// # Errors
    /// No room.
    ///
    /// # Safety
    /// As [`Recorder::allocated`].
    #[cold]
    pub unsafe fn unmap_failed(
        &self,
        thread: &mut ThreadRecord,
        pieces: &Pieces,
    ) -> Result<(), Stop> {
        thread.recent = pieces.recent;
        for piece in pieces.as_slice() {
            let mut _one_at_a_time = if thread.shared {
                Some(self.shared_thread.lock())
            } else {
                None
            };
            // SAFETY: `unmapping` made or found this cell, so it exists.
            let (owner, allocator) = unsafe {
                let cell = self.cells.get(piece.cell);
                ((*cell).thread, (*cell).allocator)
            };
            let target = if owner == thread.thread {
                piece.cell
            } else {
                let (target, shared) = self.remote_cell(thread, piece.cell, allocator)?;
                if shared && _one_at_a_time.is_none() {
                    _one_at_a_time = Some(self.shared_thread.lock());
                }
                target
            };
            let bytes = piece.end - piece.start;
            // SAFETY: as in `freed_bytes`; the free is taken back by a negative one.
            unsafe {
                let epoch = self.heap_allocate(bytes);
                let writer = CellWriter(self.cells.get(target));
                writer.freed(epoch, piece.count.wrapping_neg(), bytes.wrapping_neg());
                if piece.temporary && owner == thread.thread {
                    writer.temporary(1u64.wrapping_neg(), bytes.wrapping_neg());
                }
            }
            if piece.count > 0 {
                // SAFETY: a field of our slot.
                thread.count(
                    |slot| unsafe { &raw mut (*slot).deallocations },
                    1u64.wrapping_neg(),
                );
            }
        }
        let restored = self.ranges.lock().restore(pieces);
        restored.map_err(|_| {
            self.file.stop(
                StopReason::NoMemory,
                rustix::io::Errno::NOMEM.raw_os_error(),
            )
        })
    }
}
