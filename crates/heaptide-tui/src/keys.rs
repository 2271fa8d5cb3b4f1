//! What a key means.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leave.
    Quit,
    /// Stop until the shell brings the program back.
    Suspend,
    /// Move the selection by this many rows.
    Move(isize),
    /// Move the selection by this many screens.
    MovePages(isize),
    /// The first row.
    First,
    /// The last row.
    Last,
    /// Open what is selected, or go to its first callee when it is open.
    Open,
    /// Close what is selected, or go to its caller when it is closed.
    Close,
    /// Open or close what is selected.
    Toggle,
    /// Open or close what is selected and all below it that has one callee only.
    ToggleChain,
    /// Hide or show the frames of the import system.
    ToggleImports,
    /// Hide or show frames that every program has.
    ToggleUninteresting,
    /// Hide or show the details.
    ToggleDetails,
    /// Count something else: the next metric.
    NextMetric,
    /// Count this metric: 0 peak, 1 live, 2 allocated, 3 temporary.
    Metric(usize),
    /// Sort by bytes or by blocks.
    NextSort,
    /// Begin to search.
    Search,
    /// The next match.
    NextMatch,
    /// The match before.
    PreviousMatch,
    /// Show or hide what the keys do.
    Help,
    /// Give up a search, close the help.
    Cancel,
    /// A letter of a search.
    Letter(char),
    /// Take the last letter of a search back.
    Erase,
    /// End the typing of a search.
    Accept,
}

/// The meaning of a key; while the user is typing a search, letters are letters.
#[must_use]
pub fn action_of(key: KeyEvent, typing: bool) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Action::Quit),
            KeyCode::Char('z') => Some(Action::Suspend),
            KeyCode::Char('d') if !typing => Some(Action::MovePages(1)),
            KeyCode::Char('u') if !typing => Some(Action::MovePages(-1)),
            _ => None,
        };
    }
    if typing {
        return match key.code {
            KeyCode::Char(letter) => Some(Action::Letter(letter)),
            KeyCode::Backspace => Some(Action::Erase),
            KeyCode::Enter => Some(Action::Accept),
            KeyCode::Esc => Some(Action::Cancel),
            _ => None,
        };
    }
    let action = match key.code {
        KeyCode::Up | KeyCode::Char('k') => Action::Move(-1),
        KeyCode::Down | KeyCode::Char('j') => Action::Move(1),
        KeyCode::PageUp => Action::MovePages(-1),
        KeyCode::PageDown => Action::MovePages(1),
        KeyCode::Home | KeyCode::Char('g') => Action::First,
        KeyCode::End | KeyCode::Char('G') => Action::Last,
        KeyCode::Right | KeyCode::Char('l') => Action::Open,
        KeyCode::Left | KeyCode::Char('h') => Action::Close,
        KeyCode::Enter | KeyCode::Char(' ') => Action::Toggle,
        KeyCode::Esc => Action::Cancel,
        KeyCode::Char(letter) => match letter {
            'q' => Action::Quit,
            'e' => Action::ToggleChain,
            'i' => Action::ToggleImports,
            'u' => Action::ToggleUninteresting,
            'd' => Action::ToggleDetails,
            'm' => Action::NextMetric,
            '1'..='4' => Action::Metric(letter as usize - '1' as usize),
            's' => Action::NextSort,
            '/' => Action::Search,
            'n' => Action::NextMatch,
            'N' => Action::PreviousMatch,
            '?' => Action::Help,
            _ => return None,
        },
        _ => return None,
    };
    Some(action)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode, modifiers: KeyModifiers) -> KeyEvent {
        KeyEvent::new(code, modifiers)
    }

    #[test]
    fn letters_are_letters_while_typing() {
        let plain = KeyModifiers::NONE;
        let q = key(KeyCode::Char('q'), plain);
        assert_eq!(action_of(q, false), Some(Action::Quit));
        assert_eq!(action_of(q, true), Some(Action::Letter('q')));
        let escape = key(KeyCode::Esc, plain);
        assert_eq!(action_of(escape, true), Some(Action::Cancel));
        let suspend = key(KeyCode::Char('z'), KeyModifiers::CONTROL);
        assert_eq!(action_of(suspend, true), Some(Action::Suspend));
        assert_eq!(
            action_of(key(KeyCode::Char('3'), plain), false),
            Some(Action::Metric(2))
        );
        let mut released = q;
        released.kind = KeyEventKind::Release;
        assert_eq!(action_of(released, false), None);
    }
}
