//! Searching functions and files, in all of the tree and not only in what is open.

use super::State;
use crate::keys::Action;

/// A search, or none when the text is empty.
#[derive(Debug, Default)]
pub(crate) struct Search {
    /// What is searched, as it was typed.
    pub(crate) text: String,
    pub(crate) is_typing: bool,
    /// Which of how many the selected one is, counted from 1; zero when it is none.
    pub(crate) at: usize,
    pub(crate) of: usize,
    /// What was selected when the search began.
    origin: usize,
}

impl State<'_> {
    pub(super) fn search_by(&mut self, action: Action) {
        match action {
            Action::Search => {
                self.search = Search {
                    is_typing: true,
                    origin: self.selected_node(),
                    ..Search::default()
                };
            }
            Action::Letter(letter) => {
                self.search.text.push(letter);
                self.jump(self.search.origin, 0);
            }
            Action::Erase => {
                self.search.text.pop();
                self.jump(self.search.origin, 0);
            }
            Action::Accept => self.search.is_typing = false,
            Action::Cancel => {
                if self.search.is_typing {
                    self.reveal(self.search.origin);
                }
                self.search = Search::default();
            }
            Action::NextMatch => self.jump(self.selected_node(), 1),
            Action::PreviousMatch => self.jump(self.selected_node(), -1),
            _ => {}
        }
    }

    /// Whether a node is one that is searched for.
    pub(crate) fn is_match(&self, node: usize) -> bool {
        if self.search.text.is_empty() {
            return false;
        }
        let Some(location) = self.location(node) else {
            return false;
        };
        let stacks = &self.profile.stacks;
        let location = stacks.locations[location.index()];
        let wanted = self.search.text.to_lowercase();
        [location.function, location.file]
            .into_iter()
            .any(|text| stacks.text(text).to_lowercase().contains(&wanted))
    }

    /// Goes from a node to a match: itself or the next (0), the next (1), the one before (-1).
    fn jump(&mut self, from: usize, step: isize) {
        let order = self.shown.order.iter().enumerate();
        let matches: Vec<(usize, usize)> = order
            .filter(|(_, node)| self.is_match(**node))
            .map(|(place, &node)| (place, node))
            .collect();
        self.search.of = matches.len();
        self.search.at = 0;
        if matches.is_empty() {
            if step == 0 {
                self.reveal(from);
            }
            return;
        }
        let place = self.shown.nodes[from].enter;
        let index = match step {
            -1 => {
                let before = matches.partition_point(|&(at, _)| at < place);
                before.checked_sub(1).unwrap_or(matches.len() - 1)
            }
            step => {
                let first = place + step.unsigned_abs();
                let next = matches.partition_point(|&(at, _)| at < first);
                if next == matches.len() { 0 } else { next }
            }
        };
        self.search.at = index + 1;
        self.reveal(matches[index].1);
    }
}
