//! Signals of the supervisor: none of them may end it before the program has ended.
//!
//! While a [`Signals`] lives, the signals below are blocked and taken one by one by
//! [`Signals::wait`], which is also how the supervisor sleeps. The program gets back the mask and
//! the dispositions that were there before ([`Signals::restore_in_child`]).

use std::io;
use std::time::Duration;

use libc::c_int;

/// Signals that a process may send to the supervisor and mean for the program.
const PASSED_ON: [c_int; 11] = [
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGWINCH,
    libc::SIGPWR,
    libc::SIGIO,
    libc::SIGURG,
];

/// A signal that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub number: c_int,
    /// The process that sent it; `None` when the kernel did (a terminal, a child's end).
    pub sender: Option<libc::pid_t>,
}

/// The signals taken over, given back on drop.
#[derive(Debug)]
pub struct Signals {
    waited: libc::sigset_t,
    previous_mask: libc::sigset_t,
    /// Dispositions that had to change.
    dispositions: [Disposition; 2],
}

impl Signals {
    /// Blocks the signals in the calling thread, which must be the one that starts the program.
    ///
    /// # Errors
    /// When the kernel refuses, which it has no reason to.
    pub fn take_over() -> io::Result<Self> {
        let mut waited = empty_set();
        for signal in PASSED_ON
            .into_iter()
            .chain([libc::SIGCHLD])
            .chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
        {
            // SAFETY: an initialised set and a signal number; at worst the call refuses the number.
            unsafe { libc::sigaddset(&raw mut waited, signal) };
        }
        // With SIGCHLD ignored the kernel would reap the program before we could ask how it ended.
        let dispositions = [
            Disposition::set(libc::SIGCHLD, libc::SIG_DFL)?,
            ignore_file_size_limit()?,
        ];
        let mut previous_mask = empty_set();
        // SAFETY: both sets are initialised and live across the call.
        let code = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const waited, &raw mut previous_mask)
        };
        if code != 0 {
            return Err(io::Error::from_raw_os_error(code));
        }
        Ok(Self {
            waited,
            previous_mask,
            dispositions,
        })
    }

    /// Sleeps until one of the signals comes or the time is over (`None`); without a time until
    /// one comes.
    ///
    /// # Errors
    /// When the kernel refuses, which it has no reason to.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<Received>> {
        // SAFETY: all-zero is a valid value of this plain C struct.
        let mut information: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let limit = timeout.map(|time| libc::timespec {
            tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the set is initialised, `information` writable, `limit` null or a live timespec.
        let number =
            unsafe { libc::sigtimedwait(&raw const self.waited, &raw mut information, limit) };
        if number < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                // EINTR: stopped and continued. The caller looks at the clock in any case.
                Some(libc::EAGAIN | libc::EINTR) => Ok(None),
                _ => Err(error),
            };
        }
        // Positive codes are the kernel's own; all others come from a process.
        // SAFETY: a signal sent by a process carries its pid in this union.
        let sender = (information.si_code <= 0).then(|| unsafe { information.si_pid() });
        Ok(Some(Received { number, sender }))
    }

    /// Gives mask and dispositions back in a forked child that is about to `exec`.
    ///
    /// Async-signal-safe: nothing but system calls.
    pub(crate) fn restore_in_child(&self) {
        for disposition in &self.dispositions {
            disposition.restore();
        }
        // The Rust runtime ignores SIGPIPE before `main`; every other program expects the default.
        // SAFETY: setting the default disposition has no preconditions.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        self.restore_mask();
    }

    fn restore_mask(&self) {
        // SAFETY: the set was filled in by the kernel.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.previous_mask,
                std::ptr::null_mut(),
            )
        };
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.restore_mask();
    }
}

/// A changed disposition, changed back on drop.
pub(crate) struct Disposition {
    signal: c_int,
    previous: libc::sigaction,
}

impl std::fmt::Debug for Disposition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Disposition")
            .field(&self.signal)
            .finish()
    }
}

/// Makes a write past the file size limit an error instead of our death.
pub(crate) fn ignore_file_size_limit() -> io::Result<Disposition> {
    Disposition::set(libc::SIGXFSZ, libc::SIG_IGN)
}

impl Disposition {
    /// `handler` is `SIG_DFL` or `SIG_IGN`.
    fn set(signal: c_int, handler: libc::sighandler_t) -> io::Result<Self> {
        // SAFETY: all-zero is a valid value of this plain C struct: no flags, an empty mask.
        let (mut wanted, mut previous): (libc::sigaction, libc::sigaction) =
            unsafe { std::mem::zeroed() };
        wanted.sa_sigaction = handler;
        // SAFETY: no code of ours is entered by these handlers; both structs are live.
        if unsafe { libc::sigaction(signal, &raw const wanted, &raw mut previous) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { signal, previous })
    }

    /// Async-signal-safe.
    fn restore(&self) {
        // SAFETY: the action was filled in by the kernel for this very signal.
        unsafe { libc::sigaction(self.signal, &raw const self.previous, std::ptr::null_mut()) };
    }
}

impl Drop for Disposition {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Sends a signal to a process that the caller has started and not yet waited for.
pub(crate) fn send(pid: libc::pid_t, signal: c_int) {
    // SAFETY: the pid is that of an unreaped child, so it cannot belong to anyone else. A failure
    // means that the child is dead already, which the next wait tells.
    unsafe { libc::kill(pid, signal) };
}

/// Ends this process by the signal that ended the program, so that whoever waits for us sees the
/// truth. Returns when the signal does not kill (the first process of a container).
pub(crate) fn die_by(signal: c_int) {
    let no_core = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let mut only = empty_set();
    // SAFETY: plain system calls on initialised values. The core of interest is the program's.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
        libc::signal(signal, libc::SIG_DFL);
        libc::sigaddset(&raw mut only, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut());
        libc::kill(libc::getpid(), signal);
    }
}

fn empty_set() -> libc::sigset_t {
    // SAFETY: all-zero is a valid value of this plain C type, and is made the empty set below.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a writable set.
    unsafe { libc::sigemptyset(&raw mut set) };
    set
}
