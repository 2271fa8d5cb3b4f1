//! What a server of a capture has to say to whatever a reader says: a model of it, without sockets, buffers or turns.

use std::io::{Read, Write};

use heaptide_format::{
    LIVE_BYTES, LIVE_MOST_PIECES, LIVE_PIECE_BYTES, LIVE_REQUEST, LIVE_SAME, LiveReply,
    LiveRequest, LiveWanted, live_hash,
};
use zerocopy::{FromBytes, IntoBytes};

/// All that comes after the greeting, and whether the reader is sent away for what it said.
#[must_use]
pub fn answers(capture: &[u8], mut asked: &[u8]) -> (Vec<u8>, bool) {
    let mut said = Vec::new();
    while let Ok((request, rest)) = LiveRequest::read_from_prefix(asked) {
        let pieces = request.pieces as usize;
        if request.magic != LIVE_REQUEST || pieces == 0 || pieces > LIVE_MOST_PIECES {
            return (said, true);
        }
        let Some((wanted, rest)) = rest.split_at_checked(pieces * size_of::<LiveWanted>()) else {
            break;
        };
        for wanted in wanted.chunks_exact(size_of::<LiveWanted>()) {
            let wanted = LiveWanted::read_from_bytes(wanted).expect("as long as one");
            if !answer(capture, &wanted, &mut said) {
                return (said, true);
            }
        }
        asked = rest;
    }
    (said, false)
}

/// Serves `capture` as the model says until the reader is gone. Gives what was asked and what was said, without the greeting.
///
/// # Errors
/// When the connection breaks; a reader that leaves is none.
pub fn serve<S: Read + Write>(
    capture: &[u8],
    stream: &mut S,
) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let (mut asked, mut said) = (Vec::new(), Vec::new());
    loop {
        let mut request = vec![0; size_of::<LiveRequest>()];
        match stream.read_exact(&mut request) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Ok((asked, said));
            }
            done => done?,
        }
        let pieces = u32::from_le_bytes([request[4], request[5], request[6], request[7]]);
        let wanted = (pieces as usize).min(LIVE_MOST_PIECES) * size_of::<LiveWanted>();
        request.resize(size_of::<LiveRequest>() + wanted, 0);
        stream.read_exact(&mut request[size_of::<LiveRequest>()..])?;
        let (answer, sent_away) = answers(capture, &request);
        asked.extend_from_slice(&request);
        said.extend_from_slice(&answer);
        stream.write_all(&answer)?;
        if sent_away {
            return Ok((asked, said));
        }
    }
}

/// `false`: there is no answer to that.
fn answer(capture: &[u8], wanted: &LiveWanted, said: &mut Vec<u8>) -> bool {
    let length = wanted.bytes as usize;
    // What ends where no file can end is no piece, but where nothing is wanted of it.
    let end = wanted.offset.checked_add(length as u64);
    let is_piece = end.is_some_and(|end| i64::try_from(end).is_ok());
    if length > LIVE_PIECE_BYTES || (length > 0 && !is_piece) {
        return false;
    }
    let start = usize::try_from(wanted.offset).unwrap_or(usize::MAX);
    let there = capture.get(start..).unwrap_or_default();
    let piece = &there[..length.min(there.len())];
    let same = live_hash(piece) == wanted.hash;
    let reply = LiveReply {
        kind: if same { LIVE_SAME } else { LIVE_BYTES },
        bytes: if same { 0 } else { piece.len() as u32 },
        capture_bytes: capture.len() as u64,
    };
    said.extend_from_slice(reply.as_bytes());
    if !same {
        said.extend_from_slice(piece);
    }
    true
}
