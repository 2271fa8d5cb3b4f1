//! Packs records, or definitions, into blocks, and unpacks them.
//!
//! Records of a table are alike: the fields of one are close to those of the one before. So each of their 32-bit words
//! becomes a column of differences, a byte or two each, before it is compressed.

use heaptide_format::{
    LARGEST_RECORD_BLOCK_BYTES, MOST_EXPANSION, RECORD_BLOCK_BYTES, RecordBlock, RecordPacking,
    checksum,
};
use zerocopy::{FromBytes, IntoBytes};

const WORD: usize = size_of::<u32>();
/// A difference of 32 bits takes up to five bytes.
const MOST_WORD_BYTES: usize = 5;

/// A block of `records`, at most [`LARGEST_RECORD_BLOCK_BYTES`] of them, each of `stride` bytes (zero: they have no common size).
pub(crate) fn pack(records: &[u8], stride: usize) -> Vec<u8> {
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let in_columns = into_columns(records, stride).map(|columns| {
        let packed = lz4_flex::block::compress(&columns);
        (RecordPacking::Columns, packed, columns.len())
    });
    let compressed = || {
        let packed = lz4_flex::block::compress(records);
        (RecordPacking::Lz4, packed, 0)
    };
    let make = |(packing, packed, column_bytes): (RecordPacking, Vec<u8>, usize)| {
        // Nothing may expand more than readers allow: what packs better is filled up.
        let least = records.len().div_ceil(MOST_EXPANSION as usize);
        let total = (RECORD_BLOCK_BYTES + packed.len())
            .max(least)
            .next_multiple_of(8);
        let mut head = RecordBlock {
            total_bytes: number(total),
            unpacked_bytes: number(records.len()),
            packed_bytes: number(packed.len()),
            packing: packing as u32,
            column_bytes: number(column_bytes),
            records_checksum: checksum(records),
            ..RecordBlock::default()
        };
        head.checksum = head.expected_checksum();
        let mut block = Vec::with_capacity(total);
        block.extend_from_slice(head.as_bytes());
        block.extend_from_slice(&packed);
        block.resize(total, 0);
        block
    };
    // What would not come back the same is not packed: the original is about to go.
    let is_whole = |block: &Vec<u8>| {
        let mut unpacked = Unpacked::default();
        block.len() < RECORD_BLOCK_BYTES + records.len()
            && read_head(block)
                .is_some_and(|head| unpacked.read(&head, stride, packed_part(&head, block)))
            && unpacked.records == records
    };
    in_columns
        .map(make)
        .filter(is_whole)
        .or_else(|| Some(make(compressed())).filter(is_whole))
        .unwrap_or_else(|| make((RecordPacking::Stored, records.to_vec(), 0)))
}

/// What was packed into `block`, which `head` begins.
fn packed_part<'a>(head: &RecordBlock, block: &'a [u8]) -> &'a [u8] {
    let rest = block.get(RECORD_BLOCK_BYTES..).unwrap_or_default();
    rest.get(..head.packed_bytes as usize).unwrap_or_default()
}

/// The head of a block, if `bytes` begin with one that is whole and claims nothing impossible.
pub(crate) fn read_head(bytes: &[u8]) -> Option<RecordBlock> {
    let (head, _) = RecordBlock::read_from_prefix(bytes).ok()?;
    let least = RECORD_BLOCK_BYTES as u64 + u64::from(head.packed_bytes);
    let most_columns = u64::from(head.unpacked_bytes) / WORD as u64 * MOST_WORD_BYTES as u64;
    let sound = head.checksum == head.expected_checksum()
        && head.unpacked_bytes <= LARGEST_RECORD_BLOCK_BYTES
        && u64::from(head.unpacked_bytes) <= u64::from(head.total_bytes) * MOST_EXPANSION
        && u64::from(head.column_bytes) <= most_columns
        && head.total_bytes.is_multiple_of(8)
        // No more than the largest block that was not worth packing.
        && (least..=u64::from(LARGEST_RECORD_BLOCK_BYTES) * 2)
            .contains(&u64::from(head.total_bytes));
    sound.then_some(head)
}

/// The records of a block, in memory that is used again.
#[derive(Default)]
pub(crate) struct Unpacked {
    pub(crate) records: Vec<u8>,
    columns: Vec<u8>,
}

impl Unpacked {
    /// False: what is packed there is damaged.
    pub(crate) fn read(&mut self, head: &RecordBlock, stride: usize, packed: &[u8]) -> bool {
        self.unpack(head, stride, packed).is_some()
            && checksum(&self.records) == head.records_checksum
    }

    fn unpack(&mut self, head: &RecordBlock, stride: usize, packed: &[u8]) -> Option<()> {
        let length = head.unpacked_bytes as usize;
        self.records.clear();
        match RecordPacking::from_raw(head.packing)? {
            RecordPacking::Stored => {
                self.records.extend_from_slice(packed);
                (packed.len() == length).then_some(())
            }
            RecordPacking::Lz4 => {
                self.records.resize(length, 0);
                fill(packed, &mut self.records)
            }
            RecordPacking::Columns => {
                self.columns.resize(head.column_bytes as usize, 0);
                fill(packed, &mut self.columns)?;
                self.records.resize(length, 0);
                from_columns(&self.columns, stride, &mut self.records)
            }
        }
    }
}

/// Fills all of `bytes` from an LZ4 block, or fails.
fn fill(packed: &[u8], bytes: &mut [u8]) -> Option<()> {
    let count = lz4_flex::block::decompress_into(packed, bytes).ok()?;
    (count == bytes.len()).then_some(())
}

/// Can records of `stride` bytes be sorted into columns, and are these `bytes` such records?
fn has_columns(bytes: &[u8], stride: usize) -> bool {
    !bytes.is_empty()
        && stride > 0
        && stride.is_multiple_of(WORD)
        && bytes.len().is_multiple_of(stride)
}

/// The first words of all records, then the second ones…: each as the zigzag difference to that of the record before
/// (the first: to zero), modulo 2³², as LEB128.
fn into_columns(records: &[u8], stride: usize) -> Option<Vec<u8>> {
    if !has_columns(records, stride) {
        return None;
    }
    let mut columns = Vec::with_capacity(records.len() / 2);
    for at in (0..stride).step_by(WORD) {
        let mut before = 0;
        for record in records.chunks_exact(stride) {
            let word = u32::from_le_bytes(record[at..at + WORD].try_into().ok()?);
            let difference = word.wrapping_sub(before).cast_signed();
            before = word;
            let mut rest = (difference << 1 ^ difference >> 31).cast_unsigned();
            while rest >= 0x80 {
                columns.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            columns.push(rest as u8);
        }
    }
    Some(columns)
}

fn from_columns(columns: &[u8], stride: usize, records: &mut [u8]) -> Option<()> {
    if !has_columns(records, stride) {
        return None;
    }
    let mut rest = columns.iter();
    for at in (0..stride).step_by(WORD) {
        let mut before = 0u32;
        for record in records.chunks_exact_mut(stride) {
            let mut number = 0u64;
            let mut shift = 0;
            loop {
                let byte = *rest.next()?;
                number |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
                shift += 7;
                if shift == 7 * MOST_WORD_BYTES {
                    return None;
                }
            }
            let number = u32::try_from(number).ok()?;
            let difference = number >> 1 ^ (number & 1).wrapping_neg();
            before = before.wrapping_add(difference);
            record[at..at + WORD].copy_from_slice(&before.to_le_bytes());
        }
    }
    rest.next().is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use heaptide_testkit::Random;

    fn unpacked(block: &[u8], stride: usize) -> Option<Vec<u8>> {
        let head = read_head(block)?;
        let mut unpacked = Unpacked::default();
        unpacked
            .read(&head, stride, packed_part(&head, block))
            .then_some(unpacked.records)
    }

    fn packing(block: &[u8]) -> RecordPacking {
        RecordPacking::from_raw(read_head(block).unwrap().packing).unwrap()
    }

    #[test]
    fn records_come_back_as_they_were() {
        let mut random = Random(7);
        let mut words = |count: usize, step: u64| -> Vec<u8> {
            let mut word = 0u32;
            (0..count)
                .flat_map(|_| {
                    word = word.wrapping_add(random.next() as u32 % step as u32);
                    word.to_le_bytes()
                })
                .collect()
        };
        for (records, stride, expected) in [
            (words(4096, 20), 16, RecordPacking::Columns),
            (words(24, 1 << 31), 96, RecordPacking::Stored),
            (vec![0xff; 4000], 40, RecordPacking::Columns),
            (vec![0; 256 << 10], 1024, RecordPacking::Columns),
            (b"a text ".repeat(1000), 0, RecordPacking::Lz4),
            (b"a text ".repeat(1000), 7, RecordPacking::Lz4),
            // Not whole records.
            (b"a text ".repeat(1001), 16, RecordPacking::Lz4),
            (words(1000, 1 << 31), 0, RecordPacking::Stored),
            (vec![], 16, RecordPacking::Stored),
        ] {
            let block = pack(&records, stride);
            assert_eq!(packing(&block), expected, "{stride}");
            assert_eq!(unpacked(&block, stride), Some(records), "{stride}");
        }
    }

    #[test]
    fn nothing_expands_without_bound() {
        let block = pack(&vec![0; 256 << 10], 16);
        assert_eq!(block.len(), 16 << 10);
        let mut head = read_head(&block).unwrap();
        head.total_bytes -= 8;
        head.checksum = head.expected_checksum();
        assert_eq!(read_head(head.as_bytes()), None);
    }

    #[test]
    fn damage_is_noticed() {
        let records: Vec<u8> = (0..2000u32).flat_map(|n| (n * n).to_le_bytes()).collect();
        let block = pack(&records, 8);
        let mut noticed = 0;
        for at in 0..block.len() {
            for bit in [1, 0x80] {
                let mut damaged = block.clone();
                damaged[at] ^= bit;
                match unpacked(&damaged, 8) {
                    None => noticed += 1,
                    // A byte that only fills up, or a length in LZ4 that nothing follows.
                    Some(same) => assert!(same == records, "byte {at}"),
                }
            }
        }
        assert!(noticed > block.len() * 2 - 30, "{noticed}");
    }

    #[test]
    fn impossible_columns_are_refused() {
        let mut records = [0; 16];
        // Too few, too many, more than 32 bits, a number without an end.
        for columns in [
            &[0; 3][..],
            &[0; 5],
            &[0xff, 0xff, 0xff, 0xff, 0x1f, 0, 0, 0],
            &[0x80; 20],
        ] {
            assert_eq!(from_columns(columns, 16, &mut records), None);
        }
        assert_eq!(from_columns(&[0; 4], 16, &mut records), Some(()));
        assert_eq!(from_columns(&[0; 4], 3, &mut records), None);
    }
}
