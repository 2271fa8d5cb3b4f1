//! From the numbers of a file, which may have gaps, to indices of a vector.

/// Ascending numbers; the place of a number is its index.
#[derive(Debug, Default)]
pub(crate) struct Numbering {
    numbers: Vec<u32>,
}

impl Numbering {
    /// Takes the next number, which must be greater than all before, and gives its index.
    pub(crate) fn push(&mut self, number: u32) -> usize {
        self.numbers.push(number);
        self.numbers.len() - 1
    }

    /// The index of a number.
    pub(crate) fn index_of(&self, number: u32) -> Option<usize> {
        // Without gaps, which is the rule, the index is the number.
        if self.numbers.get(number as usize) == Some(&number) {
            return Some(number as usize);
        }
        self.numbers.binary_search(&number).ok()
    }
}
