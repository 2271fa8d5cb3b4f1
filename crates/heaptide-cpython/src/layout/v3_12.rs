//! CPython 3.12: `_PyCFrame` without `use_tracing`; entry frames on the C stack; `str` without `wstr`.
use super::{CodeLayout, FrameFamily, FrameLayout, Layout, ThreadLayout};

pub(super) const LAYOUT: Layout = Layout {
    hexversion: 0x030c_0000,
    family: FrameFamily::V3_11,
    thread: ThreadLayout {
        thread_id: 136,
        frame: 56,
        c_frame_current: 0,
    },
    frame: FrameLayout {
        previous: 8,
        code: 0,
        instruction: 56,
        owner: 70,
        entry: 0,
        locals: 72,
    },
    code: CodeLayout {
        size: 200,
        flags: 48,
        first_line: 68,
        local_count: 72,
        name: 120,
        qualified_name: 128,
        file_name: 112,
        line_table: 136,
        first_traceable: 176,
        instructions: 192,
    },
    object: super::OBJECTS,
    copies: super::NO_COPIES,
};
