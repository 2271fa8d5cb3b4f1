//! Child processes that cannot hang a test.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest time that any child may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// A child that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// stderr as text.
    #[must_use]
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// stdout as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails the test unless the child ended with exit code 0.
    #[track_caller]
    pub fn expect_success(&self, what: &str) -> &Self {
        assert!(
            self.status.success(),
            "{what}: {}\n{}{}",
            self.status,
            self.text(),
            self.errors()
        );
        self
    }

    /// Exit code, or 1000 + the signal: one number to compare.
    #[must_use]
    pub fn ending(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 1000 + self.status.signal().expect("exit or signal"))
    }
}

/// A child that runs, in a process group of its own.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    started: Instant,
    deadline: Duration,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Allows more time than usual.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Its stdin, if it was piped.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_some()
    }

    /// Waits for the end. Fails the test when it takes too long.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let status = self.wait();
        let collect = |pipe: &mut Option<JoinHandle<Vec<u8>>>| {
            pipe.take()
                .map_or_else(Vec::new, |thread| thread.join().expect("a reader"))
        };
        let (stdout, stderr) = (collect(&mut self.stdout), collect(&mut self.stderr));
        match status {
            Some(status) => Finished {
                status,
                stdout,
                stderr,
            },
            None => panic!(
                "still running after {:?}:\n{}{}",
                self.deadline,
                String::from_utf8_lossy(&stdout),
                String::from_utf8_lossy(&stderr)
            ),
        }
    }

    /// The status, or `None` when the deadline passed and all of the group was killed.
    fn wait(&mut self) -> Option<ExitStatus> {
        // SAFETY: pidfd_open takes two integers; the child is not reaped yet, so the pid is ours.
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, self.child.id(), 0) };
        let mut poll = libc::pollfd {
            fd: i32::try_from(descriptor).expect("a descriptor"),
            events: libc::POLLIN,
            revents: 0,
        };
        let left = self.deadline.saturating_sub(self.started.elapsed());
        let milliseconds = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid pollfd; closed here, where it was opened.
        let ready = unsafe {
            let ready = libc::poll(&raw mut poll, 1, milliseconds);
            libc::close(poll.fd);
            ready
        };
        if ready == 1 {
            return Some(self.child.wait().expect("wait"));
        }
        kill(-i32::try_from(self.pid()).expect("a pid"), libc::SIGKILL);
        self.child.wait().expect("wait");
        None
    }
}

/// Starts a child with piped stdout and stderr, in a process group of its own.
#[track_caller]
pub fn spawn(command: &mut Command) -> Running {
    // SAFETY: `signal` may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // `nohup` and shells have them ignored in what runs in the background, and programs inherit that.
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
    let mut child = command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    fn reader(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).expect("read a pipe");
            bytes
        })
    }
    let stdout = child.stdout.take().map(reader);
    let stderr = child.stderr.take().map(reader);
    Running {
        child,
        stdout,
        stderr,
        started: Instant::now(),
        deadline: DEADLINE,
    }
}

/// Runs a child to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Finished {
    command.stdin(Stdio::null());
    spawn(command).finish()
}

/// Kills a process that is not our child, and waits until it is gone.
pub fn kill_stranger(pid: i32) {
    // SAFETY: pidfd_open takes two integers; one valid pollfd; what is opened here is closed here.
    unsafe {
        let descriptor = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        libc::kill(pid, libc::SIGKILL);
        if let Ok(fd @ 0..) = i32::try_from(descriptor) {
            let mut poll = libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            };
            libc::poll(&raw mut poll, 1, -1);
            libc::close(fd);
        }
    }
}

/// Sends a signal; a negative pid means the process group.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: two integers.
    unsafe { libc::kill(pid, signal) };
}
