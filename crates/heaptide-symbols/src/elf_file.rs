//! An ELF file, mapped.

use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use object::{CompressionFormat, Object, ObjectKind, ObjectSection};

use crate::problem::Problem;

/// More than deflate can do. What claims to shrink further is a bomb.
const MOST_TIMES_SMALLER: u64 = 1100;

pub(crate) struct ElfFile {
    pub(crate) path: PathBuf,
    map: Mmap,
}

/// Contents of a section.
pub(crate) enum Contents {
    /// Where it is in the file.
    Mapped(Range<usize>),
    Unpacked(Vec<u8>),
}

impl ElfFile {
    /// Opens a program, a shared library or the debug file of one.
    pub(crate) fn open(path: &Path) -> Result<Self, Problem> {
        let unreadable = |error| Problem::Unreadable {
            path: path.to_owned(),
            error,
        };
        // Not blocking: the name comes from a capture and may be that of a pipe by now.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(Problem::NotAFile {
                path: path.to_owned(),
            });
        }
        // SAFETY: the bytes are only ever read as bytes, by readers that believe none of them, so a file that is
        // changed meanwhile gives nonsense and no undefined layout. One that is cut short meanwhile gives SIGBUS, as
        // in every debugger; reading libraries of gigabytes into memory instead would be worse.
        let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
        let elf = Self {
            path: path.to_owned(),
            map,
        };
        let kind = elf.parse().map(|object| object.kind());
        match kind {
            Ok(ObjectKind::Executable | ObjectKind::Dynamic) => Ok(elf),
            Ok(_) => Err(Problem::NotLoadable { path: elf.path }),
            Err(error) => Err(Problem::NotElf {
                path: elf.path,
                reason: error.to_string(),
            }),
        }
    }

    /// Reads the headers; costs little.
    pub(crate) fn parse(&self) -> object::Result<object::File<'_>> {
        object::File::parse(&*self.map)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    pub(crate) fn build_id(&self) -> Option<Vec<u8>> {
        let object = self.parse().ok()?;
        let id = object.build_id().ok().flatten()?;
        Some(id.to_owned())
    }

    /// Complains of a file with another build-id.
    pub(crate) fn expect_build_id(&self, wanted: &[u8]) -> Result<(), Problem> {
        let found = self.build_id();
        if found.as_deref() == Some(wanted) {
            return Ok(());
        }
        Err(Problem::OtherBuildId {
            path: self.path.clone(),
            found: found.map_or_else(|| "(none)".to_owned(), |id| hexadecimal(&id)),
            wanted: hexadecimal(wanted),
        })
    }

    pub(crate) fn has_debug_info(&self) -> bool {
        // Stripped files keep headers of sections without contents.
        let Ok(object) = self.parse() else {
            return false;
        };
        let section = object.section_by_name(".debug_info");
        let range = section.and_then(|section| section.compressed_file_range().ok());
        range.is_some_and(|range| range.compressed_size > 0)
    }

    /// What a section holds, unpacked; empty if there is no such section.
    pub(crate) fn contents(&self, name: &str) -> Result<Contents, String> {
        let object = self.parse().map_err(|error| error.to_string())?;
        let Some(section) = object.section_by_name(name) else {
            return Ok(Contents::Mapped(0..0));
        };
        let broken = |error: object::Error| format!("{name}: {error}");
        let range = section.compressed_file_range().map_err(broken)?;
        if range.format == CompressionFormat::None {
            let start = usize::try_from(range.offset).unwrap_or(usize::MAX);
            let size = usize::try_from(range.uncompressed_size).unwrap_or(usize::MAX);
            let end = start.saturating_add(size);
            return match self.map.get(start..end) {
                Some(_) => Ok(Contents::Mapped(start..end)),
                None => Err(format!("{name} ends beyond the file")),
            };
        }
        let limit = range.compressed_size.saturating_mul(MOST_TIMES_SMALLER);
        if range.uncompressed_size > limit {
            return Err(format!("{name} claims to be impossibly well compressed"));
        }
        let unpacked = section
            .compressed_data()
            .and_then(object::CompressedData::decompress)
            .map_err(broken)?;
        Ok(Contents::Unpacked(unpacked.into_owned()))
    }

    pub(crate) fn slice<'a>(&'a self, contents: &'a Contents) -> &'a [u8] {
        match contents {
            Contents::Mapped(range) => self.map.get(range.clone()).unwrap_or_default(),
            Contents::Unpacked(bytes) => bytes,
        }
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
