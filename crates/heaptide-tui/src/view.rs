//! Draws a [`State`]; looks at nothing else and changes nothing.

mod details;
mod help;
mod source;
mod tree;

use heaptide_report::{bytes_text, count_text, visible};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use crate::state::{Sort, State};

/// What the terminal can do and the user wants of it.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    /// Colours; without them there is still bold, reverse and underlined.
    pub color: bool,
    /// Line drawing characters outside ASCII.
    pub unicode: bool,
}

impl Theme {
    pub(crate) fn colored(self, color: Color) -> Style {
        if self.color {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }

    pub(crate) fn dim(self) -> Style {
        if self.color {
            Style::new().fg(Color::DarkGray)
        } else {
            Style::new()
        }
    }

    /// Coloured by its share of the whole, as the text reports are.
    pub(crate) fn by_share(self, part: u64, whole: u64) -> Style {
        let percent = part as f64 * 100.0 / whole.max(1) as f64;
        self.colored(match percent {
            percent if percent > 60.0 => Color::Red,
            percent if percent > 20.0 => Color::Yellow,
            percent if percent > 5.0 => Color::Green,
            _ => Color::LightGreen,
        })
    }
}

/// Where is what.
pub(crate) struct Regions {
    title: Rect,
    pub(crate) tree: Rect,
    details: Option<Rect>,
    footer: Rect,
}

/// Narrower screens have the details below the tree.
const WIDTH_FOR_TWO_COLUMNS: u16 = 100;
/// Lower screens have no details below the tree.
const HEIGHT_FOR_DETAILS: u16 = 16;

pub(crate) fn regions(area: Rect, wants_details: bool) -> Regions {
    let row = |y: u16| Rect {
        y: area.y + y,
        height: area.height.min(1),
        ..area
    };
    let middle = Rect {
        y: area.y + area.height.min(1),
        height: area.height.saturating_sub(2),
        ..area
    };
    let mut regions = Regions {
        title: row(0),
        tree: middle,
        details: None,
        footer: row(area.height.saturating_sub(1)),
    };
    if !wants_details {
        return regions;
    }
    if area.width >= WIDTH_FOR_TWO_COLUMNS && area.height >= 6 {
        let width = area.width * 3 / 5;
        regions.tree.width = width;
        regions.details = Some(Rect {
            x: middle.x + width,
            width: area.width - width,
            ..middle
        });
    } else if area.height >= HEIGHT_FOR_DETAILS {
        let height = middle.height / 2;
        regions.tree.height = middle.height - height;
        regions.details = Some(Rect {
            y: middle.y + regions.tree.height,
            height,
            ..middle
        });
    }
    regions
}

/// Draws everything. What is drawn of the selection is what [`State::refresh`] has made.
pub fn render(frame: &mut Frame<'_>, state: &State<'_>, theme: Theme) {
    let area = frame.area();
    let regions = regions(area, state.wants_details);
    frame.render_widget(
        Paragraph::new(title(state)).style(Style::new().add_modifier(Modifier::REVERSED)),
        regions.title,
    );
    tree::render(frame, regions.tree, state, theme);
    if let Some(area) = regions.details {
        details::render(frame, area, state, theme);
    }
    if area.height > 1 {
        frame.render_widget(
            Paragraph::new(footer(state, area.width, theme)),
            regions.footer,
        );
    }
    if state.helps {
        help::render(frame, area);
    }
}

/// How many rows of the tree a screen has.
pub(crate) fn tree_height(area: Rect, wants_details: bool) -> usize {
    usize::from(regions(area, wants_details).tree.height)
}

fn title(state: &State<'_>) -> Line<'static> {
    let whole = state.shown.nodes[0].total;
    let sorted = match state.sort {
        Sort::Bytes => "",
        Sort::Blocks => ", by blocks",
    };
    Line::from(format!(
        " {}{sorted}: {} in {} blocks  {}",
        state.metric.name(),
        bytes_text(whole.bytes),
        count_text(whole.count),
        visible(&state.options.title)
    ))
}

fn footer(state: &State<'_>, width: u16, theme: Theme) -> Line<'static> {
    let search = &state.search;
    if search.is_typing || !search.text.is_empty() {
        let found = match (search.text.is_empty(), search.at, search.of) {
            (true, ..) => String::new(),
            (_, _, 0) => "  not found".to_owned(),
            (_, at, of) => format!("  {at} of {of}"),
        };
        let hint = if search.is_typing {
            "  Enter: keep  Esc: back"
        } else {
            "  n: next  N: before  Esc: end"
        };
        return Line::from(vec![
            Span::raw(format!("/{}", visible(&search.text))),
            Span::raw(found),
            Span::styled(hint, theme.dim()),
        ]);
    }
    let hide = |hidden: bool| if hidden { "show" } else { "hide" };
    let keys = [
        ("q", "quit".to_owned()),
        ("?", "keys".to_owned()),
        ("/", "search".to_owned()),
        ("m", "metric".to_owned()),
        ("e", "expand".to_owned()),
        ("i", format!("{} imports", hide(state.hides_imports))),
        (
            "u",
            format!("{} uninteresting", hide(state.hides_uninteresting)),
        ),
        ("s", "sort".to_owned()),
        ("d", "details".to_owned()),
    ];
    let mut spans = Vec::new();
    let mut used = 0;
    for (key, text) in keys {
        used += key.len() + text.len() + 3;
        if used > usize::from(width) {
            break;
        }
        spans.push(Span::styled(
            format!(" {key}"),
            Style::new().add_modifier(Modifier::BOLD),
        ));
        spans.push(Span::styled(format!(" {text}"), theme.dim()));
    }
    Line::from(spans)
}
