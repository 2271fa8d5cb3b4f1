//! The rows of the tree.

use heaptide_engine::NO_FILE;
use heaptide_report::{bytes_text, count_text, percent_text, visible};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::Theme;
use crate::state::{Kind, Row, Sort, State};

pub(super) fn render(frame: &mut Frame<'_>, area: Rect, state: &State<'_>, theme: Theme) {
    let rows = state.rows.iter().enumerate().skip(state.offset);
    for (line, (index, row)) in rows.take(usize::from(area.height)).enumerate() {
        let place = Rect {
            y: area.y + line as u16,
            height: 1,
            ..area
        };
        let mut paragraph = Paragraph::new(row_line(state, row, theme));
        if index == state.selected {
            paragraph = paragraph.style(Style::new().add_modifier(Modifier::REVERSED));
        }
        frame.render_widget(paragraph, place);
    }
}

fn row_line(state: &State<'_>, row: &Row, theme: Theme) -> Line<'static> {
    let node = &state.shown.nodes[row.node];
    let whole = state.shown.nodes[0].total;
    let (amount, share) = match state.sort {
        Sort::Bytes => (
            bytes_text(node.total.bytes),
            (node.total.bytes, whole.bytes),
        ),
        Sort::Blocks => (
            count_text(node.total.count),
            (node.total.count, whole.count),
        ),
    };
    let figures = format!("{:>6} {amount:>10} ", percent_text(share.0, share.1));
    let mut spans = vec![
        Span::styled(figures, theme.by_share(share.0, share.1)),
        Span::raw(" ".repeat(row.indent)),
        Span::raw(marker(state, row, theme)),
    ];
    let bold = Style::new().add_modifier(Modifier::BOLD);
    match node.kind {
        Kind::Root => spans.push(Span::styled("(all)", bold)),
        Kind::Rest { stacks } => {
            let text = format!("{} smaller stacks", count_text(stacks as u64));
            spans.push(Span::styled(text, theme.dim()));
        }
        Kind::Frame { .. } => {
            let (function, place) = frame_text(state, row.node);
            let style = if state.is_match(row.node) {
                bold.add_modifier(Modifier::UNDERLINED)
            } else {
                bold
            };
            spans.push(Span::styled(function, style));
            if let Some(place) = place {
                spans.push(Span::styled(
                    format!("  {place}"),
                    theme.colored(Color::Cyan),
                ));
            }
        }
    }
    Line::from(spans)
}

/// What says whether there is more below, and whether it can be seen.
fn marker(state: &State<'_>, row: &Row, theme: Theme) -> String {
    let chain = match (row.is_only_child, theme.unicode) {
        (false, _) => "",
        (true, true) => "╰",
        (true, false) => "`",
    };
    let has_children = !state.shown.nodes[row.node].children.is_empty();
    let sign = match (has_children, state.is_open(row.node), theme.unicode) {
        (false, _, true) => "·",
        (false, _, false) => ".",
        (_, true, true) => "▾",
        (_, true, false) => "-",
        (_, false, true) => "▸",
        (_, false, false) => "+",
    };
    format!("{chain}{sign} ")
}

/// The function, and the last part of its file with the line.
fn frame_text(state: &State<'_>, node: usize) -> (String, Option<String>) {
    let Some(location) = state.location(node) else {
        return (String::new(), None);
    };
    let stacks = &state.profile.stacks;
    let location = stacks.locations[location.index()];
    let function = visible(stacks.text(location.function)).into_owned();
    let file = stacks.text(location.file);
    if file == NO_FILE {
        return (function, None);
    }
    let place = format!("{}:{}", visible(last_part(file)), location.line);
    (function, Some(place))
}

/// `name.py`, or `package/__init__.py`, whose name alone says nothing.
fn last_part(file: &str) -> &str {
    let name = file.rfind('/').map_or(0, |slash| slash + 1);
    if !matches!(&file[name..], "__init__.py" | "__main__.py") {
        return &file[name..];
    }
    let before = file[..name.saturating_sub(1)].rfind('/');
    &file[before.map_or(0, |slash| slash + 1)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_by_their_last_part() {
        for (file, expected) in [
            ("/srv/app.py", "app.py"),
            ("app.py", "app.py"),
            ("/srv/json/__init__.py", "json/__init__.py"),
            ("__init__.py", "__init__.py"),
            ("/__main__.py", "/__main__.py"),
            ("", ""),
        ] {
            assert_eq!(last_part(file), expected, "{file}");
        }
    }
}
