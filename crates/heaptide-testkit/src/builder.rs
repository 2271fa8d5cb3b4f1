//! Makes captures byte for byte.

use heaptide_format::{
    Cell, CodeFixed, DefinitionHeader, DefinitionKind, FEATURE_NATIVE_STACKS, FEATURE_NODE_STREAM,
    FORMAT_VERSION, HEADER_BYTES, Header, MAGIC, MOST_NODE_BYTES, MetadataKey, Mode, Module,
    NO_CODE, NODE_FOLDED, NODE_OVERFLOW, NODE_ROOT, NativeNode, Node, NodeEncoder, Outcome,
    PythonAllocator, SEGMENT_HEADER_BYTES, Sample, SegmentHeader, SegmentKind, Slot, State,
    StringEncoding, Survivor, Thread, checksum,
};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use crate::linetable;

/// Page size of synthetic captures.
pub const PAGE_BYTES: usize = 4096;
/// `PY_VERSION_HEX` of synthetic captures: 3.12.13, whose line tables carry columns.
pub const PYTHON_VERSION: u32 = 0x030c_0df0;
/// When synthetic captures start, nanoseconds since the Unix epoch (2026-01-02 03:04:05 UTC).
pub const START_UNIX_NS: u64 = 1_767_323_045_000_000_000;

/// A capture under construction. Everything public may be changed before [`CaptureBuilder::build`].
#[derive(Clone, Debug)]
pub struct CaptureBuilder {
    /// The header page. Its identity checksum is made by `build`.
    pub header: Header,
    /// Stack nodes; root and overflow are there from the start.
    pub nodes: Vec<Node>,
    /// Are they written as a running program writes them ([`SegmentKind::NodeStream`])?
    pub streams_nodes: bool,
    /// Loaded objects.
    pub modules: Vec<Module>,
    /// Nodes of native stacks; with any of them nodes may be combined.
    pub native_nodes: Vec<NativeNode>,
    /// Counters.
    pub cells: Vec<Cell>,
    /// Threads; the overflow thread is there from the start.
    pub threads: Vec<Thread>,
    /// Per-thread counters.
    pub slots: Vec<Slot>,
    /// Memory over time.
    pub samples: Vec<Sample>,
    /// Python objects that survived; `None`: the capture does not say.
    pub survivors: Option<Vec<Survivor>>,
    /// Chunks of events, each with its head; see [`crate::EventWriter`].
    pub event_chunks: Vec<Vec<u8>>,
    /// Records of one kind are spread over segments of at most this many.
    pub records_per_segment: usize,
    definitions: Vec<u8>,
    strings: u32,
    codes: u32,
}

impl Default for CaptureBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl CaptureBuilder {
    /// A capture of a program that finished well and did nothing.
    #[must_use]
    pub fn new() -> Self {
        let mut header = Header::new_zeroed();
        let identity = &mut header.identity;
        identity.magic = MAGIC;
        identity.version = FORMAT_VERSION;
        identity.header_bytes = HEADER_BYTES as u32;
        identity.page_bytes = PAGE_BYTES as u32;
        identity.mode = Mode::Aggregated as u32;
        identity.pid = 4711;
        identity.parent_pid = 4710;
        identity.created_unix_ns = START_UNIX_NS;
        identity.sample_weight = 1;
        identity.memory_interval_ms = 10;
        identity.temporary_threshold = 1;
        identity.stack_node_budget = 1_000_000;
        let lifecycle = &mut header.lifecycle;
        lifecycle.state = State::Finished as u32;
        lifecycle.python_version = PYTHON_VERSION;
        lifecycle.python_allocator = PythonAllocator::Pymalloc as u32;
        lifecycle.main_thread_id = 4711;
        lifecycle.tracking_start_unix_ns = START_UNIX_NS + 50_000_000;
        lifecycle.tracking_end_unix_ns = START_UNIX_NS + 2_050_000_000;
        lifecycle.ended_unix_ns = START_UNIX_NS + 2_100_000_000;
        lifecycle.outcome = Outcome::Exited as u32;
        let root = Node {
            parent: NODE_ROOT,
            code: NO_CODE,
            last_instruction: -1,
            flags: 0,
        };
        Self {
            header,
            nodes: vec![
                root,
                Node {
                    parent: NODE_ROOT,
                    ..root
                },
            ],
            streams_nodes: false,
            modules: Vec::new(),
            native_nodes: Vec::new(),
            cells: Vec::new(),
            threads: vec![named_thread(0, 0, "", "")],
            slots: Vec::new(),
            samples: Vec::new(),
            survivors: None,
            event_chunks: Vec::new(),
            records_per_segment: usize::MAX,
            definitions: Vec::new(),
            strings: 0,
            codes: 0,
        }
    }

    /// Sets how the program ended.
    pub fn ended(&mut self, state: State, outcome: Outcome, value: i32) -> &mut Self {
        self.header.lifecycle.state = state as u32;
        self.header.lifecycle.outcome = outcome as u32;
        self.header.lifecycle.outcome_value = value;
        if state == State::Tracking {
            self.header.lifecycle.tracking_end_unix_ns = 0;
        }
        self
    }

    /// Appends a definition as it is told, right or wrong.
    pub fn definition(
        &mut self,
        kind: u32,
        id: u32,
        encoding: u32,
        payload: &[u8],
        checksum: u32,
    ) -> &mut Self {
        let total = DefinitionHeader::total_bytes_for(payload.len());
        let header = DefinitionHeader {
            total_bytes: total as u32,
            kind,
            id,
            encoding,
            payload_bytes: payload.len() as u32,
            checksum,
        };
        let end = self.definitions.len() + total;
        self.definitions.extend_from_slice(header.as_bytes());
        self.definitions.extend_from_slice(payload);
        self.definitions.resize(end, 0);
        self
    }

    /// Defines a string by raw storage; gives its number.
    pub fn string_stored(&mut self, encoding: StringEncoding, payload: &[u8]) -> u32 {
        let number = self.strings;
        self.strings += 1;
        self.definition(
            DefinitionKind::String as u32,
            number,
            encoding as u32,
            payload,
            checksum(payload),
        );
        number
    }

    /// Defines a string in the storage kind that CPython would choose; gives its number.
    pub fn string(&mut self, text: &str) -> u32 {
        let largest = text.chars().map(u32::from).max().unwrap_or(0);
        let points = text.chars().map(u32::from);
        match largest {
            0..=0xFF => {
                let bytes: Vec<u8> = points.map(|point| point as u8).collect();
                self.string_stored(StringEncoding::Ucs1, &bytes)
            }
            0x100..=0xFFFF => {
                let bytes: Vec<u8> = points
                    .flat_map(|point| (point as u16).to_le_bytes())
                    .collect();
                self.string_stored(StringEncoding::Ucs2, &bytes)
            }
            _ => {
                let bytes: Vec<u8> = points.flat_map(u32::to_le_bytes).collect();
                self.string_stored(StringEncoding::Ucs4, &bytes)
            }
        }
    }

    /// Defines a code object of given strings; gives its number.
    pub fn code_of(
        &mut self,
        name: u32,
        qualified_name: u32,
        file_name: u32,
        first_line: i32,
        table: &[u8],
    ) -> u32 {
        let number = self.codes;
        self.codes += 1;
        let fixed = CodeFixed {
            name,
            qualified_name,
            file_name,
            first_line,
            line_table_bytes: table.len() as u32,
            flags: 3,
        };
        let payload = [fixed.as_bytes(), table].concat();
        self.definition(
            DefinitionKind::Code as u32,
            number,
            0,
            &payload,
            checksum(&payload),
        );
        number
    }

    /// Defines a function with `lines` instructions, one a line; gives the number of its code.
    /// Use [`CaptureBuilder::frame`] to make nodes in it.
    pub fn function(
        &mut self,
        qualified_name: &str,
        file_name: &str,
        first_line: i32,
        lines: u32,
    ) -> u32 {
        let name = qualified_name.rsplit('.').next().unwrap_or(qualified_name);
        let (name, qualified_name) = (self.string(name), self.string(qualified_name));
        let file_name = self.string(file_name);
        let table = linetable::one_instruction_a_line(lines);
        self.code_of(name, qualified_name, file_name, first_line, &table)
    }

    /// Adds a node for line `first_line + line_offset` of a [`CaptureBuilder::function`].
    pub fn frame(&mut self, parent: u32, code: u32, line_offset: i32) -> u32 {
        self.node(Node {
            parent,
            code,
            last_instruction: line_offset * 2,
            flags: 0,
        })
    }

    /// Adds a node as it is told; gives its number.
    pub fn node(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    /// Adds a thread and its slot; gives its number.
    pub fn thread(&mut self, thread_id: u32, os_name: &str, python_name: &str) -> u32 {
        let number = self.threads.len() as u32;
        let slot = self.slots.len() as u32;
        self.threads
            .push(named_thread(thread_id, slot, os_name, python_name));
        let mut counters = Slot::new_zeroed();
        counters.thread = number;
        self.slots.push(counters);
        number
    }

    /// Adds a fact about the run.
    pub fn metadata(&mut self, key: MetadataKey, value: &[u8]) -> &mut Self {
        self.definition(
            DefinitionKind::Metadata as u32,
            key as u32,
            0,
            value,
            checksum(value),
        )
    }

    /// The stack node for stacks without room.
    #[must_use]
    pub fn overflow_node(&self) -> u32 {
        NODE_OVERFLOW
    }

    /// The bytes of the file.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut segments = Vec::new();
        push_segment(
            &mut segments,
            SegmentKind::Definitions,
            0,
            0,
            &self.definitions,
        );
        push_records(
            &mut segments,
            SegmentKind::Samples,
            &self.samples,
            self.records_per_segment,
        );
        push_records(
            &mut segments,
            SegmentKind::Threads,
            &self.threads,
            self.records_per_segment,
        );
        push_records(
            &mut segments,
            SegmentKind::Slots,
            &self.slots,
            self.records_per_segment,
        );
        if self.streams_nodes {
            push_node_streams(&mut segments, &self.nodes, self.records_per_segment);
        } else {
            push_records(
                &mut segments,
                SegmentKind::Nodes,
                &self.nodes,
                self.records_per_segment,
            );
        }
        push_records(
            &mut segments,
            SegmentKind::Cells,
            &self.cells,
            self.records_per_segment,
        );
        push_records(
            &mut segments,
            SegmentKind::Modules,
            &self.modules,
            self.records_per_segment,
        );
        push_records(
            &mut segments,
            SegmentKind::NativeFrames,
            &self.native_nodes,
            self.records_per_segment,
        );
        match self.survivors.as_deref() {
            // A segment without records says that none survived.
            Some([]) => {
                let record_bytes = size_of::<Survivor>() as u32;
                push_segment(&mut segments, SegmentKind::Survivors, 0, record_bytes, &[]);
            }
            Some(survivors) => push_records(
                &mut segments,
                SegmentKind::Survivors,
                survivors,
                self.records_per_segment,
            ),
            None => {}
        }
        for chunk in &self.event_chunks {
            push_segment(&mut segments, SegmentKind::Events, 0, 0, chunk);
        }
        let mut header = self.header;
        if !self.native_nodes.is_empty() {
            header.identity.required_features |= FEATURE_NATIVE_STACKS;
        }
        if self.streams_nodes {
            header.identity.required_features |= FEATURE_NODE_STREAM;
        }
        header.identity.checksum = header.identity.expected_checksum();
        header.lifecycle.allocated_end = (HEADER_BYTES + segments.len()) as u64;
        [header.as_bytes(), &segments].concat()
    }
}

/// A thread record with padded names.
#[must_use]
pub fn named_thread(thread_id: u32, slot: u32, os_name: &str, python_name: &str) -> Thread {
    let mut thread = Thread::new_zeroed();
    thread.thread_id = thread_id;
    thread.slot = slot;
    thread.first_seen_unix_ns = START_UNIX_NS;
    thread.os_name[..os_name.len()].copy_from_slice(os_name.as_bytes());
    thread.python_name[..python_name.len()].copy_from_slice(python_name.as_bytes());
    thread
}

fn push_records<T: IntoBytes + Immutable>(
    segments: &mut Vec<u8>,
    kind: SegmentKind,
    records: &[T],
    per_segment: usize,
) {
    let per_segment = per_segment.clamp(1, records.len().max(1));
    for (index, chunk) in records.chunks(per_segment).enumerate() {
        push_segment(
            segments,
            kind,
            (index * per_segment) as u64,
            size_of::<T>() as u32,
            chunk.as_bytes(),
        );
    }
}

/// Appends one segment with `payload` committed.
pub fn push_segment(
    segments: &mut Vec<u8>,
    kind: SegmentKind,
    first_index: u64,
    record_bytes: u32,
    payload: &[u8],
) {
    let capacity = (SEGMENT_HEADER_BYTES + payload.len()).next_multiple_of(PAGE_BYTES);
    let mut header = SegmentHeader::new(kind, capacity as u64, first_index, record_bytes);
    header.committed = payload.len() as u64;
    let end = segments.len() + capacity;
    segments.extend_from_slice(header.as_bytes());
    segments.extend_from_slice(payload);
    segments.resize(end, 0);
}

/// Nodes as differences. Folds are told where a running program tells them: later, and perhaps in another segment.
fn push_node_streams(segments: &mut Vec<u8>, nodes: &[Node], per_segment: usize) {
    let mut at = 0;
    let mut folded = Vec::new();
    for nodes in nodes.chunks(per_segment.min(nodes.len()).max(1)) {
        let mut payload = Vec::new();
        let mut encoder = NodeEncoder::new();
        let mut out = [0; MOST_NODE_BYTES];
        let first = at;
        for &node in nodes {
            for number in folded.drain(..) {
                let length = NodeEncoder::fold(&mut out, at, number);
                payload.extend_from_slice(&out[..length]);
            }
            let plain = Node {
                flags: node.flags & !NODE_FOLDED,
                ..node
            };
            let length = encoder.node(&mut out, at, &plain);
            payload.extend_from_slice(&out[..length]);
            if node.flags & NODE_FOLDED != 0 {
                folded.push(at);
            }
            at += 1;
        }
        push_segment(
            segments,
            SegmentKind::NodeStream,
            u64::from(first),
            0,
            &payload,
        );
    }
    if !folded.is_empty() {
        let mut payload = Vec::new();
        for number in folded {
            let mut out = [0; MOST_NODE_BYTES];
            let length = NodeEncoder::fold(&mut out, at, number);
            payload.extend_from_slice(&out[..length]);
        }
        push_segment(
            segments,
            SegmentKind::NodeStream,
            u64::from(at),
            0,
            &payload,
        );
    }
}
