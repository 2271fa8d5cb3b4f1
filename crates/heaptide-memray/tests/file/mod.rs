//! Files of Memray made byte for byte.
#![allow(dead_code, reason = "each test uses what it needs")]

use std::path::PathBuf;

use heaptide_capture::Capture;
use heaptide_memray::{Error, open};
use tempfile::TempDir;

pub(crate) const START_MS: u64 = 1_767_323_045_000;

/// A file under construction.
pub(crate) struct File(pub(crate) Vec<u8>);

impl File {
    pub(crate) fn new(version: i32, aggregated: bool) -> Self {
        Self::with(version, aggregated, false)
    }

    /// `lifetimes`: with records of Python objects.
    pub(crate) fn with(version: i32, aggregated: bool, lifetimes: bool) -> Self {
        let mut file = Self(b"memray\0".to_vec());
        file.0.extend(version.to_le_bytes());
        if version >= 12 {
            file.0.extend(0x030c_0df0_u32.to_le_bytes());
        }
        file.0.extend([0, u8::from(aggregated)]);
        for word in [0, 0, START_MS, START_MS + 70] {
            file.0.extend(word.to_le_bytes());
        }
        file.0.extend(b"app.py --fast\0");
        file.0.extend(4711_u32.to_le_bytes());
        // The main thread, of which one frame is left out.
        for word in [1_u64, 1] {
            file.0.extend(word.to_le_bytes());
        }
        file.0.push(1);
        if version >= 11 {
            file.0.push(0);
        }
        if version >= 12 {
            file.0.push(u8::from(lifetimes));
        }
        if version >= 13 {
            file.0.extend(b"/usr/lib/python3.12\0/site\0\0/path\0\0");
        }
        file
    }

    /// With native stacks.
    pub(crate) fn native(version: i32, aggregated: bool) -> Self {
        let mut file = Self::new(version, aggregated);
        file.0[if version >= 12 { 15 } else { 11 }] = 1;
        file
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn thread(&mut self, id: u64) -> &mut Self {
        self.add(&[12]).add(&id.to_le_bytes())
    }

    /// A function of one instruction, which is in its first line: line `3 * number`, by the difference.
    pub(crate) fn code(&mut self, number: u8) -> &mut Self {
        let name = [b"f", &[b'0' + number][..], b"\0app.py\0"].concat();
        self.add(&[14, number]).add(&name).add(&[6, 2, 0xe8, 0x00])
    }

    pub(crate) fn open(&self) -> Result<Capture, Error> {
        let (_directory, path) = written(&self.0);
        open(path)
    }
}

pub(crate) fn written(bytes: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("memray-app.bin");
    std::fs::write(&path, bytes).unwrap();
    (directory, path)
}
