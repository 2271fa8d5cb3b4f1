//! What a code object and a string say, as views into the interpreter's memory.

use core::slice;

use crate::frame::{pointer, read};
use crate::layout::Layout;

/// `Py_TPFLAGS_BYTES_SUBCLASS`.
const TYPE_IS_BYTES: usize = 1 << 27;
/// `Py_TPFLAGS_UNICODE_SUBCLASS`.
const TYPE_IS_STR: usize = 1 << 28;

/// The bit fields in a string's `state` from its kind on, the same in every version (tests/layout.rs).
mod state {
    pub(super) const KIND_MASK: u32 = 7;
    pub(super) const COMPACT: u32 = 1 << 3;
    pub(super) const ASCII: u32 = 1 << 4;
}

/// The text of a `str`, as the interpreter keeps it: Latin-1, UCS-2 or UCS-4, lone surrogates included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawStr<'a> {
    /// `kind` bytes per code point, in the machine's byte order.
    pub bytes: &'a [u8],
    /// 1, 2 or 4.
    pub kind: u8,
}

impl<'a> RawStr<'a> {
    /// The code points. Lone surrogates come as they are, which is why these are no `char`s.
    pub fn code_points(self) -> impl Iterator<Item = u32> + 'a {
        self.bytes
            .chunks_exact(usize::from(self.kind.max(1)))
            .map(|unit| match *unit {
                [a] => u32::from(a),
                [a, b] => u32::from(u16::from_ne_bytes([a, b])),
                [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
                _ => 0xfffd,
            })
    }
}

/// What a code object says.
#[derive(Clone, Copy, Debug)]
pub struct CodeView<'a> {
    /// `co_name`.
    pub name: RawStr<'a>,
    /// `co_qualname`, from 3.11 on.
    pub qualified_name: Option<RawStr<'a>>,
    /// `co_filename`.
    pub file_name: RawStr<'a>,
    /// `co_firstlineno`.
    pub first_line: i32,
    /// `co_flags`.
    pub flags: u32,
    /// `co_lnotab` or `co_linetable`, for [`crate::resolve_position`].
    pub line_table: &'a [u8],
}

/// The fields of a code object, or `None` when one of them is not what it should be.
///
/// # Safety
/// `code` is null or a code object that stays alive for `'a`, `layout` is that of the running interpreter. Code objects do not change the
/// fields that are read here, with one exception: `co_filename` is replaced when a module is imported from a moved `.pyc` file, which runs
/// Python. The views must be copied before the thread does.
#[must_use]
pub unsafe fn read_code<'a>(layout: &Layout, code: *const u8) -> Option<CodeView<'a>> {
    if code.is_null() {
        return None;
    }
    let fields = &layout.code;
    // SAFETY: `code` is a live code object (the caller) with its fields where the table says; each of them holds a reference to what it
    // points at, so that lives as long.
    unsafe {
        let qualified_name = match fields.qualified_name {
            0 => None,
            offset => Some(read_str(layout, pointer(code, offset))?),
        };
        Some(CodeView {
            name: read_str(layout, pointer(code, fields.name))?,
            qualified_name,
            file_name: read_str(layout, pointer(code, fields.file_name))?,
            first_line: read::<i32>(code, fields.first_line),
            flags: read::<u32>(code, fields.flags),
            line_table: read_bytes(layout, pointer(code, fields.line_table))?,
        })
    }
}

/// The text of a `str` object, or `None` when it is none (or one of 3.9 – 3.11 that has not been made ready).
///
/// # Safety
/// `object` is null or any Python object that stays alive for `'a`; `layout` is that of the running interpreter.
#[must_use]
pub unsafe fn read_str<'a>(layout: &Layout, object: *const u8) -> Option<RawStr<'a>> {
    let offsets = &layout.object;
    // SAFETY: `object` is null or a live object (the caller).
    if !unsafe { has_type_flag(layout, object, TYPE_IS_STR) } {
        return None;
    }
    // SAFETY: a `str`, so it has these fields.
    let (length, state) = unsafe {
        (
            read::<isize>(object, offsets.str_length),
            // What lies before the kind may change meanwhile, when the string is interned.
            read::<u32>(object, offsets.str_state) >> offsets.str_kind_shift,
        )
    };
    // Kind 0 is a string of 3.9 - 3.11 that still is an array of wchar_t.
    let kind = state & state::KIND_MASK;
    if !matches!(kind, 1 | 2 | 4) {
        return None;
    }
    let size = slice_length(length.checked_mul(kind as isize)?)?;
    let text = match (state & state::COMPACT != 0, state & state::ASCII != 0) {
        (true, true) => object.wrapping_add(offsets.str_ascii_size as usize),
        (true, false) => object.wrapping_add(offsets.str_compact_size as usize),
        // An instance of a subclass: the text is a block of its own.
        // SAFETY: a legacy string is a PyUnicodeObject, which has this pointer.
        (false, _) => unsafe { pointer(object, offsets.str_compact_size) },
    };
    if text.is_null() {
        return None;
    }
    // SAFETY: a ready string has `length` code points of `kind` bytes there, lives for 'a (the caller) and never changes.
    let bytes = unsafe { slice::from_raw_parts(text, size) };
    Some(RawStr {
        bytes,
        kind: kind as u8,
    })
}

/// # Safety
/// As for [`read_str`].
unsafe fn read_bytes<'a>(layout: &Layout, object: *const u8) -> Option<&'a [u8]> {
    // SAFETY: `object` is null or a live object (the caller).
    if !unsafe { has_type_flag(layout, object, TYPE_IS_BYTES) } {
        return None;
    }
    // SAFETY: a `bytes`, so it has its length there.
    let size = slice_length(unsafe { read::<isize>(object, layout.object.bytes_length) })?;
    // SAFETY: ... and that many bytes there, which live for 'a (the caller) and never change.
    Some(unsafe { slice::from_raw_parts(object.add(layout.object.bytes_data as usize), size) })
}

/// # Safety
/// `object` is null or a live object.
unsafe fn has_type_flag(layout: &Layout, object: *const u8, flag: usize) -> bool {
    if object.is_null() {
        return false;
    }
    // SAFETY: every live object has a type, which lives as long as it does.
    unsafe {
        let type_ = pointer(object, layout.object.type_);
        !type_.is_null() && read::<usize>(type_, layout.object.type_flags) & flag != 0
    }
}

fn slice_length(length: isize) -> Option<usize> {
    usize::try_from(length).ok()
}
