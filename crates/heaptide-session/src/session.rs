//! Starting a session: fork, make the capture for the process id that came out, exec.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use heaptide_format::{Mode, NOTHING_KEPT, PYTHON_ALLOCATORS};

use crate::agent::PlacedAgent;
use crate::capture::{CaptureFile, Facts, run_metadata};
use crate::cgroup::{self, MemoryCgroup};
use crate::family::{self, Follow, Watcher};
use crate::launch::Suspended;
use crate::mirror::Mirrors;
use crate::output::{self, Placeholders};
use crate::signals::Signals;
use crate::staging::Staging;
use crate::target::{Program, Target};
use crate::{SessionError, system};

/// The protocol that the agent must speak; the first field of `HEAPTIDE_SESSION`.
const PROTOCOL: u32 = 1;

/// Everything that the user chose.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to run, as the user named it.
    pub target: Target,
    /// What to run, resolved.
    pub program: Program,
    /// `-o`
    pub output: Option<OsString>,
    /// `--force`
    pub replace: bool,
    /// `--memory-interval`; 0 = no samples.
    pub memory_interval_ms: u32,
    /// `--stack-budget`
    pub stack_node_budget: u32,
    /// Every event, or counters only (`--aggregate`).
    pub mode: Mode,
    /// `--native`
    pub native_stacks: bool,
    /// `--trace-python-allocators`
    pub trace_python_allocators: bool,
    /// `--follow-fork`, `--follow-children`
    pub follow: Follow,
    /// `--buffered-file-io`: the capture is written, not mapped.
    pub buffered: bool,
}

/// Where captures go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// They are mapped where they belong.
    Mapped,
    /// They are held in memory and written to where they belong.
    Written(Staging, RefCell<Mirrors>),
    /// They are held in memory and thrown away (`-o /dev/null`).
    Nothing(Staging),
}

impl Sink {
    pub(crate) fn mirrors(&self) -> Option<&RefCell<Mirrors>> {
        match self {
            Self::Written(_, mirrors) => Some(mirrors),
            _ => None,
        }
    }
}

/// A running program and its capture.
#[derive(Debug)]
pub struct Session {
    pub(crate) pid: libc::pid_t,
    pub(crate) capture: CaptureFile,
    pub(crate) signals: Signals,
    pub(crate) cgroup: Option<MemoryCgroup>,
    pub(crate) oom_kills_before: u64,
    pub(crate) memory_interval_ms: u32,
    pub(crate) mode: Mode,
    pub(crate) watcher: Option<Watcher>,
    pub(crate) sink: Sink,
    /// Where the capture goes, also where it is not yet.
    destination: PathBuf,
}

impl Session {
    /// Starts the program. Signals of the calling thread are taken over for as long as the session
    /// lives.
    ///
    /// # Errors
    /// Nothing runs and nothing is left behind.
    pub fn start(plan: &Plan, agent: &PlacedAgent) -> Result<Self, SessionError> {
        output::check(plan.output.as_deref())?;
        let system = |what| move |source| SessionError::System { what, source };
        let working_directory =
            std::env::current_dir().map_err(system("finding the current directory"))?;
        let cgroup = MemoryCgroup::current();
        let oom_kills_before = oom_kills(cgroup.as_ref());

        let signals = Signals::take_over().map_err(system("taking over signals"))?;
        let suspended = Suspended::fork(&plan.program, agent.path().as_os_str(), &signals)?;
        let pid = u32::try_from(suspended.pid()).unwrap_or_default();

        let destination = output::absolute(&choose_output(plan, pid)?, &working_directory);
        let keep_nothing = system::is_null_device(&destination);
        let mut options = 0;
        if plan.trace_python_allocators {
            options |= PYTHON_ALLOCATORS;
        }
        if keep_nothing {
            options |= NOTHING_KEPT;
        }
        let staging = (keep_nothing || plan.buffered)
            .then(Staging::new)
            .transpose()?;
        let path = staging.as_ref().map_or_else(
            || destination.clone(),
            |staging| staging.place(&destination),
        );
        let group_id = match plan.follow {
            Follow::Nothing => [0; 16],
            _ => system::random_id(),
        };
        let facts = Facts {
            pid,
            parent_pid: std::process::id(),
            process_start_ticks: system::process_start_ticks(pid),
            memory_interval_ms: plan.memory_interval_ms,
            stack_node_budget: plan.stack_node_budget,
            mode: plan.mode,
            options,
            native_stacks: plan.native_stacks,
            group_id,
            metadata: run_metadata(
                &plan.program.arguments,
                &plan.program.executable,
                plan.target.describe(),
                &working_directory,
                cgroup.as_ref().map(|cgroup| cgroup.path.as_str()),
            ),
        };
        let replace = plan.replace && staging.is_none();
        let capture = CaptureFile::create(&path, replace, &facts)?;
        let sink = match staging {
            None => Sink::Mapped,
            Some(staging) if keep_nothing => Sink::Nothing(staging),
            Some(staging) => {
                let mirrors = Mirrors::new(&path, &destination, plan.replace)?;
                Sink::Written(staging, RefCell::new(mirrors))
            }
        };
        let session = session_value(pid, plan.stack_node_budget, options, path.as_os_str());
        let follow = family::follow_value(plan.follow, &facts, &path);
        // Where a directory cannot be watched children are recorded all the same, without samples.
        let watcher = follow
            .as_ref()
            .and_then(|_| Watcher::new(&path, group_id).ok());
        let pid = suspended
            .run(&plan.program, &session, follow.as_deref())
            .inspect_err(|_| {
                // The exec's failure is what the user must hear of.
                let _ = capture.remove();
                if let Sink::Written(..) = &sink {
                    let _ = std::fs::remove_file(&destination);
                }
            })?;
        Ok(Self {
            pid,
            capture,
            signals,
            cgroup,
            oom_kills_before,
            memory_interval_ms: plan.memory_interval_ms,
            mode: plan.mode,
            watcher,
            sink,
            destination,
        })
    }

    /// Where the capture goes; `None` where nothing is kept.
    #[must_use]
    pub fn destination(&self) -> Option<&Path> {
        (!matches!(self.sink, Sink::Nothing(_))).then_some(self.destination.as_path())
    }

    /// Is the capture written by this process, so that what it has not yet written is lost when it dies?
    #[must_use]
    pub fn is_buffered(&self) -> bool {
        matches!(self.sink, Sink::Written(..))
    }

    /// Removes the capture, in which there is nothing.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn discard(&self) -> std::io::Result<()> {
        match self.sink {
            Sink::Mapped => self.capture.remove(),
            Sink::Written(..) => std::fs::remove_file(&self.destination),
            Sink::Nothing(_) => Ok(()),
        }
    }

    /// Removes what is only of use while the program runs. For a process that ends without dropping its values.
    pub fn clean_up(&self) {
        match &self.sink {
            Sink::Mapped => {}
            Sink::Written(staging, _) | Sink::Nothing(staging) => staging.remove(),
        }
    }

    /// Process id of the program.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

fn choose_output(plan: &Plan, pid: u32) -> Result<PathBuf, SessionError> {
    let placeholders = Placeholders {
        pid,
        unix_seconds: system::unix_now_ns() / 1_000_000_000,
        host: system::host_name(),
    };
    output::choose(plan.output.as_deref(), &plan.target.stem(), &placeholders)
}

/// Fields by position; the path is last, so it may hold anything.
fn session_value(pid: u32, stack_node_budget: u32, options: u32, path: &OsStr) -> Vec<u8> {
    let mut value = format!("{PROTOCOL};{pid};{stack_node_budget};{options};").into_bytes();
    value.extend_from_slice(path.as_bytes());
    value
}

/// The counter of the program's cgroup, or of the system for a program in no cgroup but the root.
pub(crate) fn oom_kills(cgroup: Option<&MemoryCgroup>) -> u64 {
    cgroup.map_or_else(cgroup::system_oom_kills, MemoryCgroup::oom_kills)
}
