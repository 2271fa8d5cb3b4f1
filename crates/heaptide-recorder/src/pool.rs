//! Numbered records in segments of equal size: number to address in one load and one multiply.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use heaptide_format::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind};

use crate::file::{CaptureFile, Stop};

/// `CHUNKS` segments at most, each of `1 << SHIFT` records of type `T`.
pub(crate) struct Pool<T, const SHIFT: u32, const CHUNKS: usize> {
    kind: SegmentKind,
    chunks: [AtomicPtr<u8>; CHUNKS],
    length: AtomicU32,
    record: PhantomData<fn() -> T>,
}

impl<T, const SHIFT: u32, const CHUNKS: usize> Pool<T, SHIFT, CHUNKS> {
    const PER_CHUNK: u32 = 1 << SHIFT;

    pub(crate) const fn new(kind: SegmentKind) -> Self {
        Self {
            kind,
            chunks: [const { AtomicPtr::new(core::ptr::null_mut()) }; CHUNKS],
            length: AtomicU32::new(0),
            record: PhantomData,
        }
    }

    /// How many records there are.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.length.load(Ordering::Acquire)
    }

    /// The most there can be.
    pub(crate) const fn capacity(&self) -> u32 {
        Self::PER_CHUNK * CHUNKS as u32
    }

    /// Address of record `index`.
    ///
    /// # Safety
    /// `index` was returned by `push` of this pool.
    #[inline]
    pub(crate) unsafe fn get(&self, index: u32) -> *mut T {
        let chunk = (index >> SHIFT) as usize;
        // SAFETY: `push` made the chunk before it gave out the number.
        unsafe {
            let start = self.chunks.get_unchecked(chunk).load(Ordering::Relaxed);
            start
                .add(SEGMENT_HEADER_BYTES)
                .cast::<T>()
                .add((index & (Self::PER_CHUNK - 1)) as usize)
        }
    }

    /// Appends `record` and returns its number; `Ok(None)` when the pool is full. One thread at a
    /// time (the growth lock).
    pub(crate) fn push(&self, file: &CaptureFile, record: T) -> Result<Option<u32>, Stop> {
        let index = self.length.load(Ordering::Relaxed);
        let Some(chunk) = self.chunks.get((index >> SHIFT) as usize) else {
            return Ok(None);
        };
        let mut segment = chunk.load(Ordering::Relaxed);
        if segment.is_null() {
            let payload = (Self::PER_CHUNK as usize) * size_of::<T>();
            segment = file
                .append(self.kind, payload, u64::from(index), size_of::<T>() as u32)?
                .as_ptr();
            chunk.store(segment, Ordering::Release);
        }
        let within = index & (Self::PER_CHUNK - 1);
        // SAFETY: the segment has room for PER_CHUNK records and `within` is one of them; nobody else
        // knows this number yet.
        unsafe {
            segment
                .add(SEGMENT_HEADER_BYTES)
                .cast::<T>()
                .add(within as usize)
                .write(record);
            let committed = segment
                .add(core::mem::offset_of!(SegmentHeader, committed))
                .cast::<u64>();
            // Release: a reader that sees the length sees the record.
            AtomicU64::from_ptr(committed).store(
                (u64::from(within) + 1) * size_of::<T>() as u64,
                Ordering::Release,
            );
        }
        self.length.store(index + 1, Ordering::Release);
        Ok(Some(index))
    }
}
