//! The process that writes: it stands by until the stretch has ended, or its process has, and until no forked child writes into a capture any more.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use heaptide_format::{Identity, State, offsets};

use super::message::{self, Answer, Refused, Request};
use super::{WRITE_CAPTURE, standard_input};
use crate::capture::CaptureFile;
use crate::compress::{self, compress_one};
use crate::family::{Family, Watcher};
use crate::mirror::Mirrors;
use crate::plain;
use crate::session::Sink;
use crate::staging::Staging;
use crate::watched::{self, Watched};

/// What a writer is told when it is started.
struct Job {
    pid: u32,
    start_ticks: u64,
    replace: bool,
    live: PathBuf,
    destination: PathBuf,
}

impl Job {
    fn parse(mut words: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut number = || words.next()?.to_str()?.parse().ok();
        let (pid, start_ticks) = (number()?, number()?);
        Some(Self {
            pid: u32::try_from(pid).ok()?,
            start_ticks,
            replace: words.next()? == "replace",
            live: words.next()?.into(),
            destination: words.next()?.into(),
        })
    }
}

/// Is this process, with these words on its command line, to write a capture? Then it does so, to the end; returns the code to exit with.
pub fn as_writer(words: impl IntoIterator<Item = OsString>) -> Option<u8> {
    let mut words = words.into_iter().skip(1);
    (words.next()? == WRITE_CAPTURE).then(|| {
        let Some(job) = Job::parse(words) else {
            return 2;
        };
        close_inherited();
        u8::from(write(&job, standard_input()).is_err())
    })
}

/// Closes what the program had open and did not mean for us: others wait for its end.
fn close_inherited() {
    // SAFETY: nothing of this process is open yet but its standard streams.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } == 0 {
        return;
    }
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers: Vec<RawFd> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers.into_iter().filter(|&number| number > 2) {
        // SAFETY: as above; the directory that was read is closed already, which is an error that nobody minds.
        unsafe { libc::close(number) };
    }
}

fn write(job: &Job, socket: OwnedFd) -> io::Result<()> {
    let watcher = group_of(&job.live).and_then(|group| {
        // Only a session that follows children has a group.
        let follows = group != [0; 16];
        follows.then(|| Watcher::new(&job.live, group)).transpose()
    });
    let live = match CaptureFile::open(&job.live, 0) {
        Ok(live) => live,
        Err(error) => {
            let text = format!("the capture cannot be opened: {}", plain(&error));
            return message::send(&socket, &Answer::Refused(Refused::Other(text)));
        }
    };
    let mirrors = Mirrors::new(&job.live, &job.destination, job.replace);
    let (watcher, mirrors) = match (watcher, mirrors) {
        (Ok(watcher), Ok(mirrors)) => (watcher, mirrors),
        (_, Err(error)) => return message::send(&socket, &Answer::Refused(Refused::of(&error))),
        (Err(error), Ok(_)) => {
            let _ = std::fs::remove_file(&job.destination);
            let text = format!("children cannot be followed: {}", plain(&error));
            return message::send(&socket, &Answer::Refused(Refused::Other(text)));
        }
    };
    let directory = job.live.parent().unwrap_or(Path::new("/")).to_owned();
    let sink = Sink::Written(Staging::adopt(directory.clone()), RefCell::new(mirrors));
    // Whether anybody hears it is seen below.
    let _ = message::send(&socket, &Answer::Ready);
    let Sink::Written(staging, mirrors) = &sink else {
        return Ok(());
    };
    let family = watcher
        .as_ref()
        // Their samples they take themselves.
        .map(|watcher| Family::new(watcher, &sink, 0));
    Work {
        program: Watched::new(job.pid, job.start_ticks),
        family,
        mirrors,
        staging,
        socket: Some(socket),
        live,
        directory,
        compress: false,
    }
    .run();
    Ok(())
}

/// The group of the processes of a capture; zeros where there is none.
fn group_of(live: &Path) -> io::Result<[u8; 16]> {
    use std::os::unix::fs::FileExt;
    let mut group = [0; 16];
    let place = offsets::IDENTITY + offset_of!(Identity, group_id);
    std::fs::File::open(live)?.read_exact_at(&mut group, place as u64)?;
    Ok(group)
}

struct Work<'a> {
    program: Watched,
    family: Option<Family<'a>>,
    mirrors: &'a RefCell<Mirrors>,
    staging: &'a Staging,
    /// To the program; `None` when nobody is there any more.
    socket: Option<OwnedFd>,
    live: CaptureFile,
    directory: PathBuf,
    /// Captures are to be made small.
    compress: bool,
}

impl Work<'_> {
    fn run(&mut self) {
        while !self.has_ended() {
            self.write_when_due();
        }
        self.meet();
        let mut problem = self.finish_root();
        let ends = !self.others_go_on();
        if ends {
            // What is left to be seen is gone before it is said that all is done.
            problem = problem.or(self.end());
        }
        if let Some(socket) = self.socket.take() {
            let _ = message::send(&socket, &Answer::Arrived { problem, ends });
        }
        if ends {
            return;
        }
        while self.others_go_on() {
            self.write_when_due();
            self.compress_ended();
        }
        self.end();
    }

    fn others_go_on(&self) -> bool {
        self.mirrors.borrow().others_go_on() || self.child_begins()
    }

    /// Is there a child that was forked a moment ago and has not made its capture yet? It still has that of its parent mapped.
    fn child_begins(&self) -> bool {
        if self.family.is_none() {
            return false;
        }
        let not_meant = [std::process::id(), self.program.pid()];
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| !not_meant.contains(pid))
            .any(|pid| self.maps_name_it(pid) == Some(true))
    }

    fn write_when_due(&mut self) {
        self.wait();
        self.meet();
        self.mirrors.borrow_mut().tick(Instant::now());
    }

    fn meet(&mut self) {
        if let Some(family) = &mut self.family {
            family.meet_newcomers(Instant::now());
        }
    }

    /// Until something is to be done.
    fn wait(&self) {
        let next = self.mirrors.borrow().next();
        let descriptors = [
            self.socket.as_ref().map(AsRawFd::as_raw_fd),
            // Nobody is waited for but children when the socket is gone by an end.
            self.socket.as_ref().and(self.program.descriptor()),
        ];
        let descriptors: Vec<RawFd> = descriptors.into_iter().flatten().collect();
        watched::wait(&descriptors, next.saturating_duration_since(Instant::now()));
    }

    /// Has the stretch ended, or has its process?
    fn has_ended(&mut self) -> bool {
        if self.program.has_ended() {
            self.socket = None;
            return true;
        }
        let Some(socket) = &self.socket else {
            return self.is_finished();
        };
        if !watched::is_readable(socket.as_raw_fd()) {
            return false;
        }
        match message::receive(socket) {
            Ok(Some(Request::Finish { compress })) => {
                self.compress = compress;
                return true;
            }
            // The value that held it is gone, or another program runs in the process, or somebody has closed all that was open: only then it may
            // be mapped still.
            Ok(None) | Err(_) => self.socket = None,
        }
        self.is_finished() || !self.is_mapped()
    }

    fn is_finished(&self) -> bool {
        let ended = [State::Finished, State::Stopped].map(|state| state as u32);
        self.live
            .lifecycle()
            .is_ok_and(|lifecycle| ended.contains(&lifecycle.state))
    }

    /// Has the program the capture mapped, so that it may still write into it? What cannot be told may be.
    fn is_mapped(&self) -> bool {
        self.maps_name_it(self.program.pid()).unwrap_or(true)
    }

    /// Has this process anything mapped that is in our directory? `None` when it cannot be told.
    fn maps_name_it(&self, pid: u32) -> Option<bool> {
        use std::os::unix::ffi::OsStrExt;
        let maps = std::fs::read(format!("/proc/{pid}/maps")).ok()?;
        // Its name is like no other.
        let name = self.directory.as_os_str().as_bytes();
        Some(maps.windows(name.len()).any(|window| window == name))
    }

    /// Writes everything that the program itself has recorded; what went wrong.
    fn finish_root(&mut self) -> Option<String> {
        self.mirrors.borrow_mut().retire_root();
        let mut problem = self.mirrors.borrow_mut().take_problem();
        if self.compress {
            let destination = self.mirrors.borrow().root().to_owned();
            let small = compress_one(&destination, true, &mut |_| true);
            problem = problem.or_else(|| Some(compress::problem(&destination, &small.err()?)));
        }
        problem.or(self.compress_ended())
    }

    fn compress_ended(&mut self) -> Option<String> {
        let mut problem = None;
        for destination in self.mirrors.borrow_mut().take_ended() {
            if self.compress {
                let small = compress_one(&destination, false, &mut |_| true);
                problem = problem.or_else(|| Some(compress::problem(&destination, &small.err()?)));
            }
        }
        problem
    }

    /// Nobody writes any more.
    fn end(&mut self) -> Option<String> {
        self.mirrors.borrow_mut().write_last();
        let problem = self.compress_ended();
        self.staging.remove();
        problem
    }
}
