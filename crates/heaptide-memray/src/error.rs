//! Why a file of Memray could not be read at all.

use std::io;
use std::path::{Path, PathBuf};

/// Why a capture could not be read at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is one of our own, or what the translation made cannot be read.
    #[error(transparent)]
    Capture(#[from] heaptide_capture::Error),
    /// Reading failed.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An LZ4 frame of something else, or a file that ends within Memray's header.
    #[error("{}: not a capture: {what}", path.display())]
    NotMemray {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A header version that is not known.
    #[error(
        "{}: made by {}, whose files have header version {version}; versions {} to {} can be read",
        path.display(), crate::header::memray_of(*version), crate::FIRST_VERSION, crate::LAST_VERSION
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its header version.
        version: i32,
    },
    /// There is no room for the translation.
    #[error("{}: cannot be translated in {}: {source}", path.display(), std::env::temp_dir().display())]
    Temporary {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::Read { path, source }
    }

    pub(crate) fn temporary(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::Temporary { path, source }
    }
}
