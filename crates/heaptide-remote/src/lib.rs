//! Reads the capture of a running program through a socket.
//!
//! ```text
//!   connect ──▶ await_hello ──▶ Follower::begin ──▶ snapshot, snapshot, … ──▶ the program ends, or is killed
//!                                                                              the last snapshot stays
//! ```
//!
//! What is said is in `heaptide-format` (`live`); `heaptide-serve` is the other end. See `docs/design/017-reading-through-a-socket.md`.
//!
//! The other end is not trusted: what it sends is bounded in size and in time, and read by `heaptide-capture`, which reads any bytes.
//! Where the capture can be opened (the same machine and user), it is read itself and the program is asked nothing.
#![forbid(unsafe_code)]

mod follower;
mod local;
mod wire;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use heaptide_format::{LIVE_MAGIC, LIVE_VERSION, LiveHello};
use zerocopy::FromBytes;

pub use follower::Follower;

/// Why a program is not read, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Something else listens there.
    #[error("what listens at this port is no tracker of heaptide")]
    Foreign,
    /// A later version.
    #[error(
        "the program tracks with a later version of heaptide (protocol {0}, and {LIVE_VERSION} is known)"
    )]
    Version(u32),
    /// The other end says what makes no sense.
    #[error("the other end broke the protocol: {0}")]
    Protocol(&'static str),
    /// The connection broke, or nothing came for too long.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// What came is no capture that can be read.
    #[error(transparent)]
    Capture(#[from] heaptide_capture::Error),
}

/// Connects to a port of this machine.
///
/// # Errors
/// Nobody listens there.
pub fn connect(port: u16) -> io::Result<TcpStream> {
    let addresses: [SocketAddr; 2] = [
        (Ipv4Addr::LOCALHOST, port).into(),
        (Ipv6Addr::LOCALHOST, port).into(),
    ];
    let stream = TcpStream::connect(&addresses[..])?;
    // A port that nobody listens at may connect to itself, where it is one of those that are given out.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// What a connection says first; `None` when it has not said it after `patience`.
///
/// # Errors
/// [`RemoteError::Broken`] when the other end has gone away, which a tracker that never starts does, too.
pub fn await_hello(
    stream: &TcpStream,
    patience: Duration,
) -> Result<Option<LiveHello>, RemoteError> {
    let mut bytes = [0; size_of::<LiveHello>()];
    stream.set_read_timeout(Some(patience))?;
    let count = match stream.peek(&mut bytes) {
        Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        Ok(count) => count,
        Err(error) if wire::is_impatience(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let compared = count.min(LIVE_MAGIC.len());
    if bytes[..compared] != LIVE_MAGIC[..compared] {
        return Err(RemoteError::Foreign);
    }
    let Some(hello) = LiveHello::read_from_bytes(&bytes)
        .ok()
        .filter(|_| count == bytes.len())
    else {
        // It comes in one piece, or by little and little from somebody who plays; peeking does not wait for more.
        std::thread::sleep(patience.min(Duration::from_millis(20)));
        return Ok(None);
    };
    if hello.version != LIVE_VERSION {
        return Err(RemoteError::Version(hello.version));
    }
    io::Read::read_exact(&mut &*stream, &mut bytes)?;
    Ok(Some(hello))
}
