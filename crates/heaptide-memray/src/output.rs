//! A capture of heaptide under construction.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use heaptide_format::{
    CodeFixed, DefinitionHeader, DefinitionKind, HEADER_BYTES, Header, MetadataKey,
    SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind, StringEncoding, checksum,
};
use rustc_hash::FxHashMap;
use zerocopy::{Immutable, IntoBytes};

/// Segments begin and end on such.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Definitions are written out when there are so many bytes of them.
const DEFINITIONS_BYTES: usize = 1 << 20;

/// A file that gets one segment after the other, and its header last.
pub(crate) struct Output {
    file: BufWriter<File>,
    end: u64,
    definitions: Vec<u8>,
    strings: FxHashMap<Box<[u8]>, u32>,
    failed: Option<io::Error>,
}

impl Output {
    pub(crate) fn new(file: File) -> Self {
        let mut output = Self {
            file: BufWriter::with_capacity(1 << 20, file),
            end: 0,
            definitions: Vec::new(),
            strings: FxHashMap::default(),
            failed: None,
        };
        output.write(&[0; HEADER_BYTES]);
        output
    }

    /// The first error is kept, and nothing is written after it.
    fn write(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.file.write_all(bytes).err();
        }
        self.end += bytes.len() as u64;
    }

    /// Whether all went well so far.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    pub(crate) fn segment(
        &mut self,
        kind: SegmentKind,
        first_index: u64,
        record_bytes: usize,
        payload: &[&[u8]],
    ) {
        let length: usize = payload.iter().map(|piece| piece.len()).sum();
        let used = SEGMENT_HEADER_BYTES + length;
        let capacity = used.next_multiple_of(PAGE_BYTES);
        let mut header =
            SegmentHeader::new(kind, capacity as u64, first_index, record_bytes as u32);
        header.committed = length as u64;
        self.write(header.as_bytes());
        for piece in payload {
            self.write(piece);
        }
        self.write(&[0; PAGE_BYTES][..capacity - used]);
    }

    pub(crate) fn records<T: IntoBytes + Immutable>(
        &mut self,
        kind: SegmentKind,
        first_index: u64,
        records: &[T],
    ) {
        self.segment(kind, first_index, size_of::<T>(), &[records.as_bytes()]);
    }

    fn definition(&mut self, kind: DefinitionKind, id: u32, pieces: &[&[u8]]) {
        let payload = pieces.concat();
        let total = DefinitionHeader::total_bytes_for(payload.len());
        let header = DefinitionHeader {
            total_bytes: total as u32,
            kind: kind as u32,
            id,
            encoding: StringEncoding::Utf8 as u32,
            payload_bytes: payload.len() as u32,
            checksum: checksum(&payload),
        };
        let end = self.definitions.len() + total;
        self.definitions.extend_from_slice(header.as_bytes());
        self.definitions.extend_from_slice(&payload);
        self.definitions.resize(end, 0);
        if end > DEFINITIONS_BYTES {
            self.write_definitions();
        }
    }

    fn write_definitions(&mut self) {
        let definitions = std::mem::take(&mut self.definitions);
        self.segment(SegmentKind::Definitions, 0, 0, &[&definitions]);
    }

    pub(crate) fn metadata(&mut self, key: MetadataKey, value: &[u8]) {
        self.definition(DefinitionKind::Metadata, key as u32, &[value]);
    }

    /// The number of a string.
    pub(crate) fn string(&mut self, text: &[u8]) -> u32 {
        if let Some(&number) = self.strings.get(text) {
            return number;
        }
        let number = self.strings.len() as u32;
        self.strings.insert(text.into(), number);
        self.definition(DefinitionKind::String, number, &[text]);
        number
    }

    pub(crate) fn code(
        &mut self,
        number: u32,
        function: &[u8],
        file: &[u8],
        first_line: i32,
        line_table: &[u8],
    ) {
        let name = self.string(function);
        let fixed = CodeFixed {
            name,
            qualified_name: name,
            file_name: self.string(file),
            first_line,
            line_table_bytes: line_table.len() as u32,
            flags: 0,
        };
        self.definition(
            DefinitionKind::Code,
            number,
            &[fixed.as_bytes(), line_table],
        );
    }

    /// The whole file.
    pub(crate) fn finish(mut self, header: &mut Header) -> io::Result<File> {
        self.write_definitions();
        self.check()?;
        header.lifecycle.allocated_end = self.end;
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.write_all_at(header.as_bytes(), 0)?;
        Ok(file)
    }
}
