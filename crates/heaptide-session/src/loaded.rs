//! The agent, loaded into this process, and its functions.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::agent::{self, AgentSource, Places};
use crate::inside::Prepared;
use crate::port::Port;
use crate::{SessionError, system};

/// The version of the interface that is spoken here.
const ABI: u32 = 2;
const FOLLOW_FORKS: u32 = 1;
/// Of `heaptide_stop`: done, but tracking had ended before.
const ENDED_EARLY: i32 = 12;

/// `struct heaptide_config`
#[repr(C)]
struct Config {
    bytes: u32,
    flags: u32,
    frames_below: u32,
    os_error: i32,
    path: *const libc::c_char,
    cgroup_usage: *const libc::c_char,
    cgroup_limit: *const libc::c_char,
}

type Start = unsafe extern "C" fn(*mut Config) -> i32;
// By unwinding ends a thread that wants the GIL of an interpreter that is finalised, before Python 3.14.
type Stop = unsafe extern "C-unwind" fn() -> i32;
type Survivors = unsafe extern "C" fn() -> *mut libc::c_void;
type State = unsafe extern "C" fn() -> i32;
type Serve = unsafe extern "C" fn(i32, i32, i32) -> i32;
type Farewell = unsafe extern "C" fn();

/// The loaded agent. It stays for as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct Agent {
    start: Start,
    stop: Stop,
    survivors: Survivors,
    state: State,
    /// Agents before these have the same version of the interface.
    serve: Option<(Serve, Farewell)>,
}

/// Where tracking stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentState {
    /// It can be started.
    Idle,
    /// It is on.
    Tracking,
    /// It has ended by itself, and waits to be stopped.
    Ended,
    /// Somebody starts or stops it, or a thread has not left a hook of the last stretch.
    Changing,
    /// `heaptide run` does it.
    Supervised,
    /// It cannot be started in this process any more.
    Unusable,
}

/// Why tracking was not started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is on.
    #[error("tracking is on already")]
    AlreadyTracking,
    /// The program was started by `heaptide run`.
    #[error("the program runs under `heaptide run`, which tracks all of it")]
    Supervised,
    /// It is off.
    #[error("tracking is not on")]
    NotTracking,
    /// Another thread is at it, or one is still in a hook.
    #[error("tracking is being started or stopped by another thread")]
    Busy,
    /// The agent is of another version.
    #[error("the agent is of another version")]
    Version,
    /// Called without the GIL.
    #[error("tracking can be started and stopped with the GIL only")]
    NoGil,
    /// The agent cannot read this interpreter.
    #[error("this interpreter cannot be tracked")]
    UnsupportedPython,
    /// The capture cannot be opened, mapped or grown.
    #[error("the capture cannot be used: {}", crate::plain(.0))]
    Capture(io::Error),
    /// The capture is another process's, or was used before.
    #[error("the capture was used before, or was made by another process")]
    ForeignCapture,
    /// No memory, no thread.
    #[error("out of memory or threads")]
    NoResources,
    /// A bug was caught, or this is a child that was forked in the middle of an event.
    #[error("this process cannot be tracked any more")]
    Unusable,
    /// The lives of objects were asked for, and somebody else watches them.
    #[error(
        "something else traces Python objects (tracemalloc, or another tool), and there can be one at a time: stop it first"
    )]
    OtherTracer,
    /// A code of a later agent.
    #[error("the agent answers {0}")]
    Unknown(i32),
}

impl Refusal {
    fn of(code: i32, os_error: i32) -> Self {
        match code {
            1 => Self::AlreadyTracking,
            2 => Self::Supervised,
            3 => Self::NotTracking,
            4 => Self::Busy,
            5 => Self::Version,
            6 => Self::NoGil,
            7 => Self::UnsupportedPython,
            8 => Self::Capture(io::Error::from_raw_os_error(os_error)),
            9 => Self::ForeignCapture,
            10 => Self::NoResources,
            11 => Self::Unusable,
            13 => Self::OtherTracer,
            other => Self::Unknown(other),
        }
    }
}

/// How tracking was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was on until now.
    Now,
    /// It had ended before; the capture says why ([`Prepared::lifecycle`]).
    Early,
}

impl Agent {
    /// The agent of this process: the one that is there (under `heaptide run`, or loaded before), else that of `source`.
    ///
    /// # Errors
    /// [`SessionError::Agent`], [`SessionError::AgentLoad`]
    pub fn load(source: AgentSource<'_>, places: &Places) -> Result<Self, SessionError> {
        // SAFETY: the default scope needs no handle.
        if let Some(agent) = unsafe { Self::found_in(libc::RTLD_DEFAULT) }? {
            return Ok(agent);
        }
        let placed = agent::place(source, places)?;
        // What goes with `placed` is only its name.
        Self::open(placed.path())
    }

    fn open(path: &Path) -> Result<Self, SessionError> {
        let name = system::c_string(path.as_os_str().as_bytes())
            .map_err(|error| SessionError::AgentLoad(crate::plain(&error)))?;
        let flags = libc::RTLD_NOW | libc::RTLD_GLOBAL | libc::RTLD_NODELETE;
        // SAFETY: a NUL-terminated path; the constructor of the agent does nothing in a running interpreter.
        let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
        if handle.is_null() {
            return Err(SessionError::AgentLoad(last_loader_error()));
        }
        // SAFETY: the handle was just made and is never closed.
        unsafe { Self::found_in(handle) }?
            .ok_or_else(|| SessionError::AgentLoad("it is no agent".to_owned()))
    }

    /// # Safety
    /// `scope` is a handle that is never closed.
    unsafe fn found_in(scope: *mut libc::c_void) -> Result<Option<Self>, SessionError> {
        // SAFETY: the caller's promise, and NUL-terminated names.
        let find = |name: &CStr| unsafe { libc::dlsym(scope, name.as_ptr()) };
        let functions = [
            c"heaptide_abi",
            c"heaptide_start",
            c"heaptide_stop",
            c"heaptide_survivors",
            c"heaptide_state",
        ];
        let [abi, start, stop, survivors, state] = functions.map(find);
        if abi.is_null() {
            return Ok(None);
        }
        // SAFETY: the name is ours, and its type the same in all versions.
        let abi = unsafe {
            std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn() -> u32>(abi)()
        };
        let functions = [start, stop, survivors, state];
        if abi != ABI || functions.iter().any(|function| function.is_null()) {
            return Err(SessionError::AgentLoad(format!(
                "it speaks version {abi} of the interface, and this is {ABI}"
            )));
        }
        let [serve, farewell] = [c"heaptide_serve", c"heaptide_farewell"].map(find);
        let serves = !serve.is_null() && !farewell.is_null();
        // SAFETY: these are their types in this version.
        unsafe {
            let serve = serves.then(|| {
                (
                    std::mem::transmute::<*mut libc::c_void, Serve>(serve),
                    std::mem::transmute::<*mut libc::c_void, Farewell>(farewell),
                )
            });
            Ok(Some(Self {
                start: std::mem::transmute::<*mut libc::c_void, Start>(start),
                stop: std::mem::transmute::<*mut libc::c_void, Stop>(stop),
                survivors: std::mem::transmute::<*mut libc::c_void, Survivors>(survivors),
                state: std::mem::transmute::<*mut libc::c_void, State>(state),
                serve,
            }))
        }
    }

    /// As [`Agent::start`], and serves the capture to whoever connects to `port` while tracking is on. The agent copies the
    /// descriptors, so `port` may be closed afterwards.
    ///
    /// # Errors
    /// As [`Agent::start`]; nothing is served then.
    ///
    /// # Safety
    /// The calling thread holds the GIL.
    pub unsafe fn start_serving(
        &self,
        capture: &Prepared,
        frames_below: u32,
        port: &Port,
    ) -> Result<(), Refusal> {
        let (serve, _) = self.serve.ok_or(Refusal::Version)?;
        let [listener, reader] = port.descriptors();
        // SAFETY: all of them are open; the GIL is the caller's promise.
        match unsafe { serve(capture.file().as_raw_fd(), listener, reader) } {
            0 => {}
            code => return Err(Refusal::of(code, 0)),
        }
        // SAFETY: the caller's promise.
        let started = unsafe { self.start(capture, frames_below) };
        if started.is_err() {
            // SAFETY: the caller's promise. It has nothing to say about what is given up.
            unsafe { serve(-1, -1, -1) };
        }
        started
    }

    /// After [`Agent::stop`], where readers were served: tells them that tracking has ended, and waits until they have read what
    /// was there at the end. Two seconds at most for one that does nothing, ten for all; let the GIL go.
    pub fn farewell(&self) {
        if let Some((_, farewell)) = self.serve {
            // SAFETY: takes nothing, may be called at any time.
            unsafe { farewell() };
        }
    }

    /// Where tracking stands.
    #[must_use]
    pub fn state(&self) -> AgentState {
        // SAFETY: takes nothing, may be called at any time.
        match unsafe { (self.state)() } {
            0 => AgentState::Idle,
            1 => AgentState::Tracking,
            2 => AgentState::Ended,
            3 => AgentState::Changing,
            4 => AgentState::Supervised,
            _ => AgentState::Unusable,
        }
    }

    /// Starts tracking. `frames_below`: how many Python frames of this thread are none of the user's business, since they
    /// stand below the one that asked for it.
    ///
    /// # Errors
    /// Nothing has changed, and the capture is unused, but for [`Refusal::Capture`].
    ///
    /// # Safety
    /// The calling thread holds the GIL.
    pub unsafe fn start(&self, capture: &Prepared, frames_below: u32) -> Result<(), Refusal> {
        let text =
            |path: &Path| system::c_string(path.as_os_str().as_bytes()).map_err(Refusal::Capture);
        let path = text(capture.path())?;
        let cgroup = match capture.cgroup_files() {
            Some((usage, limit)) => Some((text(usage)?, text(limit)?)),
            None => None,
        };
        let pointer = |text: Option<&CString>| text.map_or(std::ptr::null(), |text| text.as_ptr());
        let mut config = Config {
            bytes: u32::try_from(size_of::<Config>()).unwrap_or_default(),
            flags: if capture.follows_fork() {
                FOLLOW_FORKS
            } else {
                0
            },
            frames_below,
            os_error: 0,
            path: path.as_ptr(),
            cgroup_usage: pointer(cgroup.as_ref().map(|(usage, _)| usage)),
            cgroup_limit: pointer(cgroup.as_ref().map(|(_, limit)| limit)),
        };
        // SAFETY: the configuration is what it says, with texts that outlive the call; the GIL is the caller's promise.
        match unsafe { (self.start)(&raw mut config) } {
            0 => Ok(()),
            code => Err(Refusal::of(code, config.os_error)),
        }
    }

    /// Stops tracking. Other threads run meanwhile, as the GIL is let go while hooks are waited for.
    ///
    /// # Errors
    /// Tracking was not on, or not for us to stop.
    ///
    /// # Safety
    /// The calling thread holds the GIL.
    pub unsafe fn stop(&self) -> Result<Stopped, Refusal> {
        // SAFETY: the caller's promise.
        match unsafe { (self.stop)() } {
            0 => Ok(Stopped::Now),
            ENDED_EARLY => Ok(Stopped::Early),
            code => Err(Refusal::of(code, 0)),
        }
    }

    /// The Python objects that were made in the stretch that was just stopped and were alive at its end: a new reference to a
    /// list. `None`: that was not recorded, cannot be told, or was asked before.
    ///
    /// # Safety
    /// The calling thread holds the GIL.
    #[must_use]
    pub unsafe fn survivors(&self) -> Option<std::ptr::NonNull<libc::c_void>> {
        // SAFETY: the caller's promise.
        std::ptr::NonNull::new(unsafe { (self.survivors)() })
    }
}

fn last_loader_error() -> String {
    // SAFETY: after a call of `dlopen` that failed on this thread.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the loader does not say why".to_owned();
    }
    // SAFETY: a C string that stays until the next call of this kind.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_agent_is_said_to_be_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.so");
        std::fs::write(&path, "x").unwrap();
        let error = Agent::load(AgentSource::File(&path), &Places::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("cannot load the agent: "), "{text}");
        assert!(error.hint().is_some());
    }

    #[test]
    fn codes_have_words() {
        for code in 1..=13 {
            assert!(!Refusal::of(code, libc::ENOSPC).to_string().is_empty());
        }
        assert_eq!(
            Refusal::of(8, libc::ENOSPC).to_string(),
            "the capture cannot be used: No space left on device"
        );
    }
}
