//! Numbers that look like chance and are the same every time.

/// Marsaglia's xorshift with the shifts 13, 7 and 17, begun with a number other than 0.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Any number but 0.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends, so it is no iterator to loop over"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of the numbers below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }
}
