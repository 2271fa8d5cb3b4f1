//! What a tracked program and a reader say to each other over a socket: plain data, version 1.
//!
//! ```text
//!   server                         reader
//!   Hello ───────────────────────▶
//!         ◀─────────────────────── Request, so many Wanted
//!   Reply (+ bytes), for each ───▶
//!   Reply: ended ────────────────▶          between two answers, once
//!         ◀─────────────────────── last requests, then the connection is closed
//! ```
//!
//! The reader reads the capture in the order in which a capture that is being written must be read; the server knows
//! nothing of what is in it. What the reader has already it names by a hash, and is not sent it again.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first bytes of a [`LiveHello`].
pub const LIVE_MAGIC: [u8; 8] = *b"HTlive\r\n";
/// Version of what is said.
pub const LIVE_VERSION: u32 = 1;
/// `"ASK1"`; the first bytes of a [`LiveRequest`].
pub const LIVE_REQUEST: u32 = u32::from_le_bytes(*b"ASK1");
/// Most pieces in one request.
pub const LIVE_MOST_PIECES: usize = 64;
/// Most bytes of one piece.
pub const LIVE_PIECE_BYTES: usize = 64 << 10;
/// In place of a hash: the reader has nothing.
pub const LIVE_NOTHING: u64 = 0;

/// What the server says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct LiveHello {
    /// [`LIVE_MAGIC`]
    pub magic: [u8; 8],
    /// [`LIVE_VERSION`]
    pub version: u32,
    /// The process that serves, in its own pid namespace.
    pub pid: u32,
    /// The descriptor that it has the capture open by, at this moment.
    pub descriptor: u32,
    /// Zero.
    pub reserved: u32,
}

/// The head of a request; as many [`LiveWanted`] follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct LiveRequest {
    /// [`LIVE_REQUEST`]
    pub magic: u32,
    /// 1 to [`LIVE_MOST_PIECES`].
    pub pieces: u32,
}

/// A piece of the capture that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct LiveWanted {
    /// Where it begins.
    pub offset: u64,
    /// [`live_hash`] of what the reader has of it, or [`LIVE_NOTHING`].
    pub hash: u64,
    /// At most [`LIVE_PIECE_BYTES`]; may be zero, for the length of the capture alone.
    pub bytes: u32,
    /// Zero.
    pub reserved: u32,
}

/// The answer for one piece, in the order in which they were asked for; or news that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct LiveReply {
    /// [`LIVE_BYTES`], [`LIVE_SAME`] or [`LIVE_ENDED`].
    pub kind: u32,
    /// How many bytes follow: fewer than were asked for where the capture ends before.
    pub bytes: u32,
    /// Length of the capture now.
    pub capture_bytes: u64,
}

/// [`LiveReply::kind`]: the bytes follow.
pub const LIVE_BYTES: u32 = 1;
/// [`LiveReply::kind`]: the reader has them.
pub const LIVE_SAME: u32 = 2;
/// [`LiveReply::kind`]: tracking has ended, nothing will change any more. Not an answer.
pub const LIVE_ENDED: u32 = 3;

/// A number that tells what the reader has from what is there now. Never [`LIVE_NOTHING`]. Not made against bytes that
/// are chosen to deceive: who sends them may lie anyway.
#[must_use]
pub fn live_hash(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, word: u64| {
        let mixed = (state ^ word).wrapping_mul(FACTOR);
        mixed ^ (mixed >> 29)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let start = (bytes.len() as u64).wrapping_mul(FACTOR);
    let state = words
        .iter()
        .fold(start, |state, word| mix(state, u64::from_le_bytes(*word)));
    let state = rest
        .iter()
        .fold(state, |state, byte| mix(state, u64::from(*byte)));
    // The last factor has reached the upper half only.
    match mix(state, 0) {
        LIVE_NOTHING => 1,
        hash => hash,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn every_changed_byte_and_length_tells() {
        let bytes: std::vec::Vec<u8> = (0..100u8).collect();
        let mut seen = std::collections::BTreeSet::from([live_hash(&bytes)]);
        for at in 0..bytes.len() {
            assert!(seen.insert(live_hash(&bytes[..at])));
            let mut changed = bytes.clone();
            changed[at] ^= 0x80;
            assert!(seen.insert(live_hash(&changed)));
        }
        assert_ne!(live_hash(&[0; 8]), live_hash(&[0; 16]));
        assert!(!seen.contains(&LIVE_NOTHING));
    }

    #[test]
    fn sizes_are_those_of_the_protocol() {
        assert_eq!(size_of::<LiveHello>(), 24);
        assert_eq!(size_of::<LiveRequest>(), 8);
        assert_eq!(size_of::<LiveWanted>(), 24);
        assert_eq!(size_of::<LiveReply>(), 16);
    }
}
