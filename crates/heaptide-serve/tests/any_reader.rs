//! A server against readers that say anything, compared byte by byte with a model of what it has to say.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};

use heaptide_format::{
    LIVE_MAGIC, LIVE_MOST_PIECES, LIVE_PIECE_BYTES, LIVE_REQUEST, LiveHello, LiveRequest,
    LiveWanted, live_hash,
};
use heaptide_serve::{Buffers, Server};
use heaptide_testkit::{Random, conversation, fixtures};
use zerocopy::IntoBytes;

/// A server, on this thread, and the reader's end of its first connection.
struct Pair {
    server: Server,
    buffers: Box<Buffers>,
    reader: UnixStream,
    _capture: File,
    _directory: tempfile::TempDir,
}

impl Pair {
    fn new(capture: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("port")).unwrap();
        let (reader, served) = UnixStream::pair().unwrap();
        reader.set_nonblocking(true).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(capture, 0).unwrap();
        let mut server = Server::new();
        let mut buffers = Box::new(Buffers::new());
        let begun = server.begin(file.as_fd(), listener.as_fd(), served.as_fd(), &mut buffers);
        begun.unwrap();
        Self {
            server,
            buffers,
            reader,
            _capture: file,
            _directory: directory,
        }
    }

    /// Says all of it, some bytes at a time, and gives what the server says; `true`: the server has closed the connection.
    fn talk(&mut self, said: &[u8], random: &mut Random) -> (Vec<u8>, bool) {
        let (mut heard, mut at, mut gone, mut idle) = (Vec::new(), 0, false, 0);
        while !gone && idle < 2 {
            let mut moved = 0;
            if at < said.len() {
                let most = (said.len() - at).min(1 + random.below(3000));
                match self.reader.write(&said[at..at + most]) {
                    Ok(count) => moved += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // It is gone; what it said before that can still be read.
                    Err(_) => at = said.len(),
                }
                at += moved;
            }
            moved += self.server.turn(None, 0, &mut self.buffers);
            // Reads as it likes, too, but does not stop while there may be something.
            if moved == 0 || random.below(3) > 0 {
                let (count, is_gone) = self.hear(&mut heard);
                gone = is_gone;
                moved += count;
            }
            idle = if moved == 0 { idle + 1 } else { 0 };
        }
        (heard, gone)
    }

    fn hear(&mut self, heard: &mut Vec<u8>) -> (usize, bool) {
        let before = heard.len();
        let mut room = vec![0; 1 << 16];
        loop {
            let gone = match self.reader.read(&mut room) {
                Ok(0) => true,
                Ok(count) => {
                    heard.extend_from_slice(&room[..count]);
                    continue;
                }
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
            return (heard.len() - before, gone);
        }
    }
}

/// A request, most of them such as a reader makes.
fn request(capture: &[u8], random: &mut Random) -> Vec<u8> {
    let most = if random.below(8) == 0 {
        LIVE_MOST_PIECES
    } else {
        5
    };
    let pieces = 1 + random.below(most);
    let wanted: Vec<LiveWanted> = (0..pieces)
        .map(|_| {
            let bytes = match random.below(40) {
                0 => 0,
                1 => LIVE_PIECE_BYTES + 1,
                2 => random.next() as usize as u32 as usize,
                3..8 => LIVE_PIECE_BYTES,
                _ => random.below(5000),
            };
            let offset = match random.below(40) {
                0 => random.next(),
                1 => (1 << 63) - random.below(3) as u64,
                2 => u64::MAX - random.below(1 << 17) as u64,
                3 => capture.len() as u64 - 3 + random.below(6) as u64,
                _ => random.below(capture.len()) as u64,
            };
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let there = capture.get(start..).unwrap_or_default();
            let hash = match random.below(3) {
                0 => 0,
                1 => live_hash(&there[..bytes.min(there.len())]),
                _ => random.next(),
            };
            LiveWanted {
                offset,
                hash,
                bytes: bytes as u32,
                reserved: 0,
            }
        })
        .collect();
    let pieces = match random.below(60) {
        0 => 0,
        1 => random.next() as u32,
        2 => LIVE_MOST_PIECES as u32 + 1,
        _ => pieces as u32,
    };
    let head = LiveRequest {
        magic: LIVE_REQUEST,
        pieces,
    };
    [head.as_bytes(), wanted.as_bytes()].concat()
}

#[test]
fn what_it_says_is_what_the_model_says() {
    let capture = fixtures::wide_tree(2000, false).build();
    let mut random = Random(0x1234_5678_9ABC_DEF1);
    let (mut sent_away, mut answered) = (0, 0);
    for round in 0..1500 {
        let mut said: Vec<u8> = (0..1 + random.below(4))
            .flat_map(|_| request(&capture, &mut random))
            .collect();
        if round % 4 == 0 {
            for _ in 0..1 + random.below(4) {
                let place = random.below(said.len());
                said[place] = random.next() as u8;
            }
        }
        if round % 5 == 0 {
            said.truncate(random.below(said.len()));
        }
        let mut pair = Pair::new(&capture);
        let (heard, gone) = pair.talk(&said, &mut random);
        let (expected, away) = conversation::answers(&capture, &said);
        let (hello, heard) = heard.split_at(size_of::<LiveHello>());
        assert!(hello.starts_with(&LIVE_MAGIC));
        let lengths = (heard.len(), expected.len());
        assert!(heard == expected, "round {round}: {lengths:?}");
        assert_eq!(gone, away, "round {round}");
        sent_away += usize::from(away);
        answered += usize::from(!expected.is_empty());
        // The end, for one that says no more.
        pair.reader.shutdown(Shutdown::Both).unwrap();
        pair.server.finish(&mut pair.buffers);
        assert!(!pair.server.is_open());
    }
    assert!(sent_away > 300 && answered > 1000, "{sent_away} {answered}");
}

#[test]
fn random_bytes_are_answered_with_a_greeting_only() {
    let mut random = Random(77);
    for length in 0..300 {
        let said: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        let mut pair = Pair::new(&fixtures::tiny().build());
        let (heard, gone) = pair.talk(&said, &mut random);
        assert_eq!(heard.len(), size_of::<LiveHello>());
        assert_eq!(gone, length >= size_of::<LiveRequest>());
    }
}
