//! `LiveReader`: what `SocketReader` asks.

use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use heaptide_capture::Capture;
use heaptide_engine::Metric;
use heaptide_format::LiveHello;
use heaptide_memray::NativeNames;
use heaptide_remote::{Follower, RemoteError, await_hello, connect};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::iterate::{Query, RecordIterator};
use crate::reader::command_line;
use crate::source::Opened;

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// A program that tracks to a port of this machine, followed until it ends.
#[pyclass(frozen, module = "heaptide._heaptide")]
pub(crate) struct LiveReader {
    pid: u32,
    command_line: String,
    has_native_traces: bool,
    /// `None`: closed. Held while a snapshot is taken, so it is never waited for with the GIL.
    follower: Mutex<Option<Follower>>,
}

#[pymethods]
impl LiveReader {
    /// Waits until a program tracks to `port`, and takes a first snapshot. With `alone` all comes through the socket. Raises
    /// `OSError` when something else listens there.
    #[new]
    fn new(py: Python<'_>, port: u16, alone: bool) -> PyResult<Self> {
        let (stream, hello) = await_tracker(py, port)?;
        let begun = py.detach(|| {
            let mut names = NativeNames::default();
            Follower::begin(stream, &hello, alone, move |capture| names.find(capture))
        });
        let follower = begun.map_err(|error| not_read(port, &error))?;
        let capture = follower.last();
        Ok(Self {
            pid: capture.identity.pid,
            command_line: command_line(&capture),
            has_native_traces: capture.identity.holds_native_stacks(),
            follower: Mutex::new(Some(follower)),
        })
    }

    /// The process.
    #[getter]
    const fn pid(&self) -> u32 {
        self.pid
    }

    /// Its arguments, joined by blanks.
    #[getter]
    fn command_line(&self) -> &str {
        &self.command_line
    }

    /// Are native stacks recorded?
    #[getter]
    const fn has_native_traces(&self) -> bool {
        self.has_native_traces
    }

    /// Does it still track?
    fn is_active(&self, py: Python<'_>) -> bool {
        py.detach(|| self.follower().as_ref().is_some_and(Follower::is_active))
    }

    /// What is live now, or was at the end of tracking; `None` when closed.
    fn current(&self, py: Python<'_>, merge_threads: bool) -> Option<RecordIterator> {
        let capture: Option<Arc<Capture>> =
            py.detach(|| self.follower().as_ref().map(Follower::snapshot));
        let opened = Opened::shared(capture?, false, usize::MAX);
        let query = Query::Sums {
            metric: Metric::Live,
            merge_threads,
        };
        Some(RecordIterator::new(Arc::new(opened), query))
    }

    /// Ends the connection.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.follower().take()));
    }
}

impl LiveReader {
    fn follower(&self) -> MutexGuard<'_, Option<Follower>> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for as long as it takes; Ctrl-C ends it.
fn await_tracker(py: Python<'_>, port: u16) -> PyResult<(TcpStream, LiveHello)> {
    let mut connected: Option<TcpStream> = None;
    loop {
        py.check_signals()?;
        let Some(stream) = connected.take() else {
            connected = py.detach(|| {
                let connection = connect(port).ok();
                if connection.is_none() {
                    thread::sleep(PAUSE);
                }
                connection
            });
            continue;
        };
        match py.detach(|| await_hello(&stream, PAUSE)) {
            Ok(Some(hello)) => return Ok((stream, hello)),
            Ok(None) => connected = Some(stream),
            // A tracker that went away before it began, or one that has as many readers as it takes.
            Err(RemoteError::Broken(_)) => py.detach(|| thread::sleep(PAUSE)),
            Err(error) => return Err(not_read(port, &error)),
        }
    }
}

fn not_read(port: u16, error: &RemoteError) -> PyErr {
    PyOSError::new_err(format!("Could not read from port {port}: {error}"))
}
