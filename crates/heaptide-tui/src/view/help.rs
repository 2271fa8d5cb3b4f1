//! What the keys do.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::widgets::{Block, Borders, Clear, Paragraph};

const TEXT: &str = "\
Up Down j k       move
PageUp PageDown   move by a screen
Home End g G      first, last
Right l           open, then go to the first callee
Left h            close, then go to the caller
Enter Space       open or close
e                 open or close a chain of only callees
/                 search functions and files
n N               next match, match before
m                 next metric
1 2 3 4           peak, live, allocated, temporary
s                 sort by bytes or by blocks
i                 hide or show the import system
u                 hide or show uninteresting frames
d                 hide or show the details
Ctrl-Z            suspend
q Ctrl-C          quit";

/// A window over the middle of the screen.
pub(super) fn render(frame: &mut Frame<'_>, area: Rect) {
    let width = TEXT.lines().map(str::len).max().unwrap_or(0) as u16 + 4;
    let height = TEXT.lines().count() as u16 + 2;
    let (width, height) = (width.min(area.width), height.min(area.height));
    let window = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, window);
    let block = Block::new().borders(Borders::ALL).title(" Keys ");
    frame.render_widget(Paragraph::new(TEXT).block(block), window);
}
