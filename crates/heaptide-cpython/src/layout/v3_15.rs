//! CPython 3.15: as 3.14, with a sentinel frame at the base of every thread.
use super::{CodeLayout, DebugOffsets, FrameFamily, FrameLayout, Layout, ThreadLayout};

pub(super) const LAYOUT: Layout = Layout {
    hexversion: 0x030f_0000,
    family: FrameFamily::V3_13,
    thread: ThreadLayout {
        thread_id: 176,
        frame: 72,
        c_frame_current: 0,
    },
    frame: FrameLayout {
        previous: 8,
        code: 0,
        instruction: 56,
        owner: 74,
        locals: 80,
    },
    code: CodeLayout {
        size: 216,
        flags: 48,
        first_line: 68,
        local_count: 72,
        name: 120,
        qualified_name: 128,
        file_name: 112,
        line_table: 136,
        first_traceable: 192,
        instructions: 208,
    },
    object: super::OBJECTS,
};

pub(super) const DEBUG_OFFSETS: DebugOffsets = DebugOffsets {
    thread_current_frame: 208,
    thread_thread_id: 240,
    frame_previous: 320,
    frame_executable: 328,
    frame_instr_ptr: 336,
    frame_localsplus: 344,
    frame_owner: 352,
    code_size: 376,
    code_filename: 384,
    code_name: 392,
    code_qualname: 400,
    code_linetable: 408,
    code_firstlineno: 416,
    code_co_code_adaptive: 448,
    object_size: 464,
    object_type: 472,
    type_flags: 504,
    bytes_length: 696,
    bytes_data: 704,
    str_state: 720,
    str_length: 728,
    str_ascii_size: 736,
};
