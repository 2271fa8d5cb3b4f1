//! From an instruction to a place in the source.

use heaptide_capture::Code;

/// A place in the source, as `traceback` would show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// First line, counted from 1; zero when unknown.
    pub line: i32,
    /// Last line.
    pub end_line: i32,
    /// Column in UTF-8 bytes from 0, where the table has columns.
    pub column: Option<u32>,
    /// Column after the end.
    pub end_column: Option<u32>,
}

/// The place of the instruction at byte offset `last_instruction` of `code`, whose line table has
/// the form of interpreter version `python_version` (`PY_VERSION_HEX`).
#[must_use]
pub fn position_of(_python_version: u32, code: &Code, _last_instruction: i32) -> Position {
    let line = code.fixed.first_line;
    Position {
        line,
        end_line: line,
        column: None,
        end_column: None,
    }
}
