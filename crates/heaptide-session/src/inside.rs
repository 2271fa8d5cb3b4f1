//! Tracking a stretch of this very process: the capture, and what becomes of it. For the extension module of the Python
//! package; [`crate::loaded`] is the agent.
//!
//! ```text
//! Prepared::create ──▶ Agent::start ── the stretch ──▶ Agent::stop ──▶ compress
//! ```
//!
//! See `docs/design/011-tracking-inside-a-program.md`.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use heaptide_capture::RewriteError;
use heaptide_format::{Lifecycle, Mode, NOTHING_KEPT, PYTHON_ALLOCATORS, PYTHON_OBJECTS};

use crate::buffered::Writer;
use crate::capture::{CaptureFile, Facts, run_metadata};
use crate::cgroup::MemoryCgroup;
use crate::compress::compress_one;
use crate::staging::Staging;
use crate::{SessionError, output, system};

/// What is to be recorded, and where.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where the capture goes. `/dev/null`: everything is recorded and nothing is kept.
    pub path: PathBuf,
    /// Replace a file that is there.
    pub overwrite: bool,
    /// Every event, or counters only.
    pub mode: Mode,
    /// Interval of the memory samples; 0 = none.
    pub memory_interval_ms: u32,
    /// How many stack nodes may exist before stacks are folded.
    pub stack_node_budget: u32,
    /// Native stacks are recorded.
    pub native_stacks: bool,
    /// Requests to Python's own allocators are recorded.
    pub trace_python_allocators: bool,
    /// Which Python objects survive is recorded when tracking ends.
    pub track_object_lifetimes: bool,
    /// Children that are forked are recorded too, in `<path>.<pid>`.
    pub follow_fork: bool,
    /// The capture is written, not mapped where it belongs, by this program in a process of its own: the `heaptide` of this version.
    pub buffered: Option<PathBuf>,
    /// `sys.argv`
    pub arguments: Vec<OsString>,
    /// `sys.executable`
    pub executable: PathBuf,
}

/// A capture of this process that tracking can be started with, once. Dropping it leaves the file.
#[derive(Debug)]
pub struct Prepared {
    capture: CaptureFile,
    destination: PathBuf,
    follow_fork: bool,
    cgroup: Option<MemoryCgroup>,
    /// Removed with all that is in it when this is dropped.
    staging: Option<Staging>,
    /// Of a capture that is not mapped where it belongs.
    writer: Option<Writer>,
}

impl Prepared {
    /// Makes the capture.
    ///
    /// # Errors
    /// [`SessionError`]; nothing is left behind.
    pub fn create(wanted: &Wanted) -> Result<Self, SessionError> {
        let working_directory = std::env::current_dir().map_err(|source| SessionError::System {
            what: "finding the current directory",
            source,
        })?;
        let destination = output::absolute(&wanted.path, &working_directory);
        let keep_nothing = system::is_null_device(&destination);
        let program = wanted.buffered.as_deref().filter(|_| !keep_nothing);
        let Some(program) = program else {
            let staging = keep_nothing.then(Staging::new).transpose()?;
            return Self::create_in(
                wanted,
                &working_directory,
                destination,
                staging,
                keep_nothing,
            );
        };
        let staging = Some(Staging::new()?);
        let mut prepared =
            Self::create_in(wanted, &working_directory, destination, staging, false)?;
        if let Some(staging) = prepared.staging.take() {
            let (live, destination) = (prepared.capture.path(), &prepared.destination);
            let writer = Writer::start(program, live, destination, wanted.overwrite, staging)?;
            prepared.writer = Some(writer);
        }
        Ok(prepared)
    }

    /// As [`Prepared::create`], for a capture that is only served to readers: it lies in a private directory in memory until
    /// [`Prepared::lose_name`]. The path that is wanted is not used.
    ///
    /// # Errors
    /// [`SessionError`]; nothing is left behind.
    pub fn create_to_serve(wanted: &Wanted) -> Result<Self, SessionError> {
        let working_directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
        let staging = Staging::new()?;
        let place = staging.place(Path::new("served.tide"));
        Self::create_in(wanted, &working_directory, place, Some(staging), true)
    }

    fn create_in(
        wanted: &Wanted,
        working_directory: &Path,
        destination: PathBuf,
        staging: Option<Staging>,
        keep_nothing: bool,
    ) -> Result<Self, SessionError> {
        let path = staging.as_ref().map_or_else(
            || destination.clone(),
            |staging| staging.place(&destination),
        );
        let mut options = 0;
        if wanted.trace_python_allocators {
            options |= PYTHON_ALLOCATORS;
        }
        if wanted.track_object_lifetimes {
            options |= PYTHON_OBJECTS;
        }
        if keep_nothing {
            options |= NOTHING_KEPT;
        }
        let cgroup = MemoryCgroup::current();
        let pid = std::process::id();
        let facts = Facts {
            pid,
            parent_pid: std::os::unix::process::parent_id(),
            process_start_ticks: system::process_start_ticks(pid),
            memory_interval_ms: wanted.memory_interval_ms,
            stack_node_budget: wanted.stack_node_budget,
            mode: wanted.mode,
            options,
            native_stacks: wanted.native_stacks,
            group_id: if wanted.follow_fork {
                system::random_id()
            } else {
                [0; 16]
            },
            metadata: run_metadata(
                &wanted.arguments,
                &wanted.executable,
                wanted.arguments.first().cloned().unwrap_or_default(),
                working_directory,
                cgroup.as_ref().map(|cgroup| cgroup.path.as_str()),
            ),
        };
        let replace = wanted.overwrite && staging.is_none();
        Ok(Self {
            capture: CaptureFile::create(&path, replace, &facts)?,
            destination,
            follow_fork: wanted.follow_fork,
            cgroup,
            staging,
            writer: None,
        })
    }

    /// Where the capture is while tracking is on.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.capture.path()
    }

    /// Where it goes, as an absolute path.
    #[must_use]
    pub fn destination(&self) -> &Path {
        &self.destination
    }

    /// The open capture.
    pub(crate) fn file(&self) -> &File {
        self.capture.file()
    }

    /// Removes the name of a capture that is not kept. Whoever has it open goes on, and nothing is left behind when they are gone, whatever
    /// ends them.
    pub fn lose_name(&mut self) {
        self.staging = None;
    }

    /// The process that writes the capture to its destination, if one does; to be asked when tracking has ended. Once.
    pub fn take_writer(&mut self) -> Option<Writer> {
        self.writer.take()
    }

    /// Is nothing kept (`/dev/null`)?
    #[must_use]
    pub fn keeps_nothing(&self) -> bool {
        self.staging.is_some()
    }

    /// Are forked children recorded too?
    #[must_use]
    pub fn follows_fork(&self) -> bool {
        self.follow_fork
    }

    pub(crate) fn cgroup_files(&self) -> Option<(&Path, &Path)> {
        self.cgroup.as_ref().and_then(MemoryCgroup::files)
    }

    /// What the agent has made of it so far: why tracking ended, for instance.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub fn lifecycle(&self) -> io::Result<Lifecycle> {
        self.capture.lifecycle()
    }

    /// Removes a capture that was never used, unless another file has taken its name.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn discard(self) -> io::Result<()> {
        self.capture.remove()
    }
}

/// Makes the capture of a stretch that has ended small (`compress_on_exit`). The original stays as it is until the small one
/// is whole; a capture that is gone, that is in use or that tells of a process that was killed is left alone. `go_on` is asked
/// often. Takes a few MiB, and time in proportion to the capture: let the GIL go.
///
/// # Errors
/// No room, a damaged capture, `go_on` said no; the original is as it was.
pub fn compress(path: &Path, go_on: &mut dyn FnMut() -> bool) -> Result<(), RewriteError> {
    compress_one(path, true, &mut |_| go_on())
}

/// As [`compress`], for the captures of forked children of the stretch with its capture at `path`, of those that are gone.
/// The first trouble ends it.
///
/// # Errors
/// As [`compress`].
pub fn compress_children(path: &Path, go_on: &mut dyn FnMut() -> bool) -> Result<(), RewriteError> {
    for child in children(path) {
        compress_one(&child, false, &mut |_| go_on())?;
    }
    Ok(())
}

/// Files that have the names of captures of children: `<path>.<pid>` and `<path>.<pid>.<n>`.
fn children(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let is_child = |found: &OsString| {
        let rest = found.as_bytes().strip_prefix(name.as_bytes());
        rest.and_then(|rest| rest.strip_prefix(b"."))
            .is_some_and(|rest| {
                !rest.is_empty()
                    && rest
                        .iter()
                        .all(|byte| byte.is_ascii_digit() || *byte == b'.')
            })
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .filter(is_child)
        .map(|name| directory.join(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(path: PathBuf) -> Wanted {
        Wanted {
            path,
            overwrite: false,
            mode: Mode::All,
            memory_interval_ms: 10,
            stack_node_budget: 1000,
            native_stacks: true,
            trace_python_allocators: true,
            track_object_lifetimes: true,
            follow_fork: true,
            buffered: None,
            arguments: vec!["a b.py".into(), "x".into()],
            executable: "/usr/bin/python3".into(),
        }
    }

    #[test]
    fn a_capture_is_made_for_this_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tide");
        let prepared = Prepared::create(&wanted(path.clone())).unwrap();
        assert_eq!(prepared.destination(), path);
        let capture = heaptide_capture::Capture::open(&path).unwrap();
        assert_eq!(capture.identity.pid, std::process::id());
        assert_eq!(capture.identity.root_pid, std::process::id());
        assert_eq!(
            capture.identity.parent_pid,
            std::os::unix::process::parent_id()
        );
        assert_ne!(capture.identity.group_id, [0; 16]);
        assert!(capture.identity.holds_native_stacks());
        assert!(capture.identity.traces_python_allocators());
        assert!(capture.identity.tracks_objects());
        let again = Prepared::create(&wanted(path.clone()));
        assert!(matches!(again, Err(SessionError::OutputExists { .. })));
        let replaced = Prepared::create(&Wanted {
            overwrite: true,
            ..wanted(path.clone())
        });
        replaced.unwrap().discard().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn nothing_is_kept_in_the_null_device() {
        let prepared = Prepared::create(&wanted("/dev/null".into())).unwrap();
        assert!(prepared.keeps_nothing());
        let staged = prepared.path().to_owned();
        assert!(staged.exists());
        drop(prepared);
        assert!(!staged.exists());
    }

    #[test]
    fn captures_of_children_are_found() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "x.tide",
            "x.tide.12",
            "x.tide.12.1",
            "x.tide.a",
            "x.tide.",
            "y.tide.1",
        ] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let mut found = children(&directory.path().join("x.tide"));
        found.sort();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["x.tide.12", "x.tide.12.1"]);
    }
}
