//! The call tree of a page and what its nodes have.

use heaptide_capture::Capture;
use heaptide_engine::{
    CallTree, Entry, Figures, LocationId, NO_FILE, Position, Profile, StackId, TemporalKey, TextId,
};
use heaptide_format::Allocator;
use rustc_hash::FxHashMap;
use serde_json::Value;

use super::METRICS;
use super::block::Block;
use crate::format::visible;
use crate::modules::{module_of, program_directories};

/// Which nodes a page has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Stacks merged by function, file and line.
    Tree,
    /// The innermost frame of each stack alone, for tables.
    Flat,
}

/// A place in the source that a node allocates from, narrower than its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Span {
    lines: u64,
    column: u64,
    end_column: u64,
}

/// What one node, thread and allocator have.
struct PageEntry {
    node: u32,
    thread: u32,
    allocator: u32,
    figures: Figures,
}

/// The nodes of a page, without what never allocated. Node 0 is the root.
pub(crate) struct PageTree {
    /// Index of the caller; always smaller.
    parent: Vec<u32>,
    /// Index into `locations`.
    location: Vec<u32>,
    /// One more than the index of the node's span among those of its location; zero without one.
    span: Vec<u32>,
    /// Nodes that allocate from more than one span of their line, with the others.
    more_spans: Vec<(u32, u32)>,
    pub(crate) locations: Vec<LocationId>,
    location_spans: Vec<Vec<Span>>,
    entries: Vec<PageEntry>,
    pub(crate) allocators: Vec<Allocator>,
    split_threads: bool,
    /// Whether stacks have nodes that have nothing but at some times.
    over_time: bool,
    /// The page's node of every stack; the root for stacks that have none.
    of_stack: Vec<u32>,
}

/// The names of a page, made visible.
pub(crate) struct Names {
    pub(crate) functions: Vec<String>,
    pub(crate) files: Vec<String>,
    /// Of the files: the top-level module, null for the standard library.
    pub(crate) modules: Vec<Value>,
}

/// No node of the page.
const ABSENT: u32 = u32::MAX;

impl PageTree {
    pub(crate) fn new(
        profile: &Profile,
        shape: Shape,
        split_threads: bool,
        over_time: bool,
    ) -> Self {
        let tree = CallTree::new(profile);
        let mut page = Self {
            parent: vec![0],
            location: vec![0],
            span: vec![0],
            more_spans: Vec::new(),
            locations: Vec::new(),
            location_spans: Vec::new(),
            entries: Vec::new(),
            allocators: Vec::new(),
            split_threads,
            over_time,
            of_stack: Vec::new(),
        };
        // Of the root it means nothing, but an index must be one.
        let mut location_indices = FxHashMap::default();
        page.location_index(frame_location(profile, &tree, 1), &mut location_indices);
        let mut of_node = vec![ABSENT; tree.nodes.len()];
        of_node[0] = 0;
        match shape {
            Shape::Tree => page.add_tree(profile, &tree, &mut location_indices, &mut of_node),
            Shape::Flat => page.add_leaves(profile, &tree, &mut location_indices, &mut of_node),
        }
        page.add_spans(profile, &tree, &of_node);
        page.add_entries(profile, &tree, &of_node);
        let stacks = 0..profile.stacks.nodes.len() as u32;
        page.of_stack = stacks
            .map(
                |stack| match of_node[tree.node_of(StackId(stack)) as usize] {
                    ABSENT => 0,
                    node => node,
                },
            )
            .collect();
        page
    }

    /// Node, thread and index of the allocator, as the page has them.
    pub(crate) fn key(&self, key: &TemporalKey) -> (u32, u32, u32) {
        let node = self.of_stack[key.stack.index()];
        let allocators = &mut self.allocators.iter();
        // An allocator of a key is one of an entry; both come from the same events.
        let allocator = allocators
            .position(|&known| known == key.allocator)
            .unwrap_or(0);
        let thread = if self.split_threads { key.thread } else { 0 };
        (node, thread, allocator as u32)
    }

    /// What the page has something of.
    fn entries_of<'a>(&self, profile: &'a Profile) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let over_time = self.over_time;
        let entries = profile.entries.iter();
        entries.filter(move |entry| over_time || has_any(&entry.figures))
    }

    fn location_index(
        &mut self,
        location: LocationId,
        indices: &mut FxHashMap<LocationId, u32>,
    ) -> u32 {
        *indices.entry(location).or_insert_with(|| {
            self.locations.push(location);
            self.location_spans.push(Vec::new());
            (self.locations.len() - 1) as u32
        })
    }

    fn push(&mut self, parent: u32, location: u32) -> u32 {
        self.parent.push(parent);
        self.location.push(location);
        self.span.push(0);
        (self.parent.len() - 1) as u32
    }

    fn add_tree(
        &mut self,
        profile: &Profile,
        tree: &CallTree,
        location_indices: &mut FxHashMap<LocationId, u32>,
        of_node: &mut [u32],
    ) {
        let mut wanted = vec![false; tree.nodes.len()];
        for entry in self.entries_of(profile) {
            wanted[tree.node_of(entry.stack) as usize] = true;
        }
        for index in (1..tree.nodes.len()).rev() {
            if wanted[index] {
                wanted[tree.nodes[index].parent as usize] = true;
            }
        }
        for index in (1..tree.nodes.len()).filter(|&index| wanted[index]) {
            let parent = of_node[tree.nodes[index].parent as usize];
            let location = frame_location(profile, tree, index);
            let location = self.location_index(location, location_indices);
            of_node[index] = self.push(parent, location);
        }
    }

    fn add_leaves(
        &mut self,
        profile: &Profile,
        tree: &CallTree,
        location_indices: &mut FxHashMap<LocationId, u32>,
        of_node: &mut [u32],
    ) {
        let mut of_location: FxHashMap<u32, u32> = FxHashMap::default();
        for entry in self.entries_of(profile) {
            let index = tree.node_of(entry.stack) as usize;
            let location = frame_location(profile, tree, index);
            let location = self.location_index(location, location_indices);
            of_node[index] = *of_location
                .entry(location)
                .or_insert_with(|| self.push(0, location));
        }
    }

    fn add_spans(&mut self, profile: &Profile, tree: &CallTree, of_node: &[u32]) {
        let mut known: FxHashMap<(u32, Span), u32> = FxHashMap::default();
        let mut more = rustc_hash::FxHashSet::default();
        for (stack, node) in profile.stacks.nodes.iter().enumerate().skip(1) {
            let page_node = of_node[tree.node_of(StackId(stack as u32)) as usize];
            let position = profile.stacks.frames[node.frame.index()].position;
            let Some(span) = span_of(position).filter(|_| page_node != ABSENT && page_node != 0)
            else {
                continue;
            };
            let location = self.location[page_node as usize];
            let spans = &mut self.location_spans[location as usize];
            let number = *known.entry((location, span)).or_insert_with(|| {
                spans.push(span);
                spans.len() as u32
            });
            let first = &mut self.span[page_node as usize];
            if *first == 0 {
                *first = number;
            } else if *first != number && more.insert((page_node, number)) {
                self.more_spans.push((page_node, number));
            }
        }
    }

    fn add_entries(&mut self, profile: &Profile, tree: &CallTree, of_node: &[u32]) {
        let mut indices: FxHashMap<(u32, u32, Allocator), usize> = FxHashMap::default();
        for entry in self.entries_of(profile) {
            let node = of_node[tree.node_of(entry.stack) as usize];
            let thread = if self.split_threads { entry.thread } else { 0 };
            let key = (node, thread, entry.allocator);
            let (entries, allocators) = (&mut self.entries, &mut self.allocators);
            let index = *indices.entry(key).or_insert_with(|| {
                let known = allocators
                    .iter()
                    .position(|&known| known == entry.allocator);
                let allocator = known.unwrap_or_else(|| {
                    allocators.push(entry.allocator);
                    allocators.len() - 1
                });
                entries.push(PageEntry {
                    node,
                    thread,
                    allocator: allocator as u32,
                    figures: Figures::default(),
                });
                entries.len() - 1
            });
            entries[index].figures.add(&entry.figures);
        }
        self.entries
            .sort_by_key(|entry| (entry.node, entry.thread, entry.allocator));
    }

    /// Writes the columns and gives the names that they refer to.
    pub(crate) fn write(&self, capture: &Capture, profile: &Profile, block: &mut Block) -> Names {
        let mut functions = Texts::new(profile);
        let mut files = Texts::new(profile);
        let names = qualified_names(profile);
        let (mut function, mut file, mut line) = (Vec::new(), Vec::new(), Vec::new());
        for &id in &self.locations {
            let location = profile.stacks.locations[id.index()];
            function.push(functions.index_of(names[id.index()].unwrap_or(location.function)));
            file.push(files.index_of(location.file));
            line.push(u64::try_from(location.line).unwrap_or(0));
        }
        block.plain("location.function", function);
        block.plain("location.file", file);
        block.delta("location.line", line);
        let spans = || self.location_spans.iter().flatten();
        block.plain(
            "location.spans",
            self.location_spans.iter().map(|spans| spans.len() as u64),
        );
        block.plain("span.lines", spans().map(|span| span.lines));
        block.plain("span.column", spans().map(|span| span.column));
        block.plain("span.end_column", spans().map(|span| span.end_column));

        let up = self.parent.iter().enumerate();
        block.plain(
            "node.up",
            up.map(|(index, &parent)| index as u64 - u64::from(parent)),
        );
        block.delta(
            "node.location",
            self.location.iter().map(|&location| location.into()),
        );
        block.plain("node.span", self.span.iter().map(|&span| span.into()));
        block.delta(
            "more.node",
            self.more_spans.iter().map(|more| more.0.into()),
        );
        block.plain(
            "more.span",
            self.more_spans.iter().map(|more| more.1.into()),
        );

        let entries = || self.entries.iter();
        block.delta("entry.node", entries().map(|entry| entry.node.into()));
        block.plain("entry.thread", entries().map(|entry| entry.thread.into()));
        block.plain(
            "entry.allocator",
            entries().map(|entry| entry.allocator.into()),
        );
        for (metric, (count, bytes)) in METRICS.into_iter().zip(METRIC_COLUMNS) {
            block.plain(
                count,
                entries().map(|entry| entry.figures.get(metric).count),
            );
            block.plain(
                bytes,
                entries().map(|entry| entry.figures.get(metric).bytes),
            );
        }
        let directories = program_directories(capture);
        let modules = files.ids.iter().map(|&id| {
            let module = module_of(profile.stacks.text(id), &directories);
            module.map_or(Value::Null, |module| Value::from(visible(&module)))
        });
        Names {
            functions: functions.shown(),
            modules: modules.collect(),
            files: files.shown(),
        }
    }
}

/// Of [`METRICS`].
const METRIC_COLUMNS: [(&str, &str); 4] = [
    ("peak.count", "peak.bytes"),
    ("live.count", "live.bytes"),
    ("allocated.count", "allocated.bytes"),
    ("temporary.count", "temporary.bytes"),
];

fn has_any(figures: &Figures) -> bool {
    METRICS.iter().any(|&metric| !figures.get(metric).is_zero())
}

fn frame_location(profile: &Profile, tree: &CallTree, index: usize) -> LocationId {
    profile.stacks.frames[tree.nodes[index].frame.index()].location
}

fn span_of(position: Position) -> Option<Span> {
    let (column, end_column) = (position.column?, position.end_column?);
    let lines = i64::from(position.end_line) - i64::from(position.line);
    Some(Span {
        lines: u64::try_from(lines).ok()?,
        column: column.into(),
        end_column: end_column.into(),
    })
}

/// `co_qualname` of each location; the same function on the same line has one, but for oddities of
/// which the first will do.
fn qualified_names(profile: &Profile) -> Vec<Option<TextId>> {
    let mut names = vec![None; profile.stacks.locations.len()];
    for frame in &profile.stacks.frames {
        let name = &mut names[frame.location.index()];
        if name.is_none() && !profile.stacks.text(frame.qualified_name).is_empty() {
            *name = Some(frame.qualified_name);
        }
    }
    names
}

/// The texts that the page needs, each once.
struct Texts<'a> {
    profile: &'a Profile,
    indices: FxHashMap<TextId, u64>,
    ids: Vec<TextId>,
}

impl<'a> Texts<'a> {
    fn new(profile: &'a Profile) -> Self {
        Self {
            profile,
            indices: FxHashMap::default(),
            ids: Vec::new(),
        }
    }

    fn index_of(&mut self, id: TextId) -> u64 {
        *self.indices.entry(id).or_insert_with(|| {
            self.ids.push(id);
            (self.ids.len() - 1) as u64
        })
    }

    /// Empty for what is in no file.
    fn shown(&self) -> Vec<String> {
        let texts = self.ids.iter().map(|&id| self.profile.stacks.text(id));
        texts
            .map(|text| {
                if text == NO_FILE {
                    String::new()
                } else {
                    visible(text).into_owned()
                }
            })
            .collect()
    }
}
