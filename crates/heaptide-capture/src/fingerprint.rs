//! One number for all events of a chunk, whatever form they were decoded from.

use std::hash::{Hash, Hasher};

use heaptide_format::{BadEvent, Decoder, Event, Fields, Moment, Receiver, Site};

/// Odd, with bits everywhere: the golden ratio, and two numbers from its neighbourhood.
const FACTORS: [u64; 3] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
];

/// What events and their order come to. Where any of them is another one, this is (in all but one of 2⁶⁴ cases).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    sum: u64,
    turn: u64,
}

impl Fingerprint {
    /// Of events that are decoded to their end in the fastest way.
    pub(crate) fn of<F: Fields + Copy>(fields: &mut F) -> Result<Self, BadEvent> {
        let mut found = Self::default();
        let mut decoder = Decoder::new();
        loop {
            found.turn_is(decoder.turn());
            decoder.run(fields, &mut found)?;
            // What ends a run is seldom plain.
            let Some((moment, event)) = decoder.next(fields)? else {
                return Ok(found);
            };
            found.add(moment, event);
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, moment: Moment, event: Event) {
        self.turn_is(moment.turn);
        match event {
            Event::Allocated { address, site } => self.allocated(address, &site),
            Event::Freed { address } => self.freed(address),
            rare => rare.hash(self),
        }
        if moment.stamp != 0 {
            self.take(moment.stamp);
        }
    }

    #[inline]
    fn turn_is(&mut self, turn: u64) {
        if self.turn != turn {
            self.turn = turn;
            self.take(!turn);
        }
    }

    #[inline]
    fn take(&mut self, word: u64) {
        self.sum = (self.sum.rotate_left(23) ^ word).wrapping_mul(FACTORS[0]);
    }
}

impl Receiver for Fingerprint {
    #[inline]
    fn allocated(&mut self, address: u64, site: &Site) {
        let place = u64::from(site.node) << 32 | u64::from(site.allocator) << 1 | 1;
        self.take(
            address
                ^ place.wrapping_mul(FACTORS[1])
                ^ site.size.wrapping_mul(FACTORS[2]).rotate_left(31),
        );
    }

    #[inline]
    fn freed(&mut self, address: u64) {
        self.take(address);
    }
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            self.take(u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heaptide_format::{Encoder, MOST_EVENT_BYTES, Written};

    const FIRST: u64 = 0x7000_0000_1000;

    /// Nine events of all kinds; of one of them a figure is another one.
    fn events(other: usize) -> Vec<u8> {
        let mut encoder = Encoder::new();
        let mut out = [0; MOST_EVENT_BYTES];
        let mut bytes = Vec::new();
        let one = |at: usize| u64::from(at == other);
        let site = |at: usize| Site {
            node: 3 + one(at) as u32,
            allocator: 6 + one(at + 1) as u8,
            size: 500 + one(at + 2),
        };
        for step in 0..9 {
            let length = match step {
                0 | 5 => encoder.turn(&mut out, 2 + step * 3 + one(0)),
                1 => encoder.allocated(&mut out, FIRST + 16 * one(1), site(2), 0),
                2 => encoder.freed(&mut out, FIRST + 16 * one(5), 0),
                3 => encoder.unmapped(&mut out, FIRST + 4096 * one(6), 4096 + 4096 * one(7), 0),
                4 if other == 8 => encoder.free_undone(&mut out, 0),
                4 => encoder.unmap_undone(&mut out, 0),
                6 => encoder.allocated(&mut out, FIRST + 64, site(9), 7 + one(12)),
                _ => encoder.freed(&mut out, FIRST + 64 * one(13), 9 + step + one(14)),
            };
            bytes.extend_from_slice(&out[..length]);
        }
        bytes
    }

    fn one_by_one(bytes: &[u8]) -> Fingerprint {
        let mut found = Fingerprint::default();
        let mut decoder = Decoder::new();
        let mut fields = Written::new(bytes, 0);
        while let Some((moment, event)) = decoder.next(&mut fields).unwrap() {
            found.add(moment, event);
        }
        found
    }

    #[test]
    fn every_figure_counts_and_the_way_does_not() {
        let mut seen = Vec::new();
        for other in 0..=15 {
            let bytes = events(other);
            let found = Fingerprint::of(&mut Written::new(&bytes, 0)).unwrap();
            assert_eq!(found, one_by_one(&bytes), "{other}");
            assert!(!seen.contains(&found), "{other}");
            seen.push(found);
        }
    }
}
