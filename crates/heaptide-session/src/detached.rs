//! Starting a program that is not the child of this process, in a process that knows nothing of it.
//!
//! ```text
//! this process ──▶ a middle one ──▶ the program
//! ```
//!
//! The middle one ends at once, so the program is given to init. It is made to send no signal when it ends, and such a child is seen by nobody
//! who waits for any child: only by us, who ask for it by its number and kind. No `pthread_atfork` handler runs, and no memory is copied: both
//! borrow ours while the calling thread waits.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{c_char, c_int, c_void, pid_t};

use crate::system::c_string;

/// Each of the two runs a handful of system calls.
const STACK_BYTES: usize = 64 << 10;

/// What both read, made before them.
struct Launch {
    program: CString,
    argument_pointers: Vec<*const c_char>,
    environment_pointers: [*const c_char; 1],
    input: RawFd,
    /// The top of the second stack.
    stack: *mut c_void,
    /// Of the process that became the program.
    pid: pid_t,
    /// What went wrong, or 0.
    error: c_int,
}

/// Starts `program` in a session of its own, with no environment, every signal blocked and `/` as its directory. Its standard input is `input`, its other
/// standard streams are `/dev/null`; what else is open without being closed on exec it inherits and has to close. Returns its process id.
///
/// # Errors
/// When it cannot be made or executed.
pub(crate) fn start(program: &Path, arguments: &[&OsStr], input: &OwnedFd) -> io::Result<pid_t> {
    let program = c_string(program.as_os_str().as_bytes())?;
    let texts = arguments
        .iter()
        .map(|text| c_string(text.as_bytes()))
        .collect::<io::Result<Vec<_>>>()?;
    let mut argument_pointers: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
    argument_pointers.push(std::ptr::null());
    let (mut first, mut second) = (
        vec![0_u128; STACK_BYTES / 16],
        vec![0_u128; STACK_BYTES / 16],
    );
    let mut launch = Launch {
        program,
        argument_pointers,
        environment_pointers: [std::ptr::null()],
        input: input.as_raw_fd(),
        stack: second.as_mut_ptr_range().end.cast(),
        pid: 0,
        error: 0,
    };
    let before = block_signals();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK;
    let top = first.as_mut_ptr_range().end.cast();
    // SAFETY: the stack is ours and aligned, and this thread does not run before the child has ended; `launch` outlives it.
    let middle = unsafe { libc::clone(be_in_the_middle, top, flags, (&raw mut launch).cast()) };
    let error = io::Error::last_os_error();
    if middle > 0 {
        // SAFETY: that child, which no other wait takes; the status is not wanted.
        while unsafe { libc::waitpid(middle, std::ptr::null_mut(), libc::__WCLONE) } < 0
            && io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
        {}
    }
    restore_signals(&before);
    drop((texts, first, second));
    match (middle, launch.error) {
        (..=0, _) => Err(error),
        (_, 0) => Ok(launch.pid),
        (_, code) => Err(io::Error::from_raw_os_error(code)),
    }
}

extern "C" fn be_in_the_middle(launch: *mut c_void) -> c_int {
    let launch: *mut Launch = launch.cast();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: `launch` is valid and nobody else runs; the second stack is not in use; the signal is for us only, and blocked.
    unsafe {
        let pid = libc::clone(become_program, (*launch).stack, flags, launch.cast());
        if pid < 0 {
            (*launch).error = *libc::__errno_location();
        } else {
            (*launch).pid = pid;
        }
        if pid > 0 && (*launch).error != 0 {
            // It could not, and nobody is to find it.
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
    }
    0
}

extern "C" fn become_program(launch: *mut c_void) -> c_int {
    let launch: *mut Launch = launch.cast();
    // SAFETY: `launch` is valid and nobody else runs; the descriptors are this process's own copies; paths and arrays end as they should.
    unsafe {
        libc::setsid();
        let here = libc::dup2((*launch).input, 0) == 0 && libc::chdir(c"/".as_ptr()) == 0;
        // Not closed on exec where it is one of the three already; else whoever closes what it inherits does so.
        let nowhere = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        if here && nowhere >= 0 && libc::dup2(nowhere, 1) == 1 && libc::dup2(nowhere, 2) == 2 {
            libc::execve(
                (*launch).program.as_ptr(),
                (*launch).argument_pointers.as_ptr(),
                (*launch).environment_pointers.as_ptr(),
            );
        }
        (*launch).error = *libc::__errno_location();
    }
    127
}

/// No handler of this process may run in the other two: they have its memory.
fn block_signals() -> libc::sigset_t {
    // SAFETY: all-zero is a valid value of this plain C struct, and both sets are written before they are read.
    unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

fn restore_signals(before: &libc::sigset_t) {
    // SAFETY: a set that was this thread's mask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn run(script: &str, program: &str) -> io::Result<String> {
        let (mut ours, theirs) = UnixStream::pair()?;
        let theirs = OwnedFd::from(theirs);
        let arguments = ["sh", "-c", script, "sh"].map(OsStr::new);
        let pid = start(Path::new(program), &arguments, &theirs)?;
        assert!(pid > 0);
        drop(theirs);
        let mut text = String::new();
        ours.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn the_program_is_nobody_s_child_and_has_nothing_of_ours() {
        // Its standard input is a socket, to which it writes what it finds.
        let script = "streams=$(readlink /proc/$$/fd/1 /proc/$$/fd/2); \
            { echo $PPID; pwd; echo \"$streams\"; echo \"${HOME-none}\"; \
            cut -d' ' -f6 /proc/$$/stat; echo $$; } >&0";
        let text = run(script, "/bin/sh").unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_ne!(lines[0], std::process::id().to_string(), "{text}");
        assert_eq!(
            lines[1..5],
            ["/", "/dev/null", "/dev/null", "none"],
            "{text}"
        );
        assert_eq!(lines[5], lines[6], "a session of its own: {text}");
        let pid: pid_t = lines[6].parse().unwrap();
        // SAFETY: the status is not wanted.
        let waited = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
        assert_eq!(waited, -1, "no child");
    }

    #[test]
    fn what_cannot_be_executed_is_told_and_leaves_nobody() {
        let error = run("", "/bin/no such program").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = run("", "/etc/passwd").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
