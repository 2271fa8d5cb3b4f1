//! Positioned reads from a file or from memory, bounded by what is really there.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::Error;

/// A file that is expanded from this many times fewer bytes on disk is a sparse file made to
/// exhaust memory; file systems that compress stay below.
const LARGEST_EXPANSION: u64 = 8;
/// Always allowed, whatever the file occupies.
const SMALLEST_BUDGET: u64 = 4 << 20;
/// Allowed for files that claim to occupy nothing, as all or small ones do on some file systems.
const UNTOLD_BUDGET: u64 = 64 << 20;

/// Something with bytes at offsets.
pub trait Source: Send + Sync {
    /// Length now.
    ///
    /// # Errors
    /// It cannot be told any more.
    fn length(&self) -> io::Result<u64>;
    /// How many bytes of payload a reader may hold.
    ///
    /// # Errors
    /// As [`Source::length`].
    fn budget(&self) -> io::Result<u64>;
    /// Fills as much of `buffer` as there is at `offset`.
    ///
    /// # Errors
    /// What is there cannot be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A capture on disk.
pub(crate) struct FileSource(File);

impl FileSource {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let error = |source| Error::Open {
            path: path.to_owned(),
            source,
        };
        // Asked before opening, because opening a named pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(error)?.is_file() {
            return Err(Error::NotAFile {
                path: path.to_owned(),
            });
        }
        Ok(Self(File::open(path).map_err(error)?))
    }
}

impl From<File> for FileSource {
    fn from(file: File) -> Self {
        Self(file)
    }
}

impl Source for FileSource {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn budget(&self) -> io::Result<u64> {
        let on_disk = self.0.metadata()?.blocks().saturating_mul(512);
        let smallest = if on_disk == 0 {
            UNTOLD_BUDGET
        } else {
            SMALLEST_BUDGET
        };
        Ok(on_disk.saturating_mul(LARGEST_EXPANSION).max(smallest))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// A capture in memory that lives on in its [`crate::EventLog`].
pub(crate) struct OwnedSource(pub(crate) Vec<u8>);

impl Source for OwnedSource {
    fn length(&self) -> io::Result<u64> {
        BytesSource(&self.0).length()
    }

    fn budget(&self) -> io::Result<u64> {
        BytesSource(&self.0).budget()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        BytesSource(&self.0).read_at(offset, buffer)
    }
}

/// A capture in memory.
pub(crate) struct BytesSource<'a>(pub(crate) &'a [u8]);

impl Source for BytesSource<'_> {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn budget(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.0.len());
        let count = buffer.len().min(self.0.len() - start);
        buffer[..count].copy_from_slice(&self.0[start..start + count]);
        Ok(count)
    }
}
