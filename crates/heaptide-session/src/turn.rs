//! The sampler's turns: what places a memory sample among the events of a capture in mode "all".

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use heaptide_format::{HEADER_BYTES, next_own_turn, offsets};

/// The turn counter of a capture, shared with the program.
#[derive(Debug)]
pub(crate) struct TurnCounter {
    header: NonNull<libc::c_void>,
}

impl TurnCounter {
    /// Maps the header page.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice; the file is longer than a page.
        let header = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                HEADER_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if header == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(header)
            .map(|header| Self { header })
            .ok_or_else(io::Error::last_os_error)
    }

    /// Takes the next turn. Events that follow have later ones. Zero before tracking starts: the
    /// agent sets the counter then.
    pub(crate) fn take(&self) -> u64 {
        // SAFETY: an aligned word of our mapping, which lives as long as `self`; all of its users are atomic.
        let counter = unsafe {
            &*self
                .header
                .as_ptr()
                .byte_add(offsets::TURN)
                .cast::<AtomicU64>()
        };
        let mut now = counter.load(Ordering::Acquire);
        while now != 0 {
            let next = next_own_turn(now);
            match counter.compare_exchange_weak(now, next, Ordering::SeqCst, Ordering::Acquire) {
                Ok(_) => return next,
                Err(other) => now = other,
            }
        }
        0
    }
}

impl Drop for TurnCounter {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nothing borrows from it any more.
        unsafe { libc::munmap(self.header.as_ptr(), HEADER_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn turns_follow_those_of_the_program() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(HEADER_BYTES as u64).unwrap();
        let counter = TurnCounter::map(&file).unwrap();
        assert_eq!(counter.take(), 0, "tracking has not started");
        for (now, next) in [(2u64, 4u64), (7, 8), (8, 10)] {
            file.write_all_at(&now.to_le_bytes(), offsets::TURN as u64)
                .unwrap();
            assert_eq!(counter.take(), next);
        }
    }
}
