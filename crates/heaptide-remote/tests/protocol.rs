//! Both ends of the protocol against each other, and each against an end that means no good.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use heaptide_capture::Capture;
use heaptide_format::{
    HeapWord, LIVE_BYTES, LIVE_ENDED, LIVE_MAGIC, LIVE_PIECE_BYTES, LIVE_REQUEST, LIVE_SAME,
    LIVE_VERSION, LiveHello, LiveReply, LiveRequest, LiveWanted, offsets,
};
use heaptide_remote::{Follower, RemoteError, await_hello};
use heaptide_serve::{Buffers, MOST_READERS, Server};
use heaptide_testkit::fixtures;
use zerocopy::{FromBytes, IntoBytes};

const LONG: Duration = Duration::from_secs(60);

/// A capture in a file, served by a thread as by the agent's.
struct Served {
    file: File,
    port: u16,
    first: Option<TcpStream>,
    end: Arc<AtomicBool>,
    moved: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Server>>,
}

impl Served {
    fn new(bytes: &[u8]) -> Self {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let first = TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let mut buffers = Box::new(Buffers::new());
        let mut server = Server::new();
        let (file_there, listener, accepted) = (file.as_fd(), listener.as_fd(), accepted.as_fd());
        let begun = server.begin(file_there, listener, accepted, &mut buffers);
        begun.unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let moved = Arc::new(AtomicUsize::new(0));
        let (end_there, moved_there) = (Arc::clone(&end), Arc::clone(&moved));
        let thread = std::thread::spawn(move || {
            while !end_there.load(Ordering::Acquire) {
                let count = server.turn(None, 1_000_000, &mut buffers);
                moved_there.fetch_add(count, Ordering::AcqRel);
            }
            server
        });
        Self {
            file,
            port: address.port(),
            first: Some(first),
            end,
            moved,
            thread: Some(thread),
        }
    }

    fn first(&mut self, alone: bool) -> Follower {
        follow(self.first.take().unwrap(), alone).unwrap()
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// The heap grows.
    fn grow(&self, bytes: u64) {
        let mut word = HeapWord::default();
        let place = offsets::HEAP as u64;
        self.file.read_exact_at(word.as_mut_bytes(), place).unwrap();
        word.peak_bytes += bytes;
        self.file.write_all_at(word.as_bytes(), place).unwrap();
    }

    fn stop(&mut self) -> Server {
        self.end.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap()
    }

    /// As at the end of tracking.
    fn finish(mut self) {
        let mut server = self.stop();
        server.finish(&mut Box::new(Buffers::new()));
        assert!(!server.is_open());
    }
}

fn follow(stream: TcpStream, alone: bool) -> Result<Follower, RemoteError> {
    let hello = await_hello(&stream, LONG)?.expect("it comes within a minute");
    Follower::begin(stream, &hello, alone, |_| {})
}

fn same(one: &Capture, other: &Capture) {
    assert_eq!(one.identity.as_bytes(), other.identity.as_bytes());
    assert_eq!(one.heap, other.heap);
    let cells = |capture: &Capture| format!("{:?}", capture.cells);
    assert_eq!(cells(one), cells(other));
    let nodes = |capture: &Capture| format!("{:?}", capture.nodes);
    assert_eq!(nodes(one), nodes(other));
    assert_eq!(
        format!("{:?}", one.definitions),
        format!("{:?}", other.definitions)
    );
    assert_eq!(one.warnings, other.warnings);
}

#[test]
fn a_capture_comes_over_whole() {
    for builder in [
        fixtures::killed_service(),
        fixtures::wide_tree(20_000, false),
    ] {
        let bytes = builder.build();
        for alone in [true, false] {
            let mut served = Served::new(&bytes);
            let follower = served.first(alone);
            same(
                &follower.snapshot(),
                &Capture::from_bytes(&bytes, "x").unwrap(),
            );
            assert!(follower.is_active());
        }
    }
}

#[test]
fn only_what_has_changed_is_sent_again() {
    let bytes = fixtures::wide_tree(20_000, false).build();
    let mut served = Served::new(&bytes);
    let follower = served.first(true);
    let before = follower.last().live_bytes();
    let first = served.moved.load(Ordering::Acquire);
    assert!(first > LIVE_PIECE_BYTES * 8, "{first}");
    served.grow(123);
    assert_eq!(follower.snapshot().live_bytes(), before + 123);
    drop(follower);
    served.stop();
    let again = served.moved.load(Ordering::Acquire) - first;
    assert!(again < first / 8, "{again} of {first}");
}

#[test]
fn what_was_there_at_the_end_stays() {
    for alone in [true, false] {
        let mut served = Served::new(&fixtures::tiny().build());
        let mut followers = vec![served.first(alone)];
        for _ in 1..MOST_READERS {
            followers.push(follow(served.connect(), alone).unwrap());
        }
        let before = followers[0].last().live_bytes();
        served.grow(77);
        // Comes back when all have read it.
        served.finish();
        for follower in followers {
            assert!(!follower.is_active());
            assert_eq!(follower.last().live_bytes(), before + 77);
            assert_eq!(follower.snapshot().live_bytes(), before + 77);
        }
    }
}

#[test]
fn of_a_program_that_is_killed_the_file_stays_or_the_last_snapshot() {
    for alone in [true, false] {
        let mut served = Served::new(&fixtures::tiny().build());
        let follower = served.first(alone);
        let before = follower.snapshot().live_bytes();
        served.grow(55);
        drop(served.stop());
        assert!(!follower.is_active());
        let found = follower.snapshot().live_bytes() - before;
        assert_eq!(found, if alone { 0 } else { 55 });
    }
}

#[test]
fn readers_come_and_go() {
    let served = Served::new(&fixtures::tiny().build());
    for _ in 0..2 * MOST_READERS {
        let mut follower = follow(served.connect(), true).unwrap();
        assert!(follower.is_active());
        follower.close();
        assert!(!follower.is_active());
        assert!(follower.snapshot().live_bytes() > 0);
    }
    // Its place was taken by the first, who never said anything, and is not waited for.
    served.finish();
}

#[test]
fn a_reader_too_many_waits_until_another_is_gone() {
    let mut served = Served::new(&fixtures::tiny().build());
    let first = served.first(true);
    let others: Vec<_> = (1..MOST_READERS)
        .map(|_| follow(served.connect(), true).unwrap())
        .collect();
    let late = served.connect();
    assert!(matches!(
        await_hello(&late, Duration::from_millis(10)),
        Ok(None)
    ));
    drop(first);
    assert!(follow(late, true).unwrap().is_active());
    assert!(others.iter().all(Follower::is_active));
}

/// Says something that a reader would not, and waits to be sent away.
fn is_sent_away(served: &Served, said: &[u8]) {
    let mut stream = served.connect();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut hello = [0; size_of::<LiveHello>()];
    stream.read_exact(&mut hello).unwrap();
    stream.write_all(said).unwrap();
    // An end of the stream, or a reset where something was left unread: anything but waiting.
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

fn request(pieces: u32, wanted: &[LiveWanted]) -> Vec<u8> {
    let magic = LIVE_REQUEST;
    let mut bytes = LiveRequest { magic, pieces }.as_bytes().to_vec();
    bytes.extend_from_slice(wanted.as_bytes());
    bytes
}

fn piece(offset: u64, bytes: u32) -> LiveWanted {
    LiveWanted {
        offset,
        hash: 0,
        bytes,
        reserved: 0,
    }
}

#[test]
fn who_asks_for_nonsense_is_sent_away() {
    let mut served = Served::new(&fixtures::tiny().build());
    let follower = served.first(true);
    is_sent_away(&served, b"GET / HTTP/1.1\r\n\r\n");
    is_sent_away(&served, &request(0, &[]));
    is_sent_away(&served, &request(u32::MAX, &[]));
    is_sent_away(
        &served,
        &request(1, &[piece(0, LIVE_PIECE_BYTES as u32 + 1)]),
    );
    is_sent_away(&served, &request(1, &[piece(0, u32::MAX)]));
    is_sent_away(&served, &request(1, &[piece(u64::MAX - 1, 100)]));
    let mut seed = 1u64;
    for length in 8..200 {
        let random = (0..length).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        });
        is_sent_away(&served, &random.collect::<Vec<u8>>());
    }
    assert!(follower.is_active());
    assert!(follower.snapshot().live_bytes() > 0);
}

#[test]
fn beyond_the_end_there_is_nothing() {
    let bytes = fixtures::tiny().build();
    let served = Served::new(&bytes);
    let mut stream = served.connect();
    let mut hello = [0; size_of::<LiveHello>()];
    stream.read_exact(&mut hello).unwrap();
    let length = bytes.len() as u64;
    let wanted = [piece(length - 3, 10), piece(length + 1, 10), piece(0, 0)];
    stream.write_all(&request(3, &wanted)).unwrap();
    for count in [3, 0, 0] {
        let mut reply = [0; size_of::<LiveReply>()];
        stream.read_exact(&mut reply).unwrap();
        let reply = LiveReply::read_from_bytes(&reply).unwrap();
        assert_eq!((reply.kind, reply.bytes), (LIVE_BYTES, count));
        assert_eq!(reply.capture_bytes, length);
        let mut rest = vec![0; count as usize];
        stream.read_exact(&mut rest).unwrap();
        assert!(bytes.ends_with(&rest));
    }
}

#[test]
fn who_does_not_receive_holds_nobody_up() {
    let mut served = Served::new(&fixtures::wide_tree(20_000, false).build());
    let follower = served.first(true);
    let mut lazy = served.connect();
    lazy.set_nonblocking(true).unwrap();
    let wanted = vec![piece(0, LIVE_PIECE_BYTES as u32); 64];
    let said = request(64, &wanted);
    // Until neither side takes any more.
    let mut asked = 0;
    while lazy.write(&said).is_ok_and(|count| count == said.len()) {
        asked += 1;
    }
    assert!(asked > 0);
    served.grow(9);
    let before = follower.last().live_bytes();
    assert_eq!(follower.snapshot().live_bytes(), before + 9);
    drop(lazy);
    assert!(follower.is_active());
}

/// What a reader says of an end that says this.
fn told(said: &[u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let said = said.to_vec();
    let liar = std::thread::spawn(move || {
        // The reader may be gone before it has heard all of it.
        let _ = accepted.write_all(&said);
        let _ = accepted.shutdown(std::net::Shutdown::Write);
        let _ = std::io::copy(&mut accepted, &mut std::io::sink());
    });
    let error = follow(stream, true).expect_err("a lie is found out");
    liar.join().unwrap();
    error.to_string()
}

fn hello() -> Vec<u8> {
    let hello = LiveHello {
        magic: LIVE_MAGIC,
        version: LIVE_VERSION,
        pid: u32::MAX,
        descriptor: u32::MAX,
        reserved: 0,
    };
    hello.as_bytes().to_vec()
}

/// Kind, length, length of the capture, and how many bytes really follow.
type Answer = (u32, u32, u64, usize);

fn answers(replies: &[Answer]) -> Vec<u8> {
    let mut said = hello();
    for &(kind, bytes, capture_bytes, sent) in replies {
        let reply = LiveReply {
            kind,
            bytes,
            capture_bytes,
        };
        said.extend_from_slice(reply.as_bytes());
        said.extend(std::iter::repeat_n(0x41, sent));
    }
    said
}

#[test]
fn an_end_that_lies_is_found_out() {
    let ssh = told(b"SSH-2.0-OpenSSH_9.9 and so on\r\n");
    assert!(ssh.contains("is no tracker of heaptide"), "{ssh}");
    let mut later = hello();
    later[8] += 1;
    assert!(told(&later).contains("a later version of heaptide"));
    let cases: &[(&[Answer], &str)] = &[
        (&[(9, 0, 0, 0)], "an unknown answer"),
        (&[(LIVE_SAME, 0, 100, 0)], "an answer to another question"),
        (&[(LIVE_SAME, 7, 100, 0)], "bytes that do not belong there"),
        (&[(LIVE_BYTES, 2, 100, 2)], "an answer to another question"),
        (
            &[(LIVE_BYTES, u32::MAX, 100, 9)],
            "an answer to another question",
        ),
        (
            &[(LIVE_BYTES, 0, u64::MAX, 0)],
            "a capture that is too large",
        ),
        (
            &[(LIVE_ENDED, 0, 1, 0), (LIVE_ENDED, 0, 1, 0)],
            "an answer to another question",
        ),
        (
            &[(LIVE_BYTES, 1, 9000, 1), (LIVE_BYTES, 4096, 9000, 4096)],
            "not a heaptide capture",
        ),
        (
            &[(LIVE_BYTES, 1, 9000, 1), (LIVE_BYTES, 4096, 9000, 100)],
            "unexpected end of file",
        ),
        (&[], "unexpected end of file"),
    ];
    for (replies, expected) in cases {
        let text = told(&answers(replies));
        assert!(text.contains(expected), "{text} for {replies:?}");
    }
}

#[test]
fn captures_of_events_are_not_what_was_asked_for() {
    let mut served = Served::new(&fixtures::tiny_events().build());
    for alone in [true, false] {
        let stream = served.first.take().unwrap_or_else(|| served.connect());
        let refused = follow(stream, alone).unwrap_err();
        assert!(matches!(refused, RemoteError::Protocol(_)), "{refused}");
    }
}

/// Every capture that is damaged somewhere comes over as it is, and is read as such.
#[test]
fn damaged_captures_end_nobody() {
    let bytes = fixtures::killed_service().build();
    let served = Served::new(&bytes);
    let mut readable = 0;
    for at in (0..bytes.len()).step_by(bytes.len() / 200) {
        let damaged = bytes[at] ^ 0xff;
        served.file.write_all_at(&[damaged], at as u64).unwrap();
        let here = Capture::from_file(served.file.try_clone().unwrap(), "x");
        match (here, follow(served.connect(), true)) {
            (Ok(here), Ok(there)) => {
                same(&there.snapshot(), &here);
                readable += 1;
            }
            (Err(here), Err(RemoteError::Capture(there))) => {
                assert_eq!(
                    std::mem::discriminant(&here),
                    std::mem::discriminant(&there)
                );
            }
            // No capture of counters any more.
            (Ok(here), Err(RemoteError::Protocol(_))) => assert!(!here.warnings.is_empty()),
            (here, there) => panic!("{here:?} here and {there:?} there, damaged at {at}"),
        }
        served
            .file
            .write_all_at(&bytes[at..=at], at as u64)
            .unwrap();
    }
    assert!(readable > 100, "{readable}");
}
