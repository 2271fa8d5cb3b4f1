//! How the program fares: running, finished, stopped or dead, and of what.

use std::fmt;

use heaptide_format::{Lifecycle, Outcome, State, StopReason};

use crate::process::ProcessState;
use crate::signal::signal_name;
use crate::text::bytes_text;

/// How the program fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It runs and is (or will be) tracked.
    Running {
        /// Whether tracking has started.
        tracking: bool,
        /// Whether it once asked to be replaced by `exec`, which it may have been.
        asked_for_exec: bool,
    },
    /// Tracking ended as it should: everything is in the capture.
    Finished {
        /// What became of the process then.
        ending: Ending,
    },
    /// Tracking gave up early. The figures are true up to that moment.
    Stopped {
        /// Why.
        reason: StopReason,
        /// `errno` behind it, or zero.
        errno: i32,
        /// What became of the process then.
        ending: Ending,
    },
    /// The process ended while it was tracked. The figures are true up to its last event.
    Died(DeathCause),
    /// The process cannot be seen from here and nobody wrote down how it fares.
    Unknown,
}

/// What became of a process whose tracking had ended before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It still runs.
    Running,
    /// It is gone and nobody saw how.
    Unseen,
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
}

/// How a tracked process ended without finalising.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeathCause {
    /// A signal killed it.
    Signal {
        /// The signal's number.
        signal: i32,
        /// Whether the OOM killer struck in its memory cgroup during the run and the signal fits.
        out_of_memory: bool,
        /// Limit of the memory cgroup, bytes; zero when unknown.
        cgroup_limit_bytes: u64,
    },
    /// It exited without finalising.
    Exit {
        /// The exit code.
        code: i32,
    },
    /// It replaced itself by another program, which then exited.
    Exec {
        /// The exit code of the other program.
        code: i32,
    },
    /// It is gone, nobody saw how, and tracking had not started.
    NeverTracked,
    /// It ended before tracking had started.
    BeforeTracking {
        /// The exit code, or 128 + the signal, as a shell has it.
        code: i32,
    },
    /// It is gone and nobody was left to see how.
    Unseen,
}

const SIGKILL: i32 = 9;

pub(crate) fn decide(
    lifecycle: &Lifecycle,
    cgroup_limit_bytes: u64,
    probe: impl FnOnce() -> ProcessState,
) -> Liveness {
    let value = lifecycle.outcome_value;
    let outcome = Outcome::from_raw(lifecycle.outcome).unwrap_or(Outcome::Unknown);
    let ending = |probe: ProcessState| match (outcome, probe) {
        (Outcome::Exited, _) => Ending::Exited(value),
        (Outcome::Signaled, _) => Ending::Signaled(value),
        (Outcome::Unknown, ProcessState::Running) => Ending::Running,
        (Outcome::Unknown, _) => Ending::Unseen,
    };
    let probed = || {
        if outcome == Outcome::Unknown {
            probe()
        } else {
            ProcessState::Gone
        }
    };
    match State::from_raw(lifecycle.state) {
        Some(State::Finished) => Liveness::Finished {
            ending: ending(probed()),
        },
        Some(State::Stopped) => Liveness::Stopped {
            reason: StopReason::from_raw(lifecycle.stop_reason).unwrap_or(StopReason::Internal),
            errno: lifecycle.stop_errno,
            ending: ending(probed()),
        },
        // A state that does not exist is damage; what is known is that tracking did not end well.
        state @ (Some(State::Tracking | State::Armed) | None) => {
            let tracking = state != Some(State::Armed);
            let asked_for_exec = lifecycle.exec_unix_ns != 0;
            match outcome {
                Outcome::Exited if !tracking => {
                    Liveness::Died(DeathCause::BeforeTracking { code: value })
                }
                Outcome::Exited if asked_for_exec => {
                    Liveness::Died(DeathCause::Exec { code: value })
                }
                Outcome::Exited => Liveness::Died(DeathCause::Exit { code: value }),
                Outcome::Signaled if !tracking => Liveness::Died(DeathCause::BeforeTracking {
                    code: value.saturating_add(128),
                }),
                Outcome::Signaled => Liveness::Died(DeathCause::Signal {
                    signal: value,
                    out_of_memory: value == SIGKILL && lifecycle.oom_kills > 0,
                    cgroup_limit_bytes,
                }),
                Outcome::Unknown => match probed() {
                    ProcessState::Running => Liveness::Running {
                        tracking,
                        asked_for_exec,
                    },
                    ProcessState::Gone if !tracking => Liveness::Died(DeathCause::NeverTracked),
                    ProcessState::Gone => Liveness::Died(DeathCause::Unseen),
                    ProcessState::NotVisible => Liveness::Unknown,
                },
            }
        }
    }
}

impl Liveness {
    /// One word for machines: `running`, `finished`, `stopped`, `died` or `unknown`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Running { .. } => "running",
            Self::Finished { .. } => "finished",
            Self::Stopped { .. } => "stopped",
            Self::Died(_) => "died",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running {
                tracking: false, ..
            } => f.write_str("running, tracking has not started"),
            Self::Running {
                asked_for_exec: true,
                ..
            } => f.write_str(
                "running; it asked to be replaced by exec, after which nothing is recorded",
            ),
            Self::Running { .. } => f.write_str("running, figures are those of this moment"),
            Self::Finished { ending } => {
                f.write_str("finished")?;
                match ending {
                    Ending::Running => f.write_str(" (tracking ended, the program still runs)"),
                    Ending::Unseen | Ending::Exited(0) => Ok(()),
                    Ending::Exited(code) => write!(f, ", exit code {code}"),
                    Ending::Signaled(signal) => {
                        write!(f, ", then killed by {}", signal_name(*signal))
                    }
                }
            }
            Self::Stopped {
                reason,
                errno,
                ending,
            } => {
                write!(f, "tracking stopped early: {}", reason.name())?;
                if *errno != 0 {
                    write!(f, " ({})", std::io::Error::from_raw_os_error(*errno))?;
                }
                match ending {
                    Ending::Running => f.write_str("; the program still runs"),
                    Ending::Unseen => Ok(()),
                    Ending::Exited(code) => {
                        write!(f, "; the program went on and exited with code {code}")
                    }
                    Ending::Signaled(signal) => {
                        write!(
                            f,
                            "; the program went on and was killed by {}",
                            signal_name(*signal)
                        )
                    }
                }
            }
            Self::Died(cause) => cause.fmt(f),
            Self::Unknown => {
                f.write_str("unknown: its process is in another pid namespace and left no word")
            }
        }
    }
}

impl fmt::Display for DeathCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal {
                signal,
                out_of_memory,
                cgroup_limit_bytes,
            } => {
                write!(f, "killed by {}", signal_name(*signal))?;
                match (out_of_memory, cgroup_limit_bytes) {
                    (false, _) => Ok(()),
                    (true, 0) => f.write_str(" (the OOM killer)"),
                    (true, limit) => {
                        write!(
                            f,
                            " (the OOM killer, memory cgroup limit {})",
                            bytes_text(*limit)
                        )
                    }
                }
            }
            Self::Exit { code } => write!(
                f,
                "exited with code {code} without finalising (os._exit or exec)"
            ),
            Self::Exec { code } => {
                write!(
                    f,
                    "replaced itself by exec; the other program exited with code {code}"
                )
            }
            Self::BeforeTracking { code } => {
                write!(
                    f,
                    "ended with code {code} before tracking started (no Python program ran)"
                )
            }
            Self::Unseen => f.write_str("killed, cause unknown (nobody was left to see it)"),
            Self::NeverTracked => f.write_str("tracking never began, and its process is gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn text(
        state: State,
        outcome: Outcome,
        value: i32,
        change: impl FnOnce(&mut Lifecycle),
    ) -> String {
        let mut lifecycle = Lifecycle::new_zeroed();
        lifecycle.state = state as u32;
        lifecycle.outcome = outcome as u32;
        lifecycle.outcome_value = value;
        change(&mut lifecycle);
        decide(&lifecycle, 100 << 20, || ProcessState::Gone).to_string()
    }

    #[test]
    fn every_end_has_its_words() {
        let same = |_: &mut Lifecycle| {};
        let check = |actual: String, expected: &str| assert_eq!(actual, expected);
        check(text(State::Finished, Outcome::Exited, 0, same), "finished");
        check(
            text(State::Finished, Outcome::Exited, 7, same),
            "finished, exit code 7",
        );
        check(
            text(State::Finished, Outcome::Signaled, 11, same),
            "finished, then killed by SIGSEGV",
        );
        check(
            text(State::Tracking, Outcome::Signaled, 9, same),
            "killed by SIGKILL",
        );
        check(
            text(State::Tracking, Outcome::Signaled, 9, |lifecycle| {
                lifecycle.oom_kills = 1;
            }),
            "killed by SIGKILL (the OOM killer, memory cgroup limit 100 MiB)",
        );
        check(
            text(State::Tracking, Outcome::Signaled, 15, |lifecycle| {
                lifecycle.oom_kills = 1;
            }),
            "killed by SIGTERM",
        );
        check(
            text(State::Tracking, Outcome::Exited, 3, same),
            "exited with code 3 without finalising (os._exit or exec)",
        );
        check(
            text(State::Tracking, Outcome::Exited, 3, |lifecycle| {
                lifecycle.exec_unix_ns = 1;
            }),
            "replaced itself by exec; the other program exited with code 3",
        );
        check(
            text(State::Armed, Outcome::Exited, 127, same),
            "ended with code 127 before tracking started (no Python program ran)",
        );
        check(
            text(State::Tracking, Outcome::Unknown, 0, same),
            "killed, cause unknown (nobody was left to see it)",
        );
        check(
            text(State::Stopped, Outcome::Exited, 0, |lifecycle| {
                lifecycle.stop_reason = StopReason::NoSpace as u32;
                lifecycle.stop_errno = 28;
            }),
            "tracking stopped early: no space for the capture (No space left on device (os error 28)); the program went on and exited with code 0",
        );
    }

    #[test]
    fn a_running_process_is_asked_for_only_when_the_end_is_unknown() {
        let mut lifecycle = Lifecycle::new_zeroed();
        lifecycle.state = State::Tracking as u32;
        let running = decide(&lifecycle, 0, || ProcessState::Running);
        assert_eq!(
            running,
            Liveness::Running {
                tracking: true,
                asked_for_exec: false
            }
        );
        assert_eq!(
            decide(&lifecycle, 0, || ProcessState::NotVisible),
            Liveness::Unknown
        );
        lifecycle.outcome = Outcome::Exited as u32;
        decide(&lifecycle, 0, || unreachable!("the outcome is known"));
    }
}
