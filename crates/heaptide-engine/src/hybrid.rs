//! Native stacks, and how they and Python's become one (`docs/design/019-native-stacks.md`).

use heaptide_capture::{WarningKind, Warnings};
use heaptide_format::{NATIVE_ROOT, NODE_BELOW, NODE_ENTRY};
use rustc_hash::FxHashMap;

use crate::numbering::Numbering;
use crate::stacks::{FrameId, StackBuilder, StackId, StackNode, Stacks};

/// What combined stacks are made of.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    combined: FxHashMap<StackId, Combined>,
    /// Flags of Python's stacks, by [`StackId`]; those beyond the end have none.
    flags: Vec<u32>,
    native: NativeFrames,
}

/// A Python stack and a native one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Combined {
    pub(crate) python: StackId,
    /// The number of the native node.
    native: u32,
    /// Neither has a frame that could be shown.
    is_empty: bool,
}

/// The native nodes of a capture, with what their frames are called.
#[derive(Debug, Default)]
struct NativeFrames {
    numbers: Numbering,
    /// By index; the parent of each comes before it.
    nodes: Vec<NativeFrame>,
    frames: Vec<FrameId>,
    /// What functions are to Python, by frame of `frames`.
    roles: Vec<Role>,
}

/// A frame of a native stack: as many as functions were inlined into one another there, or none where nothing is known.
#[derive(Clone, Copy, Debug)]
struct NativeFrame {
    parent: Option<u32>,
    first: u32,
    count: u32,
}

impl NativeFrames {
    /// Indices from the innermost frame of a native node outwards.
    fn walk(&self, number: u32) -> impl Iterator<Item = usize> {
        let first = (number != NATIVE_ROOT).then(|| self.numbers.index_of(number));
        std::iter::successors(first.flatten(), |&at| {
            self.nodes[at].parent.map(|parent| parent as usize)
        })
    }

    /// As [`Self::walk`], to where the greenlet has begun, if it is one that runs: until it does, Python's frames are those of
    /// whoever switches to it.
    fn walk_own(&self, number: u32) -> impl Iterator<Item = usize> {
        let (mut runs, mut has_begun) = (false, false);
        self.walk(number).take_while(move |&index| {
            let is_own = !has_begun;
            let roles = &self.roles[self.places(index)];
            runs |= roles.iter().any(|role| role.evaluates());
            has_begun = runs && roles.contains(&Role::BeginsGreenlet);
            is_own
        })
    }

    /// Places in `frames` of what a native frame stands for.
    fn places(&self, index: usize) -> std::ops::Range<usize> {
        let NativeFrame { first, count, .. } = self.nodes[index];
        first as usize..first as usize + count as usize
    }
}

impl Stacks {
    /// The Python stack of a combined one, with frames older than tracking; any other stack is its own.
    #[must_use]
    pub fn python_whole(&self, stack: StackId) -> StackId {
        let combined = self.parts.combined.get(&stack);
        combined.map_or(stack, |combined| combined.python)
    }

    /// As [`Stacks::python_whole`], or the empty stack where all frames are older than tracking.
    #[must_use]
    pub fn python(&self, stack: StackId) -> StackId {
        Some(self.python_whole(stack))
            .filter(|&python| !self.parts.is_below(python))
            .unwrap_or(StackId::ROOT)
    }

    /// The nodes of the Python part of a stack from the innermost frame outwards, without those older than tracking.
    pub fn walk_python(&self, stack: StackId) -> impl Iterator<Item = StackId> {
        self.walk(self.python_whole(stack))
            .take_while(|&node| !self.parts.is_below(node))
    }

    /// How many frames of a stack are left, counted from the innermost, without its `outermost` Python frames and the
    /// native ones that called them.
    #[must_use]
    pub fn frames_above(&self, stack: StackId, outermost: usize) -> usize {
        let python = self.python_whole(stack);
        let depth = self.walk(python).count();
        let kept = depth.saturating_sub(outermost);
        if python == stack {
            return kept;
        }
        let frame_of = |stack: StackId| self.nodes[stack.index()].frame;
        let mut pending = self.walk(python).map(frame_of).take(kept + 1).peekable();
        let mut left = kept;
        let mut count = 0;
        for frame in self.walk(stack).map(frame_of) {
            // Native frames are no Python frames, so the frames of Python are found one after the other.
            if outermost > 0 && pending.next_if_eq(&frame).is_some() {
                match left.checked_sub(1) {
                    None => return count,
                    Some(0) => return count + 1,
                    Some(less) => left = less,
                }
            }
            count += 1;
        }
        count
    }

    /// The number of the native stack of a combined one in the capture; 0 where there is none.
    #[must_use]
    pub fn native_number(&self, stack: StackId) -> u32 {
        let combined = self.parts.combined.get(&stack);
        combined.map_or(NATIVE_ROOT, |combined| combined.native)
    }

    /// What the innermost `limit` frames of the native stack of a combined one stand for, the innermost first: functions
    /// that were inlined have frames of their own, and frames of which nothing is known have none.
    pub fn native_frames(&self, stack: StackId, limit: usize) -> impl Iterator<Item = FrameId> {
        let native = &self.parts.native;
        let nodes = native.walk(self.native_number(stack)).take(limit);
        nodes.flat_map(|index| native.frames[native.places(index)].iter().copied())
    }

    /// Whether a combined stack has no frame that could be shown. It is a stack of its own all the same, of the frame that
    /// stands for such.
    #[must_use]
    pub fn is_empty_combined(&self, stack: StackId) -> bool {
        let combined = self.parts.combined.get(&stack);
        combined.is_some_and(|combined| combined.is_empty)
    }

    /// Forgets what stacks were combined from: they are about to be others.
    pub fn forget_parts(&mut self) {
        self.parts = Parts::default();
    }
}

impl Parts {
    fn is_below(&self, stack: StackId) -> bool {
        let flags = self.flags.get(stack.index());
        flags.is_some_and(|flags| flags & NODE_BELOW != 0)
    }

    pub(crate) fn combined(&self, stack: StackId) -> Option<Combined> {
        self.combined.get(&stack).copied()
    }

    /// Says that `stack` is combined of our Python stack `python` as theirs is. Of the native stack only the frames that
    /// the combined one has are left.
    pub(crate) fn add_merged(
        &mut self,
        stack: StackId,
        python: StackId,
        theirs: Combined,
        of: &Self,
    ) {
        let native = NATIVE_ROOT;
        let combined = Combined {
            python,
            native,
            ..theirs
        };
        self.combined.entry(stack).or_insert(combined);
        if of.is_below(theirs.python) {
            self.set_flags(python, NODE_BELOW);
        }
    }

    pub(crate) fn set_flags(&mut self, stack: StackId, flags: u32) {
        if self.flags.len() <= stack.index() {
            self.flags.resize(stack.index() + 1, 0);
        }
        self.flags[stack.index()] = flags;
    }
}

/// Combined stacks may come to so many frames, one by one: what is shared counts again. A file could be made for
/// more.
const MOST_STEPS: u64 = 1 << 27;
/// So many stacks are made for combined ones, and [`STACKS_PER_NODE`] for each node of the capture.
const SPARE_STACKS: u64 = 1 << 22;
const STACKS_PER_NODE: u64 = 16;

/// Makes hybrid stacks.
pub(crate) struct Combiner {
    steps_left: u64,
    stacks_left: u64,
    /// Callers that combined stacks share.
    children: FxHashMap<(StackId, FrameId), StackId>,
    frames: Vec<FrameId>,
    python: Vec<StackId>,
    native: Vec<usize>,
}

impl Combiner {
    /// Also reads the native nodes.
    pub(crate) fn new(builder: &mut StackBuilder<'_>, warnings: &mut Warnings) -> Self {
        let capture = builder.capture;
        let mut native = NativeFrames::default();
        let mut known: FxHashMap<(u32, u64), (u32, u32)> = FxHashMap::default();
        for (number, node) in capture.native_nodes.iter() {
            let parent = match node.parent {
                _ if number == NATIVE_ROOT => None,
                NATIVE_ROOT => None,
                parent if parent >= number => {
                    warnings.add(WarningKind::DamagedNode, None, || {
                        format!("native node {number} claims node {parent} as its caller, which comes after it")
                    });
                    None
                }
                parent => {
                    let index = native.numbers.index_of(parent);
                    if index.is_none() {
                        warnings.add(WarningKind::DanglingReference, None, || {
                            format!("native node {number} has node {parent} as its caller, which is not there")
                        });
                    }
                    index.map(|index| index as u32)
                }
            };
            let place = (node.module, node.address);
            let (first, count) = *known.entry(place).or_insert_with(|| {
                let first = native.frames.len();
                for symbol in capture.symbols.at(node.module, node.address) {
                    native.frames.push(builder.native_frame(symbol));
                    native.roles.push(Role::of(&symbol.function));
                }
                (first as u32, (native.frames.len() - first) as u32)
            });
            native.numbers.push(number);
            native.nodes.push(NativeFrame {
                parent,
                first,
                count,
            });
        }
        warn_of_lines(builder, &native, warnings);
        builder.stacks.parts.native = native;
        let nodes = capture.nodes.iter().count() + capture.native_nodes.iter().count();
        Self {
            steps_left: MOST_STEPS,
            stacks_left: SPARE_STACKS + STACKS_PER_NODE * nodes as u64,
            children: FxHashMap::default(),
            frames: Vec::new(),
            python: Vec::new(),
            native: Vec::new(),
        }
    }

    /// A stack of its own for a Python stack together with a native one.
    pub(crate) fn combine(
        &mut self,
        stacks: &mut Stacks,
        python: StackId,
        native: u32,
        warnings: &mut Warnings,
    ) -> StackId {
        if native != NATIVE_ROOT && stacks.parts.native.numbers.index_of(native).is_none() {
            warnings.add(WarningKind::DanglingReference, None, || {
                format!("a stack is combined with native node {native}, which is not there")
            });
        }
        let merged = self.merge(stacks, python, native);
        if merged == Some(Kind::PythonAlone) {
            warnings.add(WarningKind::PythonFramesAlone, None, || {
                "a stack has native frames and is shown by its Python frames alone: the interpreter has no symbols that \
                 say where it evaluates Python, or not all frames were found"
                    .to_owned()
            });
        }
        let (outer, innermost) = if merged.is_some() {
            match self.frames.split_last() {
                Some((&innermost, outer)) => {
                    let mut at = StackId::ROOT;
                    for &frame in outer {
                        at = *self.children.entry((at, frame)).or_insert_with(|| {
                            self.stacks_left = self.stacks_left.saturating_sub(1);
                            push(stacks, at, frame)
                        });
                    }
                    (at, Some(innermost))
                }
                None => (StackId::ROOT, None),
            }
        } else {
            warnings.add(WarningKind::SparseSegment, None, || {
                "native stacks claim far more frames than the file has bytes; the rest are shown by their Python frames"
                    .to_owned()
            });
            as_python(stacks, python)
        };
        let frame = innermost.unwrap_or(stacks.frameless);
        let stack = push(stacks, outer, frame);
        let combined = Combined {
            python,
            native,
            is_empty: innermost.is_none(),
        };
        stacks.parts.combined.insert(stack, combined);
        stack
    }

    /// Puts the frames of the hybrid stack into `frames`, the outermost first. `None`: there would be too many.
    fn merge(&mut self, stacks: &Stacks, python: StackId, native: u32) -> Option<Kind> {
        self.frames.clear();
        self.python.clear();
        self.native.clear();
        if self.stacks_left == 0 || self.steps_left == 0 {
            return None;
        }
        self.python.extend(stacks.walk(python));
        let parts = &stacks.parts;
        self.native.extend(parts.native.walk_own(native));
        let inlined = self.native.iter().map(|&at| parts.native.nodes[at].count);
        let steps = self.python.len() as u64
            + self.native.len() as u64
            + inlined.map(u64::from).sum::<u64>();
        let Some(left) = self.steps_left.checked_sub(steps) else {
            self.steps_left = 0;
            return None;
        };
        self.steps_left = left;
        let flags = |stack: StackId| parts.flags.get(stack.index()).copied().unwrap_or_default();
        let frame_of = |stack: StackId| stacks.nodes[stack.index()].frame;
        let mut pending = self.python.iter().rev().copied().peekable();
        let has_below = pending
            .peek()
            .is_some_and(|&outer| flags(outer) & NODE_BELOW != 0);
        let mut are_shown = !has_below;
        // Else nobody has looked for them, or it has been said that their files are not there.
        let has_names = (self.native.iter()).any(|&at| parts.native.nodes[at].count > 0);
        let mut caller = Role::Other;
        let mut is_before_program = false;
        for &index in self.native.iter().rev() {
            for place in parts.native.places(index).rev() {
                let role = parts.native.roles[place];
                if (caller, role) == (Role::Evaluates, Role::Instruction) {
                    // The same evaluation goes on.
                    caller = Role::Other;
                    continue;
                }
                caller = role;
                is_before_program |= role == Role::RunsProgram;
                if !role.evaluates() || pending.peek().is_none() {
                    self.frames.push(parts.native.frames[place]);
                    continue;
                }
                // The frame for which the interpreter was entered, and those that it called without leaving it.
                if std::mem::take(&mut is_before_program) {
                    self.frames.clear();
                }
                let mut is_first = true;
                while let Some(next) =
                    pending.next_if(|&next| is_first || flags(next) & NODE_ENTRY == 0)
                {
                    is_first = false;
                    if !are_shown && flags(next) & NODE_BELOW == 0 {
                        self.frames.clear();
                        are_shown = true;
                    }
                    self.frames.push(frame_of(next));
                }
            }
        }
        if pending.peek().is_some() {
            // Not every evaluation of Python was found by its name. As Memray has it, also what is older than tracking.
            self.frames.clear();
            let whole = self.python.iter().rev().map(|&stack| frame_of(stack));
            self.frames.extend(whole);
            return Some(if has_names {
                Kind::PythonAlone
            } else {
                Kind::Hybrid
            });
        }
        Some(Kind::Hybrid)
    }
}

/// What became of a combined stack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hybrid,
    /// There are native frames, and they could not be put among Python's.
    PythonAlone,
}

/// Says so where functions that evaluate Python have names and no lines.
fn warn_of_lines(builder: &StackBuilder<'_>, native: &NativeFrames, warnings: &mut Warnings) {
    let stacks = &builder.stacks;
    let evaluating = native.frames.iter().zip(&native.roles);
    let mut lines = evaluating
        .filter(|(_, role)| role.evaluates())
        .map(|(frame, _)| stacks.locations[stacks.frames[frame.index()].location.index()].line)
        .peekable();
    if lines.peek().is_some() && lines.all(|line| line == 0) {
        warnings.add(WarningKind::NoDebugInformation, None, || {
            "the interpreter has no debug information: its native frames have neither file nor line".to_owned()
        });
    }
}

/// Caller and frame of a Python stack.
fn as_python(stacks: &Stacks, python: StackId) -> (StackId, Option<FrameId>) {
    match stacks.python(python) {
        StackId::ROOT => (StackId::ROOT, None),
        shown => {
            let node = stacks.nodes[shown.index()];
            (node.parent, Some(node.frame))
        }
    }
}

fn push(stacks: &mut Stacks, parent: StackId, frame: FrameId) -> StackId {
    let stack = StackId(stacks.nodes.len() as u32);
    stacks.nodes.push(StackNode {
        parent,
        frame,
        folded: false,
    });
    stack
}

/// What a function is to Python, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Other,
    /// It evaluates Python.
    Evaluates,
    /// With tail calls there is a function for each instruction, which goes on with what another has begun.
    Instruction,
    /// Greenlets begin in it. What lies below is of another, whose Python frames are not those of this one.
    BeginsGreenlet,
    /// The interpreter's own program. What it does before the user's begins is the same in all stacks.
    RunsProgram,
}

impl Role {
    fn of(function: &str) -> Self {
        if function.contains("_PyEval_EvalFrameDefault") {
            Self::Evaluates
        } else if function.starts_with("_TAIL_CALL_") {
            Self::Instruction
        } else if function == "Py_RunMain" {
            Self::RunsProgram
        } else if is_start_of_greenlet(function) {
            Self::BeginsGreenlet
        } else {
            Self::Other
        }
    }

    fn evaluates(self) -> bool {
        matches!(self, Self::Evaluates | Self::Instruction)
    }
}

/// `greenlet::UserGreenlet::g_initialstub(void*)`; in C, before version 2, `g_initialstub`.
fn is_start_of_greenlet(function: &str) -> bool {
    let name = function.split('(').next().unwrap_or_default();
    name == "g_initialstub" || name.starts_with("greenlet::") && name.ends_with("::g_initialstub")
}
