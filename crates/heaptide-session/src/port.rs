//! A port at which a program that tracks itself waits for its reader.

use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::system;

/// Why there is no port. The texts are those that programs for Memray know.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The address has no meaning.
    #[error("Failed to resolve host IP and port: {}", crate::plain(.0))]
    Resolve(io::Error),
    /// Another program listens there, or the address is not this machine's.
    #[error("Failed to bind to host and port: {}", crate::plain(.0))]
    Bind(io::Error),
    /// The system refuses.
    #[error("Failed to wait for a reader: {}", crate::plain(.0))]
    Accept(#[from] io::Error),
}

/// A port that nobody has connected to yet.
#[derive(Debug)]
pub struct Listening(TcpListener);

/// A port with its first reader.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    reader: TcpStream,
}

impl Listening {
    /// Listens at `address`, a name or number.
    ///
    /// # Errors
    /// [`PortError::Resolve`], [`PortError::Bind`]
    pub fn open(address: &str, port: u16) -> Result<Self, PortError> {
        let addresses = (address, port).to_socket_addrs();
        let addresses: Vec<_> = addresses.map_err(PortError::Resolve)?.collect();
        let listener = TcpListener::bind(&addresses[..]).map_err(PortError::Bind)?;
        listener.set_nonblocking(true)?;
        Ok(Self(system::out_of_the_way(listener)))
    }

    /// Waits for the first reader, for `patience` at most, or until a signal comes.
    ///
    /// # Errors
    /// [`PortError::Accept`]
    pub fn wait(self, patience: Duration) -> Result<Result<Port, Self>, PortError> {
        let mut ready = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one entry, which outlives the call. Whatever it says, accepting will tell.
        unsafe { libc::poll(&raw mut ready, 1, milliseconds) };
        use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
        match self.0.accept() {
            Ok((reader, _)) => Ok(Ok(Port {
                listener: self.0,
                reader: system::out_of_the_way(reader),
            })),
            Err(error) if matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted) => {
                Ok(Err(self))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Port {
    /// That of the listener, and that of the reader.
    pub(crate) fn descriptors(&self) -> [i32; 2] {
        [self.listener.as_raw_fd(), self.reader.as_raw_fd()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_once_and_waits_for_its_reader() {
        let listening = Listening::open("127.0.0.1", 0).unwrap();
        let port = listening.0.local_addr().unwrap().port();
        let again = Listening::open("127.0.0.1", port).unwrap_err();
        assert_eq!(
            again.to_string(),
            "Failed to bind to host and port: Address already in use"
        );
        let listening = listening.wait(Duration::ZERO).unwrap().unwrap_err();
        let reader = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let port = listening.wait(Duration::from_secs(60)).unwrap().unwrap();
        assert_eq!(
            port.reader.peer_addr().unwrap(),
            reader.local_addr().unwrap()
        );
    }

    #[test]
    fn an_address_that_means_nothing_is_told() {
        let error = Listening::open("not an address", 1).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("Failed to resolve host IP and port: "),
            "{text}"
        );
    }
}
