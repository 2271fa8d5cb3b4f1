//! Watching the program: sleep, pass signals on, take a sample now and then, note the end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use heaptide_format::{Lifecycle, Sample, State, StopReason};

use crate::capture::SamplesSegment;
use crate::family::Family;
use crate::outcome::{self, End};
use crate::samples::{self, SampleTable};
use crate::session::{Session, oom_kills};
use crate::signals::{self, Received};
use crate::system;
use crate::turn::TurnCounter;
use heaptide_format::Mode;

/// The program is noted as alive at least this often, however rare the samples have become.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How it went.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How the program ended.
    pub end: End,
    /// Whether the kernel wrote a core file.
    pub core_dumped: bool,
    /// How often the OOM killer struck in the program's memory cgroup during the run.
    pub oom_kills: u64,
    /// The largest resident set of the program, bytes.
    pub peak_resident_bytes: u64,
    /// What the capture says about the run; `None` when it cannot be read any more.
    pub lifecycle: Option<Lifecycle>,
    /// Captures of other processes that were seen to appear.
    pub followed: Vec<PathBuf>,
    /// Things that went wrong in the supervisor, for the user to read. The program did not notice.
    pub problems: Vec<String>,
}

impl Ended {
    /// Whether there is anything in the capture.
    #[must_use]
    pub fn tracked(&self) -> bool {
        let Some(lifecycle) = &self.lifecycle else {
            return false;
        };
        let unsupported = lifecycle.stop_reason == StopReason::Unsupported as u32;
        lifecycle.tracking_start_unix_ns != 0 && !unsupported
    }

    /// Why tracking gave up, if it did: the reason and the `errno` behind it (0 = none).
    #[must_use]
    pub fn stop_reason(&self) -> Option<(StopReason, i32)> {
        let lifecycle = self.lifecycle.as_ref()?;
        // A reason without `State::Stopped`: tracking could not even start.
        let reason = StopReason::from_raw(lifecycle.stop_reason)?;
        (reason != StopReason::None).then_some((reason, lifecycle.stop_errno))
    }

    /// Where tracking stands.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        State::from_raw(self.lifecycle.as_ref()?.state)
    }
}

impl Session {
    /// Waits for the program's end, samples its memory meanwhile, and completes the capture.
    ///
    /// # Errors
    /// Only when the program cannot be waited for.
    pub fn supervise(&self) -> io::Result<Ended> {
        let mut watch = Watch::new(self);
        let waited = loop {
            if let Some(received) = self.signals.wait(Some(watch.time_to_next(self)))? {
                if received.number == libc::SIGCHLD {
                    if let Some(waited) = outcome::poll_child(self.pid)? {
                        break waited;
                    }
                } else if should_pass_on(received, self.pid) {
                    signals::send(self.pid, received.number);
                }
            }
            watch.tick(self);
        };
        let oom_kills = oom_kills(self.cgroup.as_ref()).saturating_sub(self.oom_kills_before);
        if let Err(error) = self
            .capture
            .note_end(waited.end, oom_kills, watch.clock.now())
        {
            watch.problem(
                "how the program ended could not be noted in the capture",
                &error,
            );
        }
        if let Some(family) = &mut watch.family {
            let pid = u32::try_from(self.pid).unwrap_or_default();
            family.finish(pid, waited.end, oom_kills, watch.clock.now());
        }
        if let Some(mirrors) = self.sink.mirrors() {
            let mut mirrors = mirrors.borrow_mut();
            let cut_off = mirrors.close();
            watch.problems.extend(mirrors.take_problem());
            if cut_off > 0 {
                watch.problems.push(format!(
                    "followed processes that go on: {cut_off}; their captures end here (--buffered-file-io)"
                ));
            }
        }
        Ok(Ended {
            followed: watch.family.map_or_else(Vec::new, |family| family.seen),
            end: waited.end,
            core_dumped: waited.core_dumped,
            oom_kills,
            peak_resident_bytes: waited.peak_resident_bytes,
            lifecycle: self.capture.lifecycle().ok(),
            problems: watch.problems,
        })
    }
}

/// What the kernel sends (Ctrl-C on a terminal) goes to the whole process group, so the program has
/// it already; so it is with what the program sends to its own group.
fn should_pass_on(received: Received, program: libc::pid_t) -> bool {
    received.sender.is_some_and(|sender| sender != program)
}

/// Time that never goes back, in the unit of the capture.
struct Clock {
    started_unix_ns: u64,
    started: Instant,
}

impl Clock {
    fn new() -> Self {
        Self {
            started_unix_ns: system::unix_now_ns(),
            started: Instant::now(),
        }
    }

    fn now(&self) -> u64 {
        self.started_unix_ns
            + u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX / 2)
    }
}

/// The samples and the heartbeat.
struct Watch<'a> {
    family: Option<Family<'a>>,
    clock: Clock,
    /// `None`: no samples are wanted, or they had to be given up.
    sampler: Option<Sampler>,
    next_heartbeat: Instant,
    problems: Vec<String>,
}

struct Sampler {
    turns: Option<TurnCounter>,
    /// `/proc/PID/statm`
    statm: File,
    table: SampleTable<SamplesSegment>,
    interval: Duration,
    next: Instant,
    page_bytes: u64,
}

impl<'a> Watch<'a> {
    fn new(session: &'a Session) -> Self {
        let mut watch = Self {
            family: session
                .watcher
                .as_ref()
                .map(|watcher| Family::new(watcher, &session.sink, session.memory_interval_ms)),
            clock: Clock::new(),
            sampler: None,
            next_heartbeat: Instant::now(),
            problems: Vec::new(),
        };
        if session.memory_interval_ms != 0 {
            match Sampler::new(session) {
                Ok(sampler) => watch.sampler = Some(sampler),
                // The program may have ended already.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => watch.problem("memory cannot be sampled", &error),
            }
        }
        watch
    }

    fn problem(&mut self, what: &str, error: &io::Error) {
        self.problems
            .push(format!("{what}: {}", crate::plain(error)));
    }

    fn time_to_next(&self, session: &Session) -> Duration {
        let next = self
            .sampler
            .as_ref()
            .map_or(self.next_heartbeat, |sampler| {
                sampler.next.min(self.next_heartbeat)
            });
        let family = self.family.as_ref().and_then(Family::next);
        let next = family.map_or(next, |family| family.min(next));
        let mirrors = session
            .sink
            .mirrors()
            .map(|mirrors| mirrors.borrow().next());
        let next = mirrors.map_or(next, |mirrors| mirrors.min(next));
        next.saturating_duration_since(Instant::now())
    }

    /// Does what is due. What fails once is given up: it would fail a hundred times a second.
    fn tick(&mut self, session: &Session) {
        let now = Instant::now();
        if self
            .sampler
            .as_ref()
            .is_some_and(|sampler| now >= sampler.next)
        {
            let taken = self
                .sampler
                .as_mut()
                .map_or(Ok(()), |sampler| sampler.take(session, &self.clock, now));
            if let Err(error) = taken {
                self.sampler = None;
                self.problem("memory is no longer sampled", &error);
            }
        }
        if let Some(family) = &mut self.family {
            let clock = &self.clock;
            let cgroup = session
                .cgroup
                .as_ref()
                .map_or((0, 0), crate::cgroup::MemoryCgroup::usage_and_limit);
            family.tick(now, &|| clock.now(), cgroup);
        }
        if let Some(mirrors) = session.sink.mirrors() {
            if let Some(family) = &mut self.family {
                family.meet_newcomers(now);
            }
            mirrors.borrow_mut().tick(now);
        }
        if now >= self.next_heartbeat {
            self.next_heartbeat = now + HEARTBEAT;
            if let Err(error) = session.capture.note_alive(self.clock.now()) {
                // Said once, by the note of the end, which will fail as well.
                self.next_heartbeat = now + HEARTBEAT * 3600;
                drop(error);
            }
        }
    }
}

impl Sampler {
    fn new(session: &Session) -> io::Result<Self> {
        Ok(Self {
            turns: match session.mode {
                Mode::All => Some(session.capture.turn_counter()?),
                Mode::Aggregated => None,
            },
            statm: File::open(format!("/proc/{}/statm", session.pid))?,
            table: SampleTable::new(session.capture.samples()?, samples::CAPACITY),
            interval: Duration::from_millis(session.memory_interval_ms.into()),
            next: Instant::now(),
            page_bytes: system::page_bytes() as u64,
        })
    }

    fn take(&mut self, session: &Session, clock: &Clock, now: Instant) -> io::Result<()> {
        // From now on, not from when it was due: a supervisor that was stopped has nothing to catch up with.
        self.next = now + self.interval;
        // None: the process is dead and not yet waited for.
        let Some(resident) = self.resident_bytes() else {
            return Ok(());
        };
        let (cgroup_bytes, cgroup_limit_bytes) = session
            .cgroup
            .as_ref()
            .map_or((0, 0), crate::cgroup::MemoryCgroup::usage_and_limit);
        let sample = Sample {
            unix_ns: clock.now(),
            resident_bytes: resident,
            heap_bytes: session.capture.heap_bytes()?,
            cgroup_bytes,
            cgroup_limit_bytes,
            turn: self.turns.as_ref().map_or(0, TurnCounter::take),
        };
        if self.table.push(sample)? {
            self.interval *= 2;
            self.next = now + self.interval;
        }
        Ok(())
    }

    fn resident_bytes(&self) -> Option<u64> {
        let mut buffer = [0; 128];
        let length = self.statm.read_at(&mut buffer, 0).ok()?;
        let pages = resident_pages(std::str::from_utf8(&buffer[..length]).ok()?)?;
        Some(pages * self.page_bytes)
    }
}

/// The second number of `/proc/PID/statm`; `None` for a process without memory.
pub(crate) fn resident_pages(statm: &str) -> Option<u64> {
    statm
        .split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()
        .filter(|&pages| pages != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory() {
        assert_eq!(resident_pages("2500 1200 900 1 0 300 0\n"), Some(1200));
        assert_eq!(resident_pages("0 0 0 0 0 0 0\n"), None);
        assert_eq!(resident_pages(""), None);
    }

    #[test]
    fn only_signals_that_the_program_has_not_had_are_passed_on() {
        let received = |sender| Received {
            number: libc::SIGINT,
            sender,
        };
        assert!(!should_pass_on(received(None), 7), "the terminal's Ctrl-C");
        assert!(
            !should_pass_on(received(Some(7)), 7),
            "from the program to its group"
        );
        assert!(should_pass_on(received(Some(8)), 7));
    }
}
