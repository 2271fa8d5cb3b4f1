//! What Memray's records mean, in the words of our captures.

use std::fs::File;
use std::io;

use heaptide_capture::{WarningKind, Warnings};
use heaptide_format::{
    Allocator, Cell, CellKind, FEATURE_NATIVE_STACKS, FEATURE_OBJECT_EVENTS, FORMAT_VERSION,
    HEADER_BYTES, Header as OurHeader, MAGIC, MetadataKey, Mode, NATIVE_ROOT, NO_STRING, NO_THREAD,
    NODE_ENTRY, NODE_ROOT, PYTHON_ALLOCATORS, PYTHON_OBJECTS, Sample, SegmentKind, Site, State,
    Survivor, TOTALS_UNKNOWN, Thread,
};
use rustc_hash::FxHashMap;
use zerocopy::FromZeros;

use crate::header::Header;
use crate::input::{Input, Problem, Result};
use crate::native::Native;
use crate::output::{Output, PAGE_BYTES};
use crate::stacks::{NumberedStacks, Place, Stacks};
use crate::streams::Streams;

const NANOSECONDS: u64 = 1_000_000;
/// Samples are written out when there are so many.
const SAMPLES: usize = 8192;
/// Likewise survivors.
const SURVIVORS: usize = 1 << 16;

/// What an event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Allocate(Allocator),
    Free,
    Unmap,
}

impl Kind {
    /// By the numbers of header version 12 and later, which are ours.
    pub(crate) fn of(number: u8) -> Result<Self> {
        match Allocator::from_raw(u32::from(number)) {
            Some(Allocator::Free | Allocator::PymallocFree) => Ok(Self::Free),
            Some(Allocator::Munmap) => Ok(Self::Unmap),
            Some(allocator) if number < 16 => Ok(Self::Allocate(allocator)),
            _ => Err(Problem::Damaged("an allocator that does not exist")),
        }
    }

    /// By the numbers of header versions 10 and 11.
    pub(crate) fn of_legacy(number: u8) -> Result<Self> {
        const NUMBERS: [u8; 15] = [6, 5, 8, 7, 9, 10, 11, 12, 13, 14, 15, 2, 3, 4, 1];
        let now = number
            .checked_sub(1)
            .and_then(|index| NUMBERS.get(usize::from(index)));
        Self::of(*now.unwrap_or(&0))
    }
}

/// What a stack held at the peak and holds at the end.
#[derive(Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) peak_count: u64,
    pub(crate) live_count: u64,
    pub(crate) peak_bytes: u64,
    pub(crate) live_bytes: u64,
}

/// One of the file's threads.
struct Tracked {
    /// Memray's number, from 1 on.
    id: u64,
    name: Vec<u8>,
    /// Nodes, from the outermost frame on.
    stack: Vec<u32>,
    /// So many outermost frames are Memray's.
    skipped: usize,
}

/// Makes a capture of ours from what is read.
pub(crate) struct Translation {
    output: Output,
    warnings: Warnings,
    streams: Streams,
    stacks: Stacks,
    numbered: NumberedStacks,
    /// Where native stacks were recorded.
    native: Option<Native>,
    frames: FxHashMap<u64, Place>,
    codes: FxHashMap<u64, u32>,
    threads: Vec<Tracked>,
    thread_numbers: FxHashMap<u64, usize>,
    /// Index of the one that is told of.
    thread: usize,
    main_thread: u64,
    skipped: u64,
    /// Bytes in what the offsets of instructions count.
    instruction_bytes: i64,
    samples: Vec<Sample>,
    samples_written: u64,
    survivors: Vec<Survivor>,
    survivors_written: u64,
    last_ms: u64,
    cells: FxHashMap<(usize, u32, u32), Cell>,
    peak_bytes: u64,
    live_bytes: u64,
}

impl Translation {
    pub(crate) fn new(header: &Header, file: File) -> Self {
        let mut output = Output::new(file);
        // Arguments are in one line in the file; where one had a blank in it, it comes apart.
        let mut arguments = header.command_line.clone();
        for byte in &mut arguments {
            if *byte == b' ' {
                *byte = 0;
            }
        }
        arguments.push(0);
        output.metadata(MetadataKey::CommandLine, &arguments);
        let writer = crate::header::memray_of(header.version);
        output.metadata(MetadataKey::Writer, writer.as_bytes());
        if !header.search_path.is_empty() {
            output.metadata(MetadataKey::SearchPath, &header.search_path);
        }
        let mut translation = Self {
            output,
            warnings: Warnings::default(),
            streams: Streams::default(),
            stacks: Stacks::new(),
            numbered: NumberedStacks::default(),
            native: header.native.then(|| Native::new(header.aggregated)),
            frames: FxHashMap::default(),
            codes: FxHashMap::default(),
            threads: Vec::new(),
            thread_numbers: FxHashMap::default(),
            thread: 0,
            main_thread: header.main_thread,
            skipped: header.skipped_frames,
            instruction_bytes: instruction_bytes(header.python_version),
            samples: Vec::new(),
            samples_written: 0,
            survivors: Vec::new(),
            survivors_written: 0,
            last_ms: header.start_ms,
            cells: FxHashMap::default(),
            peak_bytes: 0,
            live_bytes: 0,
        };
        translation.thread = translation.thread_of(header.main_thread);
        if header.aggregated {
            translation.warnings.add(WarningKind::TotalsUnknown, None, || {
                "the capture was made by Memray with --aggregate: what was allocated in all and what was temporary \
                 is not in it, and is shown as zero"
                    .to_owned()
            });
        }
        translation
    }

    pub(crate) fn damaged(&mut self, position: u64, what: &str) {
        self.warnings
            .add(WarningKind::DamagedEvents, Some(position), || {
                format!("{what}; what follows is lost")
            });
    }

    fn thread_of(&mut self, id: u64) -> usize {
        let next = self.threads.len();
        let index = *self.thread_numbers.entry(id).or_insert(next);
        if index == next {
            let skipped = if id == self.main_thread {
                self.skipped
            } else {
                0
            };
            self.threads.push(Tracked {
                id,
                name: Vec::new(),
                stack: Vec::new(),
                skipped: usize::try_from(skipped).unwrap_or(usize::MAX),
            });
        }
        index
    }

    /// What follows is of this thread.
    pub(crate) fn switch(&mut self, thread: u64) -> Result<()> {
        if self.threads[self.thread].id != thread {
            self.thread = self.thread_of(thread);
        }
        self.output.check().map_err(Problem::Write)
    }

    pub(crate) fn name_thread(&mut self, name: &[u8]) {
        self.threads[self.thread].name = name.to_vec();
    }

    /// The number of a code object in our capture.
    fn code(&mut self, number: u64) -> u32 {
        let next = self.codes.len() as u32;
        *self.codes.entry(number).or_insert(next)
    }

    pub(crate) fn define_code(
        &mut self,
        number: u64,
        function: &[u8],
        file: &[u8],
        first_line: i32,
        line_table: &[u8],
    ) {
        let number = self.code(number);
        self.output
            .code(number, function, file, first_line, line_table);
    }

    /// `is_entry`: the interpreter was entered from C for the frame, which only native stacks ask for.
    fn place(&mut self, code: u64, offset: i64, is_entry: bool) -> Place {
        let is_told = is_entry && self.native.is_some();
        Place {
            code: self.code(code),
            offset: i32::try_from(offset.saturating_mul(self.instruction_bytes)).unwrap_or(-1),
            flags: if is_told { NODE_ENTRY } else { 0 },
        }
    }

    /// The thread has a new innermost frame.
    pub(crate) fn push(&mut self, code: u64, offset: i64, is_entry: bool) {
        let place = self.place(code, offset, is_entry);
        let thread = &mut self.threads[self.thread];
        let above = thread.stack.last().copied().unwrap_or(NODE_ROOT);
        let node = if thread.stack.len() >= thread.skipped {
            self.stacks.node(above, place)
        } else if self.native.is_some() {
            self.stacks.node(above, place.below())
        } else {
            NODE_ROOT
        };
        thread.stack.push(node);
    }

    /// So many frames have ended.
    pub(crate) fn pop(&mut self, count: u64) {
        let stack = &mut self.threads[self.thread].stack;
        let left = (stack.len() as u64).saturating_sub(count);
        stack.truncate(left as usize);
    }

    /// The stack of the thread, with a native one where those are recorded.
    fn stack(&mut self, native: u64) -> u32 {
        let stack = &self.threads[self.thread].stack;
        let python = stack.last().copied().unwrap_or(NODE_ROOT);
        let generation = self.native.as_ref().map_or(0, Native::generation);
        self.combined(python, native, generation)
    }

    /// As it is where no native stacks are recorded.
    fn combined(&mut self, python: u32, native: u64, generation: u64) -> u32 {
        let Some(frames) = &mut self.native else {
            return python;
        };
        let native = frames.node(native, generation).unwrap_or_else(|| {
            self.warnings.add(WarningKind::DanglingReference, None, || {
                format!("native frame {native} is named and was never defined")
            });
            NATIVE_ROOT
        });
        self.stacks.combined(python, native)
    }

    /// The next native frame; `parent` is the number of its caller's.
    pub(crate) fn native_frame(&mut self, instruction: u64, parent: u64) {
        if let Some(native) = &mut self.native {
            native.add_frame(instruction, parent);
        }
    }

    /// What was mapped is told anew.
    pub(crate) fn mappings(&mut self) {
        if let Some(native) = &mut self.native {
            native.begin_mappings();
        }
    }

    /// A loaded object, and how many segments of it follow.
    pub(crate) fn module(&mut self, input: &mut Input) -> Result<()> {
        let file_name = input.text()?;
        input.varint()?;
        let base = input.u64()?;
        if let Some(native) = &mut self.native {
            native.begin_module(self.output.string(&file_name), base);
        }
        Ok(())
    }

    /// A segment of it.
    pub(crate) fn segment(&mut self, input: &mut Input) -> Result<()> {
        let address = input.u64()?;
        let length = input.varint()?;
        if let Some(native) = &mut self.native {
            native.add_segment(address, length);
        }
        Ok(())
    }

    /// `native`: the number of the innermost native frame.
    pub(crate) fn event(&mut self, kind: Kind, address: u64, size: u64, native: u64) -> Result<()> {
        let node = match kind {
            Kind::Allocate(_) => self.stack(native),
            Kind::Free | Kind::Unmap => NODE_ROOT,
        };
        let number = self.thread as u32 + 1;
        self.streams
            .write(number, &mut self.output, |encoder, out| match kind {
                Kind::Allocate(allocator) => {
                    let site = Site {
                        node,
                        allocator: allocator as u8,
                        size,
                    };
                    encoder.allocated(out, address, site, 0)
                }
                Kind::Free => encoder.freed(out, address, 0),
                Kind::Unmap => encoder.unmapped(out, address, size, 0),
            });
        self.output.check().map_err(Problem::Write)
    }

    /// An object is made, or destroyed.
    pub(crate) fn object(&mut self, made: bool, address: u64, native: u64) -> Result<()> {
        let node = match made {
            true => self.stack(native),
            false => NODE_ROOT,
        };
        let number = self.thread as u32 + 1;
        self.streams
            .write(number, &mut self.output, |encoder, out| match made {
                true => encoder.object_made(out, address, node, NO_STRING, 0),
                false => encoder.object_gone(out, address, 0),
            });
        self.output.check().map_err(Problem::Write)
    }

    /// An object that is alive at the end, of which nothing is known but perhaps its native stack.
    pub(crate) fn survivor(&mut self, address: u64, native: u64) -> Result<()> {
        let generation = self.native.as_ref().map_or(0, Native::generation);
        let node = self.combined(NODE_ROOT, native, generation);
        self.survivors.push(Survivor {
            address,
            node,
            thread: NO_THREAD,
            type_name: NO_STRING,
            reserved: 0,
        });
        if self.survivors.len() >= SURVIVORS {
            self.write_survivors();
        }
        self.output.check().map_err(Problem::Write)
    }

    fn write_survivors(&mut self) {
        let first = self.survivors_written;
        self.output
            .records(SegmentKind::Survivors, first, &self.survivors);
        self.survivors_written += self.survivors.len() as u64;
        self.survivors.clear();
    }

    /// Memory at a moment; `heap` is zero where the events tell it.
    pub(crate) fn sample(&mut self, unix_ms: u64, resident: u64, heap: u64) {
        self.last_ms = self.last_ms.max(unix_ms);
        let turn = self.streams.take_turn();
        self.samples.push(Sample {
            unix_ns: unix_ms.saturating_mul(NANOSECONDS),
            resident_bytes: resident,
            heap_bytes: heap,
            turn,
            ..Sample::default()
        });
        if self.samples.len() >= SAMPLES {
            self.write_samples();
        }
    }

    fn write_samples(&mut self) {
        self.output
            .records(SegmentKind::Samples, self.samples_written, &self.samples);
        self.samples_written += self.samples.len() as u64;
        self.samples.clear();
    }

    pub(crate) fn define_frame(&mut self, number: u64, code: u64, offset: i64, is_entry: bool) {
        let place = self.place(code, offset, is_entry);
        self.frames.insert(number, place);
    }

    pub(crate) fn define_stack(&mut self, frame: u64, parent: u64) {
        // A frame that was never defined is shown as one that is missing.
        let place = match self.frames.get(&frame) {
            Some(&place) => place,
            None => Place {
                code: heaptide_format::NO_CODE,
                offset: -1,
                flags: 0,
            },
        };
        self.numbered.add(parent, place, &mut self.stacks);
    }

    pub(crate) fn standing(
        &mut self,
        thread: u64,
        stack: u64,
        (native, generation): (u64, u64),
        kind: Kind,
        standing: Standing,
    ) -> Result<()> {
        let Kind::Allocate(allocator) = kind else {
            return Ok(());
        };
        let node = if thread == self.main_thread {
            let (skipped, keep) = (self.skipped, self.native.is_some());
            self.numbered
                .node_without(stack, skipped, keep, &mut self.stacks)
        } else {
            self.numbered.node(stack)
        };
        let node = node.ok_or(Problem::Damaged("a stack that does not exist"))?;
        let node = self.combined(node, native, generation);
        let thread = self.thread_of(thread);
        let cell = self
            .cells
            .entry((thread, node, allocator as u32))
            .or_insert_with(|| Cell {
                target: node,
                thread: thread as u32 + 1,
                allocator: allocator as u32,
                kind: CellKind::Own as u32,
                epoch: 1,
                ..Cell::default()
            });
        // Memray's differences are modulo 2⁶⁴ on the way and never negative at the end.
        cell.allocated_count = cell.allocated_count.saturating_add(standing.live_count);
        cell.allocated_bytes = cell.allocated_bytes.saturating_add(standing.live_bytes);
        cell.peak_count = cell.peak_count.saturating_add_unsigned(standing.peak_count);
        cell.peak_bytes = cell.peak_bytes.saturating_add_unsigned(standing.peak_bytes);
        self.peak_bytes = self.peak_bytes.saturating_add(standing.peak_bytes);
        self.live_bytes = self.live_bytes.saturating_add(standing.live_bytes);
        self.output.check().map_err(Problem::Write)
    }

    /// The file, and what could not be translated. `ended`: the file has its last record.
    pub(crate) fn finish(mut self, header: &Header, ended: bool) -> io::Result<(File, Warnings)> {
        self.streams.close_all(&mut self.output);
        self.write_samples();
        if header.object_lifetimes && header.aggregated {
            // That none survived is said, too.
            self.write_survivors();
        }
        let mut threads = vec![thread_record(0, b"")];
        threads.extend(
            self.threads
                .iter()
                .map(|thread| thread_record(thread.id, &thread.name)),
        );
        self.output.records(SegmentKind::Threads, 0, &threads);
        self.output
            .records(SegmentKind::Nodes, 0, self.stacks.nodes());
        if let Some(native) = &self.native {
            self.output
                .records(SegmentKind::Modules, 0, native.modules());
            self.output
                .records(SegmentKind::NativeFrames, 0, native.nodes());
        }
        if header.aggregated {
            let mut cells: Vec<(_, Cell)> = self.cells.drain().collect();
            cells.sort_by_key(|&(key, _)| key);
            let cells: Vec<Cell> = cells.into_iter().map(|(_, cell)| cell).collect();
            self.output.records(SegmentKind::Cells, 0, &cells);
        }
        let mut ours = our_header(header);
        let lifecycle = &mut ours.lifecycle;
        let end_ms = if ended {
            header.end_ms.max(header.start_ms)
        } else {
            self.last_ms
        };
        if ended {
            lifecycle.state = State::Finished as u32;
            lifecycle.tracking_end_unix_ns = end_ms.saturating_mul(NANOSECONDS);
        }
        lifecycle.heartbeat_unix_ns = end_ms.saturating_mul(NANOSECONDS);
        if header.aggregated {
            ours.heap.epoch = 1;
            ours.heap.peak_bytes = self.peak_bytes.max(self.live_bytes);
            ours.heap.headroom = ours.heap.peak_bytes - self.live_bytes;
        }
        let file = self.output.finish(&mut ours)?;
        Ok((file, self.warnings))
    }
}

/// Memray writes `f_lasti` as the interpreter has it: 3.10 counts code units.
fn instruction_bytes(python_version: u32) -> i64 {
    if python_version >> 16 == 0x030a { 2 } else { 1 }
}

fn our_header(header: &Header) -> OurHeader {
    let start = header.start_ms.saturating_mul(NANOSECONDS);
    let mut ours = OurHeader::new_zeroed();
    let identity = &mut ours.identity;
    identity.magic = MAGIC;
    identity.version = FORMAT_VERSION;
    identity.header_bytes = HEADER_BYTES as u32;
    identity.page_bytes = PAGE_BYTES as u32;
    let mode = if header.aggregated {
        Mode::Aggregated
    } else {
        Mode::All
    };
    identity.mode = mode as u32;
    identity.pid = header.pid;
    identity.created_unix_ns = start;
    identity.sample_weight = 1;
    identity.temporary_threshold = 1;
    if header.traces_python_allocators {
        identity.options |= PYTHON_ALLOCATORS;
    }
    if header.aggregated {
        identity.options |= TOTALS_UNKNOWN;
    }
    if header.native {
        identity.required_features |= FEATURE_NATIVE_STACKS;
    }
    if header.object_lifetimes {
        identity.options |= PYTHON_OBJECTS;
        if !header.aggregated {
            identity.required_features |= FEATURE_OBJECT_EVENTS;
        }
    }
    identity.checksum = identity.expected_checksum();
    let lifecycle = &mut ours.lifecycle;
    lifecycle.state = State::Tracking as u32;
    lifecycle.python_version = header.python_version;
    // The numbers are the same.
    lifecycle.python_allocator = u32::from(header.python_allocator);
    lifecycle.main_thread_id = thread_id(header.main_thread);
    lifecycle.tracking_start_unix_ns = start;
    ours
}

/// Memray counts threads from 1 on.
fn thread_id(id: u64) -> u32 {
    u32::try_from(id).unwrap_or(u32::MAX)
}

fn thread_record(id: u64, name: &[u8]) -> Thread {
    let mut record = Thread::new_zeroed();
    record.thread_id = thread_id(id);
    let name = String::from_utf8_lossy(name);
    let mut end = name.len().min(record.python_name.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    record.python_name[..end].copy_from_slice(&name.as_bytes()[..end]);
    record
}
