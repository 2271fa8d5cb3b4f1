//! Unpacks the next block of events while the present one is gone through.
//!
//! A block is some hundred thousand events, so handing one over costs nothing beside unpacking it. One is unpacked
//! ahead at a time, whichever stream asked first; whoever finds nothing ready unpacks for itself.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, Scope};

use crate::chunks::{ChunkBuffer, EventChunk, EventLog};

/// Where less is packed a thread is not worth its beginning.
const WORTH_A_THREAD_BYTES: u64 = 4 << 20;

/// It unpacks, and that is all.
const STACK_BYTES: usize = 256 << 10;

/// A block, and whether it could be read.
type Answer = (ChunkBuffer, io::Result<()>);

/// A thread that unpacks.
pub(crate) struct Ahead {
    questions: SyncSender<(EventChunk, ChunkBuffer)>,
    /// Never waited for: the lock is what lets readers with this value be shared between threads, as Python's iterators are.
    answers: Mutex<Receiver<Answer>>,
    /// The offset of the block that was asked for.
    asked: Option<u64>,
    /// A buffer that nobody needs at present.
    spare: ChunkBuffer,
}

impl Ahead {
    /// Begins the thread, which ends with this value; `None` where it would not help.
    pub(crate) fn begin<'scope>(
        scope: &'scope Scope<'scope, '_>,
        log: &'scope EventLog,
    ) -> Option<Self> {
        let packed = log.chunks().iter().filter(|chunk| chunk.packed.is_some());
        let bytes: u64 = packed.map(|chunk| chunk.bytes).sum();
        if bytes < WORTH_A_THREAD_BYTES || std::thread::available_parallelism().ok()?.get() < 2 {
            return None;
        }
        let (questions, asked) = sync_channel::<(EventChunk, ChunkBuffer)>(1);
        let (answer, answers) = sync_channel(1);
        let work = move || {
            for (chunk, mut buffer) in asked {
                let result = log.read(&chunk, &mut buffer).map(drop);
                if answer.send((buffer, result)).is_err() {
                    return;
                }
            }
        };
        // Where no more threads are to be had it goes without.
        let name = "heaptide unpack".to_owned();
        let builder = Builder::new().name(name).stack_size(STACK_BYTES);
        builder.spawn_scoped(scope, work).ok()?;
        Some(Self {
            questions,
            answers: Mutex::new(answers),
            asked: None,
            spare: ChunkBuffer::default(),
        })
    }

    /// Puts the block of a chunk into a buffer, if it was asked for. What could not be read then is tried again by
    /// whoever wants it, and told.
    pub(crate) fn take(&mut self, chunk: &EventChunk, buffer: &mut ChunkBuffer) {
        if self.asked != Some(chunk.offset) || buffer.holds(chunk) {
            return;
        }
        self.asked = None;
        let answers = self.answers.get_mut();
        let answers = answers.unwrap_or_else(PoisonError::into_inner);
        if let Ok((unpacked, Ok(()))) = answers.recv() {
            self.spare = std::mem::replace(buffer, unpacked);
        }
    }

    /// Asks for the next block of a stream, unless another one is on its way.
    pub(crate) fn ask(&mut self, rest: &[EventChunk], present: &EventChunk) {
        if self.asked.is_some() {
            return;
        }
        let next = rest.iter().find(|chunk| chunk.offset != present.offset);
        let Some(next) = next.filter(|chunk| chunk.packed.is_some()) else {
            return;
        };
        let buffer = std::mem::take(&mut self.spare);
        if self.questions.send((*next, buffer)).is_ok() {
            self.asked = Some(next.offset);
        }
    }
}
