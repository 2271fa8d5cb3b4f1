//! What CPython 3.13 and later say of themselves at the head of `_PyRuntime` (`_Py_DebugOffsets`).
//!
//! The structure exists for tools that read an interpreter from another process. It names most of the fields that a walk needs, so a build
//! whose structures were moved by a patch is read rightly all the same. It does not name `co_flags`, `co_nlocalsplus` and
//! `_co_firsttraceable`: those come from the table, and only when the code object has the size that the table knows.

use super::{
    CodeLayout, CopiesLayout, FrameFamily, FrameLayout, Layout, ObjectLayout, ThreadLayout, v3_13,
    v3_14, v3_15,
};
use crate::Unsupported;

/// Offsets *within* `_Py_DebugOffsets`, which grows in the middle with every version, of the entries that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "named after the entries of the interpreter's structure, group first"
)]
pub struct DebugOffsets {
    pub thread_current_frame: usize,
    pub thread_thread_id: usize,
    pub frame_previous: usize,
    pub frame_executable: usize,
    pub frame_instr_ptr: usize,
    pub frame_localsplus: usize,
    pub frame_owner: usize,
    pub frame_tlbc_index: usize,
    pub code_size: usize,
    pub code_filename: usize,
    pub code_name: usize,
    pub code_qualname: usize,
    pub code_linetable: usize,
    pub code_firstlineno: usize,
    pub code_co_code_adaptive: usize,
    pub code_co_tlbc: usize,
    pub object_size: usize,
    pub object_type: usize,
    pub type_flags: usize,
    pub bytes_length: usize,
    pub bytes_data: usize,
    pub str_state: usize,
    pub str_length: usize,
    pub str_ascii_size: usize,
}

/// The first bytes of `_Py_DebugOffsets`, the same in every version.
const COOKIE: &[u8; 8] = b"xdebugpy";
const VERSION: usize = 8;
const FREE_THREADED: usize = 16;

/// No field of interest lies further out than this; `PyThreadState` is the largest structure.
const LARGEST_OFFSET: u64 = 4096;
/// Size of a `PyObject` with nothing but its count and its type.
const OBJECT_SIZE: u64 = 16;
/// ... and without the GIL, where there are two counts, the number of a thread, a lock and flags.
const OBJECT_SIZE_WITHOUT_GIL: u64 = 32;

impl DebugOffsets {
    /// The offsets for a version, or `None` before 3.13 and for versions that are not known.
    #[must_use]
    pub const fn for_version(hexversion: u32) -> Option<Self> {
        match hexversion >> 16 {
            0x030d => Some(v3_13::DEBUG_OFFSETS),
            0x030e => Some(v3_14::DEBUG_OFFSETS),
            0x030f => Some(v3_15::DEBUG_OFFSETS),
            _ => None,
        }
    }

    /// `table` with everything replaced that the interpreter itself names.
    ///
    /// # Safety
    /// `py_runtime` is `_PyRuntime` of an interpreter of the version that `self` is for.
    pub(super) unsafe fn apply(
        &self,
        table: Layout,
        py_runtime: *const u8,
    ) -> Result<Layout, Unsupported> {
        if py_runtime.is_null() {
            return Err(Unsupported::BadDebugOffsets);
        }
        // SAFETY: `_PyRuntime` is kilobytes long in every version and static, so its first bytes can be read whatever they say.
        let word = |offset: usize| unsafe { py_runtime.add(offset).cast::<u64>().read_unaligned() };
        // SAFETY: as above.
        if unsafe { py_runtime.cast::<[u8; 8]>().read_unaligned() } != *COOKIE
            || word(VERSION) != u64::from(table.hexversion)
        {
            return Err(Unsupported::BadDebugOffsets);
        }
        let (table, object_size) = if word(FREE_THREADED) == 0 {
            (table, OBJECT_SIZE)
        } else {
            let table = Layout::table_without_gil(table.hexversion)?;
            (table, OBJECT_SIZE_WITHOUT_GIL)
        };
        // Debug builds with Py_TRACE_REFS put two pointers before the count.
        if word(self.object_size) != object_size {
            return Err(Unsupported::TraceReferences);
        }
        if word(self.code_size) != u64::from(table.code.size) {
            return Err(Unsupported::BadDebugOffsets);
        }
        let offset = |entry: usize, alignment: u64| -> Result<u32, Unsupported> {
            let value = word(entry);
            if value >= LARGEST_OFFSET || value % alignment != 0 {
                return Err(Unsupported::BadDebugOffsets);
            }
            #[expect(
                clippy::cast_possible_truncation,
                reason = "smaller than LARGEST_OFFSET"
            )]
            Ok(value as u32)
        };
        let copies = match table.family {
            FrameFamily::WithoutGil => CopiesLayout {
                of_frame: offset(self.frame_tlbc_index, 4)?,
                of_code: offset(self.code_co_tlbc, 8)?,
                ..table.copies
            },
            _ => table.copies,
        };
        Ok(Layout {
            copies,
            thread: ThreadLayout {
                thread_id: offset(self.thread_thread_id, 8)?,
                frame: offset(self.thread_current_frame, 8)?,
                ..table.thread
            },
            frame: FrameLayout {
                previous: offset(self.frame_previous, 8)?,
                code: offset(self.frame_executable, 8)?,
                instruction: offset(self.frame_instr_ptr, 8)?,
                owner: offset(self.frame_owner, 1)?,
                entry: 0,
                locals: offset(self.frame_localsplus, 8)?,
            },
            code: CodeLayout {
                first_line: offset(self.code_firstlineno, 4)?,
                name: offset(self.code_name, 8)?,
                qualified_name: offset(self.code_qualname, 8)?,
                file_name: offset(self.code_filename, 8)?,
                line_table: offset(self.code_linetable, 8)?,
                instructions: offset(self.code_co_code_adaptive, 2)?,
                ..table.code
            },
            object: ObjectLayout {
                type_: offset(self.object_type, 8)?,
                type_flags: offset(self.type_flags, 8)?,
                bytes_length: offset(self.bytes_length, 8)?,
                bytes_data: offset(self.bytes_data, 1)?,
                str_length: offset(self.str_length, 8)?,
                str_state: offset(self.str_state, 4)?,
                str_ascii_size: offset(self.str_ascii_size, 8)?,
                ..table.object
            },
            ..table
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `_PyRuntime` of 3.14.2 that says what the table says.
    fn runtime() -> (DebugOffsets, Vec<u8>) {
        described(v3_14::LAYOUT, OBJECT_SIZE as u32)
    }

    fn described(table: Layout, object_size: u32) -> (DebugOffsets, Vec<u8>) {
        let offsets = v3_14::DEBUG_OFFSETS;
        let mut bytes = vec![0; 1024];
        bytes[..8].copy_from_slice(COOKIE);
        let mut put = |at: usize, value: u32| {
            bytes[at..at + 8].copy_from_slice(&u64::from(value).to_le_bytes());
        };
        put(VERSION, 0x030e_02f0);
        put(offsets.thread_current_frame, table.thread.frame);
        put(offsets.thread_thread_id, table.thread.thread_id);
        put(offsets.frame_previous, table.frame.previous);
        put(offsets.frame_executable, table.frame.code);
        put(offsets.frame_instr_ptr, table.frame.instruction);
        put(offsets.frame_localsplus, table.frame.locals);
        put(offsets.frame_owner, table.frame.owner);
        put(offsets.code_size, table.code.size);
        put(offsets.code_filename, table.code.file_name);
        put(offsets.code_name, table.code.name);
        put(offsets.code_qualname, table.code.qualified_name);
        put(offsets.code_linetable, table.code.line_table);
        put(offsets.code_firstlineno, table.code.first_line);
        put(offsets.code_co_code_adaptive, table.code.instructions);
        put(
            FREE_THREADED,
            u32::from(table.family == FrameFamily::WithoutGil),
        );
        put(offsets.frame_tlbc_index, table.copies.of_frame);
        put(offsets.code_co_tlbc, table.copies.of_code);
        put(offsets.object_size, object_size);
        put(offsets.object_type, table.object.type_);
        put(offsets.type_flags, table.object.type_flags);
        put(offsets.bytes_length, table.object.bytes_length);
        put(offsets.bytes_data, table.object.bytes_data);
        put(offsets.str_state, table.object.str_state);
        put(offsets.str_length, table.object.str_length);
        put(offsets.str_ascii_size, table.object.str_ascii_size);
        (offsets, bytes)
    }

    fn detect(bytes: &[u8]) -> Result<Layout, Unsupported> {
        assert!(bytes.len() >= 1024);
        // SAFETY: as long as any entry that is read.
        unsafe { Layout::detect(0x030e_02f0, bytes.as_ptr()) }
    }

    #[test]
    fn what_the_interpreter_says_wins() {
        let (offsets, mut bytes) = runtime();
        assert_eq!(detect(&bytes), Layout::table(0x030e_02f0));
        bytes[offsets.thread_current_frame] = 96;
        assert_eq!(detect(&bytes).unwrap().thread.frame, 96);
    }

    #[test]
    fn a_build_without_the_gil_has_a_table_of_its_own() {
        let table = Layout::table_without_gil(0x030e_02f0).unwrap();
        let (offsets, mut bytes) = described(table, OBJECT_SIZE_WITHOUT_GIL as u32);
        assert_eq!(detect(&bytes), Ok(table));
        bytes[offsets.frame_tlbc_index] = 76;
        assert_eq!(detect(&bytes).unwrap().copies.of_frame, 76);
        bytes[offsets.frame_tlbc_index] = 77;
        assert_eq!(detect(&bytes), Err(Unsupported::BadDebugOffsets));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (offsets, good) = runtime();
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            detect(&bytes)
        };
        assert_eq!(with(0, b'X'), Err(Unsupported::BadDebugOffsets), "cookie");
        assert_eq!(
            with(VERSION + 1, 3),
            Err(Unsupported::BadDebugOffsets),
            "another version"
        );
        assert_eq!(
            with(FREE_THREADED, 1),
            Err(Unsupported::TraceReferences),
            "without the GIL objects are larger"
        );
        assert_eq!(
            with(offsets.object_size, 32),
            Err(Unsupported::TraceReferences)
        );
        assert_eq!(
            with(offsets.code_size, 8),
            Err(Unsupported::BadDebugOffsets),
            "another code object"
        );
        assert_eq!(
            with(offsets.frame_previous, 9),
            Err(Unsupported::BadDebugOffsets),
            "alignment"
        );
        assert_eq!(
            with(offsets.frame_previous + 3, 1),
            Err(Unsupported::BadDebugOffsets),
            "far out"
        );
        // SAFETY: null is never read.
        let nowhere = unsafe { Layout::detect(0x030e_02f0, core::ptr::null()) };
        assert_eq!(nowhere, Err(Unsupported::BadDebugOffsets));
    }
}
