//! A program that is followed until it ends.

use std::fmt;
use std::fs::File;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use heaptide_capture::Capture;
use heaptide_format::{LiveHello, Mode};

use crate::wire::{News, Wire, WireSource, is_impatience};
use crate::{RemoteError, local};

/// What snapshots are called in messages.
const NAME: &str = "the capture of the running program";

/// A program that is read while it runs. A thread waits for its end, to have what was live then.
#[derive(Debug)]
pub struct Follower {
    state: Arc<Mutex<State>>,
    watcher: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    /// `None`: it is over.
    wire: Option<Wire>,
    local: Option<File>,
    last: Arc<Capture>,
    complete: Completion,
}

/// What is done to each snapshot when it has been read.
struct Completion(Box<dyn FnMut(&mut Capture) + Send>);

impl Completion {
    fn of(&mut self, mut capture: Capture) -> Arc<Capture> {
        (self.0)(&mut capture);
        Arc::new(capture)
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Completion")
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Whoever panicked has left at worst an old snapshot.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Follower {
    /// Follows the program that said `hello`, and takes a first snapshot. With `alone` everything comes through the socket, as from
    /// another machine. `complete` is called with each snapshot that was read.
    ///
    /// # Errors
    /// The other end goes away, or sends what is no capture of counters.
    pub fn begin(
        stream: TcpStream,
        hello: &LiveHello,
        alone: bool,
        complete: impl FnMut(&mut Capture) + Send + 'static,
    ) -> Result<Self, RemoteError> {
        let mut complete = Completion(Box::new(complete));
        let mut wire = Wire::new(stream)?;
        let listener = wire.listener()?;
        let local = (!alone)
            .then(|| local::open(hello, &listener, &mut wire))
            .flatten();
        let last = take(local.as_ref(), &mut wire)?;
        let last = complete.of(last);
        let state = Arc::new(Mutex::new(State {
            wire: Some(wire),
            local,
            last,
            complete,
        }));
        let watched = Arc::clone(&state);
        let watcher = std::thread::Builder::new().name("heaptide".to_owned());
        let watcher = watcher.spawn(move || watch(&listener, &watched))?;
        Ok(Self {
            state,
            watcher: Some(watcher),
        })
    }

    /// What is there now; when tracking has ended, what was there at its end, or when it was last asked.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Capture> {
        let mut state = locked(&self.state);
        state.look_for_news();
        state.take();
        Arc::clone(&state.last)
    }

    /// The last snapshot.
    #[must_use]
    pub fn last(&self) -> Arc<Capture> {
        Arc::clone(&locked(&self.state).last)
    }

    /// Does the program still track, as far as is known?
    #[must_use]
    pub fn is_active(&self) -> bool {
        let mut state = locked(&self.state);
        state.look_for_news();
        state.wire.is_some()
    }

    /// Ends the connection. The program goes on.
    pub fn close(&mut self) {
        if let Some(wire) = locked(&self.state).wire.take() {
            wire.close();
        }
        if let Some(watcher) = self.watcher.take() {
            // It does not panic, and if it did that would change nothing here.
            let _ = watcher.join();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.close();
    }
}

impl State {
    fn look_for_news(&mut self) {
        let Some(wire) = &mut self.wire else {
            return;
        };
        match wire.news() {
            News::Nothing => {}
            News::Ended => self.take(),
            News::Gone => {
                // Killed: what it has written stays, if we have the file.
                if let Some(capture) = self.local.as_ref().and_then(|file| read(file).ok()) {
                    self.last = self.complete.of(capture);
                }
                self.over();
            }
        }
    }

    /// Takes a snapshot, the last one if tracking has ended.
    fn take(&mut self) {
        let Some(wire) = &mut self.wire else {
            return;
        };
        // What the end of tracking interrupts was not the last yet.
        for _ in 0..2 {
            let ended = wire.has_ended();
            match take(self.local.as_ref(), wire) {
                Ok(capture) => self.last = self.complete.of(capture),
                Err(_) => return self.over(),
            }
            if ended {
                return self.over();
            }
            if !wire.has_ended() {
                return;
            }
        }
    }

    fn over(&mut self) {
        self.local = None;
        if let Some(wire) = self.wire.take() {
            wire.close();
        }
    }
}

/// Waits until something comes that was not asked for.
fn watch(listener: &TcpStream, state: &Mutex<State>) {
    loop {
        let mut byte = [0];
        if let Err(error) = listener.peek(&mut byte)
            && is_impatience(&error)
        {
            continue;
        }
        // It may have been an answer, which whoever asked has taken by now.
        let mut state = locked(state);
        state.look_for_news();
        if state.wire.is_none() {
            return;
        }
    }
}

fn take(local: Option<&File>, wire: &mut Wire) -> Result<Capture, RemoteError> {
    match local {
        Some(file) => read(file),
        None => of_counters(Capture::from_source(&WireSource::new(wire), NAME)?),
    }
}

fn read(file: &File) -> Result<Capture, RemoteError> {
    of_counters(Capture::from_file(file.try_clone()?, NAME)?)
}

fn of_counters(capture: Capture) -> Result<Capture, RemoteError> {
    if capture.identity.mode != Mode::Aggregated as u32 {
        return Err(RemoteError::Protocol("a capture that is not of counters"));
    }
    Ok(capture)
}
