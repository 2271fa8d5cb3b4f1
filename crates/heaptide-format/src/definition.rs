//! Definitions: strings, code objects and metadata, each written once and never changed.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::header::code_enum;

/// The start of every definition; the payload follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DefinitionHeader {
    /// Bytes to the next definition, this header and padding included; a multiple of 8.
    pub total_bytes: u32,
    /// [`DefinitionKind`]
    pub kind: u32,
    /// Number of the string or code object (each kind counts for itself), or the [`MetadataKey`].
    pub id: u32,
    /// String: [`StringEncoding`]. Others: zero.
    pub encoding: u32,
    /// Payload bytes without the padding.
    pub payload_bytes: u32,
    /// Checksum of the payload bytes.
    pub checksum: u32,
}

const _: () = assert!(size_of::<DefinitionHeader>() == 24);

impl DefinitionHeader {
    /// Bytes a definition with this payload takes, header and padding included.
    #[must_use]
    pub const fn total_bytes_for(payload: usize) -> usize {
        (size_of::<Self>() + payload).next_multiple_of(8)
    }
}

/// The fixed part of a code object's payload. The line table's bytes follow it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CodeFixed {
    /// String number of `co_name`.
    pub name: u32,
    /// String number of `co_qualname` (3.11+), else that of `co_name`.
    pub qualified_name: u32,
    /// String number of `co_filename`.
    pub file_name: u32,
    /// `co_firstlineno`
    pub first_line: i32,
    /// Length of `co_lnotab` (3.9) or `co_linetable` (3.10+) in bytes; its form follows from the
    /// interpreter version in the header.
    pub line_table_bytes: u32,
    /// `co_flags`
    pub flags: u32,
}

code_enum! {
    /// What a definition defines.
    DefinitionKind {
        /// A string, by `encoding`.
        String = 1 => "string",
        /// A code object: [`CodeFixed`] and the line table.
        Code = 2 => "code",
        /// A fact about the run, by [`MetadataKey`]; the payload is text, UTF-8 unless said otherwise.
        Metadata = 3 => "metadata",
    }
}

code_enum! {
    /// How the bytes of a string are to be read: CPython's storage kinds, kept raw.
    StringEncoding {
        /// UTF-8 (by the agent only the names of types).
        Utf8 = 0 => "utf-8",
        /// One byte per code point (ASCII and Latin-1).
        Ucs1 = 1 => "ucs-1",
        /// Two bytes per code point, little-endian. Lone surrogates U+DC80..U+DCFF stand for undecodable bytes (PEP 383).
        Ucs2 = 2 => "ucs-2",
        /// Four bytes per code point, little-endian, lone surrogates as above.
        Ucs4 = 4 => "ucs-4",
    }
}

code_enum! {
    /// Facts about the run.
    MetadataKey {
        /// The program's arguments as the supervisor started it, each ended by a NUL byte, raw.
        CommandLine = 1 => "command_line",
        /// Host name.
        Hostname = 2 => "hostname",
        /// Path of the executable started, raw.
        Executable = 3 => "executable",
        /// Working directory at the start, raw.
        WorkingDirectory = 4 => "working_directory",
        /// `sys.version` of the interpreter.
        PythonVersion = 5 => "python_version",
        /// Version of the heaptide that made the file.
        Writer = 6 => "writer",
        /// Path of the memory cgroup, as in `/proc/PID/cgroup`.
        MemoryCgroup = 7 => "memory_cgroup",
        /// What the user named to be profiled: script path, `-m module` or `-c`.
        Target = 8 => "target",
        /// Decimal: how many Python frames of the thread that started tracking stand below the one that asked for
        /// it, where tracking starts inside a program (`Tracker`).
        FramesBelow = 9 => "frames_below",
        /// `sys.path` when tracking began (of a forked child: its parent's), each entry ended by a NUL byte, raw.
        SearchPath = 10 => "search_path",
        /// Why not all is told of Python objects, though that was asked for: who survives is not known, and events of
        /// objects may be missing, at the end.
        ObjectsUntold = 11 => "objects_untold",
    }
}
