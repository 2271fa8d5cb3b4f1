//! Why a capture could not be read at all.

use std::io;
use std::path::PathBuf;

/// Why a capture could not be read at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened.
    #[error("{}: cannot be opened: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The path names something that is not a regular file.
    #[error("{}: not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Reading failed.
    #[error("{}: cannot be read at byte {offset}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is larger than any aggregated capture.
    #[error("{}: {bytes} bytes are more than a capture may have ({})", path.display(), crate::LARGEST_FILE_BYTES)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The file has no bytes.
    #[error("{}: the file is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file does not start as a capture does.
    #[error("{}: not a heaptide capture{hint}", path.display())]
    NotACapture {
        /// The file.
        path: PathBuf,
        /// What it looks like instead, with a leading separator; may be empty.
        hint: &'static str,
    },
    /// The file ends inside the header page.
    #[error("{}: the file ends at byte {bytes}, inside the header; nothing can be read from it", path.display())]
    TruncatedHeader {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The file was made by a newer heaptide.
    #[error("{}: made by a newer version of heaptide (format {version}; this one reads format {})", path.display(), heaptide_format::FORMAT_VERSION)]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its format version.
        version: u32,
    },
    /// The format version is none that ever existed.
    #[error("{}: damaged header: there is no format {version}", path.display())]
    UnknownVersion {
        /// The file.
        path: PathBuf,
        /// Its format version.
        version: u32,
    },
    /// The file needs features that this version lacks.
    #[error("{}: needs features that this version of heaptide does not know (bits {bits:#x})", path.display())]
    UnknownFeatures {
        /// The file.
        path: PathBuf,
        /// The unknown bits.
        bits: u64,
    },
}
