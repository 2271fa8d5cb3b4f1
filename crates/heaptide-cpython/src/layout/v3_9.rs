//! CPython 3.9: frames are objects, `f_lasti` counts bytes, `co_lnotab`.
use super::{CodeLayout, FrameFamily, FrameLayout, Layout, ThreadLayout};

pub(super) const LAYOUT: Layout = Layout {
    hexversion: 0x0309_0000,
    family: FrameFamily::V3_9,
    thread: ThreadLayout {
        thread_id: 176,
        frame: 24,
        c_frame_current: 0,
    },
    frame: FrameLayout {
        previous: 24,
        code: 32,
        instruction: 104,
        owner: 0,
        entry: 0,
        locals: 360,
    },
    code: CodeLayout {
        size: 176,
        flags: 36,
        first_line: 40,
        local_count: 28,
        name: 112,
        qualified_name: 0,
        file_name: 104,
        line_table: 120,
        first_traceable: 0,
        instructions: 0,
    },
    object: super::OBJECTS_BEFORE_3_12,
    copies: super::NO_COPIES,
};
