//! Native frames of Memray's files: a tree of instructions, and lists of what was mapped where.

use heaptide_format::{Module, NATIVE_ROOT, NO_MODULE, NativeNode};
use rustc_hash::FxHashMap;

/// Frames whose nodes are looked up again for other mappings, beyond four for each frame: a file could have mappings for
/// each event.
const SPARE_LOOKUPS: usize = 1 << 22;
const LOOKUPS_PER_FRAME: usize = 4;
/// Nodes that are looked through when there are other mappings, in all.
const MOST_REVIEWED: usize = 1 << 28;
/// No node is known yet.
const NONE: u32 = u32::MAX;

/// Part of a module that was mapped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Segment {
    start: u64,
    end: u64,
    module: u32,
}

/// What was mapped at some time.
#[derive(Default)]
struct Mappings {
    segments: Vec<Segment>,
    is_sorted: bool,
}

impl Mappings {
    fn sort(&mut self) {
        if !self.is_sorted {
            self.segments.sort_unstable();
            self.is_sorted = true;
        }
    }

    /// The module at an address; as Memray, none at the address where one segment ends, be it the start of another.
    fn module_at(&self, address: u64) -> Option<u32> {
        let segments = &self.segments;
        let place = segments.partition_point(|segment| segment.end < address);
        let segment = segments.get(place)?;
        (segment.start..segment.end)
            .contains(&address)
            .then_some(segment.module)
    }

    /// Both are sorted.
    fn are_all_in(&self, other: &Self) -> bool {
        let mut others = other.segments.iter();
        (self.segments.iter()).all(|segment| others.by_ref().any(|other| other == segment))
    }
}

/// A frame as the file has it.
struct Frame {
    instruction: u64,
    /// The caller's number, zero for none.
    parent: u32,
    /// The node that was found first.
    node: u32,
}

/// All native frames so far.
pub(crate) struct Native {
    /// Numbered from 1 on.
    frames: Vec<Frame>,
    /// From generation 1 on. Where allocations name none, the last one counts, and the others are empty.
    generations: Vec<Mappings>,
    keeps_generations: bool,
    modules: Vec<Module>,
    module_numbers: FxHashMap<(u32, u64), u32>,
    module: u32,
    base: u64,
    nodes: Vec<NativeNode>,
    /// Whether a node or one of its callers is in no module that is known.
    is_unknown: Vec<bool>,
    numbers: FxHashMap<NativeNode, u32>,
    /// By number of a frame and generation; zero where only the last one counts.
    known: FxHashMap<(u32, u32), u32>,
    looked_up_again: usize,
    reviewed: usize,
    /// The generation that `known` is of, where only the last one counts.
    of_generation: usize,
    path: Vec<u32>,
}

impl Native {
    /// `keeps_generations`: allocations name a generation, instead of being of the last one.
    pub(crate) fn new(keeps_generations: bool) -> Self {
        Self {
            frames: Vec::new(),
            generations: Vec::new(),
            keeps_generations,
            modules: Vec::new(),
            module_numbers: FxHashMap::default(),
            module: 0,
            base: 0,
            nodes: vec![NativeNode {
                module: NO_MODULE,
                ..NativeNode::default()
            }],
            is_unknown: vec![false],
            numbers: FxHashMap::default(),
            known: FxHashMap::default(),
            looked_up_again: 0,
            reviewed: 0,
            of_generation: 0,
            path: Vec::new(),
        }
    }

    /// The next frame.
    pub(crate) fn add_frame(&mut self, instruction: u64, parent: u64) {
        // One that does not come before is damage; its callers are lost.
        let parent = u32::try_from(parent)
            .ok()
            .filter(|&parent| parent as usize <= self.frames.len())
            .unwrap_or(0);
        self.frames.push(Frame {
            instruction,
            parent,
            node: NONE,
        });
    }

    /// What was mapped is told anew.
    pub(crate) fn begin_mappings(&mut self) {
        if !self.keeps_generations
            && self.generations.len() > self.of_generation
            && let Some(unused) = self.generations.last_mut()
        {
            *unused = Mappings::default();
        }
        self.generations.push(Mappings::default());
    }

    /// The segments that follow are of a file, by its string number, at a base.
    pub(crate) fn begin_module(&mut self, file_name: u32, base: u64) {
        let next = self.modules.len() as u32;
        self.module = *(self.module_numbers.entry((file_name, base))).or_insert(next);
        self.base = base;
        if self.module == next {
            self.modules.push(Module {
                file_name,
                base,
                ..Module::default()
            });
        }
    }

    pub(crate) fn add_segment(&mut self, address: u64, length: u64) {
        // Before the first list there is none to add it to.
        if let Some(mappings) = self.generations.last_mut() {
            let start = self.base.wrapping_add(address);
            mappings.segments.push(Segment {
                start,
                end: start.saturating_add(length),
                module: self.module,
            });
            mappings.is_sorted = false;
        }
    }

    /// The last generation.
    pub(crate) fn generation(&self) -> u64 {
        self.generations.len() as u64
    }

    /// The node of the stack of a frame, in the mappings of a generation; `None` where there is no such frame.
    pub(crate) fn node(&mut self, number: u64, generation: u64) -> Option<u32> {
        let number = u32::try_from(number).ok()?;
        if number == 0 {
            return Some(NATIVE_ROOT);
        }
        self.frames.get(number as usize - 1)?;
        let mut generation = usize::try_from(generation)
            .unwrap_or(usize::MAX)
            .min(self.generations.len());
        if !self.keeps_generations {
            self.review();
            generation = self.generations.len();
        }
        if let Some(mappings) = self.mappings(generation) {
            mappings.sort();
        }
        Some(self.look_up(number, generation))
    }

    fn mappings(&mut self, generation: usize) -> Option<&mut Mappings> {
        self.generations.get_mut(generation.checked_sub(1)?)
    }

    fn look_up(&mut self, number: u32, generation: usize) -> u32 {
        let may_repeat =
            self.looked_up_again < SPARE_LOOKUPS + LOOKUPS_PER_FRAME * self.frames.len();
        let of_generation = match self.keeps_generations {
            true => generation as u32,
            false => 0,
        };
        let mut at = number;
        let mut node = NATIVE_ROOT;
        while at != 0 {
            let frame = &self.frames[at as usize - 1];
            if let Some(&known) = self.known.get(&(at, of_generation)) {
                node = known;
                break;
            }
            if !may_repeat && frame.node != NONE {
                node = frame.node;
                break;
            }
            self.path.push(at);
            at = frame.parent;
        }
        while let Some(number) = self.path.pop() {
            let instruction = self.frames[number as usize - 1].instruction;
            node = self.node_at(node, instruction, generation);
            let frame = &mut self.frames[number as usize - 1];
            if frame.node == NONE {
                frame.node = node;
            } else {
                self.looked_up_again += 1;
            }
            self.known.insert((number, of_generation), node);
        }
        node
    }

    /// The node of an instruction that the frame of `parent` called.
    fn node_at(&mut self, parent: u32, instruction: u64, generation: usize) -> u32 {
        let mappings = generation
            .checked_sub(1)
            .and_then(|index| self.generations.get(index));
        let module = mappings.and_then(|mappings| mappings.module_at(instruction));
        let node = match module {
            Some(module) => NativeNode {
                parent,
                module,
                address: instruction.wrapping_sub(self.modules[module as usize].base),
            },
            None => NativeNode {
                parent,
                module: NO_MODULE,
                address: instruction,
            },
        };
        let is_unknown = module.is_none() || self.is_unknown[parent as usize];
        *self.numbers.entry(node).or_insert_with(|| {
            self.nodes.push(node);
            self.is_unknown.push(is_unknown);
            (self.nodes.len() - 1) as u32
        })
    }

    /// Forgets nodes that may be others in the last mappings, where only those count.
    fn review(&mut self) {
        let last = self.generations.len();
        if self.of_generation == last {
            return;
        }
        let before = std::mem::replace(&mut self.of_generation, last);
        self.reviewed = self.reviewed.saturating_add(self.known.len());
        let old = (before.checked_sub(1)).map(|index| std::mem::take(&mut self.generations[index]));
        let Some(new) = self.mappings(last) else {
            return;
        };
        new.sort();
        let only_adds = old.is_some_and(|old| old.are_all_in(new));
        if self.reviewed > MOST_REVIEWED || !only_adds {
            self.known = FxHashMap::default();
            return;
        }
        // Where something was not known, it may be now.
        let is_unknown = &self.is_unknown;
        self.known.retain(|_, &mut node| !is_unknown[node as usize]);
    }

    pub(crate) fn nodes(&self) -> &[NativeNode] {
        &self.nodes
    }

    pub(crate) fn modules(&self) -> &[Module] {
        &self.modules
    }
}
