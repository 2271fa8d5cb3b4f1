//! CPython 3.11: `_PyInterpreterFrame`s on the data stack; `use_tracing` comes first in `_PyCFrame`.
use super::{CodeLayout, FrameFamily, FrameLayout, Layout, ThreadLayout};

pub(super) const LAYOUT: Layout = Layout {
    hexversion: 0x030b_0000,
    family: FrameFamily::V3_11,
    thread: ThreadLayout {
        thread_id: 152,
        frame: 56,
        c_frame_current: 8,
    },
    frame: FrameLayout {
        previous: 48,
        code: 32,
        instruction: 56,
        owner: 69,
        entry: 68,
        locals: 72,
    },
    code: CodeLayout {
        size: 192,
        flags: 48,
        first_line: 72,
        local_count: 76,
        name: 120,
        qualified_name: 128,
        file_name: 112,
        line_table: 136,
        first_traceable: 168,
        instructions: 184,
    },
    object: super::OBJECTS_BEFORE_3_12,
    copies: super::NO_COPIES,
};
