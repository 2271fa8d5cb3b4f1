//! One reader.

use heaptide_format::{
    LIVE_BYTES, LIVE_ENDED, LIVE_MAGIC, LIVE_MOST_PIECES, LIVE_PIECE_BYTES, LIVE_REQUEST,
    LIVE_SAME, LIVE_VERSION, LiveHello, LiveReply, LiveRequest, LiveWanted, live_hash,
};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use zerocopy::{FromBytes, IntoBytes};

use crate::kept::Kept;

const HEAD_BYTES: usize = size_of::<LiveRequest>();
const WANTED_BYTES: usize = size_of::<LiveWanted>();
const REPLY_BYTES: usize = size_of::<LiveReply>();
/// So many pieces are sent before others have their turn.
const PIECES_AT_ONCE: usize = 16;

/// Room for a request and for the answer about one piece.
pub(crate) struct Buffer {
    request: [u8; HEAD_BYTES + LIVE_MOST_PIECES * WANTED_BYTES],
    reply: [u8; REPLY_BYTES + LIVE_PIECE_BYTES],
}

impl Buffer {
    pub(crate) const fn new() -> Self {
        Self {
            request: [0; HEAD_BYTES + LIVE_MOST_PIECES * WANTED_BYTES],
            reply: [0; REPLY_BYTES + LIVE_PIECE_BYTES],
        }
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: Kept,
    /// Bytes of the request that are there.
    received: usize,
    /// Pieces of the request, once it is whole, and how many of them are answered.
    pieces: usize,
    answered: usize,
    /// What of the reply is still to be sent.
    sent: usize,
    unsent_end: usize,
    told_end: bool,
    /// It has asked for something, as a reader does.
    pub(crate) has_asked: bool,
}

/// Why a connection is over.
pub(crate) struct Over;

impl Connection {
    pub(crate) fn greet(socket: Kept, capture: &Kept, buffer: &mut Buffer) -> Self {
        let hello = LiveHello {
            magic: LIVE_MAGIC,
            version: LIVE_VERSION,
            pid: rustix::process::getpid().as_raw_nonzero().get() as u32,
            descriptor: capture.as_fd().as_raw_fd() as u32,
            reserved: 0,
        };
        let bytes = hello.as_bytes();
        buffer.reply[..bytes.len()].copy_from_slice(bytes);
        Self {
            socket,
            received: 0,
            pieces: 0,
            answered: 0,
            sent: 0,
            unsent_end: bytes.len(),
            told_end: false,
            has_asked: false,
        }
    }

    /// Is there something to send, rather than to receive?
    pub(crate) fn has_to_send(&self) -> bool {
        self.sent < self.unsent_end || self.answered < self.pieces
    }

    /// Does what can be done without waiting. Returns how many bytes were moved.
    pub(crate) fn step(
        &mut self,
        capture: &Kept,
        ended: bool,
        buffer: &mut Buffer,
    ) -> Result<usize, Over> {
        let mut moved = 0;
        for _ in 0..PIECES_AT_ONCE {
            while self.sent < self.unsent_end {
                match self.send(buffer)? {
                    Some(count) => moved += count,
                    None => return Ok(moved),
                }
            }
            if self.answered < self.pieces {
                self.answer_next(capture, buffer)?;
            } else if ended && !self.told_end {
                self.told_end = true;
                self.put(LIVE_ENDED, 0, capture_bytes(capture)?, buffer);
            } else {
                match self.receive(buffer)? {
                    Some(count) => moved += count,
                    None => return Ok(moved),
                }
            }
        }
        Ok(moved)
    }

    /// `None`: it would have to be waited for.
    fn send(&mut self, buffer: &Buffer) -> Result<Option<usize>, Over> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let bytes = &buffer.reply[self.sent..self.unsent_end];
        match rustix::net::send(&self.socket, bytes, flags) {
            Ok(count) => {
                self.sent += count;
                Ok(Some(count))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(_) => Err(Over),
        }
    }

    /// As [`Connection::send`].
    fn receive(&mut self, buffer: &mut Buffer) -> Result<Option<usize>, Over> {
        // Never more than this request, so that what is there is one request or the beginning of one.
        let end = if self.received < HEAD_BYTES {
            HEAD_BYTES
        } else {
            HEAD_BYTES + request_of(buffer)? * WANTED_BYTES
        };
        let room = &mut buffer.request[self.received..end];
        match rustix::net::recv(&self.socket, room, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(Over),
            Ok((count, _)) => {
                self.received += count;
                if self.received >= HEAD_BYTES {
                    let pieces = request_of(buffer)?;
                    if self.received == HEAD_BYTES + pieces * WANTED_BYTES {
                        self.received = 0;
                        self.answered = 0;
                        self.pieces = pieces;
                        self.has_asked = true;
                    }
                }
                Ok(Some(count))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(_) => Err(Over),
        }
    }

    fn answer_next(&mut self, capture: &Kept, buffer: &mut Buffer) -> Result<(), Over> {
        let at = HEAD_BYTES + self.answered * WANTED_BYTES;
        let wanted = &buffer.request[at..at + WANTED_BYTES];
        let wanted = LiveWanted::read_from_bytes(wanted).map_err(|_| Over)?;
        let bytes = wanted.bytes as usize;
        if bytes > LIVE_PIECE_BYTES {
            return Err(Over);
        }
        let room = &mut buffer.reply[REPLY_BYTES..REPLY_BYTES + bytes];
        let count = read_at(capture.as_fd(), room, wanted.offset)?;
        let length = capture_bytes(capture)?;
        self.answered += 1;
        if live_hash(&buffer.reply[REPLY_BYTES..REPLY_BYTES + count]) == wanted.hash {
            self.put(LIVE_SAME, 0, length, buffer);
        } else {
            self.put(LIVE_BYTES, count, length, buffer);
        }
        Ok(())
    }

    fn put(&mut self, kind: u32, bytes: usize, capture_bytes: u64, buffer: &mut Buffer) {
        let reply = LiveReply {
            kind,
            bytes: bytes as u32,
            capture_bytes,
        };
        buffer.reply[..REPLY_BYTES].copy_from_slice(reply.as_bytes());
        self.sent = 0;
        self.unsent_end = REPLY_BYTES + bytes;
    }
}

/// How many pieces the request wants, whose head is there.
fn request_of(buffer: &Buffer) -> Result<usize, Over> {
    let head = LiveRequest::read_from_bytes(&buffer.request[..HEAD_BYTES]).map_err(|_| Over)?;
    let pieces = head.pieces as usize;
    if head.magic != LIVE_REQUEST || pieces == 0 || pieces > LIVE_MOST_PIECES {
        return Err(Over);
    }
    Ok(pieces)
}

fn capture_bytes(capture: &Kept) -> Result<u64, Over> {
    let status = rustix::fs::fstat(capture).map_err(|_| Over)?;
    Ok(status.st_size as u64)
}

fn read_at(capture: BorrowedFd<'_>, room: &mut [u8], offset: u64) -> Result<usize, Over> {
    let mut done = 0;
    while done < room.len() {
        let place = offset.checked_add(done as u64).ok_or(Over)?;
        match rustix::io::pread(capture, &mut room[done..], place) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(_) => return Err(Over),
        }
    }
    Ok(done)
}
