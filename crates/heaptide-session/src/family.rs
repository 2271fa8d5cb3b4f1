//! The captures of the program's other processes: the agent makes them, we find them and take the samples.
//!
//! They appear in the directory of the root's capture, as `<capture>.<pid>`, so the directory is watched
//! (inotify). All processes are sampled by one clock, which lets readers add their curves up. What
//! cannot be watched is not sampled; the captures are whole all the same.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::mem::offset_of;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use heaptide_format::{
    HEADER_BYTES, Identity, MAGIC, Mode, SEGMENT_HEADER_BYTES, Sample, SegmentHeader, SegmentKind,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::capture::{CaptureFile, Facts, SamplesSegment};
use crate::outcome::End;
use crate::samples::SampleTable;
use crate::session::Sink;
use crate::system;
use crate::turn::TurnCounter;

/// What is recorded besides the program itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// Nothing.
    #[default]
    Nothing,
    /// Children that it forks.
    Forks,
    /// These, and Python programs that it starts.
    Children,
}

/// More processes than these are not sampled at the same time.
const MOST_SAMPLED: usize = 512;
/// So many processes are sampled as often as asked for; more of them more seldom.
const SAMPLED_FULLY: u32 = 16;
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Sees captures appear.
#[derive(Debug)]
pub(crate) struct Watcher {
    events: File,
    directory: PathBuf,
    /// `<file name of the root's capture>.`
    prefix: Vec<u8>,
    group_id: [u8; 16],
}

impl Watcher {
    /// From now on. `capture` is the absolute path of the root's capture.
    pub(crate) fn new(capture: &Path, group_id: [u8; 16]) -> io::Result<Self> {
        let directory = capture.parent().unwrap_or(Path::new("/")).to_owned();
        let mut prefix = capture.file_name().unwrap_or_default().as_bytes().to_vec();
        prefix.push(b'.');
        let text = system::c_string(directory.as_os_str().as_bytes())?;
        // SAFETY: no preconditions.
        let descriptor = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        let events = unsafe { File::from_raw_fd(descriptor) };
        // SAFETY: an open inotify descriptor and a NUL-terminated path.
        if unsafe { libc::inotify_add_watch(descriptor, text.as_ptr(), libc::IN_CREATE) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            events,
            directory,
            prefix,
            group_id,
        })
    }

    /// Names that may be captures of the group, since the last call.
    fn names(&self) -> Vec<PathBuf> {
        const FIXED: usize = size_of::<libc::inotify_event>();
        let mut names = Vec::new();
        let mut buffer = [0u8; 16 << 10];
        while let Ok(length @ 1..) = (&self.events).read(&mut buffer) {
            let mut rest = &buffer[..length];
            while let Some(field) = rest.get(FIXED - 4..FIXED) {
                let name_bytes = u32::from_ne_bytes(field.try_into().unwrap_or_default()) as usize;
                let Some(name) = rest.get(FIXED..FIXED + name_bytes) else {
                    break;
                };
                let end = name
                    .iter()
                    .position(|&byte| byte == 0)
                    .unwrap_or(name_bytes);
                if name.starts_with(&self.prefix) {
                    names.push(self.directory.join(OsStr::from_bytes(&name[..end])));
                }
                rest = &rest[FIXED + name_bytes..];
            }
        }
        names
    }
}

/// A process of the group other than the root.
struct Member {
    pid: u32,
    capture: CaptureFile,
    turns: Option<TurnCounter>,
    statm: File,
    table: SampleTable<SamplesSegment>,
    /// Doubled whenever the table is thinned out.
    slowness: u32,
    next: Instant,
}

/// The processes that are sampled.
pub(crate) struct Family<'a> {
    watcher: &'a Watcher,
    sink: &'a Sink,
    members: Vec<Member>,
    /// The captures that were seen.
    pub(crate) seen: Vec<PathBuf>,
    interval: Duration,
    next: Instant,
    next_heartbeat: Instant,
}

impl<'a> Family<'a> {
    pub(crate) fn new(watcher: &'a Watcher, sink: &'a Sink, interval_ms: u32) -> Self {
        Self {
            watcher,
            sink,
            members: Vec::new(),
            seen: Vec::new(),
            interval: Duration::from_millis(interval_ms.into()),
            next: Instant::now(),
            next_heartbeat: Instant::now(),
        }
    }

    /// When something is next to be done.
    pub(crate) fn next(&self) -> Option<Instant> {
        (!self.interval.is_zero()).then_some(self.next)
    }

    /// Looks for newcomers and takes the samples that are due, at `unix_ns` of the one clock.
    pub(crate) fn tick(&mut self, now: Instant, clock: &dyn Fn() -> u64, cgroup: (u64, u64)) {
        if now < self.next {
            return;
        }
        self.meet_newcomers(now);
        let crowd = u32::try_from(self.members.len()).unwrap_or(u32::MAX) / SAMPLED_FULLY + 1;
        let interval = self.interval * crowd;
        self.next = now + self.interval;
        let beat = now >= self.next_heartbeat;
        if beat {
            self.next_heartbeat = now + HEARTBEAT;
        }
        self.members.retain_mut(|member| {
            if beat && member.capture.note_alive(clock()).is_err() {
                return false;
            }
            now < member.next || member.sample(now, interval, clock, cgroup).unwrap_or(false)
        });
    }

    /// Counts what has appeared since, at the end. The root's other images learn how it ended.
    pub(crate) fn finish(&mut self, root: u32, end: End, oom_kills: u64, unix_ns: u64) {
        self.meet_newcomers(Instant::now());
        for member in self.members.iter().filter(|member| member.pid == root) {
            // Whoever reads it finds it without an outcome.
            let _ = member.capture.note_end(end, oom_kills, unix_ns);
        }
    }

    /// Finds the captures that have appeared.
    pub(crate) fn meet_newcomers(&mut self, now: Instant) {
        for path in self.watcher.names() {
            let Ok(Some((pid, capture, samples, mode))) = open(&path, &self.watcher.group_id)
            else {
                continue;
            };
            match self.sink {
                Sink::Mapped => self.seen.push(path),
                Sink::Written(_, mirrors) => self.seen.extend(mirrors.borrow_mut().add(&path)),
                Sink::Nothing(_) => {
                    // The process has it mapped and needs no name.
                    let _ = std::fs::remove_file(&path);
                    self.seen.push(path);
                }
            }
            // The same process as another program: its earlier capture has ended.
            self.members.retain(|member| member.pid != pid);
            if self.interval.is_zero() || self.members.len() >= MOST_SAMPLED {
                continue;
            }
            if let Ok(member) = Member::new(pid, capture, samples, mode, now) {
                self.members.push(member);
            }
        }
    }
}

/// Opens a capture of the group: the process's number, and how many samples there is room for.
fn open(path: &Path, group_id: &[u8; 16]) -> io::Result<Option<(u32, CaptureFile, usize, u32)>> {
    let offset = HEADER_BYTES as u64;
    let capture = CaptureFile::open(path, offset)?;
    let mut identity = Identity::new_zeroed();
    capture.file().read_exact_at(identity.as_mut_bytes(), 0)?;
    let mut segment = SegmentHeader::new_zeroed();
    capture
        .file()
        .read_exact_at(segment.as_mut_bytes(), offset)?;
    let ours = identity.magic == MAGIC
        && identity.group_id == *group_id
        && segment.kind == SegmentKind::Samples as u32
        && segment.checksum == segment.expected_checksum();
    let room = usize::try_from(segment.capacity).unwrap_or(0);
    let samples = room.saturating_sub(SEGMENT_HEADER_BYTES) / size_of::<Sample>();
    Ok(ours.then_some((identity.pid, capture, samples, identity.mode)))
}

impl Member {
    fn new(
        pid: u32,
        capture: CaptureFile,
        samples: usize,
        mode: u32,
        now: Instant,
    ) -> io::Result<Self> {
        let turns = (mode == Mode::All as u32)
            .then(|| capture.turn_counter())
            .transpose()?;
        Ok(Self {
            pid,
            turns,
            statm: File::open(format!("/proc/{pid}/statm"))?,
            table: SampleTable::new(capture.samples()?, samples),
            capture,
            slowness: 1,
            next: now,
        })
    }

    /// Takes a sample; false when the process is gone.
    fn sample(
        &mut self,
        now: Instant,
        interval: Duration,
        clock: &dyn Fn() -> u64,
        cgroup: (u64, u64),
    ) -> io::Result<bool> {
        let mut buffer = [0; 128];
        let length = self.statm.read_at(&mut buffer, 0)?;
        let text = std::str::from_utf8(&buffer[..length]).unwrap_or_default();
        let Some(pages) = crate::supervise::resident_pages(text) else {
            return Ok(false);
        };
        self.next = now + interval * self.slowness;
        let sample = Sample {
            unix_ns: clock(),
            resident_bytes: pages * system::page_bytes() as u64,
            heap_bytes: self.capture.heap_bytes()?,
            cgroup_bytes: cgroup.0,
            cgroup_limit_bytes: cgroup.1,
            turn: self.turns.as_ref().map_or(0, TurnCounter::take),
        };
        if self.table.push(sample)? {
            self.slowness = self.slowness.saturating_mul(2);
        }
        Ok(true)
    }
}

/// The value of `HEAPTIDE_FOLLOW`. Fields by position; the path is last, so it may hold anything.
pub(crate) fn follow_value(follow: Follow, facts: &Facts, path: &Path) -> Option<Vec<u8>> {
    use std::fmt::Write;
    let what = match follow {
        Follow::Nothing => return None,
        Follow::Forks => 1,
        Follow::Children => 3,
    };
    let what = if facts.native_stacks { what | 4 } else { what };
    let mut text = format!(
        "1;{what};{};{};{};{};{};",
        facts.mode as u32,
        facts.stack_node_budget,
        facts.memory_interval_ms,
        facts.options,
        facts.pid
    );
    for byte in &facts.group_id {
        let _ = write!(text, "{byte:02x}");
    }
    let mut value = text.into_bytes();
    value.push(b';');
    value.extend_from_slice(path.as_os_str().as_bytes());
    Some(value)
}

const _: () = assert!(
    offset_of!(libc::inotify_event, len) == size_of::<libc::inotify_event>() - 4,
    "the length is the last word of an event"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_group_are_seen() {
        let directory = tempfile::tempdir().unwrap();
        let watcher = Watcher::new(&directory.path().join("a.tide"), [1; 16]).unwrap();
        for name in ["a.tide.12", "b.tide.12", "a.tide.13.1", "a.tide"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let expected: Vec<_> = ["a.tide.12", "a.tide.13.1"]
            .iter()
            .map(|name| directory.path().join(name))
            .collect();
        assert_eq!(watcher.names(), expected);
        assert!(watcher.names().is_empty());
        let mut family = Family::new(&watcher, &Sink::Mapped, 10);
        std::fs::write(directory.path().join("a.tide.14"), "not a capture").unwrap();
        family.tick(Instant::now(), &|| 1, (0, 0));
        assert!(family.seen.is_empty());
    }

    #[test]
    fn the_variable_of_the_agent() {
        let facts = Facts {
            pid: 42,
            parent_pid: 1,
            process_start_ticks: 0,
            memory_interval_ms: 10,
            stack_node_budget: 9,
            mode: Mode::All,
            options: 1,
            native_stacks: false,
            group_id: [0xab; 16],
            metadata: Vec::new(),
        };
        let value = |follow| follow_value(follow, &facts, Path::new("/a;b"));
        assert_eq!(value(Follow::Nothing), None);
        let expected = format!("1;3;2;9;10;1;42;{};/a;b", "ab".repeat(16));
        assert_eq!(value(Follow::Children), Some(expected.into_bytes()));
        let facts = Facts {
            native_stacks: true,
            ..facts
        };
        let what = |follow| follow_value(follow, &facts, Path::new("/a")).unwrap()[2];
        assert_eq!([Follow::Forks, Follow::Children].map(what), *b"57");
    }
}
