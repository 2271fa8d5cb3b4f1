//! `Tracking`: a stretch of this process that is recorded, for `Tracker`.
#![allow(
    unsafe_code,
    reason = "the agent wants a promise that the GIL is held, and `Python` is the proof of it"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use heaptide_embedded_agent::AGENT;
use heaptide_format::Mode;
use heaptide_session::SessionError;
use heaptide_session::agent::{AgentSource, Places};
use heaptide_session::inside::{Prepared, Wanted, compress, compress_children};
use heaptide_session::loaded::{Agent, AgentState, Refusal, Stopped};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;

/// As many frames as `heaptide run` keeps.
const STACK_NODE_BUDGET: u32 = 1_000_000;

/// A capture, and the agent that writes it.
#[pyclass(frozen, module = "heaptide._heaptide")]
pub(crate) struct Tracking {
    agent: Agent,
    /// Held only for moments in which no Python runs.
    prepared: Mutex<Prepared>,
    destination: PathBuf,
    keeps_nothing: bool,
    follow_fork: bool,
}

#[pymethods]
impl Tracking {
    /// Makes the capture, and loads the agent if it is not there yet.
    #[new]
    #[pyo3(signature = (path, *, overwrite, aggregated, memory_interval_ms, trace_python_allocators, follow_fork, arguments, executable))]
    #[expect(
        clippy::too_many_arguments,
        reason = "they are keywords, named by the only caller"
    )]
    fn new(
        path: PathBuf,
        overwrite: bool,
        aggregated: bool,
        memory_interval_ms: u32,
        trace_python_allocators: bool,
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
            trace_python_allocators,
            follow_fork,
            arguments,
            executable,
        };
        let prepared = Prepared::create(&wanted).map_err(|error| refused(&error))?;
        Ok(Self {
            agent,
            destination: prepared.destination().to_owned(),
            keeps_nothing: prepared.keeps_nothing(),
            prepared: Mutex::new(prepared),
            follow_fork,
        })
    }

    /// Whether something is tracked in this process, by whomever.
    fn is_on(&self) -> bool {
        let state = self.agent.state();
        !matches!(state, AgentState::Idle | AgentState::Unusable)
    }

    /// Starts. `frames_below`: how many Python frames of this thread stand below the one that asked.
    fn start(&self, _py: Python<'_>, frames_below: u32) -> PyResult<()> {
        let prepared = self.prepared.lock();
        let prepared = prepared.map_err(|_| PyRuntimeError::new_err("tracking broke before"))?;
        // SAFETY: `Python` proves that this thread has the GIL.
        let started = unsafe { self.agent.start(&prepared, frames_below) };
        started.map_err(|refusal| not_tracked(&refusal))
    }

    /// Stops; whether tracking had ended before by itself.
    fn stop(&self, _py: Python<'_>) -> PyResult<bool> {
        // SAFETY: `Python` proves that this thread has the GIL.
        let stopped = unsafe { self.agent.stop() };
        let stopped = stopped.map_err(|refusal| not_tracked(&refusal))?;
        Ok(stopped == Stopped::Early)
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
