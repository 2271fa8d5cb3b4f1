//! Captures made small once their process is gone (`--compress-on-exit`).
//!
//! A capture is written anew into a file without a name, which takes the original's place in one step when it
//! is whole. Whatever happens before leaves the original as it was. The design is in
//! `docs/design/007-where-captures-go.md`.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use heaptide_capture::{RewriteError, rewrite};
use heaptide_format::{Identity, Lifecycle, Outcome, State, offsets};
use zerocopy::{FromZeros, IntoBytes};

use crate::session::Session;
use crate::signals::Signals;
use crate::supervise::Ended;
use crate::{plain, system};

/// Compression that takes longer is announced.
const SILENT: Duration = Duration::from_secs(1);

/// What is read again after the exchange: the outcome, which a parent may have noted meanwhile.
const OUTCOME_BYTES: usize =
    offset_of!(Lifecycle, ended_unix_ns) + size_of::<u64>() - offset_of!(Lifecycle, outcome);
const OUTCOME: u64 = (offsets::LIFECYCLE + offset_of!(Lifecycle, outcome)) as u64;

impl Session {
    /// Compresses the captures of all processes that have ended of themselves. To be called when the program
    /// has ended. `announce` is called once, with a path and its bytes, if it takes longer than a second.
    /// Ctrl-C and the other requests to end stop it; what is not compressed by then stays as it was.
    ///
    /// Returns what went wrong, for the user to read: one line at most for each kind of trouble.
    pub fn compress(&self, ended: &Ended, announce: &mut dyn FnMut(&Path, u64)) -> Vec<String> {
        let Some(destination) = self.destination() else {
            return Vec::new();
        };
        // Signals from before were for the program.
        while self
            .signals
            .wait(Some(Duration::ZERO))
            .is_ok_and(|one| one.is_some())
        {}
        let mut work = Work {
            signals: &self.signals,
            started: Instant::now(),
            announced: false,
            announce,
        };
        let mut problems = Vec::new();
        let own = (destination, true);
        let followed = ended.followed.iter().map(|path| (path.as_path(), false));
        for (path, waited_for) in std::iter::once(own).chain(followed) {
            match work.compress(path, waited_for) {
                Ok(()) => {}
                Err(RewriteError::Interrupted) => break,
                Err(RewriteError::Io(error)) if no_room(&error) => {
                    problems.push(problem(path, &RewriteError::Io(error)));
                    // The next one would fare no better.
                    break;
                }
                Err(error) if problems.is_empty() => problems.push(problem(path, &error)),
                Err(_) => {}
            }
        }
        problems
    }
}

fn no_room(error: &io::Error) -> bool {
    let errors = [libc::ENOSPC, libc::EDQUOT, libc::EROFS];
    errors.map(Some).contains(&error.raw_os_error())
}

/// What there is to say of a capture that was not made small.
pub(crate) fn problem(path: &Path, error: &RewriteError) -> String {
    let why = match error {
        RewriteError::Io(error) => plain(error),
        other => other.to_string(),
    };
    format!(
        "{} could not be compressed and stays as it is: {why}",
        path.display()
    )
}

struct Work<'a> {
    signals: &'a Signals,
    started: Instant,
    announced: bool,
    announce: &'a mut dyn FnMut(&Path, u64),
}

impl Work<'_> {
    fn compress(&mut self, path: &Path, waited_for: bool) -> Result<(), RewriteError> {
        compress_one(path, waited_for, &mut |bytes| {
            if !self.announced && self.started.elapsed() >= SILENT {
                self.announced = true;
                (self.announce)(path, bytes);
            }
            !end_requested(self.signals)
        })
    }
}

/// Compresses the capture at `path`, unless it is gone, or its process is not and nobody has `waited_for` it. `go_on` is
/// asked often, with the bytes of the capture.
pub(crate) fn compress_one(
    path: &Path,
    waited_for: bool,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<(), RewriteError> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let original = match opened {
        // The program has taken it away, or put a link in its place.
        Err(error)
            if [libc::ENOENT, libc::ELOOP]
                .map(Some)
                .contains(&error.raw_os_error()) =>
        {
            return Ok(());
        }
        opened => system::out_of_the_way(opened?),
    };
    if !has_ended_well(&original, waited_for)? {
        return Ok(());
    }
    let mut target = Replacement::new(path, &original)?;
    let bytes = original.metadata()?.len();
    let rewritten = match rewrite(&original, &target.file, &mut |_, _| go_on(bytes)) {
        // By whoever recorded into the same file.
        Err(RewriteError::DoneBefore) => return Ok(()),
        rewritten => rewritten?,
    };
    if rewritten.bytes_after < rewritten.bytes_before {
        target.take_place_of(path, &original)?;
    }
    Ok(())
}

/// Does somebody want us to end?
fn end_requested(signals: &Signals) -> bool {
    while let Ok(Some(received)) = signals.wait(Some(Duration::ZERO)) {
        if [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT].contains(&received.number) {
            return true;
        }
    }
    false
}

/// Did the process end of itself, so that its capture is complete, and does nobody write it any more? That of
/// a process that was killed is left as it was found.
pub(crate) fn has_ended_well(capture: &File, waited_for: bool) -> io::Result<bool> {
    let mut identity = Identity::new_zeroed();
    capture.read_exact_at(identity.as_mut_bytes(), offsets::IDENTITY as u64)?;
    let mut lifecycle = Lifecycle::new_zeroed();
    capture.read_exact_at(lifecycle.as_mut_bytes(), offsets::LIFECYCLE as u64)?;
    let well = match State::from_raw(lifecycle.state) {
        Some(State::Finished) => true,
        Some(State::Tracking) => lifecycle.outcome == Outcome::Exited as u32,
        _ => false,
    };
    // A parent notes the end when it has waited for the child; until then the child is in the process table.
    let gone = || {
        lifecycle.outcome != Outcome::Unknown as u32
            || !Path::new(&format!("/proc/{}", identity.pid)).exists()
    };
    Ok(well && (waited_for || gone()))
}

/// A file that takes the place of another once it is whole, or leaves no trace.
struct Replacement {
    file: File,
    /// The name that it has until then, where it must have one.
    name: PathBuf,
    named: bool,
}

impl Replacement {
    /// In the directory of `path`, with the permissions of `original`.
    fn new(path: &Path, original: &File) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let id = u128::from_ne_bytes(system::random_id());
        let name = directory.join(format!(".heaptide-{id:032x}.partial"));
        let options = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).mode(0o600);
            options
        };
        let unnamed = options()
            .custom_flags(libc::O_TMPFILE)
            .open(directory)
            .ok()
            // Without /proc it could never get a name.
            .filter(|file| proc_path(file).exists());
        let named = unnamed.is_none();
        let file = match unnamed {
            Some(file) => file,
            None => options().create_new(true).open(&name)?,
        };
        let file = system::out_of_the_way(file);
        let replacement = Self { file, name, named };
        let mode = original.metadata()?.mode() & 0o777;
        let permissions = std::fs::Permissions::from_mode(mode);
        replacement.file.set_permissions(permissions)?;
        Ok(replacement)
    }

    /// Nothing happens when `path` is another file by now than `original`.
    fn take_place_of(&mut self, path: &Path, original: &File) -> io::Result<()> {
        let ours = original.metadata()?;
        let there = std::fs::symlink_metadata(path)?;
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
            return Ok(());
        }
        let mut before = [0; OUTCOME_BYTES];
        self.file.read_exact_at(&mut before, OUTCOME)?;
        if !self.named {
            let from = system::c_string(proc_path(&self.file).as_os_str().as_bytes())?;
            let to = system::c_string(self.name.as_os_str().as_bytes())?;
            system::link_open_file(&from, &to)?;
            self.named = true;
        }
        std::fs::rename(&self.name, path)?;
        self.named = false;
        let mut after = [0; OUTCOME_BYTES];
        original.read_exact_at(&mut after, OUTCOME)?;
        if after != before {
            self.file.write_all_at(&after, OUTCOME)?;
        }
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.named {
            // Nobody else knows the name.
            let _ = std::fs::remove_file(&self.name);
        }
    }
}

/// The way to an open file without a name.
fn proc_path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{CaptureFile, Facts};
    use crate::outcome::End;
    use heaptide_format::Mode;

    fn capture(directory: &Path, name: &str) -> CaptureFile {
        let facts = Facts {
            // No process has this number.
            pid: 0x7fff_fff0,
            parent_pid: 1,
            process_start_ticks: 0,
            options: 0,
            native_stacks: false,
            memory_interval_ms: 0,
            stack_node_budget: 1,
            mode: Mode::All,
            group_id: [0; 16],
            metadata: vec![],
        };
        CaptureFile::create(&directory.join(name), false, &facts).unwrap()
    }

    fn set_state(capture: &CaptureFile, state: State) {
        let at = offsets::LIFECYCLE + offset_of!(Lifecycle, state);
        let bytes = (state as u32).to_le_bytes();
        capture.file().write_all_at(&bytes, at as u64).unwrap();
    }

    fn compress(path: &Path, waited_for: bool) -> Result<(), RewriteError> {
        let signals = Signals::take_over().unwrap();
        let mut work = Work {
            signals: &signals,
            started: Instant::now(),
            announced: false,
            announce: &mut |_, _| {},
        };
        work.compress(path, waited_for)
    }

    fn names(directory: &Path) -> usize {
        std::fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn a_finished_capture_gets_small_and_keeps_its_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let capture = capture(directory.path(), "x.tide");
        set_state(&capture, State::Finished);
        capture.note_end(End::Exited(3), 0, 5).unwrap();
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(capture.path(), mode).unwrap();
        let before = std::fs::metadata(capture.path()).unwrap();
        compress(capture.path(), true).unwrap();
        let after = std::fs::metadata(capture.path()).unwrap();
        assert!(after.len() < before.len() / 4);
        assert_eq!(after.mode() & 0o777, 0o640);
        assert_eq!(names(directory.path()), 1);
        // Who has the old file open keeps it.
        assert_eq!(capture.file().metadata().unwrap().len(), before.len());
        let read = heaptide_capture::Capture::open(capture.path()).unwrap();
        assert_eq!(read.lifecycle.outcome_value, 3);
        assert!(read.warnings.is_empty(), "{:?}", read.warnings);
    }

    #[test]
    fn captures_of_the_killed_and_the_living_stay_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        for (name, state, end) in [
            ("killed", State::Tracking, Some(End::Signaled(9))),
            ("unknown", State::Tracking, None),
            ("stopped", State::Stopped, Some(End::Exited(0))),
            ("armed", State::Armed, Some(End::Exited(0))),
        ] {
            let capture = capture(directory.path(), name);
            set_state(&capture, state);
            if let Some(end) = end {
                capture.note_end(end, 0, 5).unwrap();
            }
            let before = std::fs::read(capture.path()).unwrap();
            compress(capture.path(), true).unwrap();
            assert!(std::fs::read(capture.path()).unwrap() == before, "{name}");
        }
        assert_eq!(names(directory.path()), 4);
    }

    #[test]
    fn a_process_that_is_still_there_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let capture = capture(directory.path(), "x");
        set_state(&capture, State::Finished);
        let identity = |pid: u32| {
            let at = offset_of!(Identity, pid) as u64;
            capture.file().write_all_at(&pid.to_le_bytes(), at).unwrap();
        };
        assert!(
            has_ended_well(capture.file(), false).unwrap(),
            "no such process"
        );
        identity(std::process::id());
        assert!(!has_ended_well(capture.file(), false).unwrap());
        assert!(has_ended_well(capture.file(), true).unwrap());
        capture.note_end(End::Exited(0), 0, 5).unwrap();
        assert!(has_ended_well(capture.file(), false).unwrap());
    }

    #[test]
    fn a_request_to_end_leaves_the_original() {
        let directory = tempfile::tempdir().unwrap();
        let capture = capture(directory.path(), "x");
        set_state(&capture, State::Finished);
        let samples = offset_of!(heaptide_format::SegmentHeader, committed) as u64;
        let at = capture.samples_offset() + samples;
        capture
            .file()
            .write_all_at(&40u64.to_le_bytes(), at)
            .unwrap();
        let before = std::fs::read(capture.path()).unwrap();
        let signals = Signals::take_over().unwrap();
        // SAFETY: to this thread, in which the signal is blocked.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGINT) };
        let mut work = Work {
            signals: &signals,
            started: Instant::now(),
            announced: false,
            announce: &mut |_, _| {},
        };
        let result = work.compress(capture.path(), true);
        assert!(
            matches!(result, Err(RewriteError::Interrupted)),
            "{result:?}"
        );
        assert!(std::fs::read(capture.path()).unwrap() == before);
        assert_eq!(names(directory.path()), 1);
    }

    #[test]
    fn what_took_the_name_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let capture = capture(directory.path(), "x");
        let mut target = Replacement::new(capture.path(), capture.file()).unwrap();
        target.file.set_len(4096).unwrap();
        std::fs::remove_file(capture.path()).unwrap();
        std::fs::write(capture.path(), "someone else's").unwrap();
        target
            .take_place_of(capture.path(), capture.file())
            .unwrap();
        drop(target);
        assert_eq!(std::fs::read(capture.path()).unwrap(), b"someone else's");
        assert_eq!(names(directory.path()), 1);
    }

    #[test]
    fn an_outcome_noted_meanwhile_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let capture = capture(directory.path(), "x");
        set_state(&capture, State::Finished);
        let mut target = Replacement::new(capture.path(), capture.file()).unwrap();
        rewrite(capture.file(), &target.file, &mut |_, _| true).unwrap();
        capture.note_end(End::Signaled(15), 0, 99).unwrap();
        target
            .take_place_of(capture.path(), capture.file())
            .unwrap();
        let read = heaptide_capture::Capture::open(capture.path()).unwrap();
        assert_eq!(
            (read.lifecycle.outcome_value, read.lifecycle.ended_unix_ns),
            (15, 99)
        );
    }
}
