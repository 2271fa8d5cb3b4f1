//! The source around the selected frame.

use std::ops::Range;

use heaptide_engine::Position;
use heaptide_report::visible;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::Theme;
use crate::state::Details;

pub(super) fn render(frame: &mut Frame<'_>, area: Rect, details: &Details, theme: Theme) {
    let Some(source) = &details.source else {
        return;
    };
    let Some(wanted) = usize::try_from(details.line).ok().filter(|&line| line > 0) else {
        return;
    };
    let mut area = area;
    let mut note = |text: &'static str| {
        if area.height > 2 {
            let place = Rect { height: 1, ..area };
            frame.render_widget(Paragraph::new(text).style(theme.dim()), place);
            area.y += 1;
            area.height -= 1;
        }
    };
    // A line of space between what is said and what is quoted.
    note("");
    if source.changed {
        note("(the file was changed since the program started)");
    }
    if wanted > source.lines.len() {
        note("(the file has no such line any more)");
        return;
    }
    let height = usize::from(area.height);
    if height == 0 {
        return;
    }
    let last_first = source.lines.len().saturating_sub(height);
    let first = (wanted - 1).saturating_sub(height / 2).min(last_first);
    let digits = (first + height).min(source.lines.len()).to_string().len();
    let lines: Vec<Line<'_>> = source
        .lines
        .iter()
        .enumerate()
        .skip(first)
        .take(height)
        .map(|(index, text)| {
            let number = index + 1;
            let is_wanted = number == wanted;
            let style = if is_wanted {
                theme.colored(Color::Yellow).add_modifier(Modifier::BOLD)
            } else {
                Style::new()
            };
            let sign = if is_wanted { '>' } else { ' ' };
            let mut spans = vec![Span::styled(
                format!("{sign}{number:>digits$} "),
                if is_wanted { style } else { theme.dim() },
            )];
            let marked = marked_parts(text, number, &details.positions);
            spans.extend(parts(text, &marked, style));
            Line::from(spans)
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// The bytes of line `number` that the positions name.
fn marked_parts(text: &str, number: usize, positions: &[Position]) -> Vec<Range<usize>> {
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    let mut marked = Vec::new();
    for position in positions {
        if number < position.line || number > position.end_line {
            continue;
        }
        // A part of several lines: what is in front of the text of a line is not meant.
        let indent = text.len() - text.trim_start().len();
        let from = match position.column {
            Some(column) if number == position.line => column as usize,
            _ => indent,
        };
        let to = match position.end_column {
            Some(column) if number == position.end_line => column as usize,
            _ => text.len(),
        };
        let to = to.min(text.len());
        // The file may be another one by now.
        if from < to && text.is_char_boundary(from) && text.is_char_boundary(to) {
            marked.push(from..to);
        }
    }
    marked
}

/// A line as it can be shown, the marked parts underlined.
fn parts(text: &str, marked: &[Range<usize>], style: Style) -> Vec<Span<'static>> {
    let mut cuts: Vec<usize> = marked
        .iter()
        .flat_map(|part| [part.start, part.end])
        .chain([0, text.len()])
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let pairs = cuts.windows(2);
    pairs
        .map(|pair| {
            let is_marked = marked
                .iter()
                .any(|part| part.start <= pair[0] && pair[1] <= part.end);
            let style = if is_marked {
                style.add_modifier(Modifier::UNDERLINED)
            } else {
                style
            };
            let part = text[pair[0]..pair[1]].replace('\t', "    ");
            Span::styled(visible(&part).into_owned(), style)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(line: i32, end_line: i32, column: u32, end_column: u32) -> Position {
        Position {
            line,
            end_line,
            column: Some(column),
            end_column: Some(end_column),
        }
    }

    #[test]
    fn parts_of_one_and_of_several_lines() {
        let one = [position(7, 7, 4, 9)];
        assert_eq!(
            marked_parts("x = bytes(3)", 7, &one),
            vec![Range { start: 4, end: 9 }]
        );
        assert_eq!(marked_parts("x = bytes(3)", 8, &one), Vec::new());
        let several = [position(7, 9, 4, 1)];
        assert_eq!(
            marked_parts("x = call(", 7, &several),
            vec![Range { start: 4, end: 9 }]
        );
        assert_eq!(
            marked_parts("    1,", 8, &several),
            vec![Range { start: 4, end: 6 }]
        );
        assert_eq!(
            marked_parts(")", 9, &several),
            vec![Range { start: 0, end: 1 }]
        );
    }

    #[test]
    fn columns_of_another_file_do_no_harm() {
        assert_eq!(marked_parts("ü", 1, &[position(1, 1, 1, 2)]), Vec::new());
        assert_eq!(marked_parts("a", 1, &[position(1, 1, 5, 9)]), Vec::new());
        assert_eq!(
            marked_parts("abc", 1, &[position(1, 1, 1, 99)]),
            vec![Range { start: 1, end: 3 }]
        );
        assert_eq!(marked_parts("abc", 1, &[position(1, 1, 2, 1)]), Vec::new());
    }

    #[test]
    fn marked_parts_are_underlined() {
        let spans = parts("\tab\x1bcd", &[Range { start: 1, end: 3 }], Style::new());
        let texts: Vec<_> = spans.iter().map(|span| span.content.as_ref()).collect();
        assert_eq!(texts, ["    ", "ab", "\\x1bcd"]);
        let underlined = |span: &Span<'_>| span.style.add_modifier.contains(Modifier::UNDERLINED);
        let underlined: Vec<bool> = spans.iter().map(underlined).collect();
        assert_eq!(underlined, [false, true, false]);
    }
}
