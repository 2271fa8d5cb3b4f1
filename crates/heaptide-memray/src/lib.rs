//! Reads the capture files of Memray 1.7 to 1.20 (header versions 10 to 13).
//!
//! A file of Memray is translated, record by record, into a capture of heaptide in an unnamed temporary file, and
//! that is read like any other. So all reports have one way in, and what holds for damaged captures
//! holds for foreign ones. Memory is bounded by the distinct stacks and the threads, not by the events.
//!
//! The formats are described in `docs/design/013-captures-of-memray.md`.
#![forbid(unsafe_code)]

mod aggregated;
mod error;
mod events;
mod header;
mod input;
mod legacy;
mod native;
mod output;
mod stacks;
mod streams;
mod symbols;
mod translation;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use heaptide_capture::Capture;

pub use error::Error;
pub use header::{FIRST_VERSION, LAST_VERSION};
pub use symbols::NativeNames;

use crate::input::Input;
use crate::translation::Translation;

/// The first bytes of a file of Memray that is not compressed.
pub const MAGIC: &[u8; 7] = b"memray\0";
/// The first bytes of an LZ4 frame, in which Memray puts a file when tracking has ended.
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// Reads a capture, of heaptide or of Memray, by its first bytes.
///
/// # Errors
/// As [`Capture::open`], and where a file of Memray cannot be translated.
pub fn open(path: impl AsRef<Path>) -> Result<Capture, Error> {
    let path = path.as_ref();
    let mut capture = match foreign(path) {
        Some(file) => translate(file, path)?,
        // Whatever is wrong with it is said by the reader of our own captures.
        None => Capture::open(path)?,
    };
    NativeNames::default().find(&mut capture);
    Ok(capture)
}

/// Is this a file that begins as Memray's do? An LZ4 frame counts as one.
#[must_use]
pub fn is_memray(path: impl AsRef<Path>) -> bool {
    foreign(path.as_ref()).is_some()
}

fn foreign(path: &Path) -> Option<File> {
    // Asked before opening, because opening a named pipe would wait for its writer.
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut file = File::open(path).ok()?;
    let mut start = Vec::new();
    (&mut file).take(7).read_to_end(&mut start).ok()?;
    file.seek(SeekFrom::Start(0)).ok()?;
    (start == MAGIC || start.starts_with(&LZ4_MAGIC)).then_some(file)
}

fn translate(file: File, path: &Path) -> Result<Capture, Error> {
    let file_bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let mut input = Input::new(file).map_err(|source| Error::read(path, source))?;
    let header = header::read(&mut input).map_err(|problem| problem.in_file(path))?;
    let temporary = tempfile::tempfile().map_err(|source| Error::temporary(path, source))?;
    let mut translation = Translation::new(&header, temporary);
    let read = if header.aggregated {
        aggregated::read(&mut input, &header, &mut translation)
    } else if header.version < header::NEW_EVENTS {
        legacy::read(&mut input, &header, &mut translation)
    } else {
        events::read(&mut input, &header, &mut translation)
    };
    let ended = match read {
        Ok(()) => true,
        Err(input::Problem::Ends) => false,
        Err(input::Problem::Damaged(what)) => {
            translation.damaged(input.position(), what);
            false
        }
        Err(input::Problem::Write(source)) => return Err(Error::temporary(path, source)),
        Err(problem) => return Err(problem.in_file(path)),
    };
    let (file, warnings) = translation
        .finish(&header, ended)
        .map_err(|source| Error::temporary(path, source))?;
    let mut capture = Capture::from_file(file, path)?;
    capture.file_bytes = file_bytes;
    let mut all = heaptide_capture::Warnings::from(std::mem::take(&mut capture.warnings));
    all.append(warnings);
    capture.warnings = all.into_vec();
    Ok(capture)
}
