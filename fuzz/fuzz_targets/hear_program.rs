//! Any bytes as what a tracked program says to a reader of its socket.
#![no_main]

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use heaptide_format::{LIVE_MAGIC, LIVE_VERSION, LiveHello};
use heaptide_remote::{Follower, await_hello};
use libfuzzer_sys::fuzz_target;
use zerocopy::IntoBytes;

static LISTENER: LazyLock<TcpListener> =
    LazyLock::new(|| TcpListener::bind("127.0.0.1:0").unwrap());

/// Less than a connection holds, so that nobody waits for the reader.
const MOST_BYTES: usize = 64 << 10;

fuzz_target!(|input: (bool, &[u8])| {
    let (greets, said) = input;
    let said = &said[..said.len().min(MOST_BYTES)];
    let stream = TcpStream::connect(LISTENER.local_addr().unwrap()).unwrap();
    let (mut program, _) = LISTENER.accept().unwrap();
    if greets {
        let hello = LiveHello {
            magic: LIVE_MAGIC,
            version: LIVE_VERSION,
            pid: u32::MAX,
            descriptor: u32::MAX,
            reserved: 0,
        };
        program.write_all(hello.as_bytes()).unwrap();
    }
    program.write_all(said).unwrap();
    program.shutdown(Shutdown::Write).unwrap();
    let hello = await_hello(&stream, Duration::from_secs(1));
    // A part of a greeting stays one, for whoever is patient.
    let Ok(Some(hello)) = hello else {
        return;
    };
    if let Ok(follower) = Follower::begin(stream, &hello, true, |_| {}) {
        while follower.is_active() {
            let _ = follower.snapshot();
        }
        assert!(follower.snapshot().file_bytes > 0);
    }
});
