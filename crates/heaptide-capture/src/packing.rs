//! Packs the events of some chunks of one stream into a block, and unpacks them.

use std::ops::Range;

use heaptide_format::{
    CHUNK_HEADER_BYTES, COLUMNS, ChunkHeader, ColumnPlaces, InColumns, LARGEST_BLOCK_BYTES,
    PACKED_BLOCK_BYTES, PackedBlock, Packing, checksum, sort_fields,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::fingerprint::Fingerprint;

/// The lengths of a chunk's columns, or of all that were packed.
const LENGTHS_BYTES: usize = COLUMNS * 4;
/// Behind the last column, so that a word may be read from any place.
const ROOM_BEHIND: usize = 8;
/// Blocks have far fewer chunks: a stream's chunks begin at a page and double.
const MOST_CHUNKS: u32 = 4096;

/// Where the events of a chunk are in [`Unpacked::bytes`].
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// As they were written.
    Written(Range<usize>),
    /// In columns.
    Columns(Box<ColumnPlaces>),
}

impl Default for Place {
    fn default() -> Self {
        Self::Written(0..0)
    }
}

impl Place {
    /// Is nothing left there?
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Written(range) => range.is_empty(),
            Self::Columns(places) => places.at == places.ends,
        }
    }
}

/// The events of a block.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    pub(crate) bytes: Vec<u8>,
    /// Of its chunks.
    pub(crate) chunks: Vec<Place>,
}

/// Packs chunks whose events stand one after the other in `events`; `chunks` gives the lengths.
pub(crate) fn pack(chunks: &[ChunkHeader], events: &[u8]) -> Vec<u8> {
    let Packed {
        packing,
        bytes,
        sum,
    } = smallest(chunks, events);
    let heads = PACKED_BLOCK_BYTES + size_of_val(chunks);
    let total = (heads + bytes.len()).next_multiple_of(8);
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let mut head = PackedBlock {
        total_bytes: number(total),
        chunks: number(chunks.len()),
        event_bytes: number(events.len()),
        packed_bytes: number(bytes.len()),
        packing: packing as u32,
        events_checksum: sum,
        checksum: 0,
        reserved: 0,
    };
    head.checksum = heads_checksum(&head, chunks.as_bytes());
    let mut block = Vec::with_capacity(total);
    block.extend_from_slice(head.as_bytes());
    block.extend_from_slice(chunks.as_bytes());
    block.extend_from_slice(&bytes);
    block.resize(total, 0);
    block
}

struct Packed {
    packing: Packing,
    bytes: Vec<u8>,
    /// Of what comes out of it.
    sum: u32,
}

fn smallest(chunks: &[ChunkHeader], events: &[u8]) -> Packed {
    // What would not come back the same is not packed: the original is about to go.
    let comes_back = |packed: &Packed, unpacked: &mut Unpacked| {
        packed.bytes.len() < events.len()
            && unpack_bytes(
                packed.packing,
                chunks,
                events.len(),
                &packed.bytes,
                unpacked,
            ) == Some(packed.sum)
    };
    let mut unpacked = Unpacked::default();
    if let Some((columns, fingerprints)) = into_columns(chunks, events)
        && comes_back(&columns, &mut unpacked)
        && fingerprints_of(&unpacked).as_ref() == Some(&fingerprints)
    {
        return columns;
    }
    let plain = Packed {
        packing: Packing::Lz4,
        bytes: lz4_flex::block::compress(events),
        sum: checksum(events),
    };
    if comes_back(&plain, &mut unpacked) && unpacked.bytes == events {
        return plain;
    }
    Packed {
        packing: Packing::Stored,
        bytes: events.to_vec(),
        sum: plain.sum,
    }
}

/// Of each chunk in columns, as whoever reads them will decode them, to their last byte.
fn fingerprints_of(unpacked: &Unpacked) -> Option<Vec<Fingerprint>> {
    let fingerprint = |place: &Place| {
        let Place::Columns(places) = place else {
            return None;
        };
        let mut columns = InColumns::new(&unpacked.bytes, **places);
        let found = Fingerprint::of(&mut columns).ok()?;
        (columns.places().at == places.ends).then_some(found)
    };
    unpacked.chunks.iter().map(fingerprint).collect()
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

/// The events of a whole block, into memory that is used again. `None`: it is damaged.
pub(crate) fn unpack(
    head: &PackedBlock,
    chunks: &[ChunkHeader],
    packed: &[u8],
    unpacked: &mut Unpacked,
) -> Option<()> {
    let packing = Packing::from_raw(head.packing)?;
    let sum = unpack_bytes(packing, chunks, head.event_bytes as usize, packed, unpacked)?;
    (sum == head.events_checksum).then_some(())
}

/// Gives the checksum of what came out.
fn unpack_bytes(
    packing: Packing,
    chunks: &[ChunkHeader],
    length: usize,
    packed: &[u8],
    unpacked: &mut Unpacked,
) -> Option<u32> {
    unpacked.chunks.clear();
    let bytes = &mut unpacked.bytes;
    match packing {
        Packing::Stored => {
            bytes.clear();
            bytes.extend_from_slice(packed);
            if bytes.len() != length {
                return None;
            }
        }
        Packing::Lz4 => {
            bytes.resize(length, 0);
            unpack_lz4(packed, bytes)?;
        }
        Packing::Columns => return from_columns(chunks, packed, unpacked),
    }
    unpacked
        .chunks
        .extend(chunk_ranges(chunks).map(Place::Written));
    Some(checksum(bytes))
}

/// Fills all of the bytes, or fails.
fn unpack_lz4(packed: &[u8], bytes: &mut [u8]) -> Option<()> {
    let count = lz4_flex::block::decompress_into(packed, bytes).ok()?;
    (count == bytes.len()).then_some(())
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

type Lengths = [u32; COLUMNS];

/// `None` where the bytes are not events to their last.
///
/// The lengths of each chunk's columns, the packed lengths of the columns of all chunks, then these; and what the events of each chunk
/// come to.
fn into_columns(chunks: &[ChunkHeader], events: &[u8]) -> Option<(Packed, Vec<Fingerprint>)> {
    let mut columns: [Vec<u8>; COLUMNS] = Default::default();
    let mut packed = Vec::new();
    let mut fingerprints = Vec::with_capacity(chunks.len());
    for range in chunk_ranges(chunks) {
        let before = columns.each_ref().map(Vec::len);
        let mut fingerprint = Fingerprint::default();
        sort_fields(
            events.get(range)?,
            |column, byte| columns[column as usize].push(byte),
            |moment, event| fingerprint.add(moment, event),
        )?;
        fingerprints.push(fingerprint);
        for (column, before) in columns.iter().zip(before) {
            let length = u32::try_from(column.len() - before).ok()?;
            packed.extend_from_slice(&length.to_le_bytes());
        }
    }
    let mut unpacked = packed.clone();
    for column in &columns {
        unpacked.extend_from_slice(column);
    }
    let lengths_at = packed.len();
    packed.resize(lengths_at + LENGTHS_BYTES, 0);
    for (number, column) in columns.iter().enumerate() {
        let start = packed.len();
        let compressed = lz4_flex::block::compress(column);
        if compressed.len() < column.len() {
            packed.extend_from_slice(&compressed);
        } else {
            packed.extend_from_slice(column);
        }
        let length = u32::try_from(packed.len() - start).ok()?;
        packed[lengths_at + number * 4..][..4].copy_from_slice(&length.to_le_bytes());
    }
    let packed = Packed {
        packing: Packing::Columns,
        bytes: packed,
        sum: checksum(&unpacked),
    };
    Some((packed, fingerprints))
}

/// Nothing larger than the lengths and twice the events is ever made.
fn from_columns(chunks: &[ChunkHeader], packed: &[u8], unpacked: &mut Unpacked) -> Option<u32> {
    let heads_bytes = chunks.len() * LENGTHS_BYTES;
    let (heads, rest) = packed.split_at_checked(heads_bytes)?;
    let (packed_lengths, mut rest) = rest.split_at_checked(LENGTHS_BYTES)?;
    let mut lengths: Vec<Lengths> = Vec::with_capacity(chunks.len());
    let mut all = [0u64; COLUMNS];
    for (chunk, head) in chunks.iter().zip(heads.chunks_exact(LENGTHS_BYTES)) {
        let head = Lengths::read_from_bytes(head).ok()?;
        // Slots take two bytes here, and one where they are written: no chunk becomes more than twice as long.
        let sum: u64 = head.iter().copied().map(u64::from).sum();
        if sum > 2 * u64::from(chunk.event_bytes) {
            return None;
        }
        for (all, length) in all.iter_mut().zip(head) {
            *all += u64::from(length);
        }
        lengths.push(head);
    }
    let length = usize::try_from(all.iter().sum::<u64>()).ok()?;
    let bytes = &mut unpacked.bytes;
    bytes.clear();
    bytes.extend_from_slice(heads);
    bytes.resize(heads_bytes + length + ROOM_BEHIND, 0);
    let mut at = [0; COLUMNS];
    let mut end = heads_bytes;
    let packed_lengths = Lengths::read_from_bytes(packed_lengths).ok()?;
    for ((at, all), packed_length) in at.iter_mut().zip(all).zip(packed_lengths) {
        *at = end;
        end += usize::try_from(all).ok()?;
        let column = bytes.get_mut(*at..end)?;
        let (packed, after) = rest.split_at_checked(packed_length as usize)?;
        rest = after;
        if packed.len() == column.len() {
            column.copy_from_slice(packed);
        } else {
            unpack_lz4(packed, column)?;
        }
    }
    for lengths in lengths {
        let start = at;
        for (at, length) in at.iter_mut().zip(lengths) {
            *at += length as usize;
        }
        let places = ColumnPlaces {
            at: start,
            ends: at,
        };
        unpacked.chunks.push(Place::Columns(Box::new(places)));
    }
    (rest.is_empty()).then(|| checksum(&bytes[..heads_bytes + length]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use heaptide_format::{
        Decoder, Encoder, Event, Fields, MOST_EVENT_BYTES, Moment, Site, Written,
    };

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

    fn unpacked(block: &[u8]) -> Option<Unpacked> {
        let (head, chunks) = read_heads(block)?;
        let start = PACKED_BLOCK_BYTES + size_of_val(chunks.as_slice());
        let end = start + head.packed_bytes as usize;
        // As left by another block.
        let mut unpacked = Unpacked {
            bytes: vec![0xaa; 100],
            chunks: vec![Place::default(); 3],
        };
        unpack(&head, &chunks, block.get(start..end)?, &mut unpacked)?;
        Some(unpacked)
    }

    fn decoded(mut fields: impl Fields) -> Vec<(Moment, Event)> {
        let mut decoder = Decoder::new();
        std::iter::from_fn(|| decoder.next(&mut fields).unwrap()).collect()
    }

    /// The events of each chunk of a block.
    fn unpacked_events(block: &[u8]) -> Option<Vec<Vec<(Moment, Event)>>> {
        let unpacked = unpacked(block)?;
        let bytes = &unpacked.bytes;
        let events = |place: &Place| match place {
            Place::Written(range) => decoded(Written::new(&bytes[range.clone()], 0)),
            Place::Columns(places) => decoded(InColumns::new(bytes, **places)),
        };
        Some(unpacked.chunks.iter().map(events).collect())
    }

    /// The bytes of a block that is not in columns.
    fn unpacked_bytes(block: &[u8]) -> Vec<u8> {
        let unpacked = unpacked(block).unwrap();
        let range = |place: &Place| match place {
            Place::Written(range) => range.clone(),
            Place::Columns(_) => panic!("columns"),
        };
        let pieces = unpacked.chunks.iter().map(range);
        pieces
            .flat_map(|range| unpacked.bytes[range].to_vec())
            .collect()
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
            let expected = parts.map(|part| decoded(Written::new(&part, 0)));
            assert_eq!(unpacked_events(&block).unwrap(), expected);
            if count > 1000 {
                assert_eq!(head.packing, Packing::Columns as u32);
                assert!(block.len() * 10 < all.len() * 9, "{}", block.len());
            }
        }
    }

    #[test]
    fn what_is_no_event_is_packed_all_the_same() {
        // 255 is no event of this version.
        for (bytes, packing) in [
            (vec![255; 5000], Packing::Lz4),
            (vec![255, 1, 9], Packing::Stored),
        ] {
            let block = pack(&[chunk(0, bytes.len())], &bytes);
            assert_eq!(read_heads(&block).unwrap().0.packing, packing as u32);
            assert_eq!(unpacked_bytes(&block), bytes);
        }
        let mut cut = events(1, 1000);
        cut.pop();
        let block = pack(&[chunk(0, cut.len())], &cut);
        assert_eq!(unpacked_bytes(&block), cut);
    }

    #[test]
    fn no_damage_goes_unnoticed_or_is_more_than_an_error() {
        let parts = [events(3, 2000), events(4, 300)];
        let bytes = parts.concat();
        let chunks: Vec<_> = (0..).zip(&parts).map(|(n, p)| chunk(n, p.len())).collect();
        let block = pack(&chunks, &bytes);
        assert_eq!(
            read_heads(&block).unwrap().0.packing,
            Packing::Columns as u32
        );
        let whole = unpacked_events(&block).unwrap();
        for at in (0..block.len()).step_by(7).chain(0..200) {
            for bit in [1, 0x80] {
                let mut damaged = block.clone();
                damaged[at] ^= bit;
                // Bytes between blocks, and reserved ones, mean nothing.
                assert!(unpacked_events(&damaged).is_none_or(|events| events == whole));
            }
        }
        for length in 0..block.len() {
            let _ = unpacked(&block[..length]);
        }
        assert!(unpacked(&block[..block.len() / 2]).is_none());
    }
}
