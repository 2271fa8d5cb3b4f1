//! How a program ended, and ending the same way.

use std::io;

use crate::signals;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Exited(i32),
    /// Killed by this signal.
    Signaled(i32),
}

/// What the kernel says about a child that ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waited {
    pub(crate) end: End,
    pub(crate) core_dumped: bool,
    pub(crate) peak_resident_bytes: u64,
}

/// Whether our child has ended; returns at once.
pub(crate) fn poll_child(pid: libc::pid_t) -> io::Result<Option<Waited>> {
    let mut status = 0;
    // SAFETY: all-zero is a valid value of this plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: our own child; status and usage are writable.
    let found = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
    match found {
        0 => Ok(None),
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            error => Err(error),
        },
        _ => {
            let end = if libc::WIFSIGNALED(status) {
                End::Signaled(libc::WTERMSIG(status))
            } else {
                End::Exited(libc::WEXITSTATUS(status))
            };
            // Linux counts this one in KiB.
            let peak_resident_bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0) << 10;
            let core_dumped = libc::WIFSIGNALED(status) && libc::WCOREDUMP(status);
            Ok(Some(Waited {
                end,
                core_dumped,
                peak_resident_bytes,
            }))
        }
    }
}

/// Ends this process as the program ended: with its exit code, or by the signal that killed it.
pub fn end_like(end: End) -> ! {
    match end {
        End::Exited(code) => std::process::exit(code),
        End::Signaled(signal) => {
            signals::die_by(signal);
            // The first process of a container is not killed by its own signals: a shell's word for it.
            std::process::exit(128 + signal)
        }
    }
}
