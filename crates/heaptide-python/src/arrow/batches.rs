//! Rows of an answer, put into columns a batch at a time.

use std::sync::Arc;
use std::vec::IntoIter;

use heaptide_engine::{StackId, TextId};
use pyo3::PyResult;

use super::columns::{Column, Field, Indices, Numbers, UINT32, UINT64, Validity};
use super::interface::Batches;
use super::strings::{Numbered, Texts};
use crate::allocation_record::is_deallocation;
use crate::iterate::{Answer, number_of};
use crate::rows::{NO_THREAD, Span, TemporalRow};
use crate::source::Source;

/// A batch has at most so many rows ...
const ROWS: usize = 1 << 16;
/// ... and ends with the row that makes its frames so many: about 30 bytes each.
const FRAMES: usize = 1 << 19;

/// The names of `AllocatorType`, from 1.
const ALLOCATORS: [&str; 15] = [
    "PYMALLOC_FREE",
    "PYMALLOC_MALLOC",
    "PYMALLOC_CALLOC",
    "PYMALLOC_REALLOC",
    "FREE",
    "MALLOC",
    "REALLOC",
    "CALLOC",
    "POSIX_MEMALIGN",
    "ALIGNED_ALLOC",
    "MEMALIGN",
    "VALLOC",
    "PVALLOC",
    "MMAP",
    "MUNMAP",
];

/// Which columns there are.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Rows are single events, which have addresses.
    pub(crate) addresses: bool,
    /// Rows are stretches of time.
    pub(crate) intervals: bool,
    /// Rows have their frames, not only the number of their stack.
    pub(crate) stacks: bool,
    /// Rows are of no thread in particular.
    pub(crate) merged: bool,
}

impl Shape {
    pub(crate) fn fields(self) -> Vec<Field> {
        let mut fields = Vec::new();
        if self.addresses {
            fields.push(Field::new(c"address", UINT64));
        }
        if self.intervals {
            fields.push(Field::new(c"allocated_before_snapshot", UINT32));
            fields.push(Field::new(c"deallocated_before_snapshot", UINT32).nullable());
        }
        fields.extend([
            Field::new(c"size", UINT64),
            Field::new(c"count", UINT64),
            Field::of_texts(c"allocator"),
            Field::new(c"thread_id", UINT32).nullable(),
            Field::of_texts(c"thread_name").nullable(),
            Field::new(c"stack_id", UINT32),
        ]);
        if self.stacks {
            let frame = Field::new(c"item", super::columns::STRUCT).with_children(vec![
                Field::of_texts(c"function"),
                Field::of_texts(c"qualified_name"),
                Field::of_texts(c"file"),
                Field::new(c"line", UINT32).nullable(),
                Field::new(c"column", UINT32).nullable(),
                Field::new(c"end_line", UINT32).nullable(),
                Field::new(c"end_column", UINT32).nullable(),
            ]);
            let stack = Field::new(c"stack", super::columns::LIST).nullable();
            fields.push(stack.with_children(vec![frame]));
        }
        fields
    }
}

/// A row, whatever it is a row of.
struct Line {
    address: u64,
    span: Option<Span>,
    size: u64,
    count: u64,
    /// Memray's number.
    allocator: u8,
    stack: StackId,
    /// Index of the thread, or [`NO_THREAD`].
    thread: u32,
}

/// Where rows come from.
pub(crate) enum Lines {
    Records(Answer),
    /// Rows over time, and the stretches of one that are left.
    Temporal(IntoIter<TemporalRow>, Option<(TemporalRow, usize)>),
}

impl Lines {
    fn next(&mut self) -> Option<Line> {
        match self {
            Self::Records(Answer::Events(events)) => events.next().map(|event| Line {
                address: event.address,
                span: None,
                size: event.bytes,
                count: 1,
                allocator: number_of(event.kind),
                stack: event.stack,
                thread: event.thread,
            }),
            Self::Records(Answer::Sums(rows)) => rows.next().map(|row| Line {
                address: 0,
                span: None,
                size: row.amount.bytes,
                count: row.amount.count,
                allocator: row.allocator,
                stack: row.stack,
                thread: row.thread,
            }),
            Self::Temporal(rows, current) => loop {
                if let Some((row, at)) = current
                    && let Some(&span) = row.spans.get(*at)
                {
                    *at += 1;
                    return Some(Line {
                        address: 0,
                        span: Some(span),
                        size: span.amount.bytes,
                        count: span.amount.count,
                        allocator: row.allocator,
                        stack: row.stack,
                        thread: row.thread,
                    });
                }
                *current = Some((rows.next()?, 0));
            },
        }
    }
}

/// An answer as batches of columns.
pub(crate) struct AnswerBatches {
    source: Arc<Source>,
    shape: Shape,
    lines: Lines,
    allocators: Column,
    thread_names: Column,
    /// By thread.
    name_of_thread: Vec<i32>,
    functions: Numbered,
    qualified_names: Numbered,
    files: Numbered,
}

impl AnswerBatches {
    pub(crate) fn new(source: Arc<Source>, shape: Shape, lines: Lines) -> PyResult<Self> {
        let mut allocators = Texts::default();
        for name in ALLOCATORS {
            allocators.push(name)?;
        }
        let mut thread_names = Texts::default();
        let mut name_of_thread = Vec::new();
        let mut known = rustc_hash::FxHashMap::default();
        for thread in &source.profile.threads {
            let index = match known.get(thread.name.as_str()) {
                Some(&index) => index,
                None => thread_names.push(&thread.name)?,
            };
            known.insert(thread.name.as_str(), index);
            name_of_thread.push(index);
        }
        let stacks = &source.profile.stacks;
        let places = || {
            stacks
                .frames
                .iter()
                .map(|frame| stacks.locations[frame.location.index()])
        };
        // Without stacks nobody needs the texts.
        let wanted = |ids: &mut dyn Iterator<Item = TextId>| {
            Numbered::of(stacks, ids.take(if shape.stacks { usize::MAX } else { 0 }))
        };
        Ok(Self {
            shape,
            lines,
            allocators: allocators.finish(),
            thread_names: thread_names.finish(),
            name_of_thread,
            functions: wanted(&mut places().map(|place| place.function))?,
            qualified_names: wanted(&mut stacks.frames.iter().map(|frame| frame.qualified_name))?,
            files: wanted(&mut places().map(|place| place.file))?,
            source,
        })
    }

    fn add(&self, line: &Line, batch: &mut Batch) {
        batch.rows += 1;
        if self.shape.addresses {
            batch.addresses.push(line.address);
        }
        if let Some(span) = line.span {
            batch.from.push(span.from);
            batch.to.push(span.to);
        }
        batch.sizes.push(line.size);
        batch.counts.push(line.count);
        batch
            .allocators
            .push(Some(i32::from(line.allocator).saturating_sub(1)));
        let thread = (!self.shape.merged && line.thread != NO_THREAD).then_some(line.thread);
        batch
            .thread_ids
            .push(thread.map(|thread| self.source.thread_id(thread)));
        let name = thread.and_then(|thread| self.name_of_thread.get(thread as usize));
        batch.thread_names.push(name.copied());
        batch.stack_ids.push(line.stack.0);
        if self.shape.stacks {
            let there = !is_deallocation(line.allocator);
            batch.stacks_there.push(there);
            if there {
                self.add_frames(line, batch);
            }
            batch
                .ends
                .push(i32::try_from(batch.frames).unwrap_or(i32::MAX));
        }
    }

    fn add_frames(&self, line: &Line, batch: &mut Batch) {
        let stacks = &self.source.profile.stacks;
        let shown = self.source.frames_shown(line.stack, line.thread);
        for node in stacks.walk(line.stack).take(shown) {
            let frame = stacks.frames[stacks.nodes[node.index()].frame.index()];
            let place = stacks.locations[frame.location.index()];
            let position = frame.position;
            let known = |line: i32| u32::try_from(line).ok().filter(|&line| line > 0);
            batch.frames += 1;
            batch
                .functions
                .push(Some(self.functions.index(place.function)));
            let qualified_name = self.qualified_names.index(frame.qualified_name);
            batch.qualified_names.push(Some(qualified_name));
            batch.files.push(Some(self.files.index(place.file)));
            batch.lines.push(known(place.line));
            batch.columns.push(position.column);
            batch.end_lines.push(known(position.end_line));
            batch.end_columns.push(position.end_column);
        }
    }

    fn finish(&self, batch: Batch) -> Column {
        let mut columns = Vec::new();
        if self.shape.addresses {
            columns.push(Column::of_u64(batch.addresses));
        }
        if self.shape.intervals {
            columns.push(Column::of_u32(batch.from));
            columns.push(batch.to.finish());
        }
        columns.extend([
            Column::of_u64(batch.sizes),
            Column::of_u64(batch.counts),
            batch.allocators.finish(&self.allocators),
            batch.thread_ids.finish(),
            batch.thread_names.finish(&self.thread_names),
            Column::of_u32(batch.stack_ids),
        ]);
        if self.shape.stacks {
            let frames = vec![
                batch.functions.finish(&self.functions.texts),
                batch.qualified_names.finish(&self.qualified_names.texts),
                batch.files.finish(&self.files.texts),
                batch.lines.finish(),
                batch.columns.finish(),
                batch.end_lines.finish(),
                batch.end_columns.finish(),
            ];
            let frames = Column::of_struct(batch.frames, frames);
            columns.push(Column::of_lists(batch.ends, batch.stacks_there, frames));
        }
        Column::of_struct(batch.rows, columns)
    }
}

impl Batches for AnswerBatches {
    fn fields(&self) -> Vec<Field> {
        self.shape.fields()
    }

    fn next(&mut self) -> Option<Column> {
        let mut batch = Batch::new();
        while batch.rows < ROWS
            && batch.frames < FRAMES
            && let Some(line) = self.lines.next()
        {
            self.add(&line, &mut batch);
        }
        (batch.rows > 0).then(|| self.finish(batch))
    }
}

/// The columns of a batch that is being made.
#[derive(Default)]
struct Batch {
    rows: usize,
    frames: usize,
    addresses: Vec<u64>,
    from: Vec<u32>,
    to: Numbers,
    sizes: Vec<u64>,
    counts: Vec<u64>,
    allocators: Indices,
    thread_ids: Numbers,
    thread_names: Indices,
    stack_ids: Vec<u32>,
    ends: Vec<i32>,
    stacks_there: Validity,
    functions: Indices,
    qualified_names: Indices,
    files: Indices,
    lines: Numbers,
    columns: Numbers,
    end_lines: Numbers,
    end_columns: Numbers,
}

impl Batch {
    fn new() -> Self {
        Self {
            ends: vec![0],
            ..Self::default()
        }
    }
}
