//! The tables of one thread: columns, and indices from one into the other.

use heaptide_engine::{CallTree, LocationId, NO_FILE, Profile, TextId};
use rustc_hash::FxHashMap;
use serde::Serialize;

/// Index of the category "Python".
const CATEGORY: u32 = 0;
/// No address, no resource.
const NONE: i32 = -1;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ThreadTables<'a> {
    process_type: &'static str,
    process_name: &'static str,
    process_startup_time: f64,
    process_shutdown_time: Option<f64>,
    register_time: f64,
    unregister_time: Option<f64>,
    paused_ranges: [u8; 0],
    name: &'a str,
    is_main_thread: bool,
    pid: String,
    tid: String,
    samples: Samples,
    native_allocations: NativeAllocations,
    markers: Markers,
    stack_table: StackTable,
    frame_table: FrameTable,
    func_table: FuncTable,
    resource_table: ResourceTable,
    native_symbols: NativeSymbols,
    string_array: Vec<&'a str>,
    #[serde(skip)]
    end: f64,
    #[serde(skip)]
    indices: Indices,
}

#[derive(Default)]
struct Indices {
    stacks: FxHashMap<u32, u32>,
    frames: FxHashMap<LocationId, u32>,
    functions: FxHashMap<(TextId, TextId), u32>,
    strings: FxHashMap<TextId, u32>,
}

/// Two samples without a stack: the time that the thread spans.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Samples {
    time: [f64; 2],
    stack: [Option<u32>; 2],
    weight: [u32; 2],
    weight_type: &'static str,
    length: usize,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct NativeAllocations {
    time: Vec<f64>,
    weight: Vec<u64>,
    weight_type: &'static str,
    stack: Vec<u32>,
    length: usize,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Markers {
    data: [u8; 0],
    name: [u8; 0],
    start_time: [u8; 0],
    end_time: [u8; 0],
    phase: [u8; 0],
    category: [u8; 0],
    length: usize,
}

#[derive(Default, Serialize)]
struct StackTable {
    frame: Vec<u32>,
    prefix: Vec<Option<u32>>,
    category: Vec<u32>,
    subcategory: Vec<u32>,
    length: usize,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct FrameTable {
    address: Vec<i32>,
    inline_depth: Vec<u32>,
    category: Vec<u32>,
    subcategory: Vec<u32>,
    func: Vec<u32>,
    native_symbol: Vec<Option<u32>>,
    #[serde(rename = "innerWindowID")]
    inner_window_id: Vec<u32>,
    implementation: Vec<Option<u32>>,
    line: Vec<Option<i32>>,
    column: Vec<Option<i32>>,
    length: usize,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct FuncTable {
    name: Vec<u32>,
    #[serde(rename = "isJS")]
    is_js: Vec<bool>,
    #[serde(rename = "relevantForJS")]
    relevant_for_js: Vec<bool>,
    resource: Vec<i32>,
    file_name: Vec<Option<u32>>,
    line_number: Vec<Option<u32>>,
    column_number: Vec<Option<u32>>,
    length: usize,
}

#[derive(Default, Serialize)]
struct ResourceTable {
    lib: [u8; 0],
    name: [u8; 0],
    host: [u8; 0],
    #[serde(rename = "type")]
    kind: [u8; 0],
    length: usize,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct NativeSymbols {
    lib_index: [u8; 0],
    address: [u8; 0],
    name: [u8; 0],
    function_size: [u8; 0],
    length: usize,
}

impl<'a> ThreadTables<'a> {
    pub(super) fn new(
        process_name: &'static str,
        pid: String,
        name: &'a str,
        tid: String,
        end: f64,
    ) -> Self {
        Self {
            process_type: "default",
            process_name,
            process_startup_time: 0.0,
            process_shutdown_time: Some(end),
            register_time: 0.0,
            unregister_time: Some(end),
            paused_ranges: [],
            name: if name.is_empty() { "thread" } else { name },
            is_main_thread: false,
            pid,
            tid,
            samples: Samples {
                time: [0.0, end],
                stack: [None; 2],
                weight: [0; 2],
                weight_type: "bytes",
                length: 2,
            },
            native_allocations: NativeAllocations {
                weight_type: "bytes",
                ..NativeAllocations::default()
            },
            markers: Markers::default(),
            stack_table: StackTable::default(),
            frame_table: FrameTable::default(),
            func_table: FuncTable::default(),
            resource_table: ResourceTable::default(),
            native_symbols: NativeSymbols::default(),
            string_array: Vec::new(),
            end,
            indices: Indices::default(),
        }
    }

    pub(super) fn set_main_thread(&mut self) {
        self.is_main_thread = true;
    }

    /// What a node of the tree itself has.
    pub(super) fn add(&mut self, profile: &'a Profile, tree: &CallTree, node: u32, bytes: u64) {
        let stack = self.stack(profile, tree, node);
        let table = &mut self.native_allocations;
        table.time.push(self.end);
        table.weight.push(bytes);
        table.stack.push(stack);
        table.length += 1;
    }

    fn stack(&mut self, profile: &'a Profile, tree: &CallTree, node: u32) -> u32 {
        // Not a recursion: programs can be deeper than our own stack.
        let mut missing = Vec::new();
        let mut at = node;
        while at != 0 && !self.indices.stacks.contains_key(&at) {
            missing.push(at);
            at = tree.nodes[at as usize].parent;
        }
        let mut prefix = self.indices.stacks.get(&at).copied();
        for &at in missing.iter().rev() {
            let frame = profile.stacks.frames[tree.nodes[at as usize].frame.index()];
            let frame = self.frame(profile, frame.location);
            let table = &mut self.stack_table;
            table.frame.push(frame);
            table.prefix.push(prefix);
            table.category.push(CATEGORY);
            table.subcategory.push(0);
            table.length += 1;
            let index = (table.length - 1) as u32;
            self.indices.stacks.insert(at, index);
            prefix = Some(index);
        }
        // A node is never the root, so there is at least one stack.
        prefix.unwrap_or(0)
    }

    fn frame(&mut self, profile: &'a Profile, location: LocationId) -> u32 {
        if let Some(&index) = self.indices.frames.get(&location) {
            return index;
        }
        let place = profile.stacks.locations[location.index()];
        let function = self.function(profile, place.function, place.file);
        let table = &mut self.frame_table;
        table.address.push(NONE);
        table.inline_depth.push(0);
        table.category.push(CATEGORY);
        table.subcategory.push(0);
        table.func.push(function);
        table.native_symbol.push(None);
        table.inner_window_id.push(0);
        table.implementation.push(None);
        table.line.push(Some(place.line).filter(|&line| line > 0));
        table.column.push(None);
        table.length += 1;
        let index = (table.length - 1) as u32;
        self.indices.frames.insert(location, index);
        index
    }

    fn function(&mut self, profile: &'a Profile, function: TextId, file: TextId) -> u32 {
        if let Some(&index) = self.indices.functions.get(&(function, file)) {
            return index;
        }
        let name = self.string(profile, function);
        let has_file = profile.stacks.text(file) != NO_FILE;
        let file_name = has_file.then(|| self.string(profile, file));
        let table = &mut self.func_table;
        table.name.push(name);
        table.is_js.push(false);
        table.relevant_for_js.push(false);
        table.resource.push(NONE);
        table.file_name.push(file_name);
        table.line_number.push(None);
        table.column_number.push(None);
        table.length += 1;
        let index = (table.length - 1) as u32;
        self.indices.functions.insert((function, file), index);
        index
    }

    fn string(&mut self, profile: &'a Profile, text: TextId) -> u32 {
        let strings = &mut self.string_array;
        *self.indices.strings.entry(text).or_insert_with(|| {
            strings.push(profile.stacks.text(text));
            (strings.len() - 1) as u32
        })
    }
}
