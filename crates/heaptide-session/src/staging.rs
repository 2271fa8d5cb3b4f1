//! A private directory in memory for captures that cannot be, or are not to be, written where they belong.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::{SessionError, plain, system};

/// A place with so much room is taken without looking further. Containers give `/dev/shm` 64 MiB by default.
const ENOUGH_BYTES: u64 = 256 << 20;

/// The directory, removed with all that is in it when dropped.
#[derive(Debug)]
pub(crate) struct Staging {
    directory: PathBuf,
}

impl Staging {
    /// In the first place that has room and shared mappings, else in the one with most room.
    ///
    /// # Errors
    /// No place will do.
    pub(crate) fn new() -> Result<Self, SessionError> {
        let temporary = std::env::var_os("TMPDIR").map(PathBuf::from);
        let places = ["/dev/shm".into()]
            .into_iter()
            .chain(temporary.filter(|path| path.is_absolute()))
            .chain(["/tmp".into(), "/var/tmp".into()]);
        Self::among(places)
    }

    fn among(places: impl Iterator<Item = PathBuf>) -> Result<Self, SessionError> {
        let mut refusals = Vec::new();
        let mut best: Option<(u64, Self)> = None;
        for place in places {
            match Self::under(&place) {
                Ok((room, staging)) if room >= ENOUGH_BYTES => return Ok(staging),
                Ok((room, staging)) => {
                    if best.as_ref().is_none_or(|(most, _)| room > *most) {
                        best = Some((room, staging));
                    }
                }
                Err(error) => refusals.push(format!("{}: {}", place.display(), plain(&error))),
            }
        }
        best.map(|(_, staging)| staging)
            .ok_or_else(|| SessionError::Staging(refusals.join("; ")))
    }

    /// A directory in `place`, proven to have shared mappings, and how much room there is.
    fn under(place: &Path) -> io::Result<(u64, Self)> {
        let staging = Self {
            directory: system::private_directory(place)?,
        };
        let probe = staging.directory.join("probe");
        let file: File = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&probe)?;
        system::allocate(&file, system::page_bytes() as u64)?;
        system::prove_shared_mapping(&file)?;
        std::fs::remove_file(&probe)?;
        Ok((system::free_bytes(place)?, staging))
    }

    /// Where a capture of this file name is staged.
    pub(crate) fn place(&self, destination: &Path) -> PathBuf {
        let name = destination.file_name().unwrap_or("capture.tide".as_ref());
        self.directory.join(name)
    }

    /// The directory of another process, which leaves it to this one.
    pub(crate) fn adopt(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Leaves the directory to another process.
    pub(crate) fn leave(mut self) -> PathBuf {
        let directory = std::mem::take(&mut self.directory);
        std::mem::forget(self);
        directory
    }

    /// Removes everything, for a process that ends without dropping its values.
    pub(crate) fn remove(&self) {
        // Nobody is left to tell.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_directory_is_private_and_goes() {
        let base = tempfile::tempdir().unwrap();
        let missing = base.path().join("missing");
        let places = [missing.clone(), base.path().to_owned()];
        let staging = Staging::among(places.into_iter()).unwrap();
        let directory = staging.directory.clone();
        assert!(directory.starts_with(base.path()));
        let mode = std::fs::metadata(&directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let place = staging.place(Path::new("/a/b.tide"));
        assert_eq!(place, directory.join("b.tide"));
        std::fs::write(place, "x").unwrap();
        drop(staging);
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
        let error = Staging::among([missing].into_iter()).unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
    }
}
