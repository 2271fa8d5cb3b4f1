//! Another process whose end is noticed, though it is not our child.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::system;

/// A process, told from a later one with the same number.
#[derive(Debug)]
pub(crate) struct Watched {
    pid: u32,
    start_ticks: u64,
    /// Readable when the process has ended; `None` where the kernel has none (before 5.3) or a sandbox refuses. Alone it is believed:
    /// the process table may be hidden.
    descriptor: Option<OwnedFd>,
}

impl Watched {
    /// The process `pid` that was started at `start_ticks` (clock ticks since boot; 0: unknown). It may have ended.
    pub(crate) fn new(pid: u32, start_ticks: u64) -> Self {
        // A process that came later with this number is found out by its start.
        let descriptor = open(pid).ok().filter(|_| is_running(pid, start_ticks));
        Self {
            pid,
            start_ticks,
            descriptor,
        }
    }

    /// As [`Watched::new`], and holds nothing open.
    pub(crate) fn in_table(pid: u32, start_ticks: u64) -> Self {
        Self {
            pid,
            start_ticks,
            descriptor: None,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// When it was started, clock ticks since boot; 0: unknown.
    pub(crate) fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// Is its number still its own, if it has ended?
    pub(crate) fn is_in_table(&self) -> bool {
        system::process_start_ticks(self.pid) == self.start_ticks
    }

    /// To be waited for beside other things; see [`Watched::has_ended`].
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.descriptor.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Has it ended, whether or not its parent has asked how?
    pub(crate) fn has_ended(&self) -> bool {
        self.descriptor()
            .map_or_else(|| !is_running(self.pid, self.start_ticks), is_readable)
    }
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: takes numbers only.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(descriptor) {
        // SAFETY: a new descriptor that nobody else owns.
        Ok(descriptor @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Does a read or an end of `descriptor` wait for us?
pub(crate) fn is_readable(descriptor: RawFd) -> bool {
    wait(&[descriptor], Duration::ZERO)
}

/// Waits until one of the descriptors is readable or has come to its end, or the time is over, or a signal has come. Says whether one is.
pub(crate) fn wait(descriptors: &[RawFd], patience: Duration) -> bool {
    let mut entries: Vec<libc::pollfd> = descriptors
        .iter()
        .map(|&fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let count = libc::nfds_t::try_from(entries.len()).unwrap_or_default();
    // Rounded up: a wait that ends a little before its time is followed by many of no time.
    let milliseconds = i32::try_from(patience.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: as many entries as said, which outlive the call.
    unsafe { libc::poll(entries.as_mut_ptr(), count, milliseconds) > 0 }
}

/// Is the process that was started at `start_ticks` (0: unknown) in the process table, and not merely waiting to be asked how it ended?
pub(crate) fn is_running(pid: u32, start_ticks: u64) -> bool {
    let Ok(stat) = std::fs::read(format!("/proc/{pid}/stat")) else {
        // Hidden, or there is no /proc: only a process that is not there can be told.
        return !is_unknown(pid);
    };
    let ticks = system::parse_start_ticks(&stat).unwrap_or(0);
    if start_ticks != 0 && ticks != 0 && start_ticks != ticks {
        return false;
    }
    // A main thread that has ended looks like that too, while others run on.
    let main_has_ended = matches!(system::parse_state(&stat), Some(b'Z' | b'X'));
    !main_has_ended || has_other_threads(pid)
}

fn is_unknown(pid: u32) -> bool {
    let pid = libc::pid_t::try_from(pid).unwrap_or(libc::pid_t::MAX);
    // SAFETY: signal 0 is none.
    let known = unsafe { libc::kill(pid, 0) } == 0;
    !known && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

fn has_other_threads(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    threads.is_ok_and(|threads| threads.count() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn an_end_is_noticed_with_and_without_a_descriptor() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let ticks = system::process_start_ticks(child.id());
        assert_ne!(ticks, 0);
        let watched = Watched::new(child.id(), ticks);
        let by_table = Watched::in_table(child.id(), ticks);
        assert!(!watched.has_ended() && !by_table.has_ended());
        assert!(Watched::new(child.id(), ticks + 1).has_ended(), "another");
        drop(child.stdin.take());
        // SAFETY: a zeroed value of this plain C struct is valid.
        let mut ended: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let how = libc::WEXITED | libc::WNOWAIT;
        // SAFETY: our own child, which stays in the process table.
        let waited = unsafe { libc::waitid(libc::P_PID, child.id(), &raw mut ended, how) };
        assert_eq!(waited, 0);
        assert!(
            watched.has_ended() && by_table.has_ended(),
            "not waited for"
        );
        child.wait().unwrap();
        assert!(watched.has_ended() && by_table.has_ended());
        assert!(Watched::new(child.id(), ticks).has_ended());
    }

    #[test]
    fn a_main_thread_that_has_ended_is_no_end() {
        let program = "import ctypes, threading, sys\n\
            threading.Thread(target=lambda: (print('on', flush=True), sys.stdin.read())).start()\n\
            ctypes.CDLL(None).pthread_exit(None)\n";
        let Ok(mut child) = Command::new("python3")
            .args(["-c", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            return;
        };
        let mut word = [0; 3];
        let Ok(()) = io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word) else {
            panic!("no thread");
        };
        while std::fs::read(format!("/proc/{}/stat", child.id()))
            .is_ok_and(|stat| system::parse_state(&stat) != Some(b'Z'))
        {
            std::thread::yield_now();
        }
        assert!(is_running(child.id(), 0));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_running(child.id(), 0));
    }
}
