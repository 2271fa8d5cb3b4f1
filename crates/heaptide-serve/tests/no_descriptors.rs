//! A program that has no descriptors left. In a file of its own, since the limit is that of the whole process.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use heaptide_format::LiveHello;
use heaptide_serve::{Buffers, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn who_cannot_be_let_in_makes_nobody_spin() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || TcpStream::connect(address).unwrap();
    let first = connect();
    let (served, _) = listener.accept().unwrap();
    let capture = tempfile::tempfile().unwrap();
    let (mut server, mut buffers) = (Server::new(), Box::new(Buffers::new()));
    let begun = server.begin(
        capture.as_fd(),
        listener.as_fd(),
        served.as_fd(),
        &mut buffers,
    );
    begun.unwrap();
    while server.turn(None, 0, &mut buffers) > 0 {}

    let limit = getrlimit(Resource::Nofile);
    // With so few, not even six can be waited for in one call.
    for so_many in [6, 0] {
        let mut late = connect();
        let few = Rlimit {
            current: Some(so_many),
            ..limit
        };
        setrlimit(Resource::Nofile, few).unwrap();
        // This one finds out that there is none left, all others wait.
        server.turn(None, 0, &mut buffers);
        let begun = Instant::now();
        let wait = Duration::from_millis(10);
        for _ in 0..3 {
            let moved = server.turn(None, wait.as_nanos() as u64, &mut buffers);
            assert_eq!(moved, 0);
        }
        assert!(begun.elapsed() >= 3 * wait, "{:?}", begun.elapsed());

        // As soon as there are some again, whoever has waited is let in.
        setrlimit(Resource::Nofile, limit).unwrap();
        server.turn(None, 0, &mut buffers);
        late.read_exact(&mut [0; size_of::<LiveHello>()]).unwrap();
    }
    drop(first);
}
