//! Packs the events of some chunks of one stream into a block, and unpacks them.

use std::ops::Range;

use heaptide_format::{
    CHUNK_HEADER_BYTES, COLUMNS, ChunkHeader, Column, LARGEST_BLOCK_BYTES, Mover,
    PACKED_BLOCK_BYTES, PackedBlock, Packing, checksum, move_events, varint,
};
use zerocopy::{FromBytes, IntoBytes};

/// Before the columns: two lengths for each, unpacked and packed.
const COLUMN_HEADS_BYTES: usize = COLUMNS * 8;
/// Blocks have far fewer chunks: a stream's chunks begin at a page and double.
const MOST_CHUNKS: u32 = 4096;

/// Packs chunks whose events stand one after the other in `events`; `chunks` gives the lengths.
pub(crate) fn pack(chunks: &[ChunkHeader], events: &[u8]) -> Vec<u8> {
    let (packing, packed) = smallest(chunks, events);
    let heads = PACKED_BLOCK_BYTES + size_of_val(chunks);
    let total = (heads + packed.len()).next_multiple_of(8);
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let mut head = PackedBlock {
        total_bytes: number(total),
        chunks: number(chunks.len()),
        event_bytes: number(events.len()),
        packed_bytes: number(packed.len()),
        packing: packing as u32,
        events_checksum: checksum(events),
        checksum: 0,
        reserved: 0,
    };
    head.checksum = heads_checksum(&head, chunks.as_bytes());
    let mut block = Vec::with_capacity(total);
    block.extend_from_slice(head.as_bytes());
    block.extend_from_slice(chunks.as_bytes());
    block.extend_from_slice(&packed);
    block.resize(total, 0);
    block
}

fn smallest(chunks: &[ChunkHeader], events: &[u8]) -> (Packing, Vec<u8>) {
    // What would not come back the same is not packed: the original is about to go.
    let whole = |packing, packed: &[u8]| {
        unpack_events(packing, chunks, events.len(), packed).as_deref() == Some(events)
    };
    let columns = into_columns(chunks, events).unwrap_or_default();
    let useful = |packed: &[u8]| !packed.is_empty() && packed.len() < events.len();
    if useful(&columns) && whole(Packing::Columns, &columns) {
        return (Packing::Columns, columns);
    }
    let plain = lz4_flex::block::compress(events);
    if useful(&plain) && whole(Packing::Lz4, &plain) {
        return (Packing::Lz4, plain);
    }
    (Packing::Stored, events.to_vec())
}

/// The head of a block and those of its chunks, if `bytes` begin with them and they are whole.
pub(crate) fn read_heads(bytes: &[u8]) -> Option<(PackedBlock, Vec<ChunkHeader>)> {
    let (head, rest) = PackedBlock::read_from_prefix(bytes).ok()?;
    let directory = rest.get(..directory_bytes(&head)?)?;
    if head.checksum != heads_checksum(&head, directory) {
        return None;
    }
    let chunks: Vec<ChunkHeader> = directory
        .chunks_exact(CHUNK_HEADER_BYTES)
        .filter_map(|chunk| ChunkHeader::read_from_bytes(chunk).ok())
        .collect();
    let events: u64 = chunks
        .iter()
        .map(|chunk| u64::from(chunk.event_bytes))
        .sum();
    (events == u64::from(head.event_bytes)).then_some((head, chunks))
}

/// Bytes of the heads of the chunks; `None` where the head cannot be that of a block.
pub(crate) fn directory_bytes(head: &PackedBlock) -> Option<usize> {
    let directory = head.chunks as usize * CHUNK_HEADER_BYTES;
    let least = (PACKED_BLOCK_BYTES + directory) as u64 + u64::from(head.packed_bytes);
    let sound = (1..=MOST_CHUNKS).contains(&head.chunks)
        && head.event_bytes <= LARGEST_BLOCK_BYTES
        && head.packed_bytes <= LARGEST_BLOCK_BYTES
        && head.total_bytes.is_multiple_of(8)
        && u64::from(head.total_bytes) >= least;
    sound.then_some(directory)
}

/// The checksum covers all of the head before itself, and what follows the head.
fn heads_checksum(head: &PackedBlock, directory: &[u8]) -> u32 {
    let mut bytes = head.as_bytes()[..24].to_vec();
    bytes.extend_from_slice(directory);
    checksum(&bytes)
}

/// The events of a whole block. `None`: it is damaged.
pub(crate) fn unpack(head: &PackedBlock, chunks: &[ChunkHeader], packed: &[u8]) -> Option<Vec<u8>> {
    let packing = Packing::from_raw(head.packing)?;
    let events = unpack_events(packing, chunks, head.event_bytes as usize, packed)?;
    (checksum(&events) == head.events_checksum).then_some(events)
}

fn unpack_events(
    packing: Packing,
    chunks: &[ChunkHeader],
    length: usize,
    packed: &[u8],
) -> Option<Vec<u8>> {
    match packing {
        Packing::Stored => (packed.len() == length).then(|| packed.to_vec()),
        Packing::Lz4 => unpack_lz4(packed, length),
        Packing::Columns => from_columns(chunks, length, packed),
    }
}

fn unpack_lz4(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let unpacked = lz4_flex::block::decompress(packed, length).ok()?;
    (unpacked.len() == length).then_some(unpacked)
}

/// The range of each chunk in the events of its block.
pub(crate) fn chunk_ranges(chunks: &[ChunkHeader]) -> impl Iterator<Item = Range<usize>> + '_ {
    chunks.iter().scan(0, |end, chunk| {
        let start = *end;
        *end += chunk.event_bytes as usize;
        Some(start..*end)
    })
}

// ---- columns ---------------------------------------------------------------------------------------

/// Events into columns.
struct Splitter<'a> {
    events: std::slice::Iter<'a, u8>,
    columns: [Vec<u8>; COLUMNS],
}

impl Mover for Splitter<'_> {
    #[inline(always)]
    fn more(&self) -> bool {
        self.events.len() > 0
    }

    #[inline(always)]
    fn byte(&mut self, column: Column) -> Option<u8> {
        let byte = *self.events.next()?;
        self.columns[column as usize].push(byte);
        Some(byte)
    }
}

/// Columns into events, up to the end of a chunk.
struct Joiner<'a> {
    columns: [&'a [u8]; COLUMNS],
    events: &'a mut [u8],
    at: usize,
}

impl Mover for Joiner<'_> {
    #[inline(always)]
    fn more(&self) -> bool {
        self.at < self.events.len()
    }

    #[inline(always)]
    fn byte(&mut self, column: Column) -> Option<u8> {
        let place = self.events.get_mut(self.at)?;
        let (&byte, rest) = self.columns[column as usize].split_first()?;
        *place = byte;
        self.columns[column as usize] = rest;
        self.at += 1;
        Some(byte)
    }

    /// Eight bytes at once where there is room: what is too much is written over by what follows.
    #[inline(always)]
    fn number(&mut self, column: Column) -> Option<()> {
        let source = self.columns[column as usize];
        let place = self.events.get_mut(self.at..)?.first_chunk_mut();
        if let (Some(word), Some(place)) = (source.first_chunk::<8>(), place) {
            let ends = !u64::from_le_bytes(*word) & 0x8080_8080_8080_8080;
            if ends != 0 {
                let length = (ends.trailing_zeros() as usize >> 3) + 1;
                *place = *word;
                self.columns[column as usize] = source.get(length..)?;
                self.at += length;
                return Some(());
            }
        }
        varint(self, column).map(|_| ())
    }
}

/// `None` where the bytes are not events to their last.
fn into_columns(chunks: &[ChunkHeader], events: &[u8]) -> Option<Vec<u8>> {
    let mut splitter = Splitter {
        events: [].iter(),
        columns: Default::default(),
    };
    for range in chunk_ranges(chunks) {
        splitter.events = events.get(range)?.iter();
        move_events(&mut splitter)?;
    }
    let mut packed = vec![0; COLUMN_HEADS_BYTES];
    for (number, column) in splitter.columns.iter().enumerate() {
        let start = packed.len();
        let compressed = lz4_flex::block::compress(column);
        if compressed.len() < column.len() {
            packed.extend_from_slice(&compressed);
        } else {
            packed.extend_from_slice(column);
        }
        let lengths = [column.len(), packed.len() - start];
        for (place, length) in lengths.into_iter().enumerate() {
            let at = number * 8 + place * 4;
            packed[at..at + 4].copy_from_slice(&u32::try_from(length).ok()?.to_le_bytes());
        }
    }
    Some(packed)
}

fn from_columns(chunks: &[ChunkHeader], length: usize, packed: &[u8]) -> Option<Vec<u8>> {
    let (heads, mut rest) = packed.split_at_checked(COLUMN_HEADS_BYTES)?;
    let mut columns: [Vec<u8>; COLUMNS] = Default::default();
    let mut left = length;
    for (column, head) in columns.iter_mut().zip(heads.chunks_exact(8)) {
        let number = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize);
        let (unpacked_bytes, packed_bytes) = (number(&head[..4])?, number(&head[4..])?);
        // All columns together are as long as the events: nothing larger is ever made.
        left = left.checked_sub(unpacked_bytes)?;
        let (bytes, after) = rest.split_at_checked(packed_bytes)?;
        rest = after;
        *column = if packed_bytes == unpacked_bytes {
            bytes.to_vec()
        } else {
            unpack_lz4(bytes, unpacked_bytes)?
        };
    }
    // In place and not pushed one by one: whoever may have to grow keeps its length in memory.
    let mut events = vec![0; length];
    let mut columns = columns.each_ref().map(Vec::as_slice);
    let mut rest = events.as_mut_slice();
    for chunk in chunks {
        let (events, after) = rest.split_at_mut_checked(chunk.event_bytes as usize)?;
        rest = after;
        let mut joiner = Joiner {
            columns,
            events,
            at: 0,
        };
        move_events(&mut joiner)?;
        columns = joiner.columns;
    }
    (left == 0 && rest.is_empty()).then_some(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use heaptide_format::{Encoder, MOST_EVENT_BYTES, Site};

    fn chunk(sequence: u32, event_bytes: usize) -> ChunkHeader {
        ChunkHeader {
            stream: 3,
            sequence,
            thread: 1,
            event_bytes: u32::try_from(event_bytes).unwrap(),
        }
    }

    /// Every kind of event, in own turns and in shared ones.
    fn events(seed: u64, count: u64) -> Vec<u8> {
        let mut encoder = Encoder::new();
        let mut out = [0; MOST_EVENT_BYTES];
        let mut bytes = Vec::new();
        let mut random = seed | 1;
        for number in 0..count {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let address = 0x7f00_0000_0000 + (random % 5000) * 16;
            let site = Site {
                node: (random >> 20) as u32 % 50,
                allocator: 6,
                size: random % 9000,
            };
            let length = match random % 20 {
                _ if number % 50 == 0 => encoder.turn(&mut out, number / 25 + 1),
                0 => encoder.free_undone(&mut out, number),
                1 => encoder.unmapped(&mut out, address & !0xfff, 8192, number),
                2 => encoder.unmap_undone(&mut out, number),
                3..=10 => encoder.allocated(&mut out, address, site, number * 7),
                _ => encoder.freed(&mut out, address, number * 7),
            };
            bytes.extend_from_slice(&out[..length]);
        }
        bytes
    }

    fn unpacked(block: &[u8]) -> Option<Vec<u8>> {
        let (head, chunks) = read_heads(block)?;
        let start = PACKED_BLOCK_BYTES + size_of_val(chunks.as_slice());
        let end = start + head.packed_bytes as usize;
        unpack(&head, &chunks, block.get(start..end)?)
    }

    #[test]
    fn events_come_back_as_they_were() {
        for count in [0, 1, 7, 400, 20_000] {
            let parts = [events(count + 1, count), events(5, 300), events(9, count)];
            let chunks: Vec<_> = (0..).zip(&parts).map(|(n, p)| chunk(n, p.len())).collect();
            let all = parts.concat();
            let block = pack(&chunks, &all);
            let (head, heads) = read_heads(&block).unwrap();
            assert_eq!((heads, head.total_bytes as usize), (chunks, block.len()));
            assert_eq!(unpacked(&block).unwrap(), all);
            if count > 1000 {
                assert_eq!(head.packing, Packing::Columns as u32);
                assert!(block.len() * 10 < all.len() * 9, "{}", block.len());
            }
        }
    }

    #[test]
    fn what_is_no_event_is_packed_all_the_same() {
        // 0x07 is no event of this version.
        for (bytes, packing) in [
            (vec![7; 5000], Packing::Lz4),
            (vec![7, 1, 9], Packing::Stored),
        ] {
            let block = pack(&[chunk(0, bytes.len())], &bytes);
            assert_eq!(read_heads(&block).unwrap().0.packing, packing as u32);
            assert_eq!(unpacked(&block).unwrap(), bytes);
        }
        let mut cut = events(1, 1000);
        cut.pop();
        let block = pack(&[chunk(0, cut.len())], &cut);
        assert_eq!(unpacked(&block).unwrap(), cut);
    }

    #[test]
    fn no_damage_goes_unnoticed_or_is_more_than_an_error() {
        let bytes = events(3, 2000);
        let block = pack(&[chunk(0, bytes.len())], &bytes);
        for at in (0..block.len()).step_by(7).chain(0..200) {
            for bit in [1, 0x80] {
                let mut damaged = block.clone();
                damaged[at] ^= bit;
                // Bytes between blocks, and reserved ones, mean nothing.
                assert!(unpacked(&damaged).is_none_or(|events| events == bytes));
            }
        }
        for length in 0..block.len() {
            let _ = unpacked(&block[..length]);
        }
        assert!(unpacked(&block[..block.len() / 2]).is_none());
    }
}
