//! Any bytes as what a reader says to the server in a tracked program; what it answers is compared with the model's answers.
#![no_main]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::LazyLock;

use heaptide_format::LiveHello;
use heaptide_serve::{Buffers, Server};
use heaptide_testkit::{conversation, fixtures};
use libfuzzer_sys::fuzz_target;

struct Setup {
    capture: Vec<u8>,
    file: File,
    listener: UnixListener,
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let capture = fixtures::killed_service().build();
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&capture, 0).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("port")).unwrap();
    Setup {
        capture,
        file,
        listener,
    }
});

fuzz_target!(|input: (u8, &[u8])| {
    // So many bytes at a time, and answers are received after so many turns.
    let (pace, said) = input;
    let (bytes_at_once, laziness) = (1 << (pace % 16), pace / 16 % 4);
    let Setup {
        capture,
        file,
        listener,
    } = &*SETUP;
    let (mut reader, served) = UnixStream::pair().unwrap();
    reader.set_nonblocking(true).unwrap();
    let (mut server, mut buffers) = (Server::new(), Box::new(Buffers::new()));
    let begun = server.begin(file.as_fd(), listener.as_fd(), served.as_fd(), &mut buffers);
    begun.unwrap();
    drop(served);
    let (mut heard, mut at, mut gone, mut turns) = (Vec::new(), 0, false, 0u8);
    let mut room = [0; 1 << 16];
    while !gone {
        let mut moved = 0;
        if at < said.len() {
            let most = bytes_at_once.min(said.len() - at);
            match reader.write(&said[at..at + most]) {
                Ok(count) => moved += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Nobody is there; what was answered before can still be read.
                Err(_) => moved += said.len() - at,
            }
            at += moved;
        }
        moved += server.turn(None, 0, &mut buffers);
        turns = turns.wrapping_add(1);
        if moved == 0 || turns % (1 + laziness) == 0 {
            match reader.read(&mut room) {
                Ok(0) => gone = true,
                Ok(count) => {
                    heard.extend_from_slice(&room[..count]);
                    moved += count;
                }
                Err(error) => gone = error.kind() != ErrorKind::WouldBlock,
            }
        }
        if moved == 0 {
            break;
        }
    }
    let (expected, away) = conversation::answers(capture, said);
    assert!(heard[size_of::<LiveHello>()..] == expected);
    assert_eq!(gone, away);
    let _ = reader.shutdown(Shutdown::Both);
    server.finish(&mut buffers);
    assert!(!server.is_open());
});
