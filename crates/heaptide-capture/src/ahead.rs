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

const NAME: &str = "heaptide unpack";

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
        let builder = Builder::new().name(NAME.to_owned());
        let builder = builder.stack_size(STACK_BYTES);
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use heaptide_format::{Event, Moment, Receiver, Site};
    use heaptide_testkit::storm::{Storm, write_event_storm};

    use super::*;
    use crate::source::{OwnedSource, Source};
    use crate::{EventVisitor, reader, rewrite};

    /// Notes how many blocks each side has read.
    struct Watched {
        bytes: OwnedSource,
        /// By the thread that unpacks, by others.
        blocks: Arc<[AtomicUsize; 2]>,
    }

    impl Source for Watched {
        fn length(&self) -> io::Result<u64> {
            self.bytes.length()
        }

        fn budget(&self) -> io::Result<u64> {
            self.bytes.budget()
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            // Headers are short.
            if buffer.len() > 4096 {
                let name = std::thread::current().name().map(str::to_owned);
                let by = usize::from(name.as_deref() != Some(NAME));
                self.blocks[by].fetch_add(1, Ordering::Relaxed);
            }
            self.bytes.read_at(offset, buffer)
        }
    }

    #[derive(Default)]
    struct Counted(usize);

    impl Receiver for Counted {
        fn allocated(&mut self, _: u64, _: &Site) {
            self.0 += 1;
        }

        fn freed(&mut self, _: u64) {
            self.0 += 1;
        }
    }

    impl EventVisitor for Counted {
        fn place(&mut self, _: Moment, _: usize, _: u32) {}

        fn rare(&mut self, _: Event) {
            self.0 += 1;
        }

        fn read(&mut self, _: u64) {}
    }

    #[test]
    fn blocks_of_large_captures_are_unpacked_by_the_other_thread() {
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            println!("not tested: there is one processor");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (original, target) = (directory.path().join("a"), directory.path().join("b"));
        let storm = Storm {
            events: 4_000_000,
            live: 1000,
            stacks: 100,
        };
        write_event_storm(&original, storm).unwrap();
        let (from, to) = (File::open(&original), File::create(&target));
        rewrite(&from.unwrap(), &to.unwrap(), &mut |_, _| true).unwrap();

        let blocks = Arc::new([const { AtomicUsize::new(0) }; 2]);
        let source = Watched {
            bytes: OwnedSource(std::fs::read(target).unwrap()),
            blocks: blocks.clone(),
        };
        let mut capture = reader::read_capture(&source, "x.tide".as_ref()).unwrap();
        capture.attach_events(source);
        let order = capture.events.in_order();
        // The first block of each stream has been read by now.
        for block in blocks.iter() {
            block.store(0, Ordering::Relaxed);
        }
        let mut counted = Counted::default();
        assert!(order.visit(&mut counted).into_vec().is_empty());
        assert_eq!(counted.0, 4_000_000);
        let [ahead, others] = [0, 1].map(|by| blocks[by].load(Ordering::Relaxed));
        // Of four streams that go side by side, the one whose block is on its way has all of its blocks so, and the others none.
        let told = format!("{ahead} blocks ahead, {others} when they were wanted");
        assert!(ahead > 8 && 4 * ahead >= others, "{told}");
    }
}
