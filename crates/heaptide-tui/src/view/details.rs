//! What there is to say of the selected node, and its source.

use heaptide_engine::{Amount, Metric, NO_FILE};
use heaptide_report::{bytes_text, count_text, percent_text, visible};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};

use super::{Theme, source};
use crate::state::{Details, Kind, State};

/// The largest threads and allocators; the rest is one line.
const MOST_PARTS: usize = 3;

pub(super) fn render(frame: &mut Frame<'_>, area: Rect, state: &State<'_>, theme: Theme) {
    let Some(details) = &state.details else {
        return;
    };
    let is_beside = area.x > 0;
    let mut block = Block::new().borders(if is_beside {
        Borders::LEFT
    } else {
        Borders::TOP
    });
    if !theme.unicode {
        block = block.border_set(ratatui::symbols::border::Set {
            vertical_left: "|",
            horizontal_top: "-",
            ..ratatui::symbols::border::PLAIN
        });
    }
    let inner = block.inner(area);
    frame.render_widget(block.border_style(theme.dim()), area);

    let lines = lines(state, details, theme);
    // The source is worth more than the parts where there is little room.
    let has_source = details.source.is_some() && details.line > 0;
    let most = if has_source && !is_beside {
        usize::from(inner.height / 2)
    } else {
        usize::from(inner.height)
    };
    let mut lines: Vec<Line<'_>> = lines
        .into_iter()
        .flat_map(|line| wrapped(line, usize::from(inner.width)))
        .collect();
    lines.truncate(most);
    let height = lines.len() as u16;
    let top = Rect { height, ..inner };
    frame.render_widget(Paragraph::new(lines), top);
    let rest = Rect {
        y: inner.y + height,
        height: inner.height - height,
        ..inner
    };
    source::render(frame, rest, details, theme);
}

/// A line cut where the screen ends, at a blank if there is one; paths have none.
fn wrapped(line: Line<'static>, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let mut now = Line::default();
    let mut used = 0;
    for span in line.spans {
        let mut part = Span::styled(String::new(), span.style.patch(line.style));
        for character in span.content.chars() {
            let character = character.to_string();
            let wide = Span::raw(character.as_str()).width();
            if used + wide > width && used > 0 {
                let text = part.content.to_mut();
                let rest = match text.rfind(' ') {
                    Some(blank) => text.split_off(blank).trim_start().to_owned(),
                    None => String::new(),
                };
                let rest = Span::styled(rest, part.style);
                used = rest.width();
                let full = std::mem::replace(&mut part, rest);
                now.push_span(full);
                lines.push(std::mem::take(&mut now));
            }
            used += wide;
            part.content.to_mut().push_str(&character);
        }
        now.push_span(part);
    }
    lines.push(now);
    lines
}

fn lines(state: &State<'_>, details: &Details, theme: Theme) -> Vec<Line<'static>> {
    let node = &state.shown.nodes[state.selected_node()];
    let whole = state.shown.nodes[0].total;
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = Vec::new();
    match node.kind {
        Kind::Root => lines.push(Line::styled("All allocations", bold)),
        Kind::Rest { stacks } => {
            let shown = count_text(state.options.biggest as u64);
            let text = format!(
                "Above are the stacks that have most, at most {shown} (-b N for another number). {} others have \
                 this together:",
                count_text(stacks as u64)
            );
            lines.push(Line::from(text));
        }
        Kind::Frame { .. } => {
            lines.push(Line::styled(
                visible(&details.qualified_name).into_owned(),
                bold,
            ));
            if details.file != NO_FILE {
                let place = format!("{}:{}", visible(&details.file), details.line);
                lines.push(Line::styled(place, theme.colored(Color::Cyan)));
            }
        }
    }
    lines.push(Line::from(vec![
        Span::raw("total      "),
        Span::styled(
            amount_text(node.total),
            theme.by_share(node.total.bytes, whole.bytes),
        ),
    ]));
    if matches!(node.kind, Kind::Rest { .. }) {
        return lines;
    }
    let figures = &details.figures;
    let amounts = [
        ("own", node.own),
        (Metric::Peak.name(), figures.peak),
        (Metric::Live.name(), figures.live),
        (Metric::Allocated.name(), figures.allocated),
        (Metric::Temporary.name(), figures.temporary),
    ];
    for (name, amount) in amounts {
        // That is the total.
        if name != state.metric.name() {
            lines.push(Line::from(format!("{name:<10} {}", amount_text(amount))));
        }
    }
    push_parts(&mut lines, "threads", &details.threads, node.total);
    push_parts(&mut lines, "allocators", &details.allocators, node.total);
    lines
}

fn push_parts(
    lines: &mut Vec<Line<'static>>,
    kinds: &str,
    parts: &[(String, Amount)],
    whole: Amount,
) {
    for (name, amount) in parts.iter().take(MOST_PARTS) {
        lines.push(Line::from(format!(
            "{:>6} {:>10}  {}",
            percent_text(amount.bytes, whole.bytes),
            bytes_text(amount.bytes),
            visible(name)
        )));
    }
    if parts.len() > MOST_PARTS {
        let more = parts.len() - MOST_PARTS;
        lines.push(Line::from(format!("{:>19}{more} more {kinds}", "")));
    }
}

fn amount_text(amount: Amount) -> String {
    let blocks = if amount.count == 1 { "block" } else { "blocks" };
    format!(
        "{} in {} {blocks}",
        bytes_text(amount.bytes),
        count_text(amount.count)
    )
}
