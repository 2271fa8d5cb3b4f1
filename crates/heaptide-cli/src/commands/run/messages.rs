//! What `heaptide run` says on stderr: little while all is well, all that helps when it is not.

use std::io::Write;
use std::path::{Path, PathBuf};

use heaptide_capture::{Capture, signal_name};
use heaptide_engine::Profile;
use heaptide_format::{PythonAllocator, State};
use heaptide_report::{DeathOptions, death_summary};
use heaptide_session::outcome::End;
use heaptide_session::plain;
use heaptide_session::session::Session;
use heaptide_session::supervise::Ended;

use crate::terminal::Terminal;

/// The signal that the OOM killer sends.
const SIGKILL: i32 = 9;

/// The messages of one session.
pub(super) struct Messages<'a> {
    session: &'a Session,
    /// The capture as the user would type it; `None` where nothing is kept.
    path: Option<PathBuf>,
    quiet: bool,
    traces_python_allocators: bool,
    terminal: &'a Terminal,
}

impl<'a> Messages<'a> {
    pub(super) fn new(
        session: &'a Session,
        quiet: bool,
        traces_python_allocators: bool,
        terminal: &'a Terminal,
    ) -> Self {
        Self {
            session,
            path: session.destination().map(relative),
            quiet,
            traces_python_allocators,
            terminal,
        }
    }

    /// The program runs.
    pub(super) fn started(&self) {
        if self.quiet {
            return;
        }
        match &self.path {
            Some(path) => self.note(&format!("writing {}", path.display())),
            None => self.note("recording everything and keeping nothing (-o /dev/null)"),
        }
        if self.session.is_buffered() {
            self.note(
                "with --buffered-file-io what is not yet written is lost if heaptide or the machine dies; the program's own death loses nothing",
            );
        }
    }

    /// The program has ended, and it takes a while to make the capture small.
    pub(super) fn compressing(&self, path: &Path, bytes: u64) {
        if !self.quiet {
            let path = relative(path);
            self.note(&format!(
                "compressing {} ({}); Ctrl-C leaves it as it is",
                path.display(),
                heaptide_report::bytes_text(bytes)
            ));
        }
    }

    /// The program has ended.
    pub(super) fn ended(&self, ended: &Ended) {
        for problem in &ended.problems {
            self.warning(problem);
        }
        if !ended.tracked() {
            self.death(ended);
            self.nothing_recorded(ended);
            return;
        }
        if let Some(text) = stop_text(ended) {
            self.warning(&format!(
                "tracking stopped early: {text}; the figures are true up to then"
            ));
        }
        // Killed after tracking had ended in order (Ctrl-C): nothing was held by then.
        if matches!(ended.end, End::Signaled(_)) && ended.state() != Some(State::Finished) {
            self.holders(ended);
        } else if !self.quiet {
            self.death(ended);
            match &self.path {
                Some(path) if matches!(path.try_exists(), Ok(false)) => {
                    self.note(&format!(
                        "the capture is not in {} any more: the program has taken it away",
                        path.display()
                    ));
                    self.followed(ended);
                }
                Some(path) => {
                    self.note(&format!("the capture is in {}", path.display()));
                    if !self.traces_python_allocators
                        && let Some(lifecycle) = &ended.lifecycle
                        && let Some(text) = hidden_objects(lifecycle.python_allocator)
                    {
                        self.note(text);
                    }
                    self.followed(ended);
                    next_command(path);
                }
                None => self.note("nothing was kept"),
            }
        }
    }

    /// Who held the memory when the program was killed.
    fn holders(&self, ended: &Ended) {
        let Some(path) = &self.path else {
            return self.death(ended);
        };
        match Capture::open(path) {
            Ok(capture) => {
                let (profile, liveness) = (Profile::new(&capture), capture.liveness());
                let summary = death_summary(&capture, &profile, &liveness, DeathOptions::default());
                self.note(summary.trim_end());
            }
            Err(error) => {
                self.death(ended);
                self.warning(&format!(
                    "the capture {} cannot be read: {error}",
                    path.display()
                ));
            }
        }
    }

    /// The captures of other processes.
    fn followed(&self, ended: &Ended) {
        let count = match ended.followed.len() {
            0 => return,
            1 => "that of another process is".to_owned(),
            count => format!("those of {count} other processes are"),
        };
        if let Some(path) = &self.path {
            self.note(&format!("{count} beside it, in {}.*", path.display()));
        }
    }

    fn death(&self, ended: &Ended) {
        if let Some(text) = death_text(ended) {
            self.note(&text);
        }
    }

    /// An empty capture helps nobody: it is removed, and the reason is given.
    fn nothing_recorded(&self, ended: &Ended) {
        if !ended.followed.is_empty() && ended.stop_reason().is_none() {
            // A shell script, say, whose Python programs were recorded.
            let _ = self.session.discard();
            if !self.quiet {
                self.note("the program itself was not recorded: it is not a CPython 3.9 or later");
                self.followed(ended);
            }
            return;
        }
        let removed = self.session.discard();
        let title = self.terminal.stderr_style("1;31", "heaptide: error:");
        if let Some(text) = stop_text(ended) {
            say(&format!("{title} nothing was recorded: {text}"));
        } else {
            say(&format!(
                "{title} nothing was recorded: no CPython 3.9 or later started in this process"
            ));
            say(
                "  The command must be a dynamically linked CPython or become one by exec; children are not followed,",
            );
            say("  and a set-user-ID program cannot be recorded.");
        }
        if let Err(error) = removed {
            let why = plain(&error);
            self.warning(&format!("the empty capture could not be removed: {why}"));
        }
    }

    fn note(&self, text: &str) {
        say(&format!("heaptide: {text}"));
    }

    fn warning(&self, text: &str) {
        let title = self.terminal.stderr_style("33", "warning:");
        say(&format!("heaptide: {title} {text}"));
    }
}

fn next_command(path: &Path) {
    say(&format!("  next: heaptide flamegraph {}", quoted(path)));
}

/// A path below the current directory as one would type it.
fn relative(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).to_owned()
}

/// stderr may be closed, and that is no reason to fail the program.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The path in a form that a shell takes as one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if text.chars().all(plain) && !text.starts_with('-') {
        return text;
    }
    let escaped = text.replace('\'', "'\\''");
    if text.starts_with('-') {
        format!("'./{escaped}'")
    } else {
        format!("'{escaped}'")
    }
}

/// How the program died, when a signal or the OOM killer was part of it.
fn death_text(ended: &Ended) -> Option<String> {
    let times = match ended.oom_kills {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    match ended.end {
        End::Signaled(SIGKILL) if ended.oom_kills > 0 => Some(format!(
            "the program was killed by the kernel's OOM killer (SIGKILL; it struck {times} in the memory cgroup)"
        )),
        End::Signaled(signal) => {
            let core = if ended.core_dumped {
                " (core dumped)"
            } else {
                ""
            };
            Some(format!(
                "the program was killed by {}{core}",
                signal_name(signal)
            ))
        }
        End::Exited(_) if ended.oom_kills > 0 => Some(format!(
            "the kernel's OOM killer struck {times} in the program's memory cgroup during the run"
        )),
        End::Exited(_) => None,
    }
}

/// What to say of objects that the C library never hears of, with the number of the allocator that has them.
fn hidden_objects(python_allocator: u32) -> Option<&'static str> {
    matches!(
        PythonAllocator::from_raw(python_allocator)?,
        PythonAllocator::Mimalloc | PythonAllocator::MimallocDebug
    )
    .then_some(
        "this Python has its objects, large ones too, in memory of its own (mimalloc): --trace-python-allocators shows them",
    )
}

/// Why tracking gave up, if it did.
fn stop_text(ended: &Ended) -> Option<String> {
    let (reason, code) = ended.stop_reason()?;
    Some(match code {
        0 => reason.name().to_owned(),
        code => format!(
            "{} ({})",
            reason.name(),
            plain(&std::io::Error::from_raw_os_error(code))
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(end: End, oom_kills: u64) -> Ended {
        Ended {
            end,
            core_dumped: false,
            oom_kills,
            peak_resident_bytes: 0,
            lifecycle: None,
            followed: vec![],
            problems: vec![],
        }
    }

    #[test]
    fn deaths_are_told_by_their_cause() {
        let text = |end, oom_kills| death_text(&ended(end, oom_kills));
        assert_eq!(text(End::Exited(3), 0), None);
        assert!(text(End::Exited(3), 2).unwrap().contains("struck 2 times"));
        assert!(text(End::Signaled(9), 1).unwrap().contains("OOM killer"));
        assert!(text(End::Signaled(9), 0).unwrap().ends_with("SIGKILL"));
        assert!(text(End::Signaled(11), 1).unwrap().contains("SIGSEGV"));
    }

    #[test]
    fn objects_that_are_not_seen_are_told_of() {
        let hidden = |allocator| hidden_objects(allocator as u32).is_some();
        assert!(hidden(PythonAllocator::Mimalloc));
        assert!(hidden(PythonAllocator::MimallocDebug));
        assert!(!hidden(PythonAllocator::Pymalloc));
        assert!(!hidden(PythonAllocator::Malloc));
        assert_eq!(hidden_objects(u32::MAX), None);
    }

    #[test]
    fn paths_can_be_typed_again() {
        assert_eq!(
            quoted(Path::new("a/heaptide-x.1.tide")),
            "a/heaptide-x.1.tide"
        );
        assert_eq!(quoted(Path::new("it's.tide")), "'it'\\''s.tide'");
        assert_eq!(quoted(Path::new("-o.tide")), "'./-o.tide'");
    }
}
