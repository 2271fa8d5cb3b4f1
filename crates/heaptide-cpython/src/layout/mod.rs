//! Where the fields of the interpreter's structures lie, by version.
//!
//! One table per minor version (`v3_9.rs` …), checked by `tests/layout.rs` against the real headers. From 3.13 on the interpreter describes
//! itself at the head of `_PyRuntime`; what it says there wins over the table, and what it leaves out comes from the table.

mod debug_offsets;
mod v3_10;
mod v3_11;
mod v3_12;
mod v3_13;
mod v3_14;
mod v3_14t;
mod v3_15;
mod v3_9;

pub use debug_offsets::DebugOffsets;

use crate::Unsupported;

/// The ways in which CPython has kept its frames. Callers branch on it once per walk, not once per frame: see [`crate::Family`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameFamily {
    /// 3.9, 3.10: the chain is made of `PyFrameObject`s, and every one of them is shown.
    V3_9,
    /// 3.11, 3.12: `_PyInterpreterFrame`s below a `_PyCFrame`; the instruction is the code unit before the next one.
    V3_11,
    /// 3.13 and later: no `_PyCFrame`; the instruction is the running one; the code object is a tagged reference from 3.14 on.
    V3_13,
    /// 3.14 without the GIL: as before, but a frame's instruction may lie in a copy of the byte code that is its thread's own.
    WithoutGil,
}

/// Offsets in `PyThreadState`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadLayout {
    /// `thread_id`: the `pthread_t` of the thread.
    pub thread_id: u32,
    /// `frame` (3.9, 3.10), `cframe` (3.11, 3.12), `current_frame` (3.13 and later).
    pub frame: u32,
    /// `current_frame` in the `_PyCFrame` that `frame` points at; only in [`FrameFamily::V3_11`].
    pub c_frame_current: u32,
}

/// Offsets in `PyFrameObject` (3.9, 3.10) or `_PyInterpreterFrame`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLayout {
    /// `f_back` or `previous`.
    pub previous: u32,
    /// `f_code` or `f_executable`.
    pub code: u32,
    /// `f_lasti` (an `int`), `prev_instr` or `instr_ptr` (pointers).
    pub instruction: u32,
    /// `owner`, one byte. Zero where there is none (3.9, 3.10).
    pub owner: u32,
    /// `is_entry`, one byte. Zero where there is none (all versions but 3.11).
    pub entry: u32,
    /// `f_localsplus` or `localsplus`.
    pub locals: u32,
}

/// Offsets in `PyCodeObject`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeLayout {
    /// Size of the structure. Not used to read; a different one means that the table is for another interpreter.
    pub size: u32,
    /// `co_flags`.
    pub flags: u32,
    /// `co_firstlineno`.
    pub first_line: u32,
    /// `co_nlocals` (3.9, 3.10) or `co_nlocalsplus`.
    pub local_count: u32,
    /// `co_name`.
    pub name: u32,
    /// `co_qualname`. Zero where there is none (3.9, 3.10).
    pub qualified_name: u32,
    /// `co_filename`.
    pub file_name: u32,
    /// `co_lnotab` (3.9) or `co_linetable`.
    pub line_table: u32,
    /// `_co_firsttraceable`. Zero where there is none (3.9, 3.10).
    pub first_traceable: u32,
    /// `co_code_adaptive`, the byte code itself. Zero where it is a separate object (3.9, 3.10).
    pub instructions: u32,
}

/// Offsets in the heads of objects, types, `bytes` and `str`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLayout {
    /// `ob_type`.
    pub type_: u32,
    /// `tp_flags` of a type.
    pub type_flags: u32,
    /// `ob_size` of a `bytes`.
    pub bytes_length: u32,
    /// `ob_sval` of a `bytes`.
    pub bytes_data: u32,
    /// `length` of a `str`, in code points.
    pub str_length: u32,
    /// `state` of a `str`, a word of bit fields.
    pub str_state: u32,
    /// Size of `PyASCIIObject`: the text of a compact ASCII string follows it.
    pub str_ascii_size: u32,
    /// Size of `PyCompactUnicodeObject`: the text of any other compact string, or the pointer to the text of a legacy one, follows it.
    pub str_compact_size: u32,
    /// The first bit of the kind within `state`, behind what says whether the `str` is interned.
    pub str_kind_shift: u32,
    /// `tp_dealloc` of a type.
    pub type_dealloc: u32,
    /// `tp_name` of a type.
    pub type_name: u32,
}

/// Offsets, in bytes, of what builds without the GIL need for the copies of the byte code that their threads have. All zero with the GIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopiesLayout {
    /// `tlbc_index` of a frame: the number of the copy that its instruction is in.
    pub of_frame: u32,
    /// `co_tlbc` of a code object: all copies, the first of which is the code object's own.
    pub of_code: u32,
    /// `ob_size` of a code object: the length of each, in code units.
    pub code_units: u32,
    /// `tlbc_index` of a thread state: the number of the thread's copies.
    pub of_thread: u32,
    /// `id` of a thread state, which no other of the same interpreter ever has.
    pub thread_number: u32,
    /// `state` of a thread state: whether it is attached.
    pub thread_status: u32,
}

/// Field offsets of one interpreter version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `PY_VERSION_HEX` of the interpreter.
    pub hexversion: u32,
    /// How it keeps its frames.
    pub family: FrameFamily,
    /// `PyThreadState`.
    pub thread: ThreadLayout,
    /// `PyFrameObject` or `_PyInterpreterFrame`.
    pub frame: FrameLayout,
    /// `PyCodeObject`.
    pub code: CodeLayout,
    /// Objects, types and strings.
    pub object: ObjectLayout,
    /// Copies of byte code.
    pub copies: CopiesLayout,
}

impl Layout {
    /// The layout of the interpreter with this `PY_VERSION_HEX`. From 3.13 on the head of `_PyRuntime` is read as well.
    ///
    /// # Safety
    /// `py_runtime` is the address of `_PyRuntime` in an interpreter of that version. It is not looked at before 3.13.
    ///
    /// # Errors
    /// When the version, or the build, is not one that can be read.
    pub unsafe fn detect(hexversion: u32, py_runtime: *const u8) -> Result<Layout, Unsupported> {
        let table = Self::table(hexversion)?;
        match DebugOffsets::for_version(hexversion) {
            None => Ok(table),
            // SAFETY: the caller says that this is `_PyRuntime` of this version, which begins with the structure described.
            Some(offsets) => unsafe { offsets.apply(table, py_runtime) },
        }
    }

    /// As [`Layout::table`], of a build without the GIL.
    ///
    /// # Errors
    /// When there is no table for that.
    pub const fn table_without_gil(hexversion: u32) -> Result<Layout, Unsupported> {
        match Self::table(hexversion) {
            Ok(_) if hexversion >> 16 == 0x030e => {
                let mut table = v3_14t::LAYOUT;
                table.hexversion = hexversion;
                Ok(table)
            }
            Ok(_) => Err(Unsupported::FreeThreaded),
            Err(error) => Err(error),
        }
    }

    /// The table alone, without what the interpreter says of itself. With the GIL.
    ///
    /// # Errors
    /// When there is no table for this version.
    pub const fn table(hexversion: u32) -> Result<Layout, Unsupported> {
        // Release level: 0xa alpha, 0xb beta, 0xc candidate, 0xf final. Candidates have the layout of the release.
        let is_settled = hexversion >> 4 & 0xf >= 0xc;
        let mut table = match hexversion >> 16 {
            0..=0x0308 => return Err(Unsupported::TooOld { hexversion }),
            0x0309 => v3_9::LAYOUT,
            0x030a => v3_10::LAYOUT,
            0x030b => v3_11::LAYOUT,
            0x030c => v3_12::LAYOUT,
            0x030d => v3_13::LAYOUT,
            0x030e => v3_14::LAYOUT,
            0x030f => v3_15::LAYOUT,
            _ => return Err(Unsupported::TooNew { hexversion }),
        };
        if !is_settled {
            return Err(Unsupported::PreRelease { hexversion });
        }
        table.hexversion = hexversion;
        Ok(table)
    }
}

/// The heads of objects have changed once: 3.12 took `wstr` and its length out of `str`.
const OBJECTS_BEFORE_3_12: ObjectLayout = ObjectLayout {
    str_ascii_size: 48,
    str_compact_size: 72,
    ..OBJECTS
};
const OBJECTS: ObjectLayout = ObjectLayout {
    type_: 8,
    type_flags: 168,
    bytes_length: 16,
    bytes_data: 32,
    str_length: 16,
    str_state: 32,
    str_ascii_size: 40,
    str_compact_size: 56,
    str_kind_shift: 2,
    type_dealloc: 48,
    type_name: 24,
};
/// With the GIL there is one byte code.
const NO_COPIES: CopiesLayout = CopiesLayout {
    of_frame: 0,
    of_code: 0,
    code_units: 0,
    of_thread: 0,
    thread_number: 0,
    thread_status: 0,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_outside_the_table_are_named() {
        let old = 0x0308_12f0;
        assert_eq!(
            Layout::table(old),
            Err(Unsupported::TooOld { hexversion: old })
        );
        assert_eq!(
            Layout::table(0x0207_12f0),
            Err(Unsupported::TooOld {
                hexversion: 0x0207_12f0
            })
        );
        let new = 0x0310_00f0;
        assert_eq!(
            Layout::table(new),
            Err(Unsupported::TooNew { hexversion: new })
        );
        let beta = 0x030f_00b4;
        assert_eq!(
            Layout::table(beta),
            Err(Unsupported::PreRelease { hexversion: beta })
        );
        assert!(
            Layout::table(0x030f_00c1).is_ok(),
            "a release candidate has the layout of the release"
        );
        let without_gil =
            |hexversion| Layout::table_without_gil(hexversion).map(|table| table.family);
        assert_eq!(without_gil(0x030e_04f0), Ok(FrameFamily::WithoutGil));
        assert_eq!(without_gil(0x030d_05f0), Err(Unsupported::FreeThreaded));
        assert_eq!(without_gil(0x030f_00f0), Err(Unsupported::FreeThreaded));
        assert_eq!(
            without_gil(0x030e_00b1),
            Err(Unsupported::PreRelease {
                hexversion: 0x030e_00b1
            })
        );
        assert_eq!(
            Unsupported::TooOld { hexversion: old }.to_string(),
            "CPython 3.8.18 is too old: 3.9 is the first supported version"
        );
    }
}
