//! CPython 3.14 without the GIL: objects have a larger head, and threads have copies of the byte code.
use super::{
    CodeLayout, CopiesLayout, FrameFamily, FrameLayout, Layout, ObjectLayout, ThreadLayout,
};

pub(super) const LAYOUT: Layout = Layout {
    hexversion: 0x030e_0000,
    family: FrameFamily::WithoutGil,
    thread: ThreadLayout {
        thread_id: 152,
        frame: 72,
        c_frame_current: 0,
    },
    frame: FrameLayout {
        previous: 8,
        code: 0,
        instruction: 56,
        owner: 78,
        entry: 0,
        locals: 80,
    },
    code: CodeLayout {
        size: 240,
        flags: 64,
        first_line: 84,
        local_count: 88,
        name: 136,
        qualified_name: 144,
        file_name: 128,
        line_table: 152,
        first_traceable: 208,
        instructions: 232,
    },
    object: ObjectLayout {
        type_: 24,
        type_flags: 184,
        bytes_length: 32,
        bytes_data: 48,
        str_length: 32,
        str_state: 48,
        str_ascii_size: 56,
        str_compact_size: 72,
        str_kind_shift: 8,
        type_dealloc: 64,
        type_name: 40,
    },
    copies: CopiesLayout {
        of_frame: 72,
        of_code: 224,
        code_units: 32,
        of_thread: 15_520,
        thread_number: 224,
        thread_status: 44,
    },
};
