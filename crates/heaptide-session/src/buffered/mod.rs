//! The capture of a stretch that is written to its destination and not mapped there (`FileDestination(buffered=True)`).
//!
//! ```text
//!  this process ─── maps ──▶ a directory in memory ─── reads ──▶ the writer ─── writes ──▶ the destination
//! ```
//!
//! The writer is a process of its own, which goes on when this one is killed: [`writer`]. Here is what this process knows of it. Between
//! them is a socket; what comes over it is in [`message`]. See `docs/design/007-where-captures-go.md`.

mod message;
mod writer;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use self::message::{Answer, Request};
pub use self::writer::as_writer;
use crate::staging::Staging;
use crate::watched::{self, Watched};
use crate::{SessionError, detached, system};

/// The first argument of a program that is to be a writer. The number goes up when its arguments or the messages change.
const WRITE_CAPTURE: &str = "--write-capture=1";

/// The process that writes a capture of this one.
#[derive(Debug)]
pub struct Writer {
    socket: Option<OwnedFd>,
    /// Device and inode: a program may close what it knows nothing of, and open something else with that number.
    socket_identity: (u64, u64),
    process: Watched,
    /// The process whose capture it is. Children that it forks have a copy of this value.
    owner: u32,
    directory: PathBuf,
    asked: bool,
}

/// What has become of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is whole at its destination.
    Whole {
        /// What went wrong besides, for the user to read.
        problem: Option<String>,
    },
    /// The writer was killed before it had written everything: the capture ends where that was.
    Lost,
}

impl Writer {
    /// Starts the writer of the capture `live`, which is in the directory of `staging`, and waits until there is a capture at `destination`.
    /// The writer removes the directory when it is done.
    ///
    /// # Errors
    /// There is no writer, and nothing at the destination.
    pub(crate) fn start(
        program: &Path,
        live: &Path,
        destination: &Path,
        replace: bool,
        staging: Staging,
    ) -> Result<Self, SessionError> {
        let exec = |source| SessionError::Exec {
            program: program.to_owned(),
            source,
        };
        reap_former(None);
        let (ours, theirs) = message::pair().map_err(exec)?;
        let owner = std::process::id();
        let ticks = system::process_start_ticks(owner);
        let numbers = [owner.to_string(), ticks.to_string()];
        let arguments = [
            program.as_os_str(),
            OsStr::new(WRITE_CAPTURE),
            OsStr::new(&numbers[0]),
            OsStr::new(&numbers[1]),
            OsStr::new(if replace { "replace" } else { "create" }),
            live.as_os_str(),
            destination.as_os_str(),
        ];
        let pid = detached::start(program, &arguments, &theirs).map_err(exec)?;
        drop(theirs);
        let pid = u32::try_from(pid).unwrap_or_default();
        // Programs close descriptors that they know nothing of.
        let process = Watched::in_table(pid, system::process_start_ticks(pid));
        loop {
            match message::receive(&ours).map_err(exec)? {
                Some(Answer::Ready) => break,
                Some(Answer::Refused(why)) => return Err(why.into_error(destination)),
                Some(Answer::Arrived { .. }) => {}
                None => {
                    return Err(SessionError::Writer {
                        program: program.to_owned(),
                    });
                }
            }
        }
        Ok(Self {
            socket_identity: system::identity(&ours).unwrap_or_default(),
            socket: Some(ours),
            process,
            owner,
            directory: staging.leave(),
            asked: false,
        })
    }

    /// Tracking has ended: waits until everything is at the destination, for `patience` at most or until a signal comes. `None`: not yet, ask again.
    /// With `compress` the captures of processes that have ended well are made small.
    pub fn arrive(&mut self, compress: bool, patience: Duration) -> Option<Arrival> {
        if !self.holds_socket() {
            // The writer sees by itself that tracking has ended, and ends.
            return self.lost_sight(patience);
        }
        let socket = self.socket.as_ref()?;
        if !self.asked {
            self.asked = true;
            if message::send(socket, &Request::Finish { compress }).is_err() {
                return Some(self.lost());
            }
        }
        if !watched::wait(&[socket.as_raw_fd()], patience) {
            // Nobody else is to hold the other end; but a process may be forked at any time.
            let dead = self.process.has_ended() && !watched::is_readable(socket.as_raw_fd());
            return dead.then(|| self.lost());
        }
        match message::receive(socket) {
            Ok(Some(Answer::Arrived { problem, ends })) => {
                if ends {
                    self.bury();
                }
                Some(Arrival::Whole { problem })
            }
            Ok(Some(_)) => None,
            Ok(None) | Err(_) => Some(self.lost()),
        }
    }

    /// The program has closed the socket: the writer's end is all that is left to be seen.
    fn lost_sight(&mut self, patience: Duration) -> Option<Arrival> {
        if !self.process.has_ended() {
            watched::wait(&[], patience);
        }
        let ended = self.process.has_ended();
        ended.then(|| {
            if self.directory.exists() {
                self.lost()
            } else {
                Arrival::Whole { problem: None }
            }
        })
    }

    fn lost(&self) -> Arrival {
        self.bury();
        let _ = std::fs::remove_dir_all(&self.directory);
        Arrival::Lost
    }

    /// A process that is init, or stands in for it, is given the writer as its child.
    fn bury(&self) {
        let pid = libc::pid_t::try_from(self.process.pid()).unwrap_or_default();
        if pid <= 0 {
            return;
        }
        // SAFETY: the status is not wanted. It fails at once where this is no child of ours.
        while unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) } < 0
            && io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
        {}
    }

    fn holds_socket(&mut self) -> bool {
        let holds = self
            .socket
            .as_ref()
            .is_some_and(|socket| system::identity(socket).ok() == Some(self.socket_identity));
        if !holds {
            // The number is somebody else's by now, if anybody's.
            let _ = self.socket.take().map(IntoRawFd::into_raw_fd);
        }
        holds
    }
}

impl Drop for Writer {
    /// A writer whose capture is used no more ends; one that has not been asked writes on, as long as the capture is mapped.
    fn drop(&mut self) {
        if self.holds_socket()
            && self.owner == std::process::id()
            && let Some(socket) = &self.socket
        {
            message::hang_up(socket);
        }
        if self.owner == std::process::id() {
            let (pid, ticks) = (self.process.pid(), self.process.start_ticks());
            reap_former(Some(Watched::in_table(pid, ticks)));
        }
    }
}

/// Writers that had not ended when this process had done with them, and that it will be asked about: one that is init, or
/// stands in for it, has them as children.
static FORMER: Mutex<Vec<Watched>> = Mutex::new(Vec::new());

/// Takes the ends of former writers, and forgets those that are no children of ours.
fn reap_former(another: Option<Watched>) {
    // Never waited for: a forked child may have it locked for ever.
    let Ok(mut former) = FORMER.try_lock() else {
        return;
    };
    former.extend(another);
    former.retain(|writer| {
        let pid = libc::pid_t::try_from(writer.pid()).unwrap_or_default();
        let how = libc::__WALL | libc::WNOHANG;
        // The program may have asked for it itself, and its number be another child's.
        let is_ours = pid > 0 && writer.is_in_table();
        // SAFETY: the status is not wanted. It fails at once where this is no child of ours.
        is_ours && unsafe { libc::waitpid(pid, std::ptr::null_mut(), how) } == 0
    });
}

/// The standard input, which is the socket.
fn standard_input() -> OwnedFd {
    // SAFETY: a writer is started with it, and reads nothing else from there.
    unsafe { OwnedFd::from_raw_fd(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_no_writer_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let start = |program: &str| {
            let staging = Staging::new().unwrap();
            let live = staging.place(Path::new("x.tide"));
            let destination = directory.path().join("x.tide");
            Writer::start(Path::new(program), &live, &destination, false, staging).unwrap_err()
        };
        let text = start("/bin/true").to_string();
        assert!(text.contains("/bin/true"), "{text}");
        let text = start("/bin/no such program").to_string();
        assert!(text.contains("No such file"), "{text}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
