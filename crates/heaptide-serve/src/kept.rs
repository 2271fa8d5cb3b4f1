//! Descriptors in a process that is not ours.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::CWD;
use rustix::io::Errno;

/// Ours keep out of the way of programs that count on getting the low numbers.
const LOWEST: i32 = 701;

/// A descriptor of ours. Programs close descriptors that they did not open and use the number again, so it is looked at
/// before it is believed, and not closed where it is somebody else's.
#[derive(Debug)]
pub struct Kept {
    /// `None` only while it is dropped.
    descriptor: Option<OwnedFd>,
    identity: (u64, u64),
}

fn identity_of(descriptor: BorrowedFd<'_>) -> Result<(u64, u64), Errno> {
    let status = rustix::fs::fstat(descriptor)?;
    Ok((status.st_dev, status.st_ino))
}

impl Kept {
    /// The same open file under a number of our own.
    ///
    /// # Errors
    /// No descriptor is left, or it is none.
    pub fn copy_of(descriptor: BorrowedFd<'_>) -> Result<Self, Errno> {
        // Asked before there is a copy: its number may be somebody else's the moment after.
        let identity = identity_of(descriptor)?;
        let copy = |lowest| rustix::io::fcntl_dupfd_cloexec(descriptor, lowest);
        // A limit of descriptors may be lower than that.
        let copy = copy(LOWEST).or_else(|_| copy(3))?;
        Ok(Self {
            descriptor: Some(copy),
            identity,
        })
    }

    /// Is it still what it was?
    #[must_use]
    pub fn is_ours(&self) -> bool {
        identity_of(self.as_fd()) == Ok(self.identity)
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // What stands for "no descriptor" fails in every call that is made here.
        self.descriptor.as_ref().map_or(CWD, AsFd::as_fd)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !self.is_ours() {
            core::mem::forget(self.descriptor.take());
        }
    }
}
