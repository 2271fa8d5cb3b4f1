//! The bytes of a file, unpacked, and the numbers in them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use lz4_flex::frame::FrameDecoder;

use crate::{Error, LZ4_MAGIC};

/// Names are shorter; a file that claims more is damaged.
const LONGEST_TEXT: usize = 1 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// Why reading stops.
#[derive(Debug)]
pub(crate) enum Problem {
    /// There is no more, in the middle of something or not.
    Ends,
    /// What stands there cannot be.
    Damaged(&'static str),
    /// The system could not read.
    Read(io::Error),
    /// The system could not write what was made of it.
    Write(io::Error),
    /// A header version that is not known.
    Version(i32),
}

pub(crate) type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    /// As an error of the whole file.
    pub(crate) fn in_file(self, path: &Path) -> Error {
        let owned = || path.to_owned();
        match self {
            Self::Ends => Error::NotMemray {
                path: owned(),
                what: "it ends inside the header",
            },
            Self::Damaged(what) => Error::NotMemray {
                path: owned(),
                what,
            },
            Self::Read(source) => Error::read(path, source),
            Self::Write(source) => Error::temporary(path, source),
            Self::Version(version) => Error::Version {
                path: owned(),
                version,
            },
        }
    }
}

/// A file of Memray from its first byte on, unpacked.
pub(crate) struct Input {
    reader: Box<dyn BufRead>,
    packed: bool,
    position: u64,
}

impl Input {
    pub(crate) fn new(mut file: File) -> io::Result<Self> {
        let mut start = [0; 4];
        let packed = file.read_exact(&mut start).is_ok() && start == LZ4_MAGIC;
        file.seek(SeekFrom::Start(0))?;
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        let reader: Box<dyn BufRead> = if packed {
            Box::new(BufReader::with_capacity(
                BUFFER_BYTES,
                FrameDecoder::new(file),
            ))
        } else {
            Box::new(file)
        };
        Ok(Self {
            reader,
            packed,
            position: 0,
        })
    }

    /// Of unpacked bytes from the start.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// What is there, at least a byte.
    #[inline]
    fn window(&mut self) -> Result<&[u8]> {
        match self.reader.fill_buf() {
            Ok([]) => Err(Problem::Ends),
            Ok(bytes) => Ok(bytes),
            // The frame's decoder has errors of its own where a frame is cut off or damaged.
            Err(error) if self.packed && error.raw_os_error().is_none() => {
                if error.kind() == io::ErrorKind::UnexpectedEof {
                    Err(Problem::Ends)
                } else {
                    Err(Problem::Damaged("its LZ4 frame is damaged"))
                }
            }
            Err(error) => Err(Problem::Read(error)),
        }
    }

    #[inline]
    fn advance(&mut self, bytes: usize) {
        self.reader.consume(bytes);
        self.position += bytes as u64;
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8> {
        let byte = self.window()?[0];
        self.advance(1);
        Ok(byte)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        let mut done = 0;
        while done < N {
            let window = self.window()?;
            let count = window.len().min(N - done);
            array[done..done + count].copy_from_slice(&window[..count]);
            done += count;
            self.advance(count);
        }
        Ok(array)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// LEB128.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Problem::Damaged("a number is too long"))
    }

    /// LEB128 of the zigzag form.
    #[inline]
    pub(crate) fn signed(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The next value of a field that is written as its difference to the last one.
    #[inline]
    pub(crate) fn next_of(&mut self, field: &mut u64) -> Result<u64> {
        *field = field.wrapping_add(self.signed()? as u64);
        Ok(*field)
    }

    /// Bytes up to a zero, which is not among them.
    pub(crate) fn text(&mut self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        loop {
            let window = self.window()?;
            let end = window.iter().position(|&byte| byte == 0);
            let piece = &window[..end.unwrap_or(window.len())];
            text.extend_from_slice(piece);
            let count = piece.len() + usize::from(end.is_some());
            self.advance(count);
            if end.is_some() {
                return Ok(text);
            }
            if text.len() > LONGEST_TEXT {
                return Err(Problem::Damaged("a name has no end"));
            }
        }
    }

    /// So many bytes; memory is taken only for what is there.
    pub(crate) fn bytes(&mut self, count: u64) -> Result<Vec<u8>> {
        let count = usize::try_from(count)
            .ok()
            .filter(|&count| count <= LONGEST_TEXT)
            .ok_or(Problem::Damaged("a line table is too long"))?;
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let window = self.window()?;
            let piece = window.len().min(count - bytes.len());
            bytes.extend_from_slice(&window[..piece]);
            self.advance(piece);
        }
        Ok(bytes)
    }

    /// Texts up to an empty one, each with a zero behind it; those beyond the longest text are left out.
    pub(crate) fn texts(&mut self) -> Result<Vec<u8>> {
        let mut texts = Vec::new();
        loop {
            let text = self.text()?;
            if text.is_empty() {
                return Ok(texts);
            }
            if texts.len() + text.len() < LONGEST_TEXT {
                texts.extend_from_slice(&text);
                texts.push(0);
            }
        }
    }
}
