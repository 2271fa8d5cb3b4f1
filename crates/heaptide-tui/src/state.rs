//! What is shown and selected. Pure: keys come as [`Action`]s, sources through [`Sources`].

mod details;
mod frames;
mod search;
mod shown;

use heaptide_engine::{CallTree, LocationId, Metric, Profile};
use ratatui::layout::Rect;
use rustc_hash::FxHashSet;

pub(crate) use self::details::Details;
pub(crate) use self::search::Search;
pub(crate) use self::shown::{Kind, ShownTree, Sort};
use crate::keys::Action;
use crate::sources::Sources;
use crate::view::tree_height;

/// In the order of the keys 1 to 4.
const METRICS: [Metric; 4] = [
    Metric::Peak,
    Metric::Live,
    Metric::Allocated,
    Metric::Temporary,
];

/// How the tree begins.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is counted.
    pub metric: Metric,
    /// How many stacks, those that have most; the others are one row.
    pub biggest: usize,
    /// What the tree is of, for the first line.
    pub title: String,
}

/// What is to be done after an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Go,
    /// Leave.
    Quit,
    /// Stop until the shell brings the program back.
    Suspend,
}

/// A row of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) node: usize,
    /// An only callee is as far in as its caller, or deep stacks would leave the screen.
    pub(crate) indent: usize,
    pub(crate) is_only_child: bool,
}

/// What is shown and selected.
pub struct State<'a> {
    pub(crate) profile: &'a Profile,
    tree: CallTree,
    pub(crate) shown: ShownTree,
    pub(crate) metric: Metric,
    pub(crate) sort: Sort,
    pub(crate) options: Options,
    pub(crate) hides_imports: bool,
    pub(crate) hides_uninteresting: bool,
    pub(crate) wants_details: bool,
    pub(crate) helps: bool,
    pub(crate) search: Search,
    /// Nodes that are open, by what stays the same of them.
    open: FxHashSet<u32>,
    pub(crate) rows: Vec<Row>,
    /// Index of a row.
    pub(crate) selected: usize,
    /// The first row on the screen.
    pub(crate) offset: usize,
    height: usize,
    /// Of the selected node; made when it is asked for.
    pub(crate) details: Option<Details>,
}

impl<'a> State<'a> {
    /// The tree of a profile, opened along its largest branch.
    #[must_use]
    pub fn new(profile: &'a Profile, options: Options) -> Self {
        let tree = CallTree::new(profile);
        let metric = options.metric;
        let sort = Sort::Bytes;
        let shown = ShownTree::new(profile, &tree, metric, sort, options.biggest, |_| false);
        let mut state = Self {
            profile,
            tree,
            shown,
            metric,
            sort,
            options,
            hides_imports: false,
            hides_uninteresting: true,
            wants_details: true,
            helps: false,
            search: Search::default(),
            open: FxHashSet::default(),
            rows: Vec::new(),
            selected: 0,
            offset: 0,
            height: 1,
            details: None,
        };
        state.rebuild();
        state.open_largest();
        state
    }

    /// Whether letters belong to a search.
    #[must_use]
    pub fn is_typing(&self) -> bool {
        self.search.is_typing
    }

    /// Fits the tree into a screen of this size.
    pub fn fit(&mut self, screen: Rect) {
        self.height = tree_height(screen, self.wants_details).max(1);
        self.scroll();
    }

    /// Makes the details of what is selected, if they are not there.
    pub fn refresh(&mut self, sources: &mut dyn Sources) {
        if self.details.is_none() {
            self.details = Some(Details::new(
                self.profile,
                &self.tree,
                &self.shown,
                self.selected_node(),
                self.metric,
                sources,
            ));
        }
    }

    /// Does what the user wants.
    pub fn apply(&mut self, action: Action) -> Next {
        if self.helps && !matches!(action, Action::Quit | Action::Suspend) {
            self.helps = false;
            return Next::Go;
        }
        let before = self.selected_node();
        let page = self.height.saturating_sub(1).max(1);
        match action {
            Action::Quit => return Next::Quit,
            Action::Suspend => return Next::Suspend,
            Action::Move(rows) => self.move_by(rows),
            Action::MovePages(pages) => self.move_by(pages.saturating_mul(page as isize)),
            Action::First => self.select(0),
            Action::Last => self.select(usize::MAX),
            Action::Open if self.is_open(before) => self.select_node(self.first_child(before)),
            Action::Open => self.set_open(before, true),
            Action::Close if self.is_open(before) => self.set_open(before, false),
            Action::Close => self.select_node(self.shown.nodes[before].parent),
            Action::Toggle => self.set_open(before, !self.is_open(before)),
            Action::ToggleChain => self.toggle_chain(before),
            Action::ToggleImports => {
                self.hides_imports = !self.hides_imports;
                self.rebuild();
            }
            Action::ToggleUninteresting => {
                self.hides_uninteresting = !self.hides_uninteresting;
                self.rebuild();
            }
            Action::ToggleDetails => self.wants_details = !self.wants_details,
            Action::NextMetric => {
                let at = METRICS.iter().position(|&metric| metric == self.metric);
                let next = at.map_or(0, |at| (at + 1) % METRICS.len());
                self.set_metric(METRICS[next]);
            }
            Action::Metric(index) => {
                if let Some(&metric) = METRICS.get(index) {
                    self.set_metric(metric);
                }
            }
            Action::NextSort => {
                self.sort = match self.sort {
                    Sort::Bytes => Sort::Blocks,
                    Sort::Blocks => Sort::Bytes,
                };
                self.rebuild();
            }
            Action::Help => self.helps = true,
            Action::Search
            | Action::NextMatch
            | Action::PreviousMatch
            | Action::Cancel
            | Action::Letter(_)
            | Action::Erase
            | Action::Accept => self.search_by(action),
        }
        if self.selected_node() != before {
            self.details = None;
        }
        Next::Go
    }

    pub(crate) fn selected_node(&self) -> usize {
        self.rows[self.selected].node
    }

    pub(crate) fn is_open(&self, node: usize) -> bool {
        !self.shown.nodes[node].children.is_empty() && self.open.contains(&self.shown.origin(node))
    }

    pub(crate) fn location(&self, node: usize) -> Option<LocationId> {
        match self.shown.nodes[node].kind {
            Kind::Frame { frame, .. } => Some(self.profile.stacks.frames[frame.index()].location),
            Kind::Root | Kind::Rest { .. } => None,
        }
    }

    fn first_child(&self, node: usize) -> usize {
        let children = &self.shown.nodes[node].children;
        children.first().copied().unwrap_or(node)
    }

    fn set_metric(&mut self, metric: Metric) {
        self.metric = metric;
        self.rebuild();
    }

    /// Makes the tree anew and selects what was selected, or its nearest caller that is left.
    fn rebuild(&mut self) {
        let mut way = Vec::new();
        let known: FxHashSet<u32> = self.origins().collect();
        if !self.rows.is_empty() {
            let mut node = self.selected_node();
            while node != 0 {
                way.push(self.shown.origin(node));
                node = self.shown.nodes[node].parent;
            }
        }
        let stacks = &self.profile.stacks;
        let (imports, uninteresting) = (self.hides_imports, self.hides_uninteresting);
        self.shown = ShownTree::new(
            self.profile,
            &self.tree,
            self.metric,
            self.sort,
            self.options.biggest,
            |location| {
                (imports && frames::is_import_system(stacks, location))
                    || (uninteresting && frames::is_uninteresting(stacks, location))
            },
        );
        self.details = None;
        self.open.insert(0);
        self.open_new(&known);
        self.lay_out();
        let is_there = |origin: &u32| {
            let rows = self.rows.iter();
            rows.enumerate()
                .find(|(_, row)| self.shown.origin(row.node) == *origin)
                .map(|(index, _)| index)
        };
        let row = way.iter().find_map(is_there).unwrap_or(0);
        self.select(row);
    }

    fn origins(&self) -> impl Iterator<Item = u32> {
        (0..self.shown.nodes.len()).map(|node| self.shown.origin(node))
    }

    /// Opens frames that were hidden where what is below them was open.
    fn open_new(&mut self, known: &FxHashSet<u32>) {
        for node in (1..self.shown.nodes.len()).rev() {
            let origin = self.shown.origin(node);
            let leads_to_open = |&child: &usize| self.open.contains(&self.shown.origin(child));
            if !known.contains(&origin) && self.shown.nodes[node].children.iter().any(leads_to_open)
            {
                self.open.insert(origin);
            }
        }
    }

    /// Opens the largest branch to its end, for that is what one looks for first.
    fn open_largest(&mut self) {
        let mut node = 0;
        loop {
            let next = self.first_child(node);
            if next == node || matches!(self.shown.nodes[next].kind, Kind::Rest { .. }) {
                break;
            }
            self.open.insert(self.shown.origin(node));
            node = next;
        }
        self.lay_out();
    }

    fn lay_out(&mut self) {
        self.rows.clear();
        let mut pending = vec![Row {
            node: 0,
            indent: 0,
            is_only_child: false,
        }];
        while let Some(row) = pending.pop() {
            self.rows.push(row);
            if !self.is_open(row.node) {
                continue;
            }
            let children = &self.shown.nodes[row.node].children;
            let is_only_child = children.len() == 1 && row.node != 0;
            pending.extend(children.iter().rev().map(|&node| Row {
                node,
                indent: row.indent + usize::from(!is_only_child),
                is_only_child,
            }));
        }
    }

    fn select(&mut self, row: usize) {
        self.selected = row.min(self.rows.len() - 1);
        self.scroll();
    }

    fn move_by(&mut self, rows: isize) {
        self.select(self.selected.saturating_add_signed(rows));
    }

    /// Selects a node whose callers are open.
    fn select_node(&mut self, node: usize) {
        let row = self.rows.iter().position(|row| row.node == node);
        self.select(row.unwrap_or(0));
    }

    fn scroll(&mut self) {
        let last = self.selected.saturating_sub(self.height - 1);
        self.offset = self.offset.clamp(last, self.selected);
        // No empty rows below while there are rows above.
        self.offset = self.offset.min(self.rows.len().saturating_sub(self.height));
    }

    fn set_open(&mut self, node: usize, open: bool) {
        let origin = self.shown.origin(node);
        if open {
            self.open.insert(origin);
        } else {
            self.open.remove(&origin);
        }
        self.lay_out();
        self.select_node(node);
    }

    fn toggle_chain(&mut self, node: usize) {
        let open = !self.is_open(node);
        let mut at = node;
        loop {
            let origin = self.shown.origin(at);
            if open {
                self.open.insert(origin);
            } else {
                self.open.remove(&origin);
            }
            let [only] = self.shown.nodes[at].children[..] else {
                break;
            };
            at = only;
        }
        self.lay_out();
        self.select_node(node);
    }

    /// Opens all callers of a node and selects it.
    fn reveal(&mut self, node: usize) {
        let mut at = node;
        while at != 0 {
            at = self.shown.nodes[at].parent;
            self.open.insert(self.shown.origin(at));
        }
        self.lay_out();
        self.select_node(node);
    }
}
