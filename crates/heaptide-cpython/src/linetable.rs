//! From an instruction to its place in the source, by the tables that the compiler leaves in a code object.
//!
//! For the reading side: the bytes come from a file, so nothing is believed. Safe code without a panic or a loop that the length of the table
//! does not bound.
//!
//! Three forms have been used. All of them are lists of steps that each cover the next few bytes of byte code:
//!
//! | form | step |
//! |---|---|
//! | 3.9 `co_lnotab` | (bytes covered, *then* change of the line), one byte each, the second signed |
//! | 3.10 `co_linetable` | (bytes covered, change of the line *before* them), the second signed, -128 for "no line" |
//! | 3.11 `co_linetable` | a head byte `1 kkkk nnn` (kind, code units covered minus one), then what the kind says |
//!
//! The kinds of the last form: 0-9 columns in one byte, same line; 10-12 columns in two bytes, line 0-2 further; 13 a signed number, the change
//! of the line, no columns; 14 change of the line, lines spanned, column + 1, end column + 1; 15 no location. Numbers are little-endian groups
//! of six bits, bit 6 saying that more follow; the sign is the lowest bit. Every byte of a step but the head has bit 7 clear.

#![forbid(unsafe_code)]

use core::iter;
use core::ops::Range;

/// How a version writes its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineTableForm {
    /// 3.9, `co_lnotab`.
    Lnotab,
    /// 3.10, `co_linetable` with lines only.
    Linetable310,
    /// 3.11 and later, `co_linetable` with columns.
    Locations,
}

impl LineTableForm {
    /// The form that the version with this `PY_VERSION_HEX` writes, or `None` if it is not known.
    #[must_use]
    pub const fn for_version(hexversion: u32) -> Option<Self> {
        match hexversion >> 16 {
            0x0309 => Some(Self::Lnotab),
            0x030a => Some(Self::Linetable310),
            0x030b..=0x030f => Some(Self::Locations),
            _ => None,
        }
    }
}

/// A place in the source, as `co_positions()` has it: lines from 1, columns in bytes of UTF-8 from 0, ends exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The first line. None for instructions that belong to no line.
    pub line: Option<u32>,
    /// The last line; known from 3.11 on.
    pub end_line: Option<u32>,
    /// The column in the first line; known from 3.11 on, unless compiled with `-X no_debug_ranges`.
    pub column: Option<u32>,
    /// The column in the last line.
    pub end_column: Option<u32>,
}

impl Position {
    fn of_line(line: i32) -> Self {
        Self {
            line: u32::try_from(line).ok(),
            ..Self::default()
        }
    }
}

/// The place of one instruction. `last_instruction` counts bytes, and is negative before the first instruction: that is the first line.
#[must_use]
pub fn resolve_position(
    form: LineTableForm,
    table: &[u8],
    first_line: i32,
    last_instruction: i32,
) -> Position {
    if last_instruction < 0 {
        return Position::of_line(first_line);
    }
    positions(form, table, first_line)
        .find(|(range, _)| range.end > last_instruction)
        .map_or_else(Position::default, |(_, position)| position)
}

/// Every step of the table: the bytes of byte code that it covers, ascending and without gaps, and their place.
pub fn positions(
    form: LineTableForm,
    table: &[u8],
    first_line: i32,
) -> impl Iterator<Item = (Range<i32>, Position)> + '_ {
    let mut steps = Steps {
        form,
        rest: table,
        line: first_line,
        is_over: false,
    };
    let mut end = 0_i32;
    iter::from_fn(move || {
        let (length, position) = steps.next()?;
        let start = end;
        end = end.saturating_add(length);
        Some((start..end, position))
    })
    // Steps that cover nothing, and whatever lies past the largest offset.
    .filter(|(range, _)| !range.is_empty())
}

/// The steps of a table, with the length of what they cover in bytes.
struct Steps<'a> {
    form: LineTableForm,
    rest: &'a [u8],
    line: i32,
    is_over: bool,
}

impl Steps<'_> {
    fn next(&mut self) -> Option<(i32, Position)> {
        match self.form {
            LineTableForm::Lnotab => self.next_lnotab(),
            LineTableForm::Linetable310 => self.next_linetable_310(),
            LineTableForm::Locations => self.next_location(),
        }
    }

    fn next_lnotab(&mut self) -> Option<(i32, Position)> {
        let position = Position::of_line(self.line);
        if let &[length, change, ref rest @ ..] = self.rest {
            self.rest = rest;
            self.line = self.line.saturating_add(i32::from(change.cast_signed()));
            return Some((i32::from(length), position));
        }
        // The last line goes on to the end of the byte code, wherever that is.
        let is_over = core::mem::replace(&mut self.is_over, true);
        (!is_over).then_some((i32::MAX, position))
    }

    fn next_linetable_310(&mut self) -> Option<(i32, Position)> {
        const NO_LINE: i8 = -128;
        let &[length, change, ref rest @ ..] = self.rest else {
            return None;
        };
        self.rest = rest;
        let position = match change.cast_signed() {
            NO_LINE => Position::default(),
            change => {
                self.line = self.line.saturating_add(i32::from(change));
                Position::of_line(self.line)
            }
        };
        Some((i32::from(length), position))
    }

    fn next_location(&mut self) -> Option<(i32, Position)> {
        const CODE_UNIT: i32 = 2;
        let head = self.next_byte()?;
        let length = (i32::from(head & 7) + 1) * CODE_UNIT;
        let kind = head >> 3 & 15;
        let position = match kind {
            0..=9 => {
                let byte = self.next_byte()?;
                let column = u32::from(kind) << 3 | u32::from(byte >> 4 & 7);
                self.location(0, Some(column), Some(column + u32::from(byte & 15)))
            }
            10..=12 => {
                let column = u32::from(self.next_byte()?);
                let end_column = u32::from(self.next_byte()?);
                self.location(i32::from(kind) - 10, Some(column), Some(end_column))
            }
            13 => {
                let change = self.next_signed()?;
                self.location(change, None, None)
            }
            14 => {
                let change = self.next_signed()?;
                let span = self.next_number()?;
                let column = self.next_number()?.checked_sub(1);
                let end_column = self.next_number()?.checked_sub(1);
                let position = self.location(change, column, end_column);
                Position {
                    end_line: position.line.map(|line| line.saturating_add(span)),
                    ..position
                }
            }
            _ => Position::default(),
        };
        Some((length, position))
    }

    /// A place on one line, `change` lines after the place before.
    fn location(&mut self, change: i32, column: Option<u32>, end_column: Option<u32>) -> Position {
        self.line = self.line.saturating_add(change);
        let line = u32::try_from(self.line).ok();
        Position {
            line,
            end_line: line,
            column,
            end_column,
        }
    }

    fn next_byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Six bits a byte. Groups beyond the 32nd bit are read and dropped.
    fn next_number(&mut self) -> Option<u32> {
        const MORE: u8 = 0x40;
        let mut number = 0_u32;
        let mut shift = 0_u32;
        loop {
            let byte = self.next_byte()?;
            number |= u32::from(byte & 0x3f).checked_shl(shift).unwrap_or(0);
            shift = shift.saturating_add(6);
            if byte & MORE == 0 {
                return Some(number);
            }
        }
    }

    fn next_signed(&mut self) -> Option<i32> {
        let number = self.next_number()?;
        let magnitude = (number >> 1).cast_signed();
        Some(if number & 1 == 0 {
            magnitude
        } else {
            -magnitude
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(line: u32) -> Position {
        Position {
            line: Some(line),
            ..Position::default()
        }
    }

    fn at(line: u32, end_line: u32, columns: Option<(u32, u32)>) -> Position {
        Position {
            line: Some(line),
            end_line: Some(end_line),
            column: columns.map(|c| c.0),
            end_column: columns.map(|c| c.1),
        }
    }

    fn check(form: LineTableForm, table: &[u8], expect: &[(Range<i32>, Position)]) {
        let steps: Vec<_> = positions(form, table, 10).collect();
        assert_eq!(steps, expect);
        for (range, position) in expect {
            for instruction in range.clone().take(64) {
                assert_eq!(
                    resolve_position(form, table, 10, instruction),
                    *position,
                    "at {instruction}"
                );
            }
        }
        assert_eq!(
            resolve_position(form, table, 10, -1).line,
            Some(10),
            "before the first instruction"
        );
    }

    #[test]
    fn lnotab() {
        check(LineTableForm::Lnotab, &[], &[(0..i32::MAX, line(10))]);
        // Two lines down for free, six bytes, one line back, and the last line without an end.
        check(
            LineTableForm::Lnotab,
            &[0, 2, 6, 0xff, 4, 0],
            &[
                (0..6, line(12)),
                (6..10, line(11)),
                (10..i32::MAX, line(11)),
            ],
        );
    }

    #[test]
    fn linetable_310() {
        check(LineTableForm::Linetable310, &[], &[]);
        check(
            LineTableForm::Linetable310,
            &[4, 1, 2, 0x80, 0, 5, 6, 0xff],
            &[
                (0..4, line(11)),
                (4..6, Position::default()),
                (6..12, line(15)),
            ],
        );
        assert_eq!(
            resolve_position(LineTableForm::Linetable310, &[4, 1], 10, 4),
            Position::default(),
            "past the end"
        );
    }

    #[test]
    fn locations() {
        let head = |kind: u8, units: u8| 0x80 | kind << 3 | (units - 1);
        check(
            LineTableForm::Locations,
            &[head(2, 1), 0x35],
            &[(0..2, at(10, 10, Some((19, 24))))],
        );
        check(
            LineTableForm::Locations,
            &[head(12, 8), 4, 9],
            &[(0..16, at(12, 12, Some((4, 9))))],
        );
        check(
            LineTableForm::Locations,
            &[head(13, 2), 0x03],
            &[(0..4, at(9, 9, None))],
        );
        // Line +64 in two groups, one line spanned, column 0, no end column.
        let long = [head(14, 1), 0x40, 0x02, 1, 1, 0];
        check(
            LineTableForm::Locations,
            &long,
            &[(
                0..2,
                Position {
                    end_column: None,
                    ..at(74, 75, Some((0, 0)))
                },
            )],
        );
        check(
            LineTableForm::Locations,
            &[head(15, 3), head(10, 1), 1, 2],
            &[
                (0..6, Position::default()),
                (6..8, at(10, 10, Some((1, 2)))),
            ],
        );
        // Cut off within a step.
        check(
            LineTableForm::Locations,
            &[head(15, 3), head(10, 1), 1],
            &[(0..6, Position::default())],
        );
    }

    #[test]
    fn any_bytes_are_taken() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..30_000 {
            let length = usize::try_from(random() % 200).unwrap();
            // Extremes are where arithmetic breaks: half of the tables are made of few values.
            let table: Vec<u8> = (0..length)
                .map(|_| {
                    if round % 2 == 0 {
                        random().to_le_bytes()[0]
                    } else {
                        [0, 0x7f, 0x80, 0xff, 0xf5, 0xed][usize::try_from(random() % 6).unwrap()]
                    }
                })
                .collect();
            let first_line =
                [0, 1, -1, i32::MAX, i32::MIN, 1000][usize::try_from(random() % 6).unwrap()];
            for form in [
                LineTableForm::Lnotab,
                LineTableForm::Linetable310,
                LineTableForm::Locations,
            ] {
                let mut end = 0;
                let steps = positions(form, &table, first_line).inspect(|(range, _)| {
                    assert_eq!(range.start, end, "no gaps");
                    end = range.end;
                });
                assert!(steps.count() <= table.len() + 1);
                for instruction in [
                    -1,
                    0,
                    1,
                    i32::MAX,
                    i32::MIN,
                    i32::from(random().to_le_bytes()[0]),
                ] {
                    let _ = resolve_position(form, &table, first_line, instruction);
                }
            }
        }
    }
}
