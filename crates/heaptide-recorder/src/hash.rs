//! One good integer mix: the high and low halves of a 128-bit product, folded.

/// Mixes two words into one; good in all its bits.
#[inline]
#[must_use]
pub const fn mix(a: u64, b: u64) -> u64 {
    // Constants: the first digits of pi's fraction, odd, with no structure to speak of.
    let product = ((a ^ 0x243f_6a88_85a3_08d3) as u128) * ((b ^ 0x1319_8a2e_0370_7345) as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Mix of a byte string, for definitions (cold).
#[must_use]
pub(crate) fn mix_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = mix(seed, bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = mix(hash, u64::from_le_bytes(*word));
    }
    let mut tail = [0u8; 8];
    tail[..rest.len()].copy_from_slice(rest);
    mix(hash, u64::from_le_bytes(tail))
}
