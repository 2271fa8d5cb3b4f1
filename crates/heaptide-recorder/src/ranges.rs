//! Live mappings by range: partial unmaps, unmaps across several mappings, mappings over mappings.

use crate::live::NoMemory;
use crate::memory::Mapping;

/// How many pieces one call takes out; more are taken by further calls.
pub const MAX_PIECES: usize = 8;

/// What was taken out of one mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Cell of the mapping.
    pub cell: u32,
    /// 1 when nothing is left of its mapping, else 0.
    pub count: u64,
    /// It was counted as temporary.
    pub(crate) temporary: bool,
    mapping: u32,
}

/// The pieces of one call.
#[derive(Debug)]
pub struct Pieces {
    pieces: [Piece; MAX_PIECES],
    used: usize,
    /// The thread's last allocations before it unmapped them.
    pub(crate) recent: [(u64, u32); 2],
}

impl Pieces {
    pub(crate) const fn new() -> Self {
        Self {
            pieces: [Piece {
                start: 0,
                end: 0,
                cell: 0,
                count: 0,
                temporary: false,
                mapping: 0,
            }; MAX_PIECES],
            used: 0,
            recent: [(0, 0); 2],
        }
    }

    fn push(&mut self, piece: Piece) {
        if let Some(slot) = self.pieces.get_mut(self.used) {
            *slot = piece;
            self.used += 1;
        }
    }

    /// The pieces.
    #[must_use]
    pub fn as_slice(&self) -> &[Piece] {
        &self.pieces[..self.used]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [Piece] {
        &mut self.pieces[..self.used]
    }
}

#[derive(Clone, Copy)]
struct Range {
    start: u64,
    end: u64,
    cell: u32,
    mapping: u32,
}

/// Ranges in order of address, never overlapping.
pub(crate) struct Ranges {
    ranges: List<Range>,
    /// By mapping: how many ranges are left of it; free ones are chained through `free`.
    pieces: List<u32>,
    free: List<u32>,
}

impl Ranges {
    pub(crate) const fn new() -> Self {
        Self {
            ranges: List::new(),
            pieces: List::new(),
            free: List::new(),
        }
    }

    /// Position of the first range that ends after `start`.
    fn first_after(&self, start: u64) -> usize {
        self.ranges
            .as_slice()
            .partition_point(|range| range.end <= start)
    }

    /// Adds a mapping where nothing is mapped (any more).
    pub(crate) fn insert(&mut self, start: u64, end: u64, cell: u32) -> Result<(), NoMemory> {
        let mapping = match self.free.pop() {
            Some(mapping) => mapping,
            None => {
                self.pieces.insert(self.pieces.len(), 0)?;
                (self.pieces.len() - 1) as u32
            }
        };
        self.put(Range {
            start,
            end,
            cell,
            mapping,
        })
    }

    /// What comes back next to a piece of its own mapping becomes one with it again.
    fn put(&mut self, range: Range) -> Result<(), NoMemory> {
        let position = self.first_after(range.start);
        let ranges = self.ranges.as_mut_slice();
        let after = ranges.get(position).copied();
        let after = after.filter(|next| next.mapping == range.mapping && next.start == range.end);
        if let Some(before) = position
            .checked_sub(1)
            .and_then(|index| ranges.get_mut(index))
            && before.mapping == range.mapping
            && before.end == range.start
        {
            before.end = after.map_or(range.end, |next| next.end);
            if after.is_some() {
                self.ranges.remove(position);
                self.pieces.as_mut_slice()[range.mapping as usize] -= 1;
            }
            return Ok(());
        }
        if after.is_some() {
            ranges[position].start = range.start;
            return Ok(());
        }
        self.ranges.insert(position, range)?;
        if let Some(pieces) = self.pieces.as_mut_slice().get_mut(range.mapping as usize) {
            *pieces += 1;
        }
        Ok(())
    }

    /// Takes what is mapped in `start..end` out of the table, up to `MAX_PIECES` at a time (call
    /// again until nothing comes). The mappings' numbers are kept until [`Ranges::forget`].
    pub(crate) fn take(&mut self, start: u64, end: u64) -> Result<Pieces, NoMemory> {
        let mut taken = Pieces::new();
        let position = self.first_after(start);
        while taken.used < MAX_PIECES {
            let Some(&range) = self.ranges.as_slice().get(position) else {
                break;
            };
            if range.start >= end {
                break;
            }
            let (from, to) = (range.start.max(start), range.end.min(end));
            let before = Range { end: from, ..range };
            let after = Range { start: to, ..range };
            match (before.start < before.end, after.start < after.end) {
                (false, false) => {
                    self.ranges.remove(position);
                    self.pieces.as_mut_slice()[range.mapping as usize] -= 1;
                }
                (true, false) => self.ranges.as_mut_slice()[position] = before,
                (false, true) => self.ranges.as_mut_slice()[position] = after,
                (true, true) => {
                    // Room first: a failure must leave the table as it was.
                    self.ranges.insert(position + 1, after)?;
                    self.ranges.as_mut_slice()[position] = before;
                    self.pieces.as_mut_slice()[range.mapping as usize] += 1;
                }
            }
            let left = self.pieces.as_slice()[range.mapping as usize];
            taken.push(Piece {
                start: from,
                end: to,
                cell: range.cell,
                count: u64::from(left == 0),
                temporary: false,
                mapping: range.mapping,
            });
            if before.start < before.end {
                // What comes next starts behind the part that stays.
                if range.end >= end {
                    break;
                }
                return Ok(self.take_more(taken, to, end));
            }
        }
        Ok(taken)
    }

    fn take_more(&mut self, mut taken: Pieces, start: u64, end: u64) -> Pieces {
        while taken.used < MAX_PIECES {
            let position = self.first_after(start);
            let Some(&range) = self.ranges.as_slice().get(position) else {
                break;
            };
            if range.start >= end {
                break;
            }
            let to = range.end.min(end);
            if to == range.end {
                self.ranges.remove(position);
                self.pieces.as_mut_slice()[range.mapping as usize] -= 1;
            } else {
                self.ranges.as_mut_slice()[position].start = to;
            }
            let left = self.pieces.as_slice()[range.mapping as usize];
            taken.push(Piece {
                start: range.start,
                end: to,
                cell: range.cell,
                count: u64::from(left == 0),
                temporary: false,
                mapping: range.mapping,
            });
        }
        taken
    }

    /// Puts pieces back that turned out not to be unmapped.
    pub(crate) fn restore(&mut self, pieces: &Pieces) -> Result<(), NoMemory> {
        for piece in pieces.as_slice() {
            self.put(Range {
                start: piece.start,
                end: piece.end,
                cell: piece.cell,
                mapping: piece.mapping,
            })?;
        }
        Ok(())
    }

    /// The pieces are gone for good.
    pub(crate) fn forget(&mut self, pieces: &Pieces) {
        for piece in pieces.as_slice() {
            if piece.count == 1 {
                // Without room for it the number is merely never used again.
                let _ = self.free.insert(self.free.len(), piece.mapping);
            }
        }
    }
}

/// A growable array in memory of our own.
struct List<T> {
    memory: Option<Mapping>,
    used: usize,
    item: core::marker::PhantomData<T>,
}

impl<T: Copy> List<T> {
    const fn new() -> Self {
        Self {
            memory: None,
            used: 0,
            item: core::marker::PhantomData,
        }
    }

    fn len(&self) -> usize {
        self.used
    }

    fn capacity(&self) -> usize {
        self.memory
            .as_ref()
            .map_or(0, |memory| memory.bytes() / size_of::<T>())
    }

    fn as_slice(&self) -> &[T] {
        match &self.memory {
            // SAFETY: the first `used` items were written by `insert`.
            Some(memory) => unsafe { core::slice::from_raw_parts(memory.as_ptr(), self.used) },
            None => &[],
        }
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        match &self.memory {
            // SAFETY: as in `as_slice`, and `self` is borrowed mutably.
            Some(memory) => unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), self.used) },
            None => &mut [],
        }
    }

    fn insert(&mut self, position: usize, item: T) -> Result<(), NoMemory> {
        if self.used == self.capacity() {
            let bigger =
                Mapping::new((self.capacity() * 2).max(64) * size_of::<T>()).ok_or(NoMemory)?;
            // SAFETY: the new memory has room for all items and does not overlap the old.
            unsafe {
                core::ptr::copy_nonoverlapping(
                    self.as_slice().as_ptr(),
                    bigger.as_ptr(),
                    self.used,
                );
            };
            self.memory = Some(bigger);
        }
        let Some(memory) = &self.memory else {
            return Err(NoMemory);
        };
        let position = position.min(self.used);
        // SAFETY: there is room for one more item; `position` is at most `used`.
        unsafe {
            let at = memory.as_ptr::<T>().add(position);
            core::ptr::copy(at, at.add(1), self.used - position);
            at.write(item);
        }
        self.used += 1;
        Ok(())
    }

    fn remove(&mut self, position: usize) {
        let items = self.as_mut_slice();
        if position < items.len() {
            items.copy_within(position + 1.., position);
            self.used -= 1;
        }
    }

    fn pop(&mut self) -> Option<T> {
        let last = self.as_slice().last().copied()?;
        self.used -= 1;
        Some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn taken(ranges: &mut Ranges, start: u64, end: u64) -> Vec<(u64, u64, u32, u64)> {
        let mut all = Vec::new();
        loop {
            let pieces = ranges.take(start, end).unwrap();
            if pieces.as_slice().is_empty() {
                return all;
            }
            all.extend(
                pieces
                    .as_slice()
                    .iter()
                    .map(|p| (p.start, p.end, p.cell, p.count)),
            );
            ranges.forget(&pieces);
        }
    }

    #[test]
    fn whole_partial_middle_and_across() {
        let mut ranges = Ranges::new();
        ranges.insert(100, 200, 1).unwrap();
        ranges.insert(200, 300, 2).unwrap();
        ranges.insert(400, 500, 3).unwrap();
        assert_eq!(taken(&mut ranges, 0, 100), vec![]);
        assert_eq!(taken(&mut ranges, 120, 140), vec![(120, 140, 1, 0)]);
        assert_eq!(
            taken(&mut ranges, 130, 450),
            vec![(140, 200, 1, 0), (200, 300, 2, 1), (400, 450, 3, 0)]
        );
        assert_eq!(
            taken(&mut ranges, 0, 1000),
            vec![(100, 120, 1, 1), (450, 500, 3, 1)]
        );
        assert_eq!(taken(&mut ranges, 0, 1000), vec![]);
    }

    #[test]
    fn a_failed_unmap_is_undone() {
        let mut ranges = Ranges::new();
        ranges.insert(100, 200, 7).unwrap();
        let pieces = ranges.take(150, 160).unwrap();
        assert_eq!(pieces.as_slice()[0].count, 0);
        ranges.restore(&pieces).unwrap();
        assert_eq!(taken(&mut ranges, 0, 1000), vec![(100, 200, 7, 1)]);
    }

    #[test]
    fn agrees_with_a_byte_map() {
        let mut ranges = Ranges::new();
        let mut bytes = vec![0u32; 2000];
        let mut state = 88_172_645_463_325_252u64;
        for step in 1..20_000u32 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let start = state % 1900;
            let end = start + 1 + (state >> 20) % 99;
            let expected: usize = bytes[start as usize..end as usize]
                .iter()
                .filter(|cell| **cell != 0)
                .count();
            let got: u64 = taken(&mut ranges, start, end)
                .iter()
                .map(|p| p.1 - p.0)
                .sum();
            assert_eq!(got, expected as u64);
            bytes[start as usize..end as usize].fill(0);
            if state & 0x100 == 0 {
                ranges.insert(start, end, step).unwrap();
                bytes[start as usize..end as usize].fill(step);
            }
        }
    }
}
