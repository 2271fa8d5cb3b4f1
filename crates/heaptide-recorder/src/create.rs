//! A capture made by the process itself, and the end of another's noted in it: what the supervisor does
//! for the program it starts, for programs that it does not see start.
//!
//! System calls only, around the C library: this runs in the first moments of a forked child.

use core::ffi::CStr;
use core::mem::offset_of;

use heaptide_format::{
    HEADER_BYTES, Identity, Lifecycle, Outcome, SEGMENT_HEADER_BYTES, Sample, SegmentHeader,
    SegmentKind, State, offsets,
};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::file::{CaptureFile, allocate, unix_ns};

/// Samples there is room for: fewer than in the root's capture, since there may be many children.
const SAMPLES: usize = 1024;
/// How many programs one process may become one after the other, each with a capture.
const MOST_IMAGES: u32 = 1000;
const LONGEST_PATH: usize = 4096;

/// A path with a number, NUL-terminated.
struct Name {
    bytes: [u8; LONGEST_PATH],
    length: usize,
}

impl Name {
    /// `<base>.<pid>`, and `.<image>` for all but the first.
    fn new(base: &[u8], pid: u32, image: u32) -> Option<Self> {
        let mut name = Self {
            bytes: [0; LONGEST_PATH],
            length: 0,
        };
        name.push(base)?;
        name.push_number(pid)?;
        if image > 0 {
            name.push_number(image)?;
        }
        Some(name)
    }

    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length.checked_add(bytes.len())?;
        // One byte stays for the NUL.
        if end >= LONGEST_PATH {
            return None;
        }
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
        Some(())
    }

    fn push_number(&mut self, mut number: u32) -> Option<()> {
        let mut digits = [0u8; 11];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        at -= 1;
        digits[at] = b'.';
        self.push(&digits[at..])
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn c_str(&self) -> Result<&CStr, Errno> {
        CStr::from_bytes_until_nul(&self.bytes).map_err(|_| Errno::INVAL)
    }
}

/// Makes the capture `<base>.<pid>` (or `<base>.<pid>.<n>` if that is there already) and maps it.
pub(crate) fn create(file: &CaptureFile, base: &[u8], identity: &Identity) -> Result<(), Errno> {
    let too_long = Errno::NAMETOOLONG;
    if let Some(unnamed) = unnamed_file(base) {
        fill(unnamed.as_fd(), identity)?;
        for image in 0..MOST_IMAGES {
            let name = Name::new(base, identity.pid, image).ok_or(too_long)?;
            match link(unnamed.as_fd(), name.c_str()?) {
                Ok(()) => return file.adopt(unnamed, name.text()),
                Err(Errno::EXIST) => {}
                // No /proc: by name, below.
                Err(_) if image == 0 => break,
                Err(error) => return Err(error),
            }
        }
    }
    for image in 0..MOST_IMAGES {
        let name = Name::new(base, identity.pid, image).ok_or(too_long)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::open(name.c_str()?, flags, Mode::RUSR | Mode::WUSR) {
            Ok(named) => {
                if let Err(error) = fill(named.as_fd(), identity) {
                    let _ = rustix::fs::unlink(name.c_str()?);
                    return Err(error);
                }
                return file.adopt(named, name.text());
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EXIST)
}

/// A file without a name in the directory of `base`: nobody sees it before it is whole, and nothing is left
/// of it if we die before. `None` where the file system has no such thing.
fn unnamed_file(base: &[u8]) -> Option<OwnedFd> {
    let slash = base.iter().rposition(|byte| *byte == b'/')?;
    let mut directory = Name {
        bytes: [0; LONGEST_PATH],
        length: 0,
    };
    directory.push(&base[..slash + 1])?;
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    rustix::fs::open(directory.c_str().ok()?, flags, Mode::RUSR | Mode::WUSR).ok()
}

/// Gives an unnamed file its name, unless that is taken.
fn link(file: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let mut place = Name {
        bytes: [0; LONGEST_PATH],
        length: 0,
    };
    place.push(b"/proc/self/fd/").ok_or(Errno::INVAL)?;
    place
        .push_number(file.as_raw_fd() as u32)
        .ok_or(Errno::INVAL)?;
    // The number came with a dot before it.
    let start = b"/proc/self/fd/".len();
    let end = place.length;
    place.bytes.copy_within(start + 1..end, start);
    place.bytes[end - 1] = 0;
    rustix::fs::linkat(CWD, place.c_str()?, CWD, name, AtFlags::SYMLINK_FOLLOW)
}

/// The header and an empty table of samples, on real blocks.
fn fill(file: BorrowedFd<'_>, identity: &Identity) -> Result<(), Errno> {
    let page = rustix::param::page_size();
    let samples = (SEGMENT_HEADER_BYTES + SAMPLES * size_of::<Sample>()).next_multiple_of(page);
    let end = (HEADER_BYTES + samples) as u64;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    if limit.is_some_and(|limit| end > limit) {
        // Growing beyond it would be answered with a signal.
        return Err(Errno::FBIG);
    }
    allocate(file, 0, end)?;
    let segment = SegmentHeader::new(
        SegmentKind::Samples,
        samples as u64,
        0,
        size_of::<Sample>() as u32,
    );
    write(file, HEADER_BYTES as u64, bytes_of(&segment))?;
    let lifecycle = offsets::LIFECYCLE as u64;
    let state = (State::Armed as u32).to_ne_bytes();
    write(
        file,
        lifecycle + offset_of!(Lifecycle, allocated_end) as u64,
        &end.to_ne_bytes(),
    )?;
    write(
        file,
        lifecycle + offset_of!(Lifecycle, state) as u64,
        &state,
    )?;
    // Last: a file made by name is none of ours until it begins with the magic.
    write(file, 0, bytes_of(identity))
}

fn write(file: BorrowedFd<'_>, at: u64, mut bytes: &[u8]) -> Result<(), Errno> {
    let mut at = at;
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, at) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(count) => {
                bytes = &bytes[count..];
                at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Plain data of the format as bytes.
fn bytes_of<T: zerocopy::IntoBytes + zerocopy::Immutable>(value: &T) -> &[u8] {
    value.as_bytes()
}

/// Notes in the captures of the child `pid` of this group how it ended. A child without a capture is
/// none of ours: one system call.
pub fn note_end(base: &[u8], group_id: &[u8; 16], pid: u32, outcome: Outcome, value: i32) {
    for image in 0..MOST_IMAGES {
        let noted = Name::new(base, pid, image)
            .ok_or(Errno::NAMETOOLONG)
            .and_then(|name| note_in(name.c_str()?, group_id, pid, outcome, value));
        if noted.is_err() {
            return;
        }
    }
}

fn note_in(
    path: &CStr,
    group_id: &[u8; 16],
    pid: u32,
    outcome: Outcome,
    value: i32,
) -> Result<(), Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let word = |at: usize| -> Result<[u8; 4], Errno> {
        let mut bytes = [0u8; 4];
        rustix::io::pread(&file, &mut bytes, at as u64)?;
        Ok(bytes)
    };
    let mut group = [0u8; 16];
    rustix::io::pread(&file, &mut group, offset_of!(Identity, group_id) as u64)?;
    // An earlier run's, or an earlier process's: the next one may be ours.
    let lifecycle = offsets::LIFECYCLE;
    let old = lifecycle + offset_of!(Lifecycle, outcome);
    if group != *group_id
        || word(offset_of!(Identity, pid))? != pid.to_ne_bytes()
        || word(old)? != [0; 4]
    {
        return Ok(());
    }
    let at = |field: usize| (lifecycle + field) as u64;
    let file = file.as_fd();
    write(
        file,
        at(offset_of!(Lifecycle, outcome_value)),
        &value.to_ne_bytes(),
    )?;
    write(
        file,
        at(offset_of!(Lifecycle, ended_unix_ns)),
        &unix_ns().to_ne_bytes(),
    )?;
    // Last, as what says that the rest is there.
    write(file, old as u64, &(outcome as u32).to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use zerocopy::{FromBytes, FromZeros};

    fn identity() -> Identity {
        let mut identity = Identity::new_zeroed();
        identity.magic = heaptide_format::MAGIC;
        identity.pid = 4711;
        identity.group_id = [7; 16];
        identity.mode = heaptide_format::Mode::Aggregated as u32;
        identity.stack_node_budget = 1000;
        identity
    }

    #[test]
    fn a_capture_is_made_and_a_second_image_gets_another_name() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("x.tide");
        let base = base.as_os_str().as_bytes();
        for name in ["x.tide.4711", "x.tide.4711.1"] {
            let recorder = std::boxed::Box::new(crate::Recorder::new());
            recorder.start_new(base, &identity()).unwrap();
            recorder.tracking_begins(1, 2, 3);
            let bytes = std::fs::read(directory.path().join(name)).unwrap();
            let header = heaptide_format::Header::read_from_prefix(&bytes).unwrap().0;
            assert_eq!(header.identity.pid, 4711);
            assert_eq!(header.lifecycle.state, State::Tracking as u32);
            let samples = SegmentHeader::read_from_prefix(&bytes[HEADER_BYTES..])
                .unwrap()
                .0;
            assert_eq!(samples.kind, SegmentKind::Samples as u32);
            // SAFETY: nothing was recorded, and the recorder is not used again.
            unsafe { recorder.file().let_go() };
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
        let lifecycle = |name: &str| {
            let bytes = std::fs::read(directory.path().join(name)).unwrap();
            heaptide_format::Header::read_from_prefix(&bytes)
                .unwrap()
                .0
                .lifecycle
        };
        note_end(base, &[8; 16], 4711, Outcome::Exited, 3);
        assert_eq!(lifecycle("x.tide.4711").outcome, 0);
        note_end(base, &[7; 16], 4711, Outcome::Signaled, 9);
        note_end(base, &[7; 16], 4711, Outcome::Exited, 3);
        for name in ["x.tide.4711", "x.tide.4711.1"] {
            let lifecycle = lifecycle(name);
            assert_eq!(
                (lifecycle.outcome, lifecycle.outcome_value),
                (Outcome::Signaled as u32, 9)
            );
        }
        note_end(base, &[7; 16], 1, Outcome::Exited, 3);
    }

    #[test]
    fn names_are_numbered() {
        let text = |pid, image| Name::new(b"/a", pid, image).unwrap().text().to_vec();
        assert_eq!(text(10, 0), b"/a.10");
        assert_eq!(text(4_294_967_295, 12), b"/a.4294967295.12");
        assert!(Name::new(&[b'a'; 4095], 1, 0).is_none());
    }
}
