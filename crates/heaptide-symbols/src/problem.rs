//! Why a module gives less than it could.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a module has no names, or fewer than it could have.
#[derive(Debug, Error)]
pub enum Problem {
    /// The file cannot be opened or mapped.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The module or its debug file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// A directory, a device or the like.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The module or its debug file.
        path: PathBuf,
    },
    /// Not an ELF file, or a broken one.
    #[error("{} is not a valid ELF file: {reason}", path.display())]
    NotElf {
        /// The module or its debug file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An object file or a core dump: its addresses are not those of a loaded module.
    #[error("{} is neither a program nor a shared library", path.display())]
    NotLoadable {
        /// The module or its debug file.
        path: PathBuf,
    },
    /// The file was replaced since, or is another one of that name.
    #[error(
        "{} has the build-id {found}, not {wanted}: it is another file than the program had loaded",
        path.display()
    )]
    OtherBuildId {
        /// The module or its debug file.
        path: PathBuf,
        /// In hexadecimal, or `(none)`.
        found: String,
        /// In hexadecimal.
        wanted: String,
    },
    /// A debug file that `.gnu_debuglink` names is not the one that was made with the module.
    #[error("{} is the debug file of another build: its checksum differs", path.display())]
    OtherChecksum {
        /// The debug file.
        path: PathBuf,
    },
    /// Debug information that cannot be made sense of; the symbol table is used.
    #[error("the debug information of {} is broken: {reason}", path.display())]
    BrokenDebugInfo {
        /// The module or its debug file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}
