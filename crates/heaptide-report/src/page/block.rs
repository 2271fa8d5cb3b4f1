//! The data of a page: a head (JSON) and columns of numbers, deflated, in base64.
//!
//! Before compression: the head's length (32 bits, little-endian), the head, and the columns one
//! after another as LEB128. The head lists their names, encodings and lengths under `columns`.
//! `web/src/model/block.ts` is the reading side.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::Value;

/// The data of a page.
#[derive(Default)]
pub(crate) struct Block {
    /// An object; `columns` is added to it.
    pub(crate) head: Value,
    columns: Vec<(&'static str, &'static str, usize)>,
    bytes: Vec<u8>,
}

impl Block {
    /// Adds a column of numbers as they are.
    pub(crate) fn plain(&mut self, name: &'static str, values: impl IntoIterator<Item = u64>) {
        let mut count = 0;
        for value in values {
            push_leb128(&mut self.bytes, value);
            count += 1;
        }
        self.columns.push((name, "plain", count));
    }

    /// Adds a column as differences, for numbers that are close to their predecessors.
    pub(crate) fn delta(&mut self, name: &'static str, values: impl IntoIterator<Item = u64>) {
        let mut count = 0;
        let mut previous = 0u64;
        for value in values {
            let difference = value.wrapping_sub(previous) as i64;
            // Zigzag: small numbers of either sign are small.
            push_leb128(
                &mut self.bytes,
                ((difference << 1) ^ (difference >> 63)) as u64,
            );
            previous = value;
            count += 1;
        }
        self.columns.push((name, "delta", count));
    }

    /// Writes the block as base64 of a zlib stream.
    pub(crate) fn write(mut self, out: &mut dyn Write) -> io::Result<()> {
        if let Value::Object(head) = &mut self.head {
            let columns = self.columns.iter().map(|&(name, encoding, count)| {
                Value::from(vec![
                    Value::from(name),
                    Value::from(encoding),
                    Value::from(count),
                ])
            });
            head.insert("columns".to_owned(), columns.collect());
        }
        let head = serde_json::to_vec(&self.head)?;
        let length = u32::try_from(head.len())
            .map_err(|_| io::Error::other("the names of the capture do not fit into a page"))?;
        let mut base64 = Base64Writer::new(out);
        let mut encoder = ZlibEncoder::new(&mut base64, Compression::default());
        encoder.write_all(&length.to_le_bytes())?;
        encoder.write_all(&head)?;
        encoder.write_all(&self.bytes)?;
        encoder.finish()?;
        base64.finish()
    }
}

fn push_leb128(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes what is written to it; [`Base64Writer::finish`] writes the end.
struct Base64Writer<'a> {
    out: &'a mut dyn Write,
    /// Up to two bytes that wait for a third.
    pending: Vec<u8>,
}

impl<'a> Base64Writer<'a> {
    fn new(out: &'a mut dyn Write) -> Self {
        let pending = Vec::with_capacity(3);
        Self { out, pending }
    }

    fn finish(self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut end = encoded(&self.pending);
        for filler in &mut end[self.pending.len() + 1..] {
            *filler = b'=';
        }
        self.out.write_all(&end)
    }
}

/// Up to three bytes, missing ones taken as zero.
fn encoded(bytes: &[u8]) -> [u8; 4] {
    let byte = |index: usize| u32::from(bytes.get(index).copied().unwrap_or(0));
    let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift & 63) as usize])
}

impl Write for Base64Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = Vec::with_capacity(bytes.len() / 3 * 4 + 8);
        let mut rest = bytes;
        while !self.pending.is_empty() && self.pending.len() < 3 {
            let Some((&first, after)) = rest.split_first() else {
                return Ok(bytes.len());
            };
            self.pending.push(first);
            rest = after;
        }
        if self.pending.len() == 3 {
            text.extend_from_slice(&encoded(&self.pending));
            self.pending.clear();
        }
        let chunks = rest.chunks_exact(3);
        self.pending.extend_from_slice(chunks.remainder());
        for chunk in chunks {
            text.extend_from_slice(&encoded(chunk));
        }
        self.out.write_all(&text)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut writer = Base64Writer::new(&mut out);
        for piece in pieces {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn base64_of_any_length_in_any_pieces() {
        assert_eq!(base64(&[]), "");
        assert_eq!(base64(&[b"f"]), "Zg==");
        assert_eq!(base64(&[b"fo"]), "Zm8=");
        assert_eq!(base64(&[b"foo"]), "Zm9v");
        assert_eq!(base64(&[b"\xff\xfe\xfd"]), "//79");
        let whole = base64(&[b"any carnal pleasure."]);
        assert_eq!(whole, "YW55IGNhcm5hbCBwbGVhc3VyZS4=");
        for split in 0..20 {
            let (one, other) = b"any carnal pleasure.".split_at(split);
            assert_eq!(base64(&[one, b"", other]), whole);
            let bytes: Vec<&[u8]> = one.chunks(1).chain(other.chunks(2)).collect();
            assert_eq!(base64(&bytes), whole);
        }
    }

    #[test]
    fn numbers_of_any_size() {
        let mut block = Block::default();
        block.plain("a", [0, 127, 128, u64::MAX]);
        assert_eq!(block.bytes.len(), 1 + 1 + 2 + 10);
        let mut block = Block::default();
        block.delta("b", [5, 4, 4, u64::MAX, 0]);
        assert_eq!(block.bytes, [10, 1, 0, 9, 2]);
    }
}
