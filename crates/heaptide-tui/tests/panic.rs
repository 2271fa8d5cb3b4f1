//! A panic gives the terminal back, and what it says is on the screen that stays.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Command;
use std::rc::Rc;

use heaptide_capture::Capture;
use heaptide_engine::{Metric, Profile};
use heaptide_testkit::fixtures;
use heaptide_tui::{Options, SourceFile, Sources, State, Theme};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// Set in the process that panics: this test again, on a terminal of its own.
const PANICS: &str = "HEAPTIDE_TEST_PANICS";
const MESSAGE: &str = "sources are out of order";
const LEAVE: &str = "\x1b[?1049l";

/// Sources that panic while a screen is drawn.
struct Broken;

impl Sources for Broken {
    fn file(&mut self, _name: &str) -> Option<Rc<SourceFile>> {
        panic!("{MESSAGE}")
    }
}

fn show_until_it_panics() {
    let bytes = fixtures::killed_service().build();
    let capture = Capture::from_bytes(&bytes, "app.tide").expect("readable");
    let profile = Profile::new(&capture);
    let options = Options {
        metric: Metric::Peak,
        biggest: 200,
        title: "app.py".to_owned(),
    };
    let theme = Theme {
        color: false,
        unicode: true,
    };
    let mut state = State::new(&profile, options);
    heaptide_tui::run(&mut state, &mut Broken, theme).expect("the terminal can be used");
}

#[test]
fn a_panic_gives_the_terminal_back() {
    if std::env::var_os(PANICS).is_some() {
        return show_until_it_panics();
    }
    let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&keyboard).expect("it is ours");
    unlockpt(&keyboard).expect("it is ours");
    let name = ptsname(&keyboard, Vec::new()).expect("it has a name");
    let terminal =
        rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("it opens");
    let size = Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&terminal, size).expect("it has a size");
    let stream = || terminal.try_clone().expect("descriptors are there");
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["a_panic_gives_the_terminal_back", "--exact", "--nocapture"])
        .env(PANICS, "1")
        .env("TERM", "xterm")
        .stdin(stream())
        .stdout(stream())
        .stderr(stream())
        .spawn()
        .expect("this test runs");
    let mut keyboard = File::from(keyboard);
    let mut seen = String::new();
    let mut bytes = [0; 4096];
    let mut read_until = |done: &dyn Fn(&str) -> bool, keyboard: &mut File| {
        while !done(&seen) {
            let length = keyboard.read(&mut bytes).expect("the terminal is open");
            seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    };
    read_until(&|seen| seen.contains("quit"), &mut keyboard);
    // To the first frame, which has a source; the root has none.
    keyboard.write_all(b"j").expect("keys can be pressed");
    let told = |seen: &str| seen.contains(LEAVE) && seen.contains(MESSAGE);
    read_until(&told, &mut keyboard);
    let (screen, after) = seen.split_once(LEAVE).expect("it was left");
    assert!(screen.contains("\x1b[?1049h"), "{seen}");
    assert!(!screen.contains(MESSAGE), "it vanished with the screen");
    assert!(after.contains("\x1b[?25h"), "the cursor is shown again");
    let modes = tcgetattr(terminal.as_fd()).expect("it is a terminal");
    assert!(modes.local_modes.contains(LocalModes::ICANON));
    assert!(!child.wait().expect("it ends").success());
}
