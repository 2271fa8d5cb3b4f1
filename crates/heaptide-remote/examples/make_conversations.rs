//! Writes what is said between readers and programs into two files for each synthetic capture of the tests, as seeds of the fuzzer:
//! `make_conversations asked|said DIRECTORY`.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use heaptide_format::LiveHello;
use heaptide_remote::Follower;
use heaptide_testkit::{conversation, fixtures};
use zerocopy::FromZeros;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let asks = arguments.next().is_some_and(|which| which == "asked");
    let directory = PathBuf::from(arguments.next().unwrap_or_else(|| ".".into()));
    for (name, builder) in [
        ("tiny", fixtures::tiny()),
        ("tiny_objects", fixtures::tiny_objects()),
        ("killed_service", fixtures::killed_service()),
    ] {
        let capture = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        let (mut accepted, _) = listener.accept()?;
        let program = std::thread::spawn(move || conversation::serve(&capture, &mut accepted));
        let follower = Follower::begin(stream, &LiveHello::new_zeroed(), true, |_| {});
        let follower = follower.map_err(std::io::Error::other)?;
        let _ = follower.snapshot();
        drop(follower);
        let (asked, said) = program.join().expect("the program does not panic")?;
        let bytes = if asks { asked } else { said };
        std::fs::write(directory.join(name), bytes)?;
    }
    Ok(())
}
