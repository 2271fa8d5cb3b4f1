//! The capture as the supervisor makes and completes it. Everything between is the agent's work.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::offset_of;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use heaptide_format::{
    DefinitionHeader, DefinitionKind, FEATURE_NATIVE_STACKS, FEATURE_NODE_STREAM,
    FEATURE_OBJECT_EVENTS, FORMAT_VERSION, HEADER_BYTES, Header, HeapWord, Identity, Lifecycle,
    MAGIC, MetadataKey, Mode, Origin, Outcome, SEGMENT_HEADER_BYTES, Sample, SegmentHeader,
    SegmentKind, State, offsets,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::kept::Kept;
use crate::outcome::End;
use crate::samples::{self, Store};
use crate::turn::TurnCounter;
use crate::{SessionError, system};

/// A block freed when at most this many other allocations had happened since counts as temporary.
const TEMPORARY_THRESHOLD: u32 = 1;
/// Longer command lines are cut: they may be megabytes, and nobody reads that in a report.
const COMMAND_LINE_BYTES: usize = 64 << 10;

/// What is known before the program starts.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Process id of the program.
    pub pid: u32,
    /// Its parent.
    pub parent_pid: u32,
    /// Its start time, see [`Identity::process_start_ticks`].
    pub process_start_ticks: u64,
    /// Wanted interval of the memory samples; 0 = none.
    pub memory_interval_ms: u32,
    /// How many stack nodes may exist before stacks are folded.
    pub stack_node_budget: u32,
    /// What it will hold.
    pub mode: Mode,
    /// What else it will hold, see [`Identity::options`].
    pub options: u32,
    /// Native stacks are to be recorded.
    pub native_stacks: bool,
    /// The group of followed processes; zero when none are followed.
    pub group_id: [u8; 16],
    /// Facts about the run, in the order in which they are written.
    pub metadata: Vec<(MetadataKey, Vec<u8>)>,
}

/// The program's arguments in the form of [`MetadataKey::CommandLine`], cut where they are very long.
#[must_use]
pub fn command_line(arguments: &[OsString]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for argument in arguments {
        if bytes.len() + argument.len() + 1 > COMMAND_LINE_BYTES {
            bytes.extend_from_slice("[…]\0".as_bytes());
            break;
        }
        bytes.extend_from_slice(argument.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// An open capture.
#[derive(Debug)]
pub struct CaptureFile {
    file: Kept,
    path: PathBuf,
    samples_offset: u64,
}

impl CaptureFile {
    /// Makes the capture of a program that has not started: header, definitions, an empty table of
    /// samples, all allocated on disk, and proven to be mappable.
    ///
    /// With `replace` an existing *file* is replaced, in one step and only once the new capture is
    /// complete.
    ///
    /// # Errors
    /// Whatever goes wrong, nothing is left behind.
    pub fn create(path: &Path, replace: bool, facts: &Facts) -> Result<Self, SessionError> {
        if replace {
            check_replaceable(path)?;
        }
        let partial =
            replace.then(|| path.with_file_name(format!(".heaptide-{}.partial", facts.pid)));
        let made = partial.as_deref().unwrap_or(path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(made)
            .map(Kept::new)
            .map_err(|source| create_error(path, source))?;

        let image = Image::new(facts);
        let filled = fill(&file, &image).and_then(|()| match &partial {
            Some(partial) => std::fs::rename(partial, path).map_err(|source| ("replace", source)),
            None => Ok(()),
        });
        if let Err((step, source)) = filled {
            // The first error is the one to tell.
            let _ = std::fs::remove_file(made);
            return Err(SessionError::Capture {
                path: path.to_owned(),
                step,
                source,
            });
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            samples_offset: image.samples_offset,
        })
    }

    /// A capture that a process has made of itself, with its samples at `samples_offset`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn open(path: &Path, samples_offset: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .map(Kept::new)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            samples_offset,
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    #[cfg(test)]
    pub(crate) fn samples_offset(&self) -> u64 {
        self.samples_offset
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the agent has made of it so far.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub fn lifecycle(&self) -> io::Result<Lifecycle> {
        let mut lifecycle = Lifecycle::new_zeroed();
        self.file
            .ours()?
            .read_exact_at(lifecycle.as_mut_bytes(), offsets::LIFECYCLE as u64)?;
        Ok(lifecycle)
    }

    /// The tracked heap now. Headroom and peak are stored one after the other by the agent, so while
    /// the heap makes a new maximum the figure may be off by one event.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub fn heap_bytes(&self) -> io::Result<u64> {
        let mut word = HeapWord::default();
        self.file
            .read_exact_at(word.as_mut_bytes(), offsets::HEAP as u64)?;
        Ok(word.peak_bytes.saturating_sub(word.headroom))
    }

    /// The counter that orders events.
    pub(crate) fn turn_counter(&self) -> io::Result<TurnCounter> {
        TurnCounter::map(&self.file)
    }

    /// Notes that the program was seen alive.
    ///
    /// # Errors
    /// When the file cannot be written any more.
    pub fn note_alive(&self, unix_ns: u64) -> io::Result<()> {
        self.store_lifecycle(offset_of!(Lifecycle, heartbeat_unix_ns), unix_ns.as_bytes())
    }

    /// Notes how the program ended; the outcome last, as what says that the rest is there.
    ///
    /// # Errors
    /// When the file cannot be written any more.
    pub fn note_end(&self, end: End, oom_kills: u64, unix_ns: u64) -> io::Result<()> {
        let (outcome, value) = match end {
            End::Exited(code) => (Outcome::Exited, code),
            End::Signaled(signal) => (Outcome::Signaled, signal),
        };
        self.store_lifecycle(offset_of!(Lifecycle, outcome_value), value.as_bytes())?;
        self.store_lifecycle(offset_of!(Lifecycle, oom_kills), oom_kills.as_bytes())?;
        self.store_lifecycle(offset_of!(Lifecycle, ended_unix_ns), unix_ns.as_bytes())?;
        self.store_lifecycle(offset_of!(Lifecycle, outcome), (outcome as u32).as_bytes())
    }

    fn store_lifecycle(&self, field: usize, bytes: &[u8]) -> io::Result<()> {
        self.file
            .write_all_at(bytes, (offsets::LIFECYCLE + field) as u64)
    }

    /// Where samples are stored.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn samples(&self) -> io::Result<SamplesSegment> {
        Ok(SamplesSegment {
            file: self.file.try_clone()?,
            offset: self.samples_offset,
        })
    }

    /// Removes the file, unless another one has taken its name meanwhile.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        let (ours, there) = (
            self.file.metadata()?,
            std::fs::symlink_metadata(&self.path)?,
        );
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
            return Ok(());
        }
        std::fs::remove_file(&self.path)
    }
}

/// The segment of samples in an open capture.
#[derive(Debug)]
pub struct SamplesSegment {
    file: File,
    offset: u64,
}

impl Store for SamplesSegment {
    fn store(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // A write, not a mapping: a file that someone truncates must not kill the supervisor.
        self.file.write_all_at(bytes, self.offset + offset)
    }
}

/// The first bytes of a capture; what follows them up to `total_bytes` is zero.
struct Image {
    head: Vec<u8>,
    samples_offset: u64,
    samples_header: SegmentHeader,
    total_bytes: u64,
}

impl Image {
    fn new(facts: &Facts) -> Self {
        let page = system::page_bytes();
        let mut definitions = Vec::new();
        for (key, payload) in &facts.metadata {
            push_metadata(&mut definitions, *key, payload);
        }
        let definitions_capacity =
            (SEGMENT_HEADER_BYTES + definitions.len()).next_multiple_of(page);
        let samples_capacity =
            (SEGMENT_HEADER_BYTES + samples::PAYLOAD_BYTES).next_multiple_of(page);
        let samples_offset = HEADER_BYTES + definitions_capacity;
        let total_bytes = (samples_offset + samples_capacity) as u64;

        let mut segment =
            SegmentHeader::new(SegmentKind::Definitions, definitions_capacity as u64, 0, 0);
        segment.committed = definitions.len() as u64;
        let mut head = header(facts, page, total_bytes).as_bytes().to_vec();
        head.extend_from_slice(segment.as_bytes());
        head.extend_from_slice(&definitions);
        let record_bytes = u32::try_from(size_of::<Sample>()).unwrap_or_default();
        let samples_header = SegmentHeader::new(
            SegmentKind::Samples,
            samples_capacity as u64,
            0,
            record_bytes,
        );
        Self {
            head,
            samples_offset: samples_offset as u64,
            samples_header,
            total_bytes,
        }
    }
}

// A larger page would leave a hole between the header and the first segment, which starts on a page.
const _: () = assert!(HEADER_BYTES == 4096);

fn header(facts: &Facts, page: usize, allocated_end: u64) -> Header {
    let mut header = Header::new_zeroed();
    let identity = &mut header.identity;
    identity.magic = MAGIC;
    identity.version = FORMAT_VERSION;
    identity.header_bytes = u32::try_from(HEADER_BYTES).unwrap_or_default();
    identity.page_bytes = u32::try_from(page).unwrap_or_default();
    identity.mode = facts.mode as u32;
    identity.pid = facts.pid;
    identity.parent_pid = facts.parent_pid;
    identity.created_unix_ns = system::unix_now_ns();
    identity.boot_id = system::boot_id();
    identity.pid_namespace = system::pid_namespace();
    identity.process_start_ticks = facts.process_start_ticks;
    identity.sample_weight = 1;
    identity.memory_interval_ms = facts.memory_interval_ms;
    identity.temporary_threshold = TEMPORARY_THRESHOLD;
    identity.stack_node_budget = facts.stack_node_budget;
    identity.options = facts.options;
    identity.required_features = FEATURE_NODE_STREAM;
    if facts.mode == Mode::All && identity.tracks_objects() {
        identity.required_features |= FEATURE_OBJECT_EVENTS;
    }
    if facts.native_stacks {
        identity.required_features |= FEATURE_NATIVE_STACKS;
    }
    if facts.group_id != [0; 16] {
        identity.group_id = facts.group_id;
        identity.origin = Origin::Root as u32;
        identity.root_pid = facts.pid;
    }
    identity.checksum = Identity::expected_checksum(identity);
    header.lifecycle.state = State::Armed as u32;
    header.lifecycle.allocated_end = allocated_end;
    header
}

fn push_metadata(definitions: &mut Vec<u8>, key: MetadataKey, payload: &[u8]) {
    let total = DefinitionHeader::total_bytes_for(payload.len());
    let header = DefinitionHeader {
        total_bytes: u32::try_from(total).unwrap_or_default(),
        kind: DefinitionKind::Metadata as u32,
        id: key as u32,
        encoding: 0,
        payload_bytes: u32::try_from(payload.len()).unwrap_or_default(),
        checksum: heaptide_format::checksum(payload),
    };
    let start = definitions.len();
    definitions.extend_from_slice(header.as_bytes());
    definitions.extend_from_slice(payload);
    definitions.resize(start + total, 0);
}

fn fill(file: &File, image: &Image) -> Result<(), (&'static str, io::Error)> {
    system::allocate(file, image.total_bytes).map_err(|source| ("allocate space for", source))?;
    let write = |bytes: &[u8], offset| {
        file.write_all_at(bytes, offset)
            .map_err(|source| ("write", source))
    };
    write(image.samples_header.as_bytes(), image.samples_offset)?;
    write(&image.head, 0)?;
    system::prove_shared_mapping(file).map_err(|source| ("map", source))
}

pub(crate) fn create_error(path: &Path, source: io::Error) -> SessionError {
    if source.kind() == io::ErrorKind::AlreadyExists {
        return SessionError::OutputExists {
            path: path.to_owned(),
        };
    }
    SessionError::Capture {
        path: path.to_owned(),
        step: "create",
        source,
    }
}

/// `--force` is meant for yesterday's capture, not for a device or a directory.
pub(crate) fn check_replaceable(path: &Path) -> Result<(), SessionError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() || kind.is_socket() {
        "a pipe or a socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        return Ok(());
    };
    Err(SessionError::OutputNotReplaceable {
        path: path.to_owned(),
        what,
    })
}

/// The facts about a run that every capture holds.
#[must_use]
pub fn run_metadata(
    arguments: &[OsString],
    executable: &Path,
    target: OsString,
    working_directory: &Path,
    memory_cgroup: Option<&str>,
) -> Vec<(MetadataKey, Vec<u8>)> {
    let mut metadata = vec![
        (
            MetadataKey::Writer,
            concat!("heaptide ", env!("CARGO_PKG_VERSION")).into(),
        ),
        (MetadataKey::Target, target.into_vec()),
        (MetadataKey::CommandLine, command_line(arguments)),
        (
            MetadataKey::Executable,
            executable.as_os_str().as_bytes().to_vec(),
        ),
        (
            MetadataKey::WorkingDirectory,
            working_directory.as_os_str().as_bytes().to_vec(),
        ),
        (MetadataKey::Hostname, system::host_name().into_vec()),
    ];
    if let Some(path) = memory_cgroup {
        metadata.push((MetadataKey::MemoryCgroup, path.into()));
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;
    use heaptide_format::PYTHON_ALLOCATORS;
    use std::os::unix::fs::PermissionsExt;
    use zerocopy::FromBytes;

    fn facts() -> Facts {
        let metadata = run_metadata(
            &["python3".into(), "a b.py".into()],
            Path::new("/usr/bin/python3"),
            "a b.py".into(),
            Path::new("/tmp"),
            Some("/service"),
        );
        Facts {
            pid: 42,
            parent_pid: 41,
            process_start_ticks: 7,
            memory_interval_ms: 10,
            stack_node_budget: 1000,
            mode: Mode::Aggregated,
            options: PYTHON_ALLOCATORS,
            native_stacks: false,
            group_id: [0; 16],
            metadata,
        }
    }

    #[test]
    fn a_new_capture_holds_what_the_format_says() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tide");
        let capture = CaptureFile::create(&path, false, &facts()).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );

        let bytes = std::fs::read(&path).unwrap();
        let header = Header::read_from_prefix(&bytes).unwrap().0;
        assert_eq!(header.identity.magic, MAGIC);
        assert_eq!(
            header.identity.checksum,
            header.identity.expected_checksum()
        );
        assert_eq!(header.identity.pid, 42);
        assert!(header.identity.traces_python_allocators());
        assert_eq!(header.lifecycle.state, State::Armed as u32);
        assert_eq!(header.lifecycle.allocated_end, bytes.len() as u64);

        let definitions = SegmentHeader::read_from_prefix(&bytes[HEADER_BYTES..])
            .unwrap()
            .0;
        assert_eq!(definitions.kind, SegmentKind::Definitions as u32);
        assert_eq!(definitions.checksum, definitions.expected_checksum());
        let first = HEADER_BYTES + SEGMENT_HEADER_BYTES;
        let definition = DefinitionHeader::read_from_prefix(&bytes[first..])
            .unwrap()
            .0;
        assert_eq!(definition.id, MetadataKey::Writer as u32);

        let offset = HEADER_BYTES + usize::try_from(definitions.capacity).unwrap();
        assert_eq!(offset as u64, capture.samples_offset);
        let samples = SegmentHeader::read_from_prefix(&bytes[offset..]).unwrap().0;
        assert_eq!(samples.kind, SegmentKind::Samples as u32);
        assert_eq!(samples.committed, 0);
        assert_eq!(offset as u64 + samples.capacity, bytes.len() as u64);
        assert!(samples.capacity as usize >= SEGMENT_HEADER_BYTES + samples::PAYLOAD_BYTES);
    }

    #[test]
    fn the_end_is_noted() {
        let directory = tempfile::tempdir().unwrap();
        let capture =
            CaptureFile::create(&directory.path().join("x.tide"), false, &facts()).unwrap();
        capture.note_alive(5).unwrap();
        capture.note_end(End::Signaled(9), 1, 77).unwrap();
        let lifecycle = capture.lifecycle().unwrap();
        assert_eq!(lifecycle.outcome, Outcome::Signaled as u32);
        assert_eq!(
            (
                lifecycle.outcome_value,
                lifecycle.oom_kills,
                lifecycle.ended_unix_ns,
                lifecycle.heartbeat_unix_ns
            ),
            (9, 1, 77, 5)
        );
        assert_eq!(capture.heap_bytes().unwrap(), 0);
        capture.remove().unwrap();
        assert!(!capture.path().exists());
    }

    #[test]
    fn an_existing_file_needs_force() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tide");
        std::fs::write(&path, "precious").unwrap();
        let error = CaptureFile::create(&path, false, &facts()).unwrap_err();
        assert!(matches!(error, SessionError::OutputExists { .. }));
        assert!(error.hint().unwrap().contains("-f"));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        CaptureFile::create(&path, true, &facts()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[..8], MAGIC);
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn force_replaces_files_only() {
        let directory = tempfile::tempdir().unwrap();
        let error = CaptureFile::create(directory.path(), true, &facts()).unwrap_err();
        assert!(matches!(error, SessionError::OutputNotReplaceable { .. }));
        let error = CaptureFile::create(Path::new("/dev/zero"), true, &facts()).unwrap_err();
        assert!(matches!(error, SessionError::OutputNotReplaceable { .. }));
    }

    #[test]
    fn a_file_that_took_the_name_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tide");
        let capture = CaptureFile::create(&path, false, &facts()).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "someone else's").unwrap();
        capture.remove().unwrap();
        assert!(path.exists());
    }

    #[test]
    fn very_long_command_lines_are_cut() {
        let line = command_line(&[
            "python3".into(),
            "x".repeat(COMMAND_LINE_BYTES).into(),
            "y".into(),
        ]);
        assert_eq!(line, "python3\0[…]\0".as_bytes());
    }
}
