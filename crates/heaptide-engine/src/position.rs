//! From an instruction to a place in the source.

use heaptide_capture::Code;
use heaptide_cpython::{LineTableForm, resolve_position};

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
/// the form of interpreter version `python_version` (`PY_VERSION_HEX`). For versions whose form is
/// not known it is the first line of the function.
#[must_use]
pub fn position_of(python_version: u32, code: &Code, last_instruction: i32) -> Position {
    let first_line = code.fixed.first_line;
    let Some(form) = LineTableForm::for_version(python_version) else {
        return Position::of_line(first_line);
    };
    let position = resolve_position(form, &code.line_table, first_line, last_instruction);
    let line = position.line.map_or(0, signed);
    Position {
        line,
        end_line: position.end_line.map_or(line, signed),
        column: position.column,
        end_column: position.end_column,
    }
}

impl Position {
    /// A place of which only the line is known.
    #[must_use]
    pub fn of_line(line: i32) -> Self {
        Self {
            line,
            end_line: line,
            column: None,
            end_column: None,
        }
    }
}

fn signed(line: u32) -> i32 {
    i32::try_from(line).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use heaptide_capture::CodeFixedFields;
    use heaptide_testkit::linetable;

    #[test]
    fn lines_and_columns_come_from_the_table() {
        let code = Code {
            fixed: CodeFixedFields {
                first_line: 100,
                ..CodeFixedFields::default()
            },
            line_table: linetable::one_instruction_a_line(3).into(),
        };
        let expected = Position {
            line: 102,
            end_line: 102,
            column: Some(linetable::COLUMN),
            end_column: Some(linetable::END_COLUMN),
        };
        assert_eq!(position_of(0x030c_0df0, &code, 4), expected);
        assert_eq!(position_of(0x030c_0df0, &code, -1), Position::of_line(100));
        assert_eq!(position_of(0, &code, 4), Position::of_line(100));
    }
}
