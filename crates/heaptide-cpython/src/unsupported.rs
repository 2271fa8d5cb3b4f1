//! Why an interpreter cannot be read.

use core::ffi::CStr;
use core::fmt;

/// Why an interpreter cannot be read. Plain data: making one never allocates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsupported {
    /// Older than CPython 3.9.
    TooOld {
        /// `PY_VERSION_HEX` of the interpreter.
        hexversion: u32,
    },
    /// Newer than the last version whose layout is known.
    TooNew {
        /// `PY_VERSION_HEX` of the interpreter.
        hexversion: u32,
    },
    /// An alpha or beta release: the structures change from one to the next.
    PreRelease {
        /// `PY_VERSION_HEX` of the interpreter.
        hexversion: u32,
    },
    /// A build without the GIL, of another version than 3.14.
    FreeThreaded,
    /// A build with `Py_TRACE_REFS`: every object has a larger head.
    TraceReferences,
    /// The interpreter's description of itself is missing, belongs to another version or makes no sense.
    BadDebugOffsets,
    /// The interpreter does not export a symbol that is needed: not a CPython.
    MissingSymbol(&'static CStr),
    /// `Py_GetVersion` said something that is no version.
    BadVersion,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// `3.14.2`, from `PY_VERSION_HEX`.
        struct Version(u32);
        impl fmt::Display for Version {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    "{}.{}.{}",
                    self.0 >> 24,
                    self.0 >> 16 & 0xff,
                    self.0 >> 8 & 0xff
                )
            }
        }
        match *self {
            Self::TooOld { hexversion } => write!(
                f,
                "CPython {} is too old: 3.9 is the first supported version",
                Version(hexversion)
            ),
            Self::TooNew { hexversion } => write!(
                f,
                "CPython {} is too new: 3.15 is the last supported version",
                Version(hexversion)
            ),
            Self::PreRelease { hexversion } => write!(
                f,
                "this is an alpha or beta release of CPython {}: only release candidates and releases are supported",
                Version(hexversion)
            ),
            Self::FreeThreaded => f.write_str(
                "free-threaded builds of CPython are supported from 3.14 only, and not of 3.15 yet",
            ),
            Self::TraceReferences => {
                f.write_str("builds of CPython with Py_TRACE_REFS are not supported")
            }
            Self::BadDebugOffsets => {
                f.write_str("the interpreter's debug offsets are missing or do not fit its version")
            }
            Self::MissingSymbol(name) => write!(
                f,
                "the symbol {} is missing: not a CPython",
                name.to_str().unwrap_or("?")
            ),
            Self::BadVersion => f.write_str("the interpreter's version cannot be understood"),
        }
    }
}

impl core::error::Error for Unsupported {}
