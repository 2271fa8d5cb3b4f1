//! Fork and exec with a pause between: the child exists, and so has its process id, but waits for
//! the capture to be made before it becomes the program.
//!
//! The parent makes everything (files, strings, the environment). The child only reads, restores
//! signals and calls `execve`, all of which is async-signal-safe, so forking is sound even when the
//! calling process has other threads.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use libc::{c_char, c_int, pid_t};

use crate::SessionError;
use crate::signals::Signals;
use crate::standard_streams;
use crate::system::c_string;
use crate::target::Program;

/// The variable that tells the agent what to do.
pub(crate) const SESSION_VARIABLE: &str = "HEAPTIDE_SESSION";
const PRELOAD_VARIABLE: &str = "LD_PRELOAD";

/// The variable that tells it which other processes to record.
const FOLLOW_VARIABLE: &str = "HEAPTIDE_FOLLOW";

/// Room for both variables behind their length: names, numbers and a path of `PATH_MAX` each.
const SESSION_ENTRY_BYTES: usize = 16384;
const LENGTH_BYTES: usize = 4;

/// A child that waits for [`Suspended::run`]. Dropped instead, it ends without a trace.
#[derive(Debug)]
pub(crate) struct Suspended {
    pid: pid_t,
    /// Takes the session's variable, which lets the child go.
    go: Option<File>,
    /// Gives the `errno` of a failed exec, or ends when the exec succeeded.
    failure: File,
}

/// All that the child needs, made before the fork.
struct Image {
    executable: CString,
    _arguments: Vec<CString>,
    _environment: Vec<CString>,
    argument_pointers: Vec<*const c_char>,
    environment_pointers: Vec<*const c_char>,
    /// Where in `environment_pointers` the session's variables go: this place and the next.
    session_slot: usize,
    session_entry: Vec<u8>,
}

impl Image {
    fn new(program: &Program, agent: &OsStr) -> io::Result<Self> {
        let executable = c_string(program.executable.as_os_str().as_bytes())?;
        let arguments = program
            .arguments
            .iter()
            .map(|text| c_string(text.as_bytes()))
            .collect::<io::Result<Vec<_>>>()?;
        let environment = environment(std::env::vars_os(), agent)?;
        let mut argument_pointers: Vec<_> = arguments.iter().map(|text| text.as_ptr()).collect();
        argument_pointers.push(std::ptr::null());
        let mut environment_pointers: Vec<_> =
            environment.iter().map(|text| text.as_ptr()).collect();
        let session_slot = environment_pointers.len();
        environment_pointers.extend([std::ptr::null(); 3]);
        Ok(Self {
            executable,
            _arguments: arguments,
            _environment: environment,
            argument_pointers,
            environment_pointers,
            session_slot,
            session_entry: vec![0; SESSION_ENTRY_BYTES],
        })
    }
}

/// The program's environment without the session's variable: ours, with the agent preloaded before
/// whatever was preloaded already.
fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
    agent: &OsStr,
) -> io::Result<Vec<CString>> {
    let mut preload = agent.to_owned();
    let mut entries = Vec::new();
    for (name, value) in variables {
        if name == PRELOAD_VARIABLE {
            if !value.is_empty() {
                preload.push(":");
                preload.push(value);
            }
        } else if name != SESSION_VARIABLE && name != FOLLOW_VARIABLE {
            entries.push(entry(&name, &value)?);
        }
    }
    entries.push(entry(OsStr::new(PRELOAD_VARIABLE), &preload)?);
    Ok(entries)
}

fn entry(name: &OsStr, value: &OsStr) -> io::Result<CString> {
    c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat())
}

impl Suspended {
    /// Forks.
    pub(crate) fn fork(
        program: &Program,
        agent: &OsStr,
        signals: &Signals,
    ) -> Result<Self, SessionError> {
        let failed = |what| move |source| SessionError::System { what, source };
        let mut image = Image::new(program, agent).map_err(|source| SessionError::Exec {
            program: program.executable.clone(),
            source,
        })?;
        let (go_read, go_write) = pipe().map_err(failed("pipe"))?;
        let (failure_read, failure_write) = pipe().map_err(failed("pipe"))?;
        // SAFETY: the child does nothing but async-signal-safe calls on memory made before the
        // fork, and never returns from `become_program`.
        match unsafe { libc::fork() } {
            0 => {
                // Held open here, the write end would keep the end of the supervisor from us.
                // SAFETY: this process's own copy, which nothing uses any more.
                unsafe { libc::close(go_write.as_raw_fd()) };
                become_program(
                    &mut image,
                    signals,
                    go_read.into_raw_fd(),
                    failure_write.into_raw_fd(),
                )
            }
            pid if pid > 0 => Ok(Self {
                pid,
                go: Some(go_write.into()),
                failure: failure_read.into(),
            }),
            _ => Err(SessionError::System {
                what: "fork",
                source: io::Error::last_os_error(),
            }),
        }
    }

    /// Process id of the child, and so of the program.
    pub(crate) fn pid(&self) -> pid_t {
        self.pid
    }

    /// Lets the child become the program and returns when it has.
    pub(crate) fn run(
        mut self,
        program: &Program,
        session: &[u8],
        follow: Option<&[u8]>,
    ) -> Result<pid_t, SessionError> {
        let failed = |source| SessionError::Exec {
            program: program.executable.clone(),
            source,
        };
        let mut entry = vec![0; LENGTH_BYTES];
        entry.extend([SESSION_VARIABLE.as_bytes(), b"=", session, b"\0"].concat());
        if let Some(follow) = follow {
            entry.extend([FOLLOW_VARIABLE.as_bytes(), b"=", follow, b"\0"].concat());
        }
        let length = u32::try_from(entry.len()).unwrap_or_default();
        entry[..LENGTH_BYTES].copy_from_slice(&length.to_ne_bytes());
        if entry.len() > SESSION_ENTRY_BYTES {
            return Err(failed(io::Error::from_raw_os_error(libc::ENAMETOOLONG)));
        }
        if let Some(mut go) = self.go.take() {
            // A child that was killed meanwhile reads nothing; waiting for it tells how it ended.
            match go.write_all(&entry) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        let mut code = [0; 4];
        match self.failure.read_exact(&mut code) {
            Ok(()) => Err(failed(io::Error::from_raw_os_error(i32::from_ne_bytes(
                code,
            )))),
            Err(_) => {
                let pid = self.pid;
                std::mem::forget(self);
                Ok(pid)
            }
        }
    }
}

impl Drop for Suspended {
    /// The child sees the end of the pipe and exits; it is waited for here.
    fn drop(&mut self) {
        self.go = None;
        // SAFETY: our own child; the status is not wanted.
        while unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) } < 0
            && io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
        {}
    }
}

/// The child's whole life before the exec.
fn become_program(image: &mut Image, signals: &Signals, go: c_int, failure: c_int) -> ! {
    if receive(go, &mut image.session_entry) {
        place_variables(image);
        signals.restore_in_child();
        standard_streams::close_again();
        // SAFETY: both arrays end in a null pointer, and all they point to is owned by `image`.
        unsafe {
            libc::execve(
                image.executable.as_ptr(),
                image.argument_pointers.as_ptr(),
                image.environment_pointers.as_ptr(),
            );
        }
        // SAFETY: after a failed call the address of this thread's errno is valid.
        let code = unsafe { *libc::__errno_location() }.to_ne_bytes();
        // SAFETY: four readable bytes. If the parent is gone there is nobody to tell.
        unsafe { libc::write(failure, code.as_ptr().cast(), code.len()) };
    }
    // SAFETY: ends the process at once; the parent's buffers and exit handlers must not run here.
    unsafe { libc::_exit(127) }
}

/// Points the free places of the environment to what was received: one string, or two.
fn place_variables(image: &mut Image) {
    let length = message_bytes(&image.session_entry);
    let texts = &image.session_entry[LENGTH_BYTES..length.max(LENGTH_BYTES)];
    let mut start = 0;
    for slot in image.session_slot..image.session_slot + 2 {
        let Some(end) = texts[start..].iter().position(|&byte| byte == 0) else {
            return;
        };
        image.environment_pointers[slot] = texts[start..].as_ptr().cast();
        start += end + 1;
    }
}

/// How long the message says it is, at most the buffer.
fn message_bytes(buffer: &[u8]) -> usize {
    let mut length = [0; LENGTH_BYTES];
    length.copy_from_slice(&buffer[..LENGTH_BYTES]);
    (u32::from_ne_bytes(length) as usize).min(buffer.len())
}

/// Reads a whole message; false when the parent changed its mind or is gone.
fn receive(descriptor: c_int, buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    while filled < buffer.len() {
        let room = &mut buffer[filled..];
        // SAFETY: writable for the length given.
        let count = unsafe { libc::read(descriptor, room.as_mut_ptr().cast(), room.len()) };
        match usize::try_from(count) {
            Ok(0) => return false,
            Ok(count) => {
                filled += count;
                if filled >= LENGTH_BYTES && filled >= message_bytes(buffer) {
                    return true;
                }
            }
            // SAFETY: after a failed call the address of this thread's errno is valid.
            Err(_) if unsafe { *libc::__errno_location() } == libc::EINTR => {}
            Err(_) => return false,
        }
    }
    false
}

/// A pipe that no program inherits.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: two new descriptors that nobody else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn entries(variables: &[(&str, &str)]) -> Vec<String> {
        let variables = variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let entries = environment(variables, OsStr::new("/agent.so")).unwrap();
        entries
            .into_iter()
            .map(|entry| entry.into_string().unwrap())
            .collect()
    }

    #[test]
    fn what_was_preloaded_stays_preloaded() {
        assert_eq!(entries(&[("A", "1")]), ["A=1", "LD_PRELOAD=/agent.so"]);
        assert_eq!(
            entries(&[("LD_PRELOAD", "/x.so /y.so")]),
            ["LD_PRELOAD=/agent.so:/x.so /y.so"]
        );
        assert_eq!(entries(&[("LD_PRELOAD", "")]), ["LD_PRELOAD=/agent.so"]);
        assert_eq!(
            entries(&[("HEAPTIDE_SESSION", "1;2;3;/old")]),
            ["LD_PRELOAD=/agent.so"]
        );
    }

    fn program(executable: &str, arguments: &[&str]) -> Program {
        let arguments = arguments.iter().map(OsString::from).collect();
        Program {
            executable: PathBuf::from(executable),
            arguments,
        }
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let signals = Signals::take_over().unwrap();
        let suspended =
            Suspended::fork(&program("/bin/true", &["true"]), OsStr::new(""), &signals).unwrap();
        let pid = suspended.pid();
        drop(suspended);
        // SAFETY: signal 0 asks whether the process exists.
        assert_eq!(unsafe { libc::kill(pid, 0) }, -1);
    }

    #[test]
    fn a_failed_exec_is_told() {
        let signals = Signals::take_over().unwrap();
        let program = program("/nonexistent/program", &["program"]);
        let suspended = Suspended::fork(&program, OsStr::new(""), &signals).unwrap();
        let error = suspended.run(&program, b"1;0;0;/x", None).unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
    }

    #[test]
    fn the_program_gets_its_variable() {
        let signals = Signals::take_over().unwrap();
        let program = program(
            "/bin/sh",
            &[
                "sh",
                "-c",
                "test \"$HEAPTIDE_SESSION $HEAPTIDE_FOLLOW\" = '1;2;3;/a b;c 1;3;/d' && exit 42",
            ],
        );
        let suspended = Suspended::fork(&program, OsStr::new(""), &signals).unwrap();
        let pid = suspended
            .run(&program, b"1;2;3;/a b;c", Some(b"1;3;/d"))
            .unwrap();
        let mut status = 0;
        // SAFETY: our own child, a writable status.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(libc::WEXITSTATUS(status), 42);
    }
}
