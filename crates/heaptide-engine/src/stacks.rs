//! Stacks, frames and locations.

use std::collections::HashMap;

use heaptide_capture::{Capture, Code, NativeSymbol, WarningKind, Warnings};
use heaptide_format::{NO_CODE, NODE_COMBINED, NODE_FOLDED, NODE_OVERFLOW, NODE_ROOT};
use rustc_hash::FxHashMap;

use crate::hybrid::{Combiner, Parts};
use crate::numbering::Numbering;
use crate::position::{Position, position_of};

macro_rules! index_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// The index into the vector it belongs to.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index_type! {
    /// Index of a stack; the stack is this node and its ancestors.
    StackId
}
index_type! {
    /// Index of a frame.
    FrameId
}
index_type! {
    /// Index of a (function, file, line).
    LocationId
}
index_type! {
    /// Index of a text.
    TextId
}

impl StackId {
    /// The empty stack.
    pub const ROOT: Self = Self(0);
    /// Stacks whose nodes were lost.
    pub const LOST: Self = Self(1);
}

/// One frame of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackNode {
    /// The caller; always a smaller index. The root is its own.
    pub parent: StackId,
    /// The frame; of the root it means nothing.
    pub frame: FrameId,
    /// Stands for recursive frames that were folded because the node budget ran out.
    pub folded: bool,
}

/// A place in a code object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Function, file and line, by which reports merge.
    pub location: LocationId,
    /// `co_qualname`
    pub qualified_name: TextId,
    /// Line and columns.
    pub position: Position,
}

/// What a report shows of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// `co_name`, or the name of a native function.
    pub function: TextId,
    /// `co_filename`, or the source of a native function.
    pub file: TextId,
    /// Line, zero when unknown.
    pub line: i32,
}

/// All stacks of a profile. Where native stacks were recorded, those that allocated are of Python and native frames;
/// [`Stacks::python`] and [`Stacks::native_frames`] lead to the parts.
#[derive(Debug, Default)]
pub struct Stacks {
    /// By [`StackId`]; the parent of each comes before it.
    pub nodes: Vec<StackNode>,
    /// By [`FrameId`].
    pub frames: Vec<Frame>,
    /// By [`LocationId`].
    pub locations: Vec<Location>,
    /// By [`TextId`].
    pub texts: Vec<String>,
    /// Stands for the empty stack where a report needs a frame.
    pub frameless: FrameId,
    /// What stacks with native frames are combined from.
    pub(crate) parts: Parts,
}

impl Stacks {
    /// A text.
    #[must_use]
    pub fn text(&self, id: TextId) -> &str {
        &self.texts[id.index()]
    }

    /// The frame of a stack's innermost node; `None` for the empty stack.
    #[must_use]
    pub fn innermost(&self, stack: StackId) -> Option<&Frame> {
        (stack != StackId::ROOT).then(|| &self.frames[self.nodes[stack.index()].frame.index()])
    }

    /// The nodes of a stack from the innermost frame outwards, the root left out.
    pub fn walk(&self, stack: StackId) -> impl Iterator<Item = StackId> {
        let step = |&at: &StackId| {
            Some(self.nodes[at.index()].parent).filter(|&parent| parent != StackId::ROOT)
        };
        std::iter::successors(Some(stack).filter(|&stack| stack != StackId::ROOT), step)
    }

    /// `function:file:line`, the form of Memray's JSON.
    #[must_use]
    pub fn location_label(&self, location: LocationId) -> String {
        let location = self.locations[location.index()];
        format!(
            "{}:{}:{}",
            self.text(location.function),
            self.text(location.file),
            location.line
        )
    }
}

/// Shown where a name should be and is not.
const MISSING: &str = "<missing>";
const DAMAGED: &str = "<damaged>";
/// The file of frames that are in no file: lost stacks, overflow, allocations without a Python frame.
pub const NO_FILE: &str = "<heaptide>";

/// Looking up a position reads its line table from the start. A file made for it could have that
/// done for every node; beyond this many bytes only the first line of a function is given.
const LINE_TABLE_BYTES_BUDGET: u64 = 1 << 30;

/// Builds [`Stacks`] from the nodes of a capture.
pub(crate) struct StackBuilder<'a> {
    pub(crate) capture: &'a Capture,
    pub(crate) stacks: Stacks,
    text_ids: HashMap<String, TextId>,
    string_ids: FxHashMap<u32, TextId>,
    location_ids: FxHashMap<Location, LocationId>,
    frame_ids: FxHashMap<Frame, FrameId>,
    /// By code number and instruction.
    resolved: FxHashMap<(u32, i32), FrameId>,
    line_table_bytes_left: u64,
}

/// The stacks of a capture, and which stack each node number of the file is.
pub(crate) fn build_stacks(capture: &Capture, warnings: &mut Warnings) -> (Stacks, NodeMap) {
    let mut builder = StackBuilder {
        capture,
        stacks: Stacks::default(),
        text_ids: HashMap::new(),
        string_ids: FxHashMap::default(),
        location_ids: FxHashMap::default(),
        frame_ids: FxHashMap::default(),
        resolved: FxHashMap::default(),
        line_table_bytes_left: LINE_TABLE_BYTES_BUDGET,
    };
    let lost = builder.invented_frame("<stack lost>");
    builder.stacks.frameless = builder.invented_frame("<no Python frame>");
    // The root and the lost stack.
    for _ in [StackId::ROOT, StackId::LOST] {
        builder.stacks.nodes.push(StackNode {
            parent: StackId::ROOT,
            frame: lost,
            folded: false,
        });
    }
    let mut map = NodeMap::default();
    // Where there are no native stacks, the bit that means a combined one means nothing.
    let mut combiner = None;
    if capture.identity.holds_native_stacks() {
        combiner = Some(Combiner::new(&mut builder, warnings));
        map.stacks = Some(Vec::new());
    }
    for (number, node) in capture.nodes.iter() {
        let parent = match node.parent {
            _ if number == NODE_ROOT || number == NODE_OVERFLOW => StackId::ROOT,
            parent if parent >= number => {
                warnings.add(WarningKind::DamagedNode, None, || {
                    format!("stack node {number} claims node {parent} as its caller, which comes after it")
                });
                StackId::LOST
            }
            parent => map.stack_of(parent).unwrap_or_else(|| {
                warnings.add(WarningKind::DanglingReference, None, || {
                    format!(
                        "stack node {number} has node {parent} as its caller, which is not there"
                    )
                });
                StackId::LOST
            }),
        };
        // A combined stack calls nothing.
        let parent = match builder.stacks.parts.combined(parent) {
            Some(combined) => {
                warnings.add(WarningKind::DamagedNode, None, || {
                    format!(
                        "stack node {number} has node {} as its caller, which is no frame",
                        node.parent
                    )
                });
                combined.python
            }
            None => parent,
        };
        if let Some(combiner) = &mut combiner
            && node.flags & NODE_COMBINED != 0
            && number > NODE_OVERFLOW
        {
            let stack = combiner.combine(&mut builder.stacks, parent, node.code, warnings);
            map.push(number, stack);
            continue;
        }
        let frame = match (number, node.code) {
            (NODE_OVERFLOW, _) => builder.invented_frame("<stacks beyond the budget>"),
            (NODE_ROOT, _) => lost,
            (_, NO_CODE) => builder.invented_frame(MISSING),
            (_, code) => builder.frame_of(code, node.last_instruction, warnings),
        };
        let stack = StackId(builder.stacks.nodes.len() as u32);
        map.push(number, stack);
        builder.stacks.nodes.push(StackNode {
            parent,
            frame,
            folded: node.flags & NODE_FOLDED != 0,
        });
        if combiner.is_some() {
            builder.stacks.parts.set_flags(stack, node.flags);
        }
    }
    (builder.stacks, map)
}

/// Which stack a node number of the file is.
#[derive(Debug, Default)]
pub(crate) struct NodeMap {
    numbers: Numbering,
    /// By index, where there are other stacks between those of the nodes.
    stacks: Option<Vec<StackId>>,
}

impl NodeMap {
    /// The nodes of the file follow the two stacks that are always there.
    const INVENTED: usize = 2;

    fn push(&mut self, number: u32, stack: StackId) {
        self.numbers.push(number);
        if let Some(stacks) = &mut self.stacks {
            stacks.push(stack);
        }
    }

    pub(crate) fn stack_of(&self, number: u32) -> Option<StackId> {
        if number == NODE_ROOT {
            return Some(StackId::ROOT);
        }
        let index = self.numbers.index_of(number)?;
        match &self.stacks {
            Some(stacks) => stacks.get(index).copied(),
            None => u32::try_from(index + Self::INVENTED).ok().map(StackId),
        }
    }
}

impl StackBuilder<'_> {
    fn text(&mut self, text: &str) -> TextId {
        if let Some(&id) = self.text_ids.get(text) {
            return id;
        }
        let id = TextId(self.stacks.texts.len() as u32);
        self.stacks.texts.push(text.to_owned());
        self.text_ids.insert(text.to_owned(), id);
        id
    }

    fn string(&mut self, number: u32, warnings: &mut Warnings) -> TextId {
        if let Some(&id) = self.string_ids.get(&number) {
            return id;
        }
        let capture = self.capture;
        let id = match capture.definitions.string(number) {
            Some(text) => self.text(text),
            None => {
                warnings.add(WarningKind::DanglingReference, None, || {
                    format!("string {number} is named and was never defined")
                });
                self.text(MISSING)
            }
        };
        self.string_ids.insert(number, id);
        id
    }

    fn invented_frame(&mut self, name: &str) -> FrameId {
        let function = self.text(name);
        let file = self.text(NO_FILE);
        self.intern(
            Location {
                function,
                file,
                line: 0,
            },
            function,
            Position::default(),
        )
    }

    pub(crate) fn native_frame(&mut self, symbol: &NativeSymbol) -> FrameId {
        let function = self.text(&symbol.function);
        let file = self.text(&symbol.file);
        let location = Location {
            function,
            file,
            line: symbol.line,
        };
        self.intern(location, function, Position::of_line(symbol.line))
    }

    fn intern(
        &mut self,
        location: Location,
        qualified_name: TextId,
        position: Position,
    ) -> FrameId {
        let locations = &mut self.stacks.locations;
        let location = *self.location_ids.entry(location).or_insert_with(|| {
            locations.push(location);
            LocationId((locations.len() - 1) as u32)
        });
        let frames = &mut self.stacks.frames;
        let frame = Frame {
            location,
            qualified_name,
            position,
        };
        *self.frame_ids.entry(frame).or_insert_with(|| {
            frames.push(frame);
            FrameId((frames.len() - 1) as u32)
        })
    }

    fn frame_of(&mut self, number: u32, last_instruction: i32, warnings: &mut Warnings) -> FrameId {
        if let Some(&frame) = self.resolved.get(&(number, last_instruction)) {
            return frame;
        }
        let capture = self.capture;
        let frame = match capture.definitions.code(number) {
            Some(Some(code)) => self.frame_in(code, last_instruction, warnings),
            Some(None) => self.invented_frame(DAMAGED),
            None => {
                warnings.add(WarningKind::DanglingReference, None, || {
                    format!("code object {number} is named and was never defined")
                });
                self.invented_frame(MISSING)
            }
        };
        self.resolved.insert((number, last_instruction), frame);
        frame
    }

    fn frame_in(&mut self, code: &Code, last_instruction: i32, warnings: &mut Warnings) -> FrameId {
        let function = self.string(code.fixed.name, warnings);
        let qualified_name = self.string(code.fixed.qualified_name, warnings);
        let file = self.string(code.fixed.file_name, warnings);
        let cost = code.line_table.len() as u64 + 1;
        let position = if let Some(left) = self.line_table_bytes_left.checked_sub(cost) {
            self.line_table_bytes_left = left;
            position_of(
                self.capture.lifecycle.python_version,
                code,
                last_instruction,
            )
        } else {
            Position::of_line(code.fixed.first_line)
        };
        self.intern(
            Location {
                function,
                file,
                line: position.line,
            },
            qualified_name,
            position,
        )
    }
}
