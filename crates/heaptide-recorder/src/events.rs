//! Mode "all": every event, in streams that no other thread writes.
//!
//! One order of all threads' events comes from the *turn*, a counter in the header. A thread that
//! finds it as it left it writes its event and nothing else; else it takes the next number. Where
//! threads really allocate side by side they would only take turns from one another, so after a
//! while they share one, and each event carries the time stamp counter instead.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use heaptide_format::{
    Allocator, CHUNK_HEADER_BYTES, ChunkHeader, Encoder, MOST_EVENT_BYTES, SEGMENT_HEADER_BYTES,
    SegmentHeader, Site, next_own_turn, next_shared_turn, turn_is_shared,
};

use crate::clock;
use crate::file::{Stop, cover};
use crate::recorder::Recorder;
use crate::threads::ThreadRecord;

/// A stream begins with a small chunk, since many threads live shortly, and doubles.
const FIRST_CHUNK_BYTES: usize = 4 << 10;
const LARGEST_CHUNK_BYTES: usize = 256 << 10;
/// A turn record and an event.
const ROOM: usize = 2 * MOST_EVENT_BYTES;

/// A turn that ended after so few bytes was a short one.
const SHORT_TURN_BYTES: usize = 48;
/// So many more short turns than long ones, and threads share one.
const MANY_SHORT_TURNS: u32 = 32;

/// What all streams of a process have in common.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Does this capture hold every event?
    pub(crate) on: AtomicBool,
    /// Do all processors' time stamp counters run as one?
    one_clock: AtomicBool,
    count: AtomicU32,
}

impl Streams {
    pub(crate) const fn new() -> Self {
        Self {
            on: AtomicBool::new(false),
            one_clock: AtomicBool::new(false),
            count: AtomicU32::new(0),
        }
    }

    pub(crate) fn start(&self) {
        self.one_clock
            .store(clock::is_one_for_all_processors(), Ordering::Relaxed);
        self.on.store(true, Ordering::Relaxed);
    }
}

/// A thread's stream. All zero bytes: none yet.
#[derive(Debug)]
pub(crate) struct Stream {
    encoder: Encoder,
    chunk: *mut u8,
    chunk_bytes: usize,
    /// Where the next event goes, from the start of the payload.
    length: usize,
    turn: u64,
    /// `length` when the turn began.
    turn_start: usize,
    short_turns: u32,
    number: u32,
    sequence: u32,
}

impl Stream {
    fn room(&self) -> usize {
        (self.chunk_bytes).saturating_sub(SEGMENT_HEADER_BYTES + self.length)
    }

    /// # Safety
    /// At least [`ROOM`] bytes are left.
    #[inline(always)]
    unsafe fn write(
        &mut self,
        encode: impl FnOnce(&mut Encoder, &mut [u8; MOST_EVENT_BYTES]) -> usize,
    ) {
        // SAFETY: the room is inside our chunk, which stays mapped and which only this thread writes.
        let out = unsafe {
            &mut *self
                .chunk
                .add(SEGMENT_HEADER_BYTES + self.length)
                .cast::<[u8; MOST_EVENT_BYTES]>()
        };
        self.length += encode(&mut self.encoder, out);
    }

    /// Makes visible what has been written.
    #[inline(always)]
    fn commit(&self) {
        // SAFETY: the chunk begins with its segment header; readers in other processes load it.
        unsafe {
            let committed = &raw mut (*self.chunk.cast::<SegmentHeader>()).committed;
            AtomicU64::from_ptr(committed).store(self.length as u64, Ordering::Release);
        }
    }

    /// The chunk is not there any more.
    pub(crate) fn forget(&mut self) {
        self.chunk = core::ptr::null_mut();
        self.chunk_bytes = 0;
        self.length = 0;
    }

    /// Lets go of the chunk. What was written stays in the file.
    fn release(&mut self, recorder: &Recorder) {
        if let Some(chunk) = NonNull::new(self.chunk) {
            recorder.file.release_chunk(chunk, self.chunk_bytes);
            self.chunk = core::ptr::null_mut();
        }
        self.chunk_bytes = 0;
    }
}

impl Recorder {
    /// Does the capture hold every event?
    #[inline(always)]
    #[must_use]
    pub fn holds_events(&self) -> bool {
        self.streams.on.load(Ordering::Relaxed)
    }

    /// In a forked child whose thread is in the middle of an event: gives it memory where its chunk was,
    /// which a child does not get.
    ///
    /// # Safety
    /// In a forked child, by its only thread, on its own record.
    pub unsafe fn cover_stream(&self, thread: &ThreadRecord) {
        let place = rustix::mm::MapFlags::FIXED_NOREPLACE;
        // SAFETY: the range was our chunk in the parent.
        unsafe { cover(thread.stream.chunk, thread.stream.chunk_bytes, place) };
    }

    /// # Safety
    /// As [`Recorder::allocated`].
    #[inline(always)]
    unsafe fn event(
        &self,
        thread: &mut ThreadRecord,
        encode: impl FnOnce(&mut Encoder, &mut [u8; MOST_EVENT_BYTES], u64) -> usize,
    ) -> Result<(), Stop> {
        if thread.stream.room() < ROOM {
            self.next_chunk(thread)?;
        }
        let stream = &mut thread.stream;
        // SAFETY: tracking is on, so the file is open.
        let counter = unsafe { self.file.turn() };
        // Acquire: for a free this comes before the real one.
        if counter.load(Ordering::Acquire) != stream.turn {
            self.next_turn(counter, stream);
        }
        let stamp = if turn_is_shared(stream.turn) {
            clock::now()
        } else {
            0
        };
        // SAFETY: there was room for two.
        unsafe { stream.write(|encoder, out| encode(encoder, out, stamp)) };
        stream.commit();
        Ok(())
    }

    /// Another thread (or the sampler) has had the turn since.
    #[cold]
    #[inline(never)]
    fn next_turn(&self, counter: &AtomicU64, stream: &mut Stream) {
        let short = stream.length - stream.turn_start.min(stream.length) < SHORT_TURN_BYTES;
        stream.short_turns = if short {
            stream.short_turns + 1
        } else {
            stream.short_turns.saturating_sub(4)
        };
        let share =
            stream.short_turns > MANY_SHORT_TURNS && self.streams.one_clock.load(Ordering::Relaxed);
        let mut now = counter.load(Ordering::Acquire);
        let turn = loop {
            if turn_is_shared(now) {
                break now;
            }
            let next = if share {
                next_shared_turn(now)
            } else {
                next_own_turn(now)
            };
            match counter.compare_exchange_weak(now, next, Ordering::SeqCst, Ordering::Acquire) {
                Ok(_) => break next,
                Err(other) => now = other,
            }
        };
        if share {
            stream.short_turns = 0;
        }
        stream.turn = turn;
        // SAFETY: `event` made room for a turn and an event.
        unsafe { stream.write(|encoder, out| encoder.turn(out, turn)) };
        stream.turn_start = stream.length;
    }

    #[cold]
    #[inline(never)]
    fn next_chunk(&self, thread: &mut ThreadRecord) -> Result<(), Stop> {
        let number = thread.thread;
        let stream = &mut thread.stream;
        let first = stream.chunk.is_null();
        let bytes = if first {
            FIRST_CHUNK_BYTES
        } else {
            (stream.chunk_bytes * 2).min(LARGEST_CHUNK_BYTES)
        };
        stream.release(self);
        if first {
            stream.number = self.streams.count.fetch_add(1, Ordering::Relaxed);
            stream.sequence = 0;
            stream.turn = 0;
        } else {
            stream.sequence += 1;
        }
        let (chunk, bytes) = {
            let _growth = self.growth.lock();
            self.file.append_chunk(bytes)?
        };
        stream.chunk = chunk.as_ptr();
        stream.chunk_bytes = bytes;
        self.file.chunk_is_placed();
        let header = ChunkHeader {
            stream: stream.number,
            sequence: stream.sequence,
            thread: number,
            event_bytes: 0,
        };
        // SAFETY: a chunk is at least a page, aligned, and nobody else writes it.
        unsafe {
            stream
                .chunk
                .add(SEGMENT_HEADER_BYTES)
                .cast::<ChunkHeader>()
                .write(header);
        }
        stream.length = CHUNK_HEADER_BYTES;
        stream.turn_start = CHUNK_HEADER_BYTES;
        stream.encoder.begin_chunk();
        if !first {
            // The turn goes on in the new chunk.
            let turn = stream.turn;
            // SAFETY: the chunk is empty.
            unsafe { stream.write(|encoder, out| encoder.turn(out, turn)) };
        }
        stream.commit();
        Ok(())
    }

    /// The thread will record nothing more: lets go of its chunk of events.
    pub fn end_stream(&self, thread: &mut ThreadRecord) {
        thread.stream.release(self);
    }

    /// # Safety
    /// As [`Recorder::allocated`].
    #[inline]
    pub(crate) unsafe fn event_allocated(
        &self,
        thread: &mut ThreadRecord,
        node: u32,
        allocator: Allocator,
        address: u64,
        bytes: u64,
    ) -> Result<(), Stop> {
        let site = Site {
            node,
            allocator: allocator as u8,
            size: bytes,
        };
        // SAFETY: the caller's promise.
        unsafe {
            self.event(thread, |encoder, out, stamp| {
                encoder.allocated(out, address, site, stamp)
            })
        }
    }

    /// # Safety
    /// As [`Recorder::allocated`].
    #[inline]
    pub(crate) unsafe fn event_freed(
        &self,
        thread: &mut ThreadRecord,
        address: u64,
    ) -> Result<(), Stop> {
        // SAFETY: the caller's promise.
        unsafe {
            self.event(thread, |encoder, out, stamp| {
                encoder.freed(out, address, stamp)
            })
        }
    }

    /// The last free of this thread did not happen: a `realloc` failed. Mode "all" only.
    ///
    /// # Errors
    /// No room.
    ///
    /// # Safety
    /// As [`Recorder::allocated`].
    #[cold]
    pub unsafe fn free_undone(&self, thread: &mut ThreadRecord) -> Result<(), Stop> {
        // SAFETY: the caller's promise.
        unsafe {
            self.event(thread, |encoder, out, stamp| {
                encoder.free_undone(out, stamp)
            })
        }
    }

    /// A Python object was made; `type_name` is the number of a string or [`heaptide_format::NO_STRING`]. Mode "all" only.
    ///
    /// # Errors
    /// No room.
    ///
    /// # Safety
    /// As [`Recorder::allocated`].
    #[inline]
    pub unsafe fn object_made(
        &self,
        thread: &mut ThreadRecord,
        node: u32,
        type_name: u32,
        address: u64,
    ) -> Result<(), Stop> {
        // SAFETY: the caller's promise.
        unsafe {
            self.event(thread, |encoder, out, stamp| {
                encoder.object_made(out, address, node, type_name, stamp)
            })
        }
    }

    /// A Python object is about to be destroyed. Mode "all" only.
    ///
    /// # Errors
    /// No room.
    ///
    /// # Safety
    /// As [`Recorder::allocated`].
    #[inline]
    pub unsafe fn object_gone(&self, thread: &mut ThreadRecord, address: u64) -> Result<(), Stop> {
        // SAFETY: the caller's promise.
        unsafe {
            self.event(thread, |encoder, out, stamp| {
                encoder.object_gone(out, address, stamp)
            })
        }
    }

    /// A range is about to be unmapped. Mode "all" only.
    ///
    /// # Errors
    /// No room.
    ///
    /// # Safety
    /// As [`Recorder::allocated`].
    pub unsafe fn range_unmapped(
        &self,
        thread: &mut ThreadRecord,
        start: u64,
        bytes: u64,
    ) -> Result<(), Stop> {
        // SAFETY: the caller's promise.
        unsafe {
            self.event(thread, |encoder, out, stamp| {
                encoder.unmapped(out, start, bytes, stamp)
            })
        }
    }

    /// The last unmapping of this thread failed. Mode "all" only.
    ///
    /// # Errors
    /// No room.
    ///
    /// # Safety
    /// As [`Recorder::allocated`].
    #[cold]
    pub unsafe fn range_unmap_undone(&self, thread: &mut ThreadRecord) -> Result<(), Stop> {
        // SAFETY: the caller's promise.
        unsafe {
            self.event(thread, |encoder, out, stamp| {
                encoder.unmap_undone(out, stamp)
            })
        }
    }
}
