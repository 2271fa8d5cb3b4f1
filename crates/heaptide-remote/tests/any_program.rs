//! A reader against programs that answer anything: it ends, nothing in it panics, and what it has read stays.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use heaptide_format::{
    LIVE_BYTES, LIVE_ENDED, LIVE_MAGIC, LIVE_PIECE_BYTES, LIVE_SAME, LIVE_VERSION, LiveHello,
    LiveReply, LiveRequest, LiveWanted,
};
use heaptide_remote::{Follower, RemoteError, await_hello};
use heaptide_testkit::{Random, conversation, fixtures};
use zerocopy::{FromBytes, IntoBytes};

const LONG: Duration = Duration::from_secs(60);

/// Panics of any thread, also of those that somebody waits for without looking at what became of them.
fn panics() -> &'static AtomicUsize {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |what| {
            PANICS.fetch_add(1, Ordering::AcqRel);
            before(what);
        }));
    });
    &PANICS
}

fn hello(pid: u32, descriptor: u32) -> Vec<u8> {
    let hello = LiveHello {
        magic: LIVE_MAGIC,
        version: LIVE_VERSION,
        pid,
        descriptor,
        reserved: 0,
    };
    hello.as_bytes().to_vec()
}

/// What became of a reader.
#[derive(Default, Debug)]
struct Outcomes {
    refused: usize,
    /// Connections that were over, and not over, after some snapshots.
    over: usize,
    active: usize,
}

/// Follows whatever is said at the other end, and takes some snapshots.
fn follow(stream: TcpStream, alone: bool, outcomes: &mut Outcomes) {
    let begun = loop {
        match await_hello(&stream, LONG) {
            Ok(None) => {}
            Ok(Some(hello)) => break Follower::begin(stream, &hello, alone, |_| {}),
            Err(error) => break Err(error),
        }
    };
    let follower = match begun {
        Ok(follower) => follower,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            outcomes.refused += 1;
            return;
        }
    };
    let mut last = follower.last();
    for _ in 0..3 {
        let taken = follower.snapshot();
        let active = follower.is_active();
        // Once it is over nothing changes any more.
        if !active {
            last = follower.last();
            assert!(Arc::ptr_eq(&follower.snapshot(), &last));
            outcomes.over += 1;
            return;
        }
        assert!(last.file_bytes > 0 && taken.file_bytes > 0);
    }
    outcomes.active += 1;
}

/// Answers as a program does that serves `capture`, but for now and then, and hangs up after some requests.
fn lie(mut stream: TcpStream, capture: &[u8], random: &mut Random) {
    let one_of = 8 + random.below(2000);
    for _ in 0..2 + random.below(400) {
        let mut head = [0; size_of::<LiveRequest>()];
        if stream.read_exact(&mut head).is_err() {
            return;
        }
        let request = LiveRequest::read_from_bytes(&head).unwrap();
        let mut wanted = vec![0; request.pieces as usize * size_of::<LiveWanted>()];
        if stream.read_exact(&mut wanted).is_err() {
            return;
        }
        let (mut said, away) = conversation::answers(capture, &[&head[..], &wanted].concat());
        assert!(!away, "a reader asks for nothing that is not served");
        let goes_on = random.below(one_of) >= 4 || twist(&mut said, random);
        if stream.write_all(&said).is_err() {
            return;
        }
        if !goes_on {
            // Otherwise both might wait for the other.
            break;
        }
    }
    // Hung up: the reader hears of it, and so does whoever waits for its next request.
    let _ = stream.shutdown(Shutdown::Both);
}

/// Changes an answer. `false`: the reader may wait for more of it.
fn twist(said: &mut Vec<u8>, random: &mut Random) -> bool {
    const REPLY: usize = size_of::<LiveReply>();
    let kinds = [LIVE_BYTES, LIVE_SAME, LIVE_ENDED, 0, u32::MAX];
    let mut reply = LiveReply {
        kind: kinds[random.below(kinds.len())],
        bytes: [0, 1, LIVE_PIECE_BYTES as u32, u32::MAX][random.below(4)],
        capture_bytes: [0, 1, 4096, 30_000, 4 << 30, u64::MAX][random.below(6)],
    };
    match random.below(7) {
        0 => said[..REPLY].copy_from_slice(reply.as_bytes()),
        1 => drop(said.splice(..0, reply.as_bytes().iter().copied())),
        2 => said.truncate(random.below(said.len())),
        3 => {
            for _ in 0..1 + random.below(8) {
                let place = random.below(said.len());
                said[place] = random.next() as u8;
            }
        }
        // Something that nobody asked for,
        4 => {
            said.extend_from_slice(reply.as_bytes());
            return true;
        }
        // the end of tracking,
        5 => {
            (reply.kind, reply.bytes) = (LIVE_ENDED, 0);
            drop(said.splice(..0, reply.as_bytes().iter().copied()));
            return true;
        }
        // or a length of the capture that is another one.
        _ => {
            said[8..REPLY].copy_from_slice(&reply.capture_bytes.to_le_bytes());
            return true;
        }
    }
    false
}

/// Both ends of a new connection, the reader's first.
fn connected(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (stream, listener.accept().unwrap().0)
}

#[test]
fn it_bears_whatever_is_answered() {
    let panics = panics();
    let captures = [
        fixtures::tiny_objects().build(),
        fixtures::killed_service().build(),
        fixtures::tiny_events().build(),
        fixtures::wide_tree(3000, true).build(),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let mut outcomes = Outcomes::default();
    for round in 0..600 {
        let mut capture = captures[round % captures.len()].clone();
        // Every other one is damaged, too.
        for _ in 0..(round % 2) * random.below(6) {
            let place = random.below(capture.len());
            capture[place] = random.next() as u8;
        }
        let (stream, mut accepted) = connected(&listener);
        let (number, alone) = (random.next() as u32, random.below(2) == 0);
        let mut its_random = random.clone();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // A descriptor of our own, which is not what is served: anything from a socket to a library.
                let pid = std::process::id();
                if accepted.write_all(&hello(pid, number % 16)).is_ok() {
                    lie(accepted, &capture, &mut its_random);
                }
            });
            follow(stream, alone, &mut outcomes);
        });
        random.next();
        assert_eq!(panics.load(Ordering::Acquire), 0, "round {round}");
    }
    let Outcomes {
        refused,
        over,
        active,
    } = outcomes;

    assert!(refused > 100 && over > 50 && active > 20, "{outcomes:?}");
}

/// What an honest program says to a reader that takes some snapshots.
fn recorded(listener: &TcpListener, capture: &[u8]) -> Vec<u8> {
    let (stream, mut accepted) = connected(listener);
    std::thread::scope(|scope| {
        let program = scope.spawn(move || {
            accepted.write_all(&hello(u32::MAX, u32::MAX)).unwrap();
            conversation::serve(capture, &mut accepted).unwrap()
        });
        let mut outcomes = Outcomes::default();
        follow(stream, true, &mut outcomes);
        assert_eq!(outcomes.active, 1);
        program.join().unwrap().1
    })
}

/// Without waiting for any question: what an honest program says, with some bytes changed, and then nothing.
#[test]
fn it_bears_whatever_is_said_unasked() {
    let panics = panics();
    let capture = fixtures::tiny_objects().build();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let recorded = recorded(&listener, &capture);
    let mut random = Random(99);
    let mut outcomes = Outcomes::default();
    for round in 0..400 {
        let mut said = hello(u32::MAX, u32::MAX);
        said.extend_from_slice(&recorded);
        for _ in 0..random.below(4) {
            let place = random.below(said.len());
            said[place] = random.next() as u8;
        }
        if round % 3 == 0 {
            said.truncate(random.below(said.len()));
        }
        let (stream, mut accepted) = connected(&listener);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = accepted.write_all(&said);
                let _ = accepted.shutdown(Shutdown::Write);
                let _ = std::io::copy(&mut accepted, &mut std::io::sink());
            });
            follow(stream, true, &mut outcomes);
        });
        assert_eq!(panics.load(Ordering::Acquire), 0, "round {round}");
    }
    assert!(outcomes.refused > 40 && outcomes.over > 200, "{outcomes:?}");
}

#[test]
fn greetings_of_any_bytes_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let whole = hello(1, 1);
    for place in 0..12 {
        let mut said = whole.clone();
        said[place] ^= 0x10;
        let (stream, mut accepted) = connected(&listener);
        accepted.write_all(&said).unwrap();
        let refused = await_hello(&stream, LONG).unwrap_err();
        let foreign = matches!(refused, RemoteError::Foreign);
        assert!(foreign || matches!(refused, RemoteError::Version(_)));
        assert_eq!(foreign, place < LIVE_MAGIC.len());
    }
}
