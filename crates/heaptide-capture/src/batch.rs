//! Blocks of events that are packed side by side, on all processors.

use std::sync::Mutex;
use std::thread::Builder;

use heaptide_format::ChunkHeader;

use crate::chunks::EventChunk;
use crate::packing;

/// A block takes chunks up to so many bytes of events: what a reader holds of each stream.
const BLOCK_BYTES: usize = 256 << 10;
const MOST_CHUNKS: usize = 64;
/// Where less is packed threads are not worth their beginning.
const WORTH_THREADS_BYTES: u64 = 2 << 20;
/// More would wait for the disk.
const MOST_THREADS: usize = 4;
/// Blocks for each thread in a batch: some ten milliseconds of work, beside which the beginning of a thread is nothing.
const BLOCKS_FOR_A_THREAD: usize = 4;
const STACK_BYTES: usize = 256 << 10;

/// A block that is being filled.
#[derive(Default)]
pub(crate) struct Block {
    chunks: Vec<ChunkHeader>,
    events: Vec<u8>,
}

impl Block {
    pub(crate) fn takes(&self, bytes: usize) -> bool {
        self.chunks.is_empty()
            || (self.events.len() + bytes <= BLOCK_BYTES && self.chunks.len() < MOST_CHUNKS)
    }

    pub(crate) fn push(&mut self, chunk: &EventChunk, events: &[u8]) {
        self.chunks.push(ChunkHeader {
            stream: chunk.stream,
            sequence: chunk.sequence,
            thread: chunk.thread,
            event_bytes: u32::try_from(events.len()).unwrap_or_default(),
        });
        self.events.extend_from_slice(events);
    }
}

/// Blocks that wait to be packed.
pub(crate) struct Batch {
    blocks: Vec<Block>,
    threads: usize,
}

impl Batch {
    /// For so many bytes of events in all.
    pub(crate) fn new(bytes: u64) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            blocks: Vec::new(),
            threads: if bytes < WORTH_THREADS_BYTES {
                1
            } else {
                processors.min(MOST_THREADS)
            },
        }
    }

    pub(crate) fn push(&mut self, block: Block) {
        if !block.chunks.is_empty() {
            self.blocks.push(block);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.threads == 1 || self.blocks.len() >= self.threads * BLOCKS_FOR_A_THREAD
    }

    /// All blocks, packed, in their order; the batch is empty then.
    pub(crate) fn pack(&mut self) -> Vec<Vec<u8>> {
        let threads = self.threads.min(self.blocks.len());
        let waiting = Mutex::new(self.blocks.drain(..).enumerate());
        let next = || waiting.lock().ok()?.next();
        let work = || {
            let mut packed = Vec::new();
            while let Some((place, block)) = next() {
                packed.push((place, packing::pack(&block.chunks, &block.events)));
            }
            packed
        };
        let mut packed = std::thread::scope(|scope| {
            let begin = |_| {
                let name = "heaptide pack".to_owned();
                let builder = Builder::new().name(name).stack_size(STACK_BYTES);
                builder.spawn_scoped(scope, work).ok()
            };
            // Where no more threads are to be had it goes without.
            let others: Vec<_> = (1..threads).map_while(begin).collect();
            let mut packed = work();
            for other in others {
                match other.join() {
                    Ok(more) => packed.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            packed
        });
        packed.sort_unstable_by_key(|(place, _)| *place);
        packed.into_iter().map(|(_, block)| block).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u32) -> Block {
        let mut block = Block::default();
        let chunk = EventChunk {
            stream: number,
            sequence: 0,
            thread: 1,
            offset: 0,
            bytes: 0,
            packed: None,
        };
        // No events of this version: packed as bytes.
        block.push(&chunk, &vec![0xff; 1000 + number as usize]);
        block
    }

    #[test]
    fn blocks_keep_their_order_on_any_number_of_threads() {
        for threads in [1, 2, 4, 9] {
            let mut batch = Batch {
                blocks: Vec::new(),
                threads,
            };
            for number in 0..40 {
                batch.push(block(number));
                batch.push(Block::default());
            }
            let expected: Vec<Vec<u8>> = (0..40)
                .map(block)
                .map(|block| packing::pack(&block.chunks, &block.events))
                .collect();
            assert!(batch.pack() == expected, "{threads}");
            assert!(batch.pack().is_empty());
        }
    }
}
