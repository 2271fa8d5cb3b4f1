//! Room that a capture was given and does not need, given back once its process is gone (`--no-compress`).
//!
//! The file keeps its length and every byte that says something; tables of working memory and what no record came to
//! become holes in it.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use heaptide_capture::spare_room;

use crate::compress::has_ended_well;
use crate::session::Session;
use crate::supervise::Ended;
use crate::system;

impl Session {
    /// Gives back what the captures of all processes that have ended of themselves do not need. To be called when the program has
    /// ended. Nothing is lost where it cannot be done (file systems without holes), so nobody is told.
    pub fn give_back_spare_room(&self, ended: &Ended) {
        let Some(destination) = self.destination() else {
            return;
        };
        let _ = give_back(destination, true);
        for path in &ended.followed {
            let _ = give_back(path, false);
        }
    }
}

/// Nothing happens to the capture of a process that was killed, or that is there and nobody has `waited_for` it.
fn give_back(path: &Path, waited_for: bool) -> io::Result<()> {
    let capture = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let capture = system::out_of_the_way(capture);
    if has_ended_well(&capture, waited_for)? {
        for range in spare_room(&capture)? {
            system::punch_hole(&capture, range.start, range.end - range.start)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use heaptide_format::{Mode, SegmentKind};
    use heaptide_testkit::builder::push_segment;
    use heaptide_testkit::fixtures;

    use super::*;

    #[test]
    fn what_says_nothing_takes_no_room_and_what_says_something_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tide");
        for (state, gives_back) in [
            (heaptide_format::State::Finished, true),
            (heaptide_format::State::Stopped, false),
        ] {
            let mut builder = fixtures::tiny();
            builder.header.identity.mode = Mode::All as u32;
            // No process has this number.
            builder.header.identity.pid = 0x7fff_fff0;
            builder.header.lifecycle.state = state as u32;
            let mut bytes = builder.build();
            push_segment(&mut bytes, SegmentKind::Scratch, 0, 0, &[1; 300_000]);
            push_segment(&mut bytes, SegmentKind::Nodes, 500, 16, &[1; 1600]);
            // Room that was never used.
            let at = bytes.len();
            push_segment(&mut bytes, SegmentKind::Nodes, 600, 16, &[1; 200_000]);
            let committed = at + std::mem::offset_of!(heaptide_format::SegmentHeader, committed);
            bytes[committed..committed + 8].copy_from_slice(&160u64.to_le_bytes());
            std::fs::write(&path, &bytes).unwrap();
            let before = heaptide_capture::Capture::open(&path).unwrap();
            give_back(&path, true).unwrap();
            let after = heaptide_capture::Capture::open(&path).unwrap();
            assert!(before.nodes.iter().eq(after.nodes.iter()));
            assert_eq!(before.segments, after.segments);
            assert_eq!(before.warnings, after.warnings);
            let there = std::fs::read(&path).unwrap();
            assert_eq!(there.len(), bytes.len());
            assert_eq!(there == bytes, !gives_back);
            let on_disk = std::fs::metadata(&path).unwrap().blocks() * 512;
            // Not every file system has holes.
            if gives_back && on_disk > 0 {
                assert!(on_disk < bytes.len() as u64, "{on_disk}");
            }
        }
    }
}
