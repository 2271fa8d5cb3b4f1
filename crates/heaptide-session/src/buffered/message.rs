//! What is said between a process and the writer of its capture: packets over a socket, each one whole.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use crate::{SessionError, system};

/// A packet begins with it: others come from a program that writes to a number that it believes its own.
const MAGIC: [u8; 8] = *b"heaptide";
/// Longer texts are cut.
const MOST_BYTES: usize = 16 << 10;

/// To the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Tracking has ended.
    Finish {
        /// Make captures small.
        compress: bool,
    },
}

/// From the writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is a capture at the destination.
    Ready,
    /// There is none, and no writer.
    Refused(Refused),
    /// Everything is at the destination.
    Arrived {
        /// What went wrong besides.
        problem: Option<String>,
        /// The writer ends now: no child goes on with a capture.
        ends: bool,
    },
}

/// Why there is no capture at the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is a file, and it is not to be replaced.
    Exists,
    /// It cannot be made: `errno`.
    Create(i32),
    /// Anything else.
    Other(String),
}

impl Refused {
    pub(super) fn of(error: &SessionError) -> Self {
        match error {
            SessionError::OutputExists { .. } => Self::Exists,
            SessionError::Capture { step, source, .. } if *step == "create" => source
                .raw_os_error()
                .map_or_else(|| Self::Other(error.to_string()), Self::Create),
            other => Self::Other(other.to_string()),
        }
    }

    pub(super) fn into_error(self, destination: &Path) -> SessionError {
        let path = destination.to_owned();
        match self {
            Self::Exists => SessionError::OutputExists { path },
            Self::Create(errno) => SessionError::Capture {
                path,
                step: "create",
                source: io::Error::from_raw_os_error(errno),
            },
            Self::Other(text) => SessionError::Refused(text),
        }
    }
}

/// A kind, a number, and a text.
pub(super) trait Message: Sized {
    fn fields(&self) -> (u8, i32, &str);
    fn of(kind: u8, number: i32, text: String) -> Option<Self>;
}

impl Message for Request {
    fn fields(&self) -> (u8, i32, &str) {
        let Self::Finish { compress } = self;
        (b'f', i32::from(*compress), "")
    }

    fn of(kind: u8, number: i32, _: String) -> Option<Self> {
        let compress = number != 0;
        (kind == b'f').then_some(Self::Finish { compress })
    }
}

impl Message for Answer {
    fn fields(&self) -> (u8, i32, &str) {
        match self {
            Self::Ready => (b'r', 0, ""),
            Self::Refused(Refused::Exists) => (b'x', 0, ""),
            Self::Refused(Refused::Create(errno)) => (b'c', *errno, ""),
            Self::Refused(Refused::Other(text)) => (b'o', 0, text),
            Self::Arrived { problem, ends } => {
                (b'a', i32::from(*ends), problem.as_deref().unwrap_or(""))
            }
        }
    }

    fn of(kind: u8, number: i32, text: String) -> Option<Self> {
        Some(match kind {
            b'r' => Self::Ready,
            b'x' => Self::Refused(Refused::Exists),
            b'c' => Self::Refused(Refused::Create(number)),
            b'o' => Self::Refused(Refused::Other(text)),
            b'a' => Self::Arrived {
                problem: Some(text).filter(|text| !text.is_empty()),
                ends: number != 0,
            },
            _ => return None,
        })
    }
}

/// Both ends of a socket.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new descriptors that nobody else owns.
    let ends = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    Ok((
        system::out_of_the_way(ends.0),
        system::out_of_the_way(ends.1),
    ))
}

pub(super) fn send(socket: &OwnedFd, message: &impl Message) -> io::Result<()> {
    let (kind, number, text) = message.fields();
    let text = &text.as_bytes()[..text.len().min(MOST_BYTES)];
    let bytes = [&MAGIC[..], &[kind], &number.to_le_bytes(), text].concat();
    loop {
        // SAFETY: as many readable bytes as said. Nobody at the other end is an error, and no signal.
        let sent = unsafe {
            libc::send(
                socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_NOSIGNAL,
            )
        };
        match io::Error::last_os_error() {
            _ if sent >= 0 => return Ok(()),
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
    }
}

/// Waits for a message; `None` when the other end is closed. What nobody understands is passed over.
pub(super) fn receive<M: Message>(socket: &OwnedFd) -> io::Result<Option<M>> {
    let mut buffer = vec![0; MAGIC.len() + 5 + MOST_BYTES];
    loop {
        // SAFETY: as many writable bytes as said.
        let length = unsafe {
            libc::recv(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
            )
        };
        let Ok(length) = usize::try_from(length) else {
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                // Closed with something unread.
                error if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                error => return Err(error),
            }
        };
        if length == 0 {
            return Ok(None);
        }
        let packet = buffer[..length].strip_prefix(&MAGIC);
        let Some((head, text)) = packet.and_then(<[u8]>::split_first_chunk::<5>) else {
            continue;
        };
        let [kind, number @ ..] = *head;
        let text = String::from_utf8_lossy(text).into_owned();
        if let Some(message) = M::of(kind, i32::from_le_bytes(number), text) {
            return Ok(Some(message));
        }
    }
}

/// Nothing more will be said from this end, whoever else holds it.
pub(super) fn hang_up(socket: &OwnedFd) {
    // SAFETY: takes numbers only.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_as_they_were_sent_and_then_the_end() {
        let (ours, theirs) = pair().unwrap();
        let answers = [
            Answer::Ready,
            Answer::Refused(Refused::Exists),
            Answer::Refused(Refused::Create(libc::EACCES)),
            Answer::Refused(Refused::Other("why, and why".to_owned())),
            Answer::Arrived {
                problem: None,
                ends: true,
            },
            Answer::Arrived {
                problem: Some("full".to_owned()),
                ends: false,
            },
        ];
        for answer in answers {
            send(&theirs, &answer).unwrap();
            assert_eq!(receive(&ours).unwrap(), Some(answer));
        }
        for compress in [false, true] {
            let request = Request::Finish { compress };
            send(&ours, &request).unwrap();
            assert_eq!(receive(&theirs).unwrap(), Some(request));
        }
        // SAFETY: as many readable bytes as said.
        let sent = unsafe { libc::send(ours.as_raw_fd(), b"finished".as_ptr().cast(), 8, 0) };
        assert_eq!(sent, 8);
        let request = Request::Finish { compress: true };
        send(&ours, &request).unwrap();
        assert_eq!(
            receive(&theirs).unwrap(),
            Some(request),
            "the text before it is none of ours"
        );
        hang_up(&ours);
        assert_eq!(receive::<Request>(&theirs).unwrap(), None);
        drop(theirs);
        assert!(send(&ours, &Request::Finish { compress: true }).is_err());
        assert_eq!(receive::<Answer>(&ours).unwrap(), None);
    }

    #[test]
    fn errors_keep_their_meaning() {
        let path = Path::new("/a/x.tide");
        let over = |error: SessionError| Refused::of(&error).into_error(path).to_string();
        for error in [
            SessionError::OutputExists { path: path.into() },
            SessionError::Capture {
                path: path.into(),
                step: "create",
                source: io::Error::from_raw_os_error(libc::EACCES),
            },
            SessionError::Capture {
                path: path.into(),
                step: "write",
                source: io::Error::from_raw_os_error(libc::ENOSPC),
            },
        ] {
            let text = error.to_string();
            assert_eq!(over(error), text);
        }
    }
}
