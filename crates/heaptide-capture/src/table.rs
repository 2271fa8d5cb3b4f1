//! Numbered records, possibly with gaps.

/// Records of one kind by number. A lost segment leaves a gap and costs no memory.
#[derive(Clone, Debug)]
pub struct Table<T> {
    /// Sorted by `first`, not overlapping.
    chunks: Vec<Chunk<T>>,
}

#[derive(Clone, Debug)]
struct Chunk<T> {
    first: u64,
    records: Vec<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> Table<T> {
    /// Adds records; gives them back when their numbers are taken already.
    pub(crate) fn insert(&mut self, first: u64, records: Vec<T>) -> Result<(), Vec<T>> {
        let Some(end) = first.checked_add(records.len() as u64) else {
            return Err(records);
        };
        if records.is_empty() {
            return Ok(());
        }
        let place = self.chunks.partition_point(|chunk| chunk.first < first);
        let before = place.checked_sub(1).map(|index| &self.chunks[index]);
        let free = before.is_none_or(|chunk| chunk.first + chunk.records.len() as u64 <= first)
            && self
                .chunks
                .get(place)
                .is_none_or(|chunk| end <= chunk.first);
        if !free {
            return Err(records);
        }
        self.chunks.insert(place, Chunk { first, records });
        Ok(())
    }

    /// The record with this number.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&T> {
        let (chunk, index) = self.place_of(number)?;
        self.chunks[chunk].records.get(index)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (chunk, index) = self.place_of(number)?;
        self.chunks[chunk].records.get_mut(index)
    }

    /// The chunk that would have it, and where.
    fn place_of(&self, number: u32) -> Option<(usize, usize)> {
        let number = u64::from(number);
        let chunk = self
            .chunks
            .partition_point(|chunk| chunk.first <= number)
            .checked_sub(1)?;
        let index = usize::try_from(number - self.chunks[chunk].first).ok()?;
        Some((chunk, index))
    }

    /// All records with their numbers, ascending. Numbers that do not fit 32 bits cannot be named
    /// by another record and are left out.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks.iter().flat_map(|chunk| {
            chunk
                .records
                .iter()
                .enumerate()
                .map_while(|(index, record)| {
                    Some((u32::try_from(chunk.first + index as u64).ok()?, record))
                })
        })
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.records.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn records_are_found_by_number_and_gaps_cost_nothing() {
        let mut table = Table::default();
        table.insert(1 << 31, vec!['x']).unwrap();
        table.insert(10, vec!['a', 'b']).unwrap();
        table.insert(0, vec!['0']).unwrap();
        assert_eq!(table.get(11), Some(&'b'));
        assert_eq!(table.get(12), None);
        assert_eq!(table.get(1), None);
        assert_eq!(table.get(1 << 31), Some(&'x'));
        let numbers: Vec<u32> = table.iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [0, 10, 11, 1 << 31]);
        assert_eq!(table.len(), 4);
    }

    #[test]
    fn taken_numbers_are_refused() {
        let mut table = Table::default();
        table.insert(10, vec![1, 2, 3]).unwrap();
        assert!(table.insert(12, vec![9]).is_err());
        assert!(table.insert(8, vec![9, 9, 9]).is_err());
        assert!(table.insert(10, vec![9]).is_err());
        assert!(table.insert(u64::MAX, vec![9]).is_err());
        table.insert(13, vec![4]).unwrap();
        assert_eq!(table.get(13), Some(&4));
    }
}
