//! CPython 3.13: the thread state points at the frame itself, and the interpreter describes itself in `_PyRuntime`.
use super::{CodeLayout, DebugOffsets, FrameFamily, FrameLayout, Layout, ThreadLayout};

pub(super) const LAYOUT: Layout = Layout {
    hexversion: 0x030d_0000,
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
        owner: 70,
        locals: 72,
    },
    code: CodeLayout {
        size: 208,
        flags: 48,
        first_line: 68,
        local_count: 72,
        name: 120,
        qualified_name: 128,
        file_name: 112,
        line_table: 136,
        first_traceable: 184,
        instructions: 200,
    },
    object: super::OBJECTS,
};

pub(super) const DEBUG_OFFSETS: DebugOffsets = DebugOffsets {
    thread_current_frame: 184,
    thread_thread_id: 192,
    frame_previous: 232,
    frame_executable: 240,
    frame_instr_ptr: 248,
    frame_localsplus: 256,
    frame_owner: 264,
    code_size: 272,
    code_filename: 280,
    code_name: 288,
    code_qualname: 296,
    code_linetable: 304,
    code_firstlineno: 312,
    code_co_code_adaptive: 344,
    object_size: 352,
    object_type: 360,
    type_flags: 392,
    bytes_length: 520,
    bytes_data: 528,
    str_state: 544,
    str_length: 552,
    str_ascii_size: 560,
};
