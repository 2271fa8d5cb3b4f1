//! Captures that are written to their destination by `write`, while they grow in memory
//! (`--buffered-file-io`).
//!
//! The destination is a capture at every moment: a record is written before the length that covers it, and
//! whatever a record names is written before the record. Events that will not change any more are written
//! once, and their memory is given back. The rest is written again and again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::offset_of;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use heaptide_format::{
    CHUNK_HEADER_BYTES, ChunkHeader, HEADER_BYTES, Identity, Lifecycle, Outcome,
    SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, SegmentHeader, SegmentKind, State, StopReason, offsets,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::capture::{check_replaceable, create_error};
use crate::{SessionError, system, watched};

/// How often, at best.
const INTERVAL: Duration = Duration::from_millis(100);
/// And at worst, which bounds the memory that events take until then.
const LONGEST_INTERVAL: Duration = Duration::from_secs(1);
/// In between, this share of the time is spent with it: one in so many.
const SHARE: u32 = 20;
/// What is read and written at once, and what is looked at for changes.
const PIECE_BYTES: u64 = 64 << 10;
/// So many further names are tried for the capture of a child, as the agent does.
const MOST_IMAGES: u32 = 1000;

/// The captures of one session.
#[derive(Debug)]
pub(crate) struct Mirrors {
    mirrors: Vec<Mirror>,
    /// Destinations of those that have ended.
    ended: Vec<PathBuf>,
    next: Instant,
    /// What went wrong, once.
    problem: Option<String>,
}

impl Mirrors {
    /// For the root's capture, which is complete so far.
    ///
    /// # Errors
    /// Nothing is left behind.
    pub(crate) fn new(
        live: &Path,
        destination: &Path,
        replace: bool,
    ) -> Result<Self, SessionError> {
        if replace {
            check_replaceable(destination)?;
        }
        let partial = replace.then(|| {
            let id = u128::from_ne_bytes(system::random_id());
            let name = format!(".heaptide-{id:032x}.partial");
            destination.with_file_name(name)
        });
        let made = partial.as_deref().unwrap_or(destination);
        let mut mirror =
            Mirror::create(live, made).map_err(|source| create_error(destination, source))?;
        let filled = mirror.bring_up_to_date().and_then(|()| match &partial {
            Some(partial) => std::fs::rename(partial, destination),
            None => Ok(()),
        });
        if let Err(source) = filled {
            let _ = std::fs::remove_file(made);
            return Err(SessionError::Capture {
                path: destination.to_owned(),
                step: "write",
                source,
            });
        }
        mirror.destination = destination.to_owned();
        Ok(Self {
            mirrors: vec![mirror],
            ended: Vec::new(),
            next: Instant::now() + INTERVAL,
            problem: None,
        })
    }

    /// Where the root's capture goes.
    pub(crate) fn root(&self) -> &Path {
        &self.mirrors[0].destination
    }

    /// When something is next to be done.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// A capture of another process has appeared. Returns where it goes.
    pub(crate) fn add(&mut self, live: &Path) -> Option<PathBuf> {
        let name = live.file_name()?;
        for image in 0..MOST_IMAGES {
            let mut destination = self.root().with_file_name(name);
            if image > 0 {
                destination.as_mut_os_string().push(format!(".{image}"));
            }
            match Mirror::create(live, &destination) {
                Ok(mirror) => {
                    self.mirrors.push(mirror);
                    return Some(destination);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    self.note(&destination, &error);
                    return None;
                }
            }
        }
        None
    }

    fn note(&mut self, destination: &Path, error: &io::Error) {
        self.problem.get_or_insert_with(|| {
            format!(
                "{} could not be written any more, and ends there: {}",
                destination.display(),
                crate::plain(error)
            )
        });
    }

    /// Writes what has come since, if it is time.
    pub(crate) fn tick(&mut self, now: Instant) {
        if now >= self.next {
            self.write();
            self.next = Instant::now() + (now.elapsed() * SHARE).clamp(INTERVAL, LONGEST_INTERVAL);
        }
    }

    /// Writes everything that is there.
    pub(crate) fn write(&mut self) {
        for index in 0..self.mirrors.len() {
            if let Err(error) = self.mirrors[index].bring_up_to_date() {
                let destination = self.mirrors[index].destination.clone();
                self.mirrors[index].give_up(&error);
                self.note(&destination, &error);
            }
        }
        // A process whose end is noted writes nothing more, and its memory is needed for others.
        let mut index = 1;
        while index < self.mirrors.len() {
            if self.mirrors[index].ended {
                let ended = self.mirrors.swap_remove(index);
                let _ = std::fs::remove_file(ended.live_path);
                self.ended.push(ended.destination);
            } else {
                index += 1;
            }
        }
    }

    /// The root writes no more, and what it has written is at its destination.
    pub(crate) fn retire_root(&mut self) {
        self.write();
        // What was written while that was done.
        self.write();
        self.mirrors[0].retired = true;
    }

    /// Does another process go on with its capture?
    pub(crate) fn others_go_on(&self) -> bool {
        self.mirrors.iter().skip(1).any(Mirror::goes_on)
    }

    /// Writes what is there for the last time: no process goes on.
    pub(crate) fn write_last(&mut self) {
        self.write();
        self.write();
        let others = self.mirrors.drain(1..);
        self.ended.extend(others.map(|mirror| mirror.destination));
    }

    /// Destinations of captures whose processes' ends were noted, since the last call. They are written no more.
    pub(crate) fn take_ended(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.ended)
    }

    /// Writes what is there for the last time. Returns how many other processes still record, whose captures
    /// end here: nobody is left to write them.
    pub(crate) fn close(&mut self) -> usize {
        // What has ended since the pass before gets one more.
        self.write();
        self.write();
        let left = self.mirrors.iter_mut().skip(1);
        left.filter_map(|mirror| mirror.cut_off().ok())
            .filter(|&cut| cut)
            .count()
    }

    pub(crate) fn take_problem(&mut self) -> Option<String> {
        self.problem.take()
    }
}

/// A segment that may still change.
#[derive(Debug)]
struct Segment {
    offset: u64,
    header: SegmentHeader,
    kind: Option<SegmentKind>,
    /// Payload bytes that are at the destination.
    written: u64,
    /// Checksums of the pieces as they were written last, for records that change in place.
    pieces: Vec<u32>,
    /// Of events: the stream, once it is known.
    stream: Option<u32>,
    /// Of events: the stream goes on in another chunk, so this one is complete.
    complete: bool,
}

/// One capture in memory and at its destination.
#[derive(Debug)]
struct Mirror {
    live: File,
    live_path: PathBuf,
    copy: File,
    destination: PathBuf,
    segments: Vec<Segment>,
    /// The newest chunk of each stream, by offset.
    newest: HashMap<u32, u64>,
    /// Segments up to here are known.
    walked: u64,
    given_up: bool,
    ended: bool,
    /// Nothing more will come.
    retired: bool,
}

impl Mirror {
    fn create(live_path: &Path, destination: &Path) -> io::Result<Self> {
        let live = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(live_path)?;
        let copy = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(destination)?;
        Ok(Self {
            live,
            live_path: live_path.to_owned(),
            copy,
            destination: destination.to_owned(),
            segments: Vec::new(),
            newest: HashMap::new(),
            walked: HEADER_BYTES as u64,
            given_up: false,
            ended: false,
            retired: false,
        })
    }

    fn bring_up_to_date(&mut self) -> io::Result<()> {
        if self.retired {
            return Ok(());
        }
        // Before anything else is read: only who has ended by now has written all that is read below.
        let ended = self.lifecycle()?.outcome != Outcome::Unknown as u32;
        self.walk()?;
        for index in 0..self.segments.len() {
            match self.segments[index].kind {
                Some(SegmentKind::Events) => self.write_events(index)?,
                _ if self.given_up => {}
                Some(SegmentKind::Definitions | SegmentKind::NodeStream) => {}
                // These change in place.
                _ => self.write_changes(index)?,
            }
        }
        if !self.given_up {
            self.write_named()?;
        }
        self.write_header()?;
        self.ended = ended;
        self.give_back();
        Ok(())
    }

    /// Finds the segments that are new, and writes their headers with nothing committed.
    fn walk(&mut self) -> io::Result<()> {
        let end = self.lifecycle()?.allocated_end;
        while self.walked < end {
            let offset = self.walked;
            let header = self.segment_header(offset)?;
            let whole = header.magic == SEGMENT_MAGIC
                && header.checksum == header.expected_checksum()
                && header.capacity >= SEGMENT_HEADER_BYTES as u64;
            if !whole {
                // On its way.
                break;
            }
            self.walked = offset.saturating_add(header.capacity);
            let mut segment = Segment {
                offset,
                header,
                kind: SegmentKind::from_raw(header.kind),
                written: 0,
                pieces: Vec::new(),
                stream: None,
                complete: false,
            };
            segment.header.committed = 0;
            if !self.given_up {
                self.copy.write_all_at(segment.header.as_bytes(), offset)?;
            }
            // Scratch is nothing for readers; its header keeps the chain of segments whole.
            if segment.kind != Some(SegmentKind::Scratch) {
                self.segments.push(segment);
            }
        }
        Ok(())
    }

    fn lifecycle(&self) -> io::Result<Lifecycle> {
        let mut lifecycle = Lifecycle::new_zeroed();
        self.live
            .read_exact_at(lifecycle.as_mut_bytes(), offsets::LIFECYCLE as u64)?;
        Ok(lifecycle)
    }

    fn identity(&self) -> io::Result<Identity> {
        let mut identity = Identity::new_zeroed();
        self.live
            .read_exact_at(identity.as_mut_bytes(), offsets::IDENTITY as u64)?;
        Ok(identity)
    }

    /// Is its process there, and does it record?
    fn goes_on(&self) -> bool {
        let (Ok(identity), Ok(lifecycle)) = (self.identity(), self.lifecycle()) else {
            return false;
        };
        let ended = [State::Finished, State::Stopped].map(|state| state as u32);
        lifecycle.outcome == Outcome::Unknown as u32
            && !ended.contains(&lifecycle.state)
            && watched::is_running(identity.pid, identity.process_start_ticks)
    }

    fn segment_header(&self, offset: u64) -> io::Result<SegmentHeader> {
        let mut header = SegmentHeader::new_zeroed();
        self.live.read_exact_at(header.as_mut_bytes(), offset)?;
        Ok(header)
    }

    /// Payload bytes that may be read.
    fn committed(&self, index: usize) -> io::Result<u64> {
        let segment = &self.segments[index];
        let room = segment.header.capacity - SEGMENT_HEADER_BYTES as u64;
        Ok(self.segment_header(segment.offset)?.committed.min(room))
    }

    /// Writes the pieces that are not what they were.
    fn write_changes(&mut self, index: usize) -> io::Result<()> {
        let committed = self.committed(index)?;
        let payload = self.segments[index].offset + SEGMENT_HEADER_BYTES as u64;
        let mut buffer = vec![0; PIECE_BYTES.min(committed) as usize];
        let mut at = 0;
        for number in 0.. {
            if at >= committed {
                break;
            }
            let piece = &mut buffer[..PIECE_BYTES.min(committed - at) as usize];
            self.live.read_exact_at(piece, payload + at)?;
            let checksum = heaptide_format::checksum(piece);
            if self.segments[index].pieces.get(number) != Some(&checksum) {
                self.write_named()?;
                self.copy.write_all_at(piece, payload + at)?;
                let pieces = &mut self.segments[index].pieces;
                match pieces.get_mut(number) {
                    Some(known) => *known = checksum,
                    None => pieces.push(checksum),
                }
            }
            at += piece.len() as u64;
        }
        self.commit(index, committed)
    }

    /// Writes how many bytes of the payload are at the destination.
    fn commit(&mut self, index: usize, bytes: u64) -> io::Result<()> {
        let segment = &mut self.segments[index];
        if bytes > segment.written {
            segment.written = bytes;
            let place = segment.offset + offset_of!(SegmentHeader, committed) as u64;
            self.copy.write_all_at(&bytes.to_le_bytes(), place)?;
        }
        Ok(())
    }

    /// Writes a part of the payload in pieces, whatever they name before each, and then its length.
    fn write_range(&mut self, index: usize, from: u64, to: u64, named: bool) -> io::Result<()> {
        let payload = self.segments[index].offset + SEGMENT_HEADER_BYTES as u64;
        let mut at = from;
        let mut buffer = vec![0; PIECE_BYTES.min(to.saturating_sub(from)) as usize];
        while at < to {
            let piece = &mut buffer[..PIECE_BYTES.min(to - at) as usize];
            self.live.read_exact_at(piece, payload + at)?;
            if named {
                // What was read may name anything that was there before, and nothing that came later.
                self.write_named()?;
            }
            self.copy.write_all_at(piece, payload + at)?;
            at += piece.len() as u64;
        }
        self.commit(index, to)
    }

    /// Definitions, and nodes up to where they were before these were looked at. Both only grow.
    fn write_named(&mut self) -> io::Result<()> {
        self.walk()?;
        let of_kind = |mirror: &Self, kind| -> Vec<usize> {
            let segments = mirror.segments.iter().enumerate();
            let found = segments.filter(|(_, segment)| {
                segment.kind == Some(kind)
                    && segment.written < segment.header.capacity - SEGMENT_HEADER_BYTES as u64
            });
            found.map(|(index, _)| index).collect()
        };
        let nodes = of_kind(self, SegmentKind::NodeStream)
            .into_iter()
            .map(|index| Ok((index, self.committed(index)?)))
            .collect::<io::Result<Vec<_>>>()?;
        for index in of_kind(self, SegmentKind::Definitions) {
            let (written, committed) = (self.segments[index].written, self.committed(index)?);
            self.write_range(index, written, committed, false)?;
        }
        for (index, committed) in nodes {
            let written = self.segments[index].written;
            self.write_range(index, written, committed, false)?;
        }
        Ok(())
    }

    fn write_events(&mut self, index: usize) -> io::Result<()> {
        let committed = self.committed(index)?;
        if self.segments[index].stream.is_none() && committed >= CHUNK_HEADER_BYTES as u64 {
            self.meet_stream(index)?;
        }
        let segment = &self.segments[index];
        if segment.stream.is_some() && !self.given_up && committed > segment.written {
            self.write_range(index, segment.written, committed, true)?;
        }
        Ok(())
    }

    fn meet_stream(&mut self, index: usize) -> io::Result<()> {
        let offset = self.segments[index].offset;
        let mut head = [0; CHUNK_HEADER_BYTES];
        self.live
            .read_exact_at(&mut head, offset + SEGMENT_HEADER_BYTES as u64)?;
        let stream = ChunkHeader::read_from_bytes(&head).map_or(0, |head| head.stream);
        self.segments[index].stream = Some(stream);
        // A stream begins a chunk when it has done with the one before.
        if let Some(before) = self.newest.insert(stream, offset) {
            let segments = &mut self.segments;
            if let Some(before) = segments.iter_mut().find(|one| one.offset == before) {
                before.complete = true;
            }
        }
        Ok(())
    }

    fn write_header(&mut self) -> io::Result<()> {
        let mut header = [0; HEADER_BYTES];
        self.live.read_exact_at(&mut header, 0)?;
        let end = offsets::LIFECYCLE + offset_of!(Lifecycle, allocated_end);
        // Only what is there.
        header[end..end + 8].copy_from_slice(&self.walked.to_le_bytes());
        if self.given_up {
            return Ok(());
        }
        self.copy.write_all_at(&header, 0)
    }

    /// Gives back the memory of chunks that are written and complete.
    fn give_back(&mut self) {
        let (live, given_up) = (&self.live, self.given_up);
        let room = |segment: &Segment| segment.header.capacity - SEGMENT_HEADER_BYTES as u64;
        self.segments.retain(|segment| {
            // Completed after it was written last: the next time.
            let rest = || {
                live_committed(live, segment)
                    .is_none_or(|end| segment.written < end.min(room(segment)))
            };
            if !segment.complete || (!given_up && rest()) {
                return true;
            }
            system::punch_hole(live, segment.offset, segment.header.capacity).is_err()
        });
    }

    /// The destination takes no more: the capture ends there, and says so if it can. Memory is still given back.
    fn give_up(&mut self, error: &io::Error) {
        self.given_up = true;
        let errno = error.raw_os_error().unwrap_or(0);
        let _ = self.write_stopped(StopReason::of_growth(errno), errno);
    }

    /// Ends the capture here if its process still records; says whether it does.
    fn cut_off(&mut self) -> io::Result<bool> {
        let identity = self.identity()?;
        let lifecycle = self.lifecycle()?;
        let records = lifecycle.state == State::Tracking as u32
            && lifecycle.outcome == Outcome::Unknown as u32
            && Path::new(&format!("/proc/{}", identity.pid)).exists();
        if records && !self.given_up {
            self.write_stopped(StopReason::Unwatched, 0)?;
        }
        Ok(records)
    }

    fn write_stopped(&self, reason: StopReason, errno: i32) -> io::Result<()> {
        let store = |field: usize, bytes: &[u8]| {
            let place = (offsets::LIFECYCLE + field) as u64;
            self.copy.write_all_at(bytes, place)
        };
        store(offset_of!(Lifecycle, stop_errno), &errno.to_le_bytes())?;
        let reason = reason as u32;
        store(offset_of!(Lifecycle, stop_reason), &reason.to_le_bytes())?;
        let stopped = State::Stopped as u32;
        store(offset_of!(Lifecycle, state), &stopped.to_le_bytes())
    }
}

fn live_committed(live: &File, segment: &Segment) -> Option<u64> {
    let mut bytes = [0; 8];
    let place = segment.offset + offset_of!(SegmentHeader, committed) as u64;
    live.read_exact_at(&mut bytes, place).ok()?;
    Some(u64::from_le_bytes(bytes))
}
