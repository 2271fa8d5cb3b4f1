//! `Tracking`: a stretch of this process that is recorded, for `Tracker`.
#![allow(
    unsafe_code,
    reason = "the agent wants a promise that the GIL is held, and `Python` is the proof of it"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use heaptide_embedded_agent::AGENT;
use heaptide_format::Mode;
use heaptide_session::SessionError;
use heaptide_session::agent::{AgentSource, Places};
use heaptide_session::buffered::{Arrival, Writer};
use heaptide_session::inside::{Prepared, Wanted, compress, compress_children};
use heaptide_session::loaded::{Agent, AgentState, Refusal, Stopped};
use heaptide_session::port::{Listening, Port, PortError};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;

/// As many frames as `heaptide run` keeps.
const STACK_NODE_BUDGET: u32 = 1_000_000;

/// A capture, and the agent that writes it.
#[pyclass(frozen, module = "heaptide._heaptide")]
pub(crate) struct Tracking {
    agent: Agent,
    /// Waited for without the GIL: who holds it may let that go.
    prepared: Mutex<Prepared>,
    destination: PathBuf,
    keeps_nothing: bool,
    follow_fork: bool,
    /// For readers; gone when the agent has it. Held as `prepared`.
    port: Mutex<Option<Port>>,
    serves: bool,
    /// Of a capture that is written by a process of its own; gone when that has done its work. Held as `prepared`.
    writer: Mutex<Option<Writer>>,
}

#[pymethods]
impl Tracking {
    /// Makes the capture, and loads the agent if it is not there yet. With `listen`, an address and a port, the capture has no path and is
    /// served there; the first reader is waited for. With `writer`, the path of the `heaptide` program, the capture is not mapped there, and written by
    /// a process of its own.
    #[new]
    #[pyo3(signature = (path, *, listen, writer, overwrite, aggregated, memory_interval_ms, native_stacks, trace_python_allocators, track_object_lifetimes, follow_fork, arguments, executable))]
    #[expect(
        clippy::too_many_arguments,
        reason = "they are keywords, named by the only caller"
    )]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        listen: Option<(String, u16)>,
        writer: Option<PathBuf>,
        overwrite: bool,
        aggregated: bool,
        memory_interval_ms: u32,
        native_stacks: bool,
        trace_python_allocators: bool,
        track_object_lifetimes: bool,
        follow_fork: bool,
        arguments: Vec<OsString>,
        executable: PathBuf,
    ) -> PyResult<Self> {
        let named = std::env::var_os("HEAPTIDE_AGENT").filter(|path| !path.is_empty());
        let source = match &named {
            Some(path) => AgentSource::File(Path::new(path)),
            None => AgentSource::Embedded(AGENT),
        };
        let agent = Agent::load(source, &Places::current()).map_err(|error| refused(&error))?;
        let wanted = Wanted {
            path,
            overwrite,
            mode: if aggregated {
                Mode::Aggregated
            } else {
                Mode::All
            },
            memory_interval_ms,
            stack_node_budget: STACK_NODE_BUDGET,
            native_stacks,
            trace_python_allocators,
            track_object_lifetimes,
            follow_fork,
            buffered: writer,
            arguments,
            executable,
        };
        let port = match listen {
            Some((address, port)) => Some(first_reader(py, &address, port)?),
            None => None,
        };
        let prepared = if port.is_some() {
            Prepared::create_to_serve(&wanted)
        } else {
            // Another process may be waited for.
            py.detach(|| Prepared::create(&wanted))
        };
        let mut prepared = prepared.map_err(|error| refused(&error))?;
        let writer = prepared.take_writer();
        Ok(Self {
            agent,
            destination: prepared.destination().to_owned(),
            keeps_nothing: prepared.keeps_nothing(),
            prepared: Mutex::new(prepared),
            follow_fork,
            serves: port.is_some(),
            port: Mutex::new(port),
            writer: Mutex::new(writer),
        })
    }

    /// Whether something is tracked in this process, by whomever.
    fn is_on(&self) -> bool {
        let state = self.agent.state();
        !matches!(state, AgentState::Idle | AgentState::Unusable)
    }

    /// Starts. `frames_below`: how many Python frames of this thread stand below the one that asked.
    fn start(&self, py: Python<'_>, frames_below: u32) -> PyResult<()> {
        let prepared = self.prepared.lock_py_attached(py);
        let mut prepared =
            prepared.map_err(|_| PyRuntimeError::new_err("tracking broke before"))?;
        let port = self.port.lock_py_attached(py);
        let mut port = port.unwrap_or_else(PoisonError::into_inner);
        // SAFETY: `Python` proves that this thread has the GIL, or is attached where there is none.
        let started = unsafe {
            match &*port {
                Some(port) => self.agent.start_serving(&prepared, frames_below, port),
                None => self.agent.start(&prepared, frames_below),
            }
        };
        if started.is_ok() && self.serves {
            *port = None;
            prepared.lose_name();
        }
        started.map_err(|refusal| not_tracked(&refusal))
    }

    /// Stops; whether tracking had ended before by itself, and a list of the objects that survived, if that was asked for and
    /// is known.
    fn stop(&self, py: Python<'_>) -> PyResult<(bool, Option<Py<PyAny>>)> {
        // SAFETY: as in `start`.
        let stopped = unsafe { self.agent.stop() };
        let stopped = stopped.map_err(|refusal| not_tracked(&refusal))?;
        // SAFETY: as above; what is returned is a reference that is ours.
        let survivors = unsafe {
            let survivors = self.agent.survivors();
            survivors.map(|list| Bound::from_owned_ptr(py, list.as_ptr().cast()).unbind())
        };
        if self.serves {
            py.detach(|| self.agent.farewell());
        }
        Ok((stopped == Stopped::Early, survivors))
    }

    /// After `stop`, where another process writes the capture: waits until everything is at its destination, and made small if that is wanted. What went
    /// wrong, if anything did.
    fn arrive(&self, py: Python<'_>, compress: bool) -> PyResult<Option<String>> {
        let writer = self.writer.lock_py_attached(py);
        let Some(mut writer) = writer.unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(None);
        };
        loop {
            match py.detach(|| writer.arrive(compress, PATIENCE)) {
                Some(Arrival::Whole { problem }) => return Ok(problem),
                Some(Arrival::Lost) => {
                    return Ok(Some(format!(
                        "the process that wrote {} was killed: the capture ends where it had come to",
                        self.destination.display()
                    )));
                }
                None => py.check_signals()?,
            }
        }
    }

    /// Makes the capture small, and those of children that have ended; why that was not done, if it was not.
    fn compress(&self, py: Python<'_>) -> Option<String> {
        if self.keeps_nothing {
            return None;
        }
        let done = py.detach(|| {
            compress(&self.destination, &mut || true)?;
            if self.follow_fork {
                compress_children(&self.destination, &mut || true)?;
            }
            Ok::<(), heaptide_capture::RewriteError>(())
        });
        done.err().map(|error| error.to_string())
    }
}

/// Listens, and waits for the first reader for as long as it takes; Ctrl-C ends it.
fn first_reader(py: Python<'_>, address: &str, port: u16) -> PyResult<Port> {
    let refused = |error: PortError| PyOSError::new_err(error.to_string());
    let listening = py.detach(|| Listening::open(address, port));
    let mut listening = listening.map_err(refused)?;
    loop {
        let waited = py.detach(|| listening.wait(PATIENCE));
        match waited.map_err(refused)? {
            Ok(port) => return Ok(port),
            Err(still) => listening = still,
        }
        py.check_signals()?;
    }
}

/// Signals that come to other threads are looked for this often.
const PATIENCE: Duration = Duration::from_millis(100);

/// Why no capture was made.
fn refused(error: &SessionError) -> PyErr {
    let text = match error {
        SessionError::OutputExists { path } => format!(
            "Output file {} already exists. heaptide can overwrite it with the --force CLI argument or the \
             overwrite=True API argument.",
            path.display()
        ),
        SessionError::Capture {
            path,
            step: "create",
            source,
        } => format!(
            "Could not create output file {}: {}",
            path.display(),
            heaptide_session::plain(source)
        ),
        SessionError::Capture { step: "map", .. } => format!(
            "{error}: its file system has no shared mappings. FileDestination(..., buffered=True) does without"
        ),
        _ => error.to_string(),
    };
    PyOSError::new_err(text)
}

/// Why tracking was not started or stopped.
fn not_tracked(refusal: &Refusal) -> PyErr {
    let one = "No more than one Tracker instance can be active at the same time";
    match refusal {
        Refusal::AlreadyTracking => PyRuntimeError::new_err(one),
        Refusal::Supervised => PyRuntimeError::new_err(format!("{one}: {refusal}")),
        Refusal::ForeignCapture => PyRuntimeError::new_err("Attempting to use stale output handle"),
        Refusal::Capture(_) => PyOSError::new_err(refusal.to_string()),
        _ => PyRuntimeError::new_err(refusal.to_string()),
    }
}
