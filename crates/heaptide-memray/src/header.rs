//! The header of Memray's files.

use crate::MAGIC;
use crate::input::{Input, Problem, Result};

/// The oldest header version that is read: Memray 1.7.
pub const FIRST_VERSION: i32 = 10;
/// The newest header version that is read: Memray 1.20.
pub const LAST_VERSION: i32 = 13;
/// From this version on events have tokens of variable form, and code objects bring their line tables.
pub(crate) const NEW_EVENTS: i32 = 12;

/// What the header says.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) version: i32,
    /// `PY_VERSION_HEX` of the interpreter that Memray was built for; zero where it is not told.
    pub(crate) python_version: u32,
    pub(crate) native: bool,
    pub(crate) aggregated: bool,
    /// Milliseconds since the Unix epoch.
    pub(crate) start_ms: u64,
    /// As above; the start again in a file that was not ended.
    pub(crate) end_ms: u64,
    pub(crate) command_line: Vec<u8>,
    pub(crate) pid: u32,
    pub(crate) main_thread: u64,
    /// So many of the outermost frames of the main thread are Memray's.
    pub(crate) skipped_frames: u64,
    pub(crate) python_allocator: u8,
    pub(crate) traces_python_allocators: bool,
    pub(crate) object_lifetimes: bool,
    /// `sys.path` when Memray was started, each entry ended by a zero.
    pub(crate) search_path: Vec<u8>,
}

/// Which Memray writes files of a version.
pub(crate) const fn memray_of(version: i32) -> &'static str {
    match version {
        6 => "Memray 1.0",
        7 => "Memray 1.1",
        8 => "Memray 1.2 or 1.3",
        9 => "Memray 1.4 to 1.6",
        10 => "Memray 1.7 to 1.10",
        11 => "Memray 1.11 to 1.18",
        12 => "Memray 1.19",
        13 => "Memray 1.20",
        ..=5 => "a Memray that was never released",
        _ => "a newer Memray",
    }
}

pub(crate) fn read(input: &mut Input) -> Result<Header> {
    if &input.array::<7>()? != MAGIC {
        return Err(Problem::Damaged("the LZ4 frame holds no capture of Memray"));
    }
    let version = i32::from_le_bytes(input.array()?);
    if !(FIRST_VERSION..=LAST_VERSION).contains(&version) {
        return Err(Problem::Version(version));
    }
    let python_version = if version >= 12 {
        u32::from_le_bytes(input.array()?)
    } else {
        0
    };
    let native = input.byte()? != 0;
    let aggregated = match input.byte()? {
        0 => false,
        1 => true,
        _ => {
            return Err(Problem::Damaged(
                "its header names a form that is not known",
            ));
        }
    };
    // Numbers of allocations and frames: what is there is counted instead.
    input.u64()?;
    input.u64()?;
    let start_ms = input.u64()?;
    let end_ms = input.u64()?;
    let command_line = input.text()?;
    let pid = u32::from_le_bytes(input.array()?);
    let main_thread = input.u64()?;
    let skipped_frames = input.u64()?;
    let python_allocator = input.byte()?;
    let traces_python_allocators = version >= 11 && input.byte()? != 0;
    let object_lifetimes = version >= 12 && input.byte()? != 0;
    let mut search_path = Vec::new();
    if version >= 13 {
        // Directory of the standard library, site-packages.
        input.text()?;
        input.texts()?;
        search_path = input.texts()?;
    }
    Ok(Header {
        version,
        python_version,
        native,
        aggregated,
        start_ms,
        end_ms,
        command_line,
        pid,
        main_thread,
        skipped_frames,
        python_allocator,
        traces_python_allocators,
        object_lifetimes,
        search_path,
    })
}
