//! `heaptide tree` on a terminal of its own: what it takes it gives back.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};

use heaptide_testkit::fixtures;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{
    LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize,
};

/// A terminal, and `heaptide` on it.
struct Screen {
    keyboard: File,
    terminal: OwnedFd,
    /// How the terminal was before `heaptide` had it.
    before: Termios,
    child: Child,
    seen: String,
    directory: tempfile::TempDir,
}

impl Screen {
    fn new(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(
            directory.path().join("app.tide"),
            fixtures::killed_service().build(),
        )
        .expect("the capture can be written");
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
        let before = tcgetattr(&terminal).expect("it is a terminal");
        assert!(before.local_modes.contains(LocalModes::ICANON));
        let stream = || terminal.try_clone().expect("descriptors are there");
        let child = Command::new(env!("CARGO_BIN_EXE_heaptide"))
            .current_dir(directory.path())
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm")
            .args(arguments)
            .arg("app.tide")
            .stdin(stream())
            .stdout(stream())
            // Ctrl-Z stops a whole job, of which the tests are no part.
            .process_group(0)
            .spawn()
            .expect("heaptide starts");
        Self {
            keyboard: File::from(keyboard),
            terminal,
            before,
            child,
            seen: String::new(),
            directory,
        }
    }

    /// Reads what is shown until `text` is there.
    fn wait_for(&mut self, text: &str) {
        let mut bytes = [0; 4096];
        while !self.seen.contains(text) {
            let length = self
                .keyboard
                .read(&mut bytes)
                .expect("the terminal is open");
            assert_ne!(length, 0, "{}", self.seen);
            self.seen
                .push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    }

    fn press(&mut self, keys: &str) {
        self.seen.clear();
        self.keyboard
            .write_all(keys.as_bytes())
            .expect("keys can be pressed");
    }

    /// Waits until it has been stopped, and sends it on.
    fn send_on_when_stopped(&mut self, meanwhile: impl FnOnce(&Self)) {
        let pid = Pid::from_child(&self.child);
        let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED)
            .expect("it is our child")
            .expect("it was waited for");
        assert!(status.stopped(), "{status:?}: {}", self.seen);
        meanwhile(self);
        self.seen.clear();
        kill_process(pid, Signal::CONT).expect("it is there");
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(self.terminal.as_fd()).expect("it is a terminal");
        !modes.local_modes.contains(LocalModes::ICANON)
    }
}

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

#[test]
fn quitting_gives_the_terminal_back() {
    let mut screen = Screen::new(&["tree"]);
    screen.wait_for("quit");
    assert!(screen.seen.contains(ENTER) && screen.seen.contains("load_table"));
    assert!(screen.is_raw());
    screen.press("/put\r");
    screen.wait_for("Cache.put");
    screen.press("q");
    screen.wait_for(LEAVE);
    let status = screen.child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(!screen.is_raw());
}

#[test]
fn a_signal_gives_the_terminal_back_and_ends_as_it_should() {
    let mut screen = Screen::new(&["tree", "--leaks"]);
    screen.wait_for("quit");
    let pid = Pid::from_child(&screen.child);
    kill_process(pid, Signal::TERM).expect("it runs");
    screen.wait_for(LEAVE);
    let status = screen.child.wait().expect("it ends");
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
    assert!(!screen.is_raw());
}

#[test]
fn ctrl_z_gives_the_terminal_back_until_it_goes_on() {
    let mut screen = Screen::new(&["tree"]);
    screen.wait_for("quit");
    screen.press("\x1a");
    screen.wait_for(LEAVE);
    screen.send_on_when_stopped(|screen| assert!(!screen.is_raw()));
    screen.wait_for(ENTER);
    // Drawn anew, not only what has changed.
    screen.wait_for("load_table");
    screen.wait_for("quit");
    assert!(screen.is_raw());
    screen.press("q");
    screen.wait_for(LEAVE);
    assert_eq!(screen.child.wait().expect("it ends").code(), Some(0));
    assert!(!screen.is_raw());
}

#[test]
fn whoever_stops_it_may_have_used_the_terminal() {
    let mut screen = Screen::new(&["tree"]);
    screen.wait_for("quit");
    kill_process(Pid::from_child(&screen.child), Signal::STOP).expect("it runs");
    screen.send_on_when_stopped(|screen| {
        // As a shell does.
        tcsetattr(
            screen.terminal.as_fd(),
            OptionalActions::Now,
            &screen.before,
        )
        .expect("it is ours");
        assert!(!screen.is_raw());
    });
    screen.wait_for(ENTER);
    screen.wait_for("load_table");
    screen.wait_for("quit");
    assert!(screen.is_raw());
    screen.press("q");
    screen.wait_for(LEAVE);
    assert_eq!(screen.child.wait().expect("it ends").code(), Some(0));
    assert!(!screen.is_raw());
}

#[test]
fn text_is_printed_where_it_is_wanted() {
    for arguments in [
        &["tree", "--text"][..],
        &["tree", "-p", "5"],
        &["tree", "--json"],
        &["--color", "never", "tree", "--focus", "load"],
    ] {
        let mut screen = Screen::new(arguments);
        screen.wait_for("load_table");
        assert!(!screen.seen.contains(ENTER), "{arguments:?}");
        assert_eq!(screen.child.wait().expect("it ends").code(), Some(0));
    }
}

#[test]
fn statistics_become_a_file() {
    let mut screen = Screen::new(&["stats", "--json"]);
    assert_eq!(screen.child.wait().expect("it ends").code(), Some(0));
    let file = screen.directory.path().join("heaptide-stats-app.tide.json");
    assert!(
        std::fs::read_to_string(file)
            .expect("it was written")
            .starts_with('{')
    );
}
