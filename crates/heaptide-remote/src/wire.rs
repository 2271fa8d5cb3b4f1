//! A connection: pieces of the capture on request.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use heaptide_capture::{LARGEST_FILE_BYTES, Source};
use heaptide_format::{
    LIVE_BYTES, LIVE_ENDED, LIVE_MOST_PIECES, LIVE_NOTHING, LIVE_PIECE_BYTES, LIVE_REQUEST,
    LIVE_SAME, LiveReply, LiveRequest, LiveWanted, live_hash,
};
use zerocopy::{FromZeros, IntoBytes};

/// The other end may say nothing for so long while it owes an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// And a whole snapshot may take so long.
const LONGEST_SNAPSHOT: Duration = Duration::from_secs(60);
/// Smaller pieces are sent again rather than kept.
const SMALLEST_KEPT: usize = 4096;
/// Most bytes that are kept to be compared; more are sent again.
const MOST_KEPT_BYTES: usize = 256 << 20;
/// Most bytes of payload that a snapshot may have.
const MOST_BYTES: u64 = 1 << 30;

/// Nothing has come yet, which is no trouble.
pub(crate) fn is_impatience(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

pub(crate) fn broken_protocol(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What is waiting to be received when nothing was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Nothing,
    /// Tracking has ended; the other end serves on.
    Ended,
    /// The other end is gone.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    /// Pieces by where they begin.
    kept: HashMap<u64, Vec<u8>>,
    kept_bytes: usize,
    /// As of the last answer.
    capture_bytes: u64,
    ended: bool,
    deadline: Instant,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            kept: HashMap::new(),
            kept_bytes: 0,
            capture_bytes: 0,
            ended: false,
            deadline: Instant::now() + LONGEST_SNAPSHOT,
        })
    }

    /// Another handle, to wait for news with.
    pub(crate) fn listener(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Has the other end said that tracking has ended?
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// What has come by itself, without waiting.
    pub(crate) fn news(&mut self) -> News {
        let mut byte = [0];
        let looked = self.stream.set_nonblocking(true);
        let looked = looked.and_then(|()| self.stream.peek(&mut byte));
        let restored = self.stream.set_nonblocking(false);
        match looked {
            Ok(1) if restored.is_ok() => {}
            Err(error) if is_impatience(&error) => {
                return if self.ended {
                    News::Ended
                } else {
                    News::Nothing
                };
            }
            _ => return News::Gone,
        }
        self.deadline = Instant::now() + PATIENCE;
        match self.reply() {
            Ok(reply) if reply.kind == LIVE_ENDED => {
                self.ended = true;
                News::Ended
            }
            _ => News::Gone,
        }
    }

    /// Ends the connection, also for whoever waits with the other handle.
    pub(crate) fn close(self) {
        // It may be broken already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn receive(&mut self, mut room: &mut [u8]) -> io::Result<()> {
        while !room.is_empty() {
            if Instant::now() > self.deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.stream.read(room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => room = &mut room[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn reply(&mut self) -> io::Result<LiveReply> {
        let mut reply = LiveReply::new_zeroed();
        self.receive(reply.as_mut_bytes())?;
        if reply.capture_bytes > LARGEST_FILE_BYTES {
            return Err(broken_protocol("a capture that is too large"));
        }
        if !matches!(reply.kind, LIVE_BYTES | LIVE_SAME | LIVE_ENDED) {
            return Err(broken_protocol("an unknown answer"));
        }
        if reply.kind != LIVE_BYTES && reply.bytes != 0 {
            return Err(broken_protocol("bytes that do not belong there"));
        }
        self.capture_bytes = reply.capture_bytes;
        Ok(reply)
    }

    /// Fills as much of `buffer` as there is at `offset`.
    pub(crate) fn fetch(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        for part in buffer.chunks_mut(LIVE_MOST_PIECES * LIVE_PIECE_BYTES) {
            let place = offset.checked_add(done as u64);
            let place = place.ok_or_else(|| broken_protocol("a place beyond all files"))?;
            let count = self.fetch_part(place, part)?;
            done += count;
            if count < part.len() {
                break;
            }
        }
        Ok(done)
    }

    /// With one request.
    fn fetch_part(&mut self, offset: u64, part: &mut [u8]) -> io::Result<usize> {
        let mut wanted = Vec::new();
        let mut place = offset;
        for piece in part.chunks(LIVE_PIECE_BYTES) {
            let kept = self.kept.get(&place);
            let kept = kept.filter(|kept| kept.len() == piece.len());
            wanted.push(LiveWanted {
                offset: place,
                hash: kept.map_or(LIVE_NOTHING, |kept| live_hash(kept)),
                bytes: piece.len() as u32,
                reserved: 0,
            });
            place = place.saturating_add(piece.len() as u64);
        }
        let request = LiveRequest {
            magic: LIVE_REQUEST,
            pieces: wanted.len() as u32,
        };
        let mut bytes = request.as_bytes().to_vec();
        bytes.extend_from_slice(wanted.as_bytes());
        self.stream.write_all(&bytes)?;
        let mut done = 0;
        let mut is_short = false;
        for (wanted, piece) in wanted.iter().zip(part.chunks_mut(LIVE_PIECE_BYTES)) {
            let count = self.fetch_piece(wanted, piece)?;
            // All answers are received, and what comes after a gap does not count.
            if !is_short {
                done += count;
            }
            is_short |= count < piece.len();
        }
        Ok(done)
    }

    fn fetch_piece(&mut self, wanted: &LiveWanted, piece: &mut [u8]) -> io::Result<usize> {
        let mut reply = self.reply()?;
        if reply.kind == LIVE_ENDED {
            if std::mem::replace(&mut self.ended, true) {
                return Err(broken_protocol("an end that comes twice"));
            }
            reply = self.reply()?;
        }
        match reply.kind {
            LIVE_BYTES if reply.bytes as usize <= piece.len() => {
                let count = reply.bytes as usize;
                self.receive(&mut piece[..count])?;
                self.keep(wanted.offset, &piece[..count]);
                Ok(count)
            }
            LIVE_SAME if wanted.hash != LIVE_NOTHING => {
                let kept = self.kept.get(&wanted.offset);
                let kept = kept.filter(|kept| kept.len() == piece.len());
                let kept = kept.ok_or_else(|| broken_protocol("nothing is the same"))?;
                piece.copy_from_slice(kept);
                Ok(piece.len())
            }
            _ => Err(broken_protocol("an answer to another question")),
        }
    }

    fn keep(&mut self, offset: u64, bytes: &[u8]) {
        if let Some(before) = self.kept.remove(&offset) {
            self.kept_bytes -= before.len();
        }
        if bytes.len() >= SMALLEST_KEPT && self.kept_bytes + bytes.len() <= MOST_KEPT_BYTES {
            self.kept_bytes += bytes.len();
            self.kept.insert(offset, bytes.to_vec());
        }
    }
}

/// A snapshot's way to the capture.
pub(crate) struct WireSource<'a>(Mutex<&'a mut Wire>);

impl<'a> WireSource<'a> {
    pub(crate) fn new(wire: &'a mut Wire) -> Self {
        wire.deadline = Instant::now() + LONGEST_SNAPSHOT;
        Self(Mutex::new(wire))
    }

    fn wire(&self) -> MutexGuard<'_, &'a mut Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for WireSource<'_> {
    fn length(&self) -> io::Result<u64> {
        let mut wire = self.wire();
        if wire.capture_bytes == 0 {
            wire.fetch_part(0, &mut [0])?;
        }
        Ok(wire.capture_bytes)
    }

    fn budget(&self) -> io::Result<u64> {
        Ok(MOST_BYTES)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.wire().fetch(offset, buffer)
    }
}
