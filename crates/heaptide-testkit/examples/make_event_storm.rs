//! Writes a capture of very many events, without ever holding them: `make_event_storm FILE [EVENTS [LIVE [STACKS]]]`.
//!
//! Four threads take turns; about LIVE blocks live at a time, most of them for long, and are freed by any of the
//! threads. To be read with `heaptide stats FILE`, whose memory must depend on LIVE and STACKS alone:
//!
//! ```text
//! cargo run --release -p heaptide-testkit --example make_event_storm -- storm.tide 1000000000
//! ```

use std::path::Path;

use heaptide_testkit::storm::{Storm, write_event_storm};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        eprintln!("usage: make_event_storm FILE [EVENTS [LIVE [STACKS]]]");
        std::process::exit(2);
    };
    let mut number = |default: u64| {
        let given = arguments.next().map(|argument| argument.parse());
        given.map_or(default, |given| given.expect("a number"))
    };
    let events = number(10_000_000);
    let live = number(100_000).max(1);
    let stacks = number(10_000).max(1);
    let storm = Storm {
        events,
        live,
        stacks,
    };
    write_event_storm(Path::new(&path), storm)
}
