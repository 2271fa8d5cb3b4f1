//! CPython 3.14: `f_executable` and the locals are tagged references.
use super::{CodeLayout, DebugOffsets, FrameFamily, FrameLayout, Layout, ThreadLayout};

pub(super) const LAYOUT: Layout = Layout {
    hexversion: 0x030e_0000,
    family: FrameFamily::V3_13,
    thread: ThreadLayout {
        thread_id: 152,
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
    thread_thread_id: 216,
    frame_previous: 256,
    frame_executable: 264,
    frame_instr_ptr: 272,
    frame_localsplus: 280,
    frame_owner: 288,
    code_size: 312,
    code_filename: 320,
    code_name: 328,
    code_qualname: 336,
    code_linetable: 344,
    code_firstlineno: 352,
    code_co_code_adaptive: 384,
    object_size: 400,
    object_type: 408,
    type_flags: 440,
    bytes_length: 600,
    bytes_data: 608,
    str_state: 624,
    str_length: 632,
    str_ascii_size: 640,
};
