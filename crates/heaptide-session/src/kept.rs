//! Files that stay open in a process that is not ours, and that may close any number.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;

use crate::system;

/// A file under a high number. If the number is another file's by now, it is left open.
#[derive(Debug)]
pub(crate) struct Kept {
    file: ManuallyDrop<File>,
    /// Device and inode; `None` when they could not be told.
    identity: Option<(u64, u64)>,
}

impl Kept {
    pub(crate) fn new(file: File) -> Self {
        let file = system::out_of_the_way(file);
        Self {
            identity: system::identity(&file).ok(),
            file: ManuallyDrop::new(file),
        }
    }

    /// The file, if its number is still its own.
    ///
    /// # Errors
    /// `EBADF`, as for a number that is nobody's.
    pub(crate) fn ours(&self) -> io::Result<&File> {
        if self.is_ours() {
            Ok(&self.file)
        } else {
            Err(io::Error::from_raw_os_error(libc::EBADF))
        }
    }

    fn is_ours(&self) -> bool {
        self.identity.is_some() && system::identity(&*self.file).ok() == self.identity
    }
}

impl Deref for Kept {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.is_ours() {
            // SAFETY: once, here, and it is not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.file) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_number_that_is_anothers_stays_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let kept = Kept::new(File::create(&path).unwrap());
        let number = kept.as_raw_fd();
        assert!(number >= 3 && kept.ours().is_ok());
        let other = File::create(directory.path().join("b")).unwrap();
        // SAFETY: the number is that of our own file, which is closed by it.
        assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), number) }, number);
        let error = kept.ours().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        drop(kept);
        // SAFETY: still open, and nobody else closes it.
        assert_eq!(unsafe { libc::close(number) }, 0);
    }
}
