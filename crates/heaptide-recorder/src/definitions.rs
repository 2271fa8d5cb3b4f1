//! Strings and code objects: described once, by content, so that a code object compiled again and
//! again in a loop is one definition.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use heaptide_format::{
    CodeFixed, DefinitionHeader, DefinitionKind, MetadataKey, SEGMENT_HEADER_BYTES, SegmentHeader,
    SegmentKind, StringEncoding,
};

use crate::file::{CaptureFile, Stop};
use crate::hash::mix_bytes;
use crate::index::Index;
use crate::memory::Mapping;

/// Payload of an ordinary definitions segment.
const SEGMENT_PAYLOAD: usize = (64 << 10) - SEGMENT_HEADER_BYTES;
/// Longer strings are cut, longer line tables left out (the line is then the first of the function).
const LONGEST_STRING: usize = 16 << 10;
const LONGEST_LINE_TABLE: usize = 1 << 20;
/// How many strings may be described, and how many code objects.
pub(crate) const MOST_DEFINITIONS: u32 = (1 << 18) - 2;

const DIRECTORY_SHIFT: u32 = 12;
const DIRECTORY_CHUNKS: usize = (MOST_DEFINITIONS >> DIRECTORY_SHIFT) as usize + 1;

/// A string as CPython stores it: code points of one, two or four bytes.
#[derive(Clone, Copy, Debug)]
pub struct RawText<'a> {
    /// The bytes, a whole number of code points.
    pub bytes: &'a [u8],
    /// Bytes per code point: 1, 2 or 4; 0 for UTF-8.
    pub kind: u8,
}

/// What is worth keeping of a code object.
#[derive(Clone, Copy, Debug)]
pub struct CodeText<'a> {
    /// `co_name`
    pub name: RawText<'a>,
    /// `co_qualname`, or the name again.
    pub qualified_name: RawText<'a>,
    /// `co_filename`
    pub file_name: RawText<'a>,
    /// `co_firstlineno`
    pub first_line: i32,
    /// `co_flags`
    pub flags: u32,
    /// `co_lnotab` or `co_linetable`
    pub line_table: &'a [u8],
}

/// Writer of the definitions. All methods under the growth lock.
pub(crate) struct Definitions {
    segment: AtomicPtr<u8>,
    strings: Kind,
    codes: Kind,
}

struct Kind {
    index: Index,
    count: AtomicU32,
    /// Number to definition, in private chunks.
    directory: [AtomicPtr<*const u8>; DIRECTORY_CHUNKS],
}

impl Kind {
    const fn new() -> Self {
        Self {
            index: Index::new(),
            count: AtomicU32::new(0),
            directory: [const { AtomicPtr::new(core::ptr::null_mut()) }; DIRECTORY_CHUNKS],
        }
    }

    /// Payload of definition `number`.
    fn payload(&self, number: u32) -> &[u8] {
        // SAFETY: numbers come from `add`, which filled the directory; definitions never move or change.
        unsafe {
            let chunk =
                self.directory[(number >> DIRECTORY_SHIFT) as usize].load(Ordering::Relaxed);
            let header = *chunk.add((number & ((1 << DIRECTORY_SHIFT) - 1)) as usize);
            let length = (*header.cast::<DefinitionHeader>()).payload_bytes as usize;
            core::slice::from_raw_parts(header.add(size_of::<DefinitionHeader>()), length)
        }
    }

    fn remember(&self, number: u32, header: *const u8) -> bool {
        let Some(slot) = self.directory.get((number >> DIRECTORY_SHIFT) as usize) else {
            return false;
        };
        let mut chunk = slot.load(Ordering::Relaxed);
        if chunk.is_null() {
            let Some(mapping) = Mapping::new(size_of::<*const u8>() << DIRECTORY_SHIFT) else {
                return false;
            };
            chunk = mapping.leak();
            slot.store(chunk, Ordering::Relaxed);
        }
        // SAFETY: the chunk has 1 << DIRECTORY_SHIFT entries.
        unsafe { *chunk.add((number & ((1 << DIRECTORY_SHIFT) - 1)) as usize) = header };
        true
    }

    /// # Safety
    /// Nobody asks for a definition any more.
    unsafe fn release(&self) {
        for slot in &self.directory {
            let chunk = slot.swap(core::ptr::null_mut(), Ordering::Relaxed);
            // SAFETY: what `remember` has made, and nobody else has.
            drop(unsafe { Mapping::reclaim(chunk, size_of::<*const u8>() << DIRECTORY_SHIFT) });
        }
    }
}

impl Definitions {
    pub(crate) const fn new() -> Self {
        Self {
            segment: AtomicPtr::new(core::ptr::null_mut()),
            strings: Kind::new(),
            codes: Kind::new(),
        }
    }

    /// Gives the private memory back.
    ///
    /// # Safety
    /// This value is overwritten next.
    pub(crate) unsafe fn release(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            self.strings.release();
            self.codes.release();
        }
    }

    /// Number of the code object with this content; `Ok(None)` when the table is full.
    pub(crate) fn code(
        &self,
        file: &CaptureFile,
        code: &CodeText<'_>,
    ) -> Result<Option<u32>, Stop> {
        let (Some(name), Some(qualified_name), Some(file_name)) = (
            self.string(file, code.name)?,
            self.string(file, code.qualified_name)?,
            self.string(file, code.file_name)?,
        ) else {
            return Ok(None);
        };
        let line_table = if code.line_table.len() > LONGEST_LINE_TABLE {
            &[]
        } else {
            code.line_table
        };
        let fixed = CodeFixed {
            name,
            qualified_name,
            file_name,
            first_line: code.first_line,
            line_table_bytes: line_table.len() as u32,
            flags: code.flags,
        };
        self.define(
            file,
            &self.codes,
            DefinitionKind::Code,
            0,
            bytes_of(&fixed),
            line_table,
        )
    }

    pub(crate) fn string(
        &self,
        file: &CaptureFile,
        text: RawText<'_>,
    ) -> Result<Option<u32>, Stop> {
        let encoding = match text.kind {
            0 => StringEncoding::Utf8,
            2 => StringEncoding::Ucs2,
            4 => StringEncoding::Ucs4,
            _ => StringEncoding::Ucs1,
        };
        let bytes = if text.bytes.len() > LONGEST_STRING {
            &text.bytes[..LONGEST_STRING]
        } else {
            text.bytes
        };
        // The encoding is part of the key: the same bytes are other text in another width.
        self.define(
            file,
            &self.strings,
            DefinitionKind::String,
            encoding as u32,
            &[],
            bytes,
        )
    }

    /// A fact about the run.
    pub(crate) fn metadata(
        &self,
        file: &CaptureFile,
        key: MetadataKey,
        text: &[u8],
    ) -> Result<(), Stop> {
        self.write(file, DefinitionKind::Metadata, key as u32, 0, &[], text)
            .map(|_| ())
    }

    fn define(
        &self,
        file: &CaptureFile,
        kind: &Kind,
        what: DefinitionKind,
        encoding: u32,
        head: &[u8],
        tail: &[u8],
    ) -> Result<Option<u32>, Stop> {
        let seed = |encoding: u32| u64::from(encoding);
        let hash_parts = |head: &[u8], tail: &[u8]| mix_bytes(mix_bytes(0, head), tail);
        // A definition's payload is head then tail; heads of one kind have one length.
        let split = head.len();
        let encoding_of = |number: u32| {
            let payload = kind.payload(number);
            // SAFETY: the payload of a definition follows its header.
            unsafe {
                (*payload
                    .as_ptr()
                    .sub(size_of::<DefinitionHeader>())
                    .cast::<DefinitionHeader>())
                .encoding
            }
        };
        let hash = crate::mix(hash_parts(head, tail), seed(encoding));
        let found = kind.index.find(hash, |number| {
            let payload = kind.payload(number);
            payload.len() == head.len() + tail.len()
                && encoding_of(number) == encoding
                && payload.starts_with(head)
                && payload.ends_with(tail)
        });
        if found.is_some() {
            return Ok(found);
        }
        let number = kind.count.load(Ordering::Relaxed);
        if number >= MOST_DEFINITIONS {
            return Ok(None);
        }
        let header = self.write(file, what, number, encoding, head, tail)?;
        if !kind.remember(number, header) {
            return Ok(None);
        }
        kind.count.store(number + 1, Ordering::Relaxed);
        kind.index.insert(file, hash, number, |other| {
            let (head, tail) = kind.payload(other).split_at(split);
            crate::mix(hash_parts(head, tail), seed(encoding_of(other)))
        })?;
        Ok(Some(number))
    }

    fn write(
        &self,
        file: &CaptureFile,
        what: DefinitionKind,
        id: u32,
        encoding: u32,
        head: &[u8],
        tail: &[u8],
    ) -> Result<*const u8, Stop> {
        let payload = head.len() + tail.len();
        let total = DefinitionHeader::total_bytes_for(payload);
        let mut segment = self.segment.load(Ordering::Relaxed);
        let mut at = 0;
        // SAFETY: `segment` is null or a live definitions segment that only this lock's holder writes.
        unsafe {
            if !segment.is_null() {
                at = (*segment.cast::<SegmentHeader>()).committed as usize;
            }
            if segment.is_null()
                || SEGMENT_HEADER_BYTES + at + total
                    > (*segment.cast::<SegmentHeader>()).capacity as usize
            {
                segment = file
                    .append(SegmentKind::Definitions, SEGMENT_PAYLOAD.max(total), 0, 0)?
                    .as_ptr();
                self.segment.store(segment, Ordering::Relaxed);
                at = 0;
            }
            let start = segment.add(SEGMENT_HEADER_BYTES + at);
            let body = start.add(size_of::<DefinitionHeader>());
            core::ptr::copy_nonoverlapping(head.as_ptr(), body, head.len());
            core::ptr::copy_nonoverlapping(tail.as_ptr(), body.add(head.len()), tail.len());
            start.cast::<DefinitionHeader>().write(DefinitionHeader {
                total_bytes: total as u32,
                kind: what as u32,
                id,
                encoding,
                payload_bytes: payload as u32,
                checksum: heaptide_format::checksum(core::slice::from_raw_parts(body, payload)),
            });
            let committed = segment
                .add(core::mem::offset_of!(SegmentHeader, committed))
                .cast::<u64>();
            // Release: a reader that sees the length sees the definition.
            AtomicU64::from_ptr(committed).store((at + total) as u64, Ordering::Release);
            Ok(start)
        }
    }
}

fn bytes_of(fixed: &CodeFixed) -> &[u8] {
    // SAFETY: plain data without padding (the format crate derives `IntoBytes`, which proves it).
    unsafe {
        core::slice::from_raw_parts(core::ptr::from_ref(fixed).cast(), size_of::<CodeFixed>())
    }
}
