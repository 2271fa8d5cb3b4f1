//! Gives the capture of a running program out to readers that connect to a socket, from within that program.
//!
//! ```text
//!   begin ──▶ turn, turn, … ──▶ finish        another thread may go on with the turns of one that has ended
//! ```
//!
//! What is said is in `heaptide-format` (`live`); `heaptide-remote` is the other end. See `docs/design/017-reading-through-a-socket.md`.
//!
//! Laws: no allocation, no panic by design, no lock, no signal (a broken connection is an error and not SIGPIPE), `errno`
//! untouched, since system calls go around the C library. The memory is [`Buffers`] and this. Nothing that a peer sends or
//! does not send, or does not receive, makes anybody wait but the caller of [`Server::turn`], and that no longer than it
//! says.
#![no_std]
#![forbid(unsafe_code)]

mod connection;
mod kept;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::time::ClockId;

use connection::{Buffer, Connection};
pub use kept::Kept;

/// So many readers at a time; more wait until one is gone.
pub const MOST_READERS: usize = 4;

const SECOND_NS: u64 = 1_000_000_000;
/// [`Server::finish`] waits so long for a reader that does nothing,
const PATIENCE_NS: u64 = 2 * SECOND_NS;
/// and for all together no longer than this.
const MOST_PATIENCE_NS: u64 = 10 * SECOND_NS;
/// Most that [`Server::turn`] waits without hearing of anything.
const LONGEST_BLIND_WAIT_NS: u64 = SECOND_NS / 100;

/// The memory of a [`Server`].
pub struct Buffers([Buffer; MOST_READERS]);

impl Buffers {
    /// Of zeros only.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { Buffer::new() }; MOST_READERS])
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}

/// The readers of one capture.
#[derive(Debug)]
pub struct Server {
    capture: Option<Kept>,
    listener: Option<Kept>,
    connections: [Option<Connection>; MOST_READERS],
    ended: bool,
    /// A reader could not be let in, so there is no waiting for readers until something else ends the wait: it would end at once
    /// for as long as the program has no descriptors left.
    is_full: bool,
}

impl Server {
    /// One that serves nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            capture: None,
            listener: None,
            connections: [const { None }; MOST_READERS],
            ended: false,
            is_full: false,
        }
    }

    /// Serves `capture` to whoever connects to `listener`, and to `first`, who has connected already.
    ///
    /// # Errors
    /// There are no descriptors left. Nothing is served then.
    pub fn begin(
        &mut self,
        capture: BorrowedFd<'_>,
        listener: BorrowedFd<'_>,
        first: BorrowedFd<'_>,
        buffers: &mut Buffers,
    ) -> Result<(), Errno> {
        self.close();
        let capture = Kept::copy_of(capture)?;
        let first = Kept::copy_of(first)?;
        let listener = Kept::copy_of(listener)?;
        // Accepting must not wait for a peer that has gone away meanwhile.
        let flags = rustix::fs::fcntl_getfl(&listener)?;
        rustix::fs::fcntl_setfl(&listener, flags | rustix::fs::OFlags::NONBLOCK)?;
        self.listener = Some(listener);
        self.capture = Some(capture);
        self.ended = false;
        self.add(first, buffers);
        Ok(())
    }

    /// Does it serve something?
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.capture.is_some()
    }

    /// Lets go of everything.
    pub fn close(&mut self) {
        *self = Self::new();
    }

    /// Waits until there is something to do, `nanoseconds` have gone by, or something has happened to `wake`, and does what
    /// can be done without waiting. Returns how many bytes were moved.
    pub fn turn(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        nanoseconds: u64,
        buffers: &mut Buffers,
    ) -> usize {
        self.give_up_what_is_lost();
        let timeout = Timespec {
            tv_sec: (nanoseconds / SECOND_NS) as i64,
            tv_nsec: (nanoseconds % SECOND_NS) as i64,
        };
        {
            let any = wake
                .or_else(|| self.listener.as_ref().map(AsFd::as_fd))
                .or_else(|| self.capture.as_ref().map(AsFd::as_fd));
            let Some(any) = any else {
                return 0;
            };
            let none = || PollFd::from_borrowed_fd(any, PollFlags::empty());
            let mut places: [PollFd<'_>; MOST_READERS + 2] = core::array::from_fn(|_| none());
            if let Some(wake) = wake {
                places[0] = PollFd::from_borrowed_fd(wake, PollFlags::IN);
            }
            let takes_more = self.has_room() && !self.is_full;
            if let Some(listener) = self.listener.as_ref().filter(|_| takes_more) {
                places[1] = PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN);
            }
            for (place, connection) in places[2..].iter_mut().zip(&self.connections) {
                if let Some(connection) = connection {
                    let flags = if connection.has_to_send() {
                        PollFlags::OUT
                    } else {
                        PollFlags::IN
                    };
                    *place = PollFd::from_borrowed_fd(connection.socket.as_fd(), flags);
                }
            }
            // Whatever comes of it, all is looked at: there are few. A program may allow itself fewer descriptors than are asked about
            // here; then nobody is waited for, only time.
            if rustix::event::poll(&mut places, Some(&timeout)) == Err(Errno::INVAL) {
                let _ = rustix::thread::nanosleep(&Timespec {
                    tv_sec: 0,
                    tv_nsec: nanoseconds.min(LONGEST_BLIND_WAIT_NS) as i64,
                });
            }
        }
        self.accept(buffers);
        self.step(buffers)
    }

    /// Tells all readers that nothing will change any more, and serves them until they are gone: for two seconds one that
    /// does nothing, for ten seconds all. Then lets go of everything.
    pub fn finish(&mut self, buffers: &mut Buffers) {
        self.ended = true;
        self.give_up_what_is_lost();
        self.accept(buffers);
        self.listener = None;
        let begun = now_ns();
        let mut moved_last = begun;
        loop {
            if self.step(buffers) > 0 {
                moved_last = now_ns();
            }
            // Whoever has connected and never asked is no reader of ours.
            let waits = |connection: &Option<Connection>| {
                connection.as_ref().is_some_and(|one| one.has_asked)
            };
            let now = now_ns();
            if !self.connections.iter().any(waits)
                || now - moved_last > PATIENCE_NS
                || now - begun > MOST_PATIENCE_NS
            {
                break;
            }
            if self.turn(None, SECOND_NS / 10, buffers) > 0 {
                moved_last = now_ns();
            }
        }
        for connection in self.connections.iter().flatten() {
            // A forked child may have a copy of the descriptor, which would keep the connection open.
            let _ = rustix::net::shutdown(&connection.socket, rustix::net::Shutdown::Both);
        }
        self.close();
    }

    /// Descriptors that the program has closed.
    fn give_up_what_is_lost(&mut self) {
        let lost = |kept: &Kept| !kept.is_ours();
        if self.capture.as_ref().is_some_and(lost) {
            self.close();
        }
        self.listener.take_if(|listener| !listener.is_ours());
        for connection in &mut self.connections {
            connection.take_if(|connection| !connection.socket.is_ours());
        }
    }

    fn has_room(&self) -> bool {
        self.connections.iter().any(Option::is_none)
    }

    fn accept(&mut self, buffers: &mut Buffers) {
        while self.has_room() {
            let Some(listener) = &self.listener else {
                return;
            };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let accepted = rustix::net::accept_with(listener, flags);
            self.is_full = matches!(
                accepted,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
            );
            let Ok(accepted) = accepted else {
                return;
            };
            if let Ok(kept) = Kept::copy_of(accepted.as_fd()) {
                self.add(kept, buffers);
            }
        }
    }

    fn add(&mut self, socket: Kept, buffers: &mut Buffers) {
        // It would only be slower without.
        let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
        let mut free = self.connections.iter_mut().zip(&mut buffers.0);
        let place = free.find(|(connection, _)| connection.is_none());
        if let (Some((place, buffer)), Some(capture)) = (place, &self.capture) {
            *place = Some(Connection::greet(socket, capture, buffer));
        }
    }

    fn step(&mut self, buffers: &mut Buffers) -> usize {
        let Some(capture) = &self.capture else {
            return 0;
        };
        let mut moved = 0;
        for (place, buffer) in self.connections.iter_mut().zip(&mut buffers.0) {
            if let Some(connection) = place {
                match connection.step(capture, self.ended, buffer) {
                    Ok(count) => moved += count,
                    Err(connection::Over) => *place = None,
                }
            }
        }
        moved
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64)
        .wrapping_mul(SECOND_NS)
        .wrapping_add(now.tv_nsec as u64)
}
