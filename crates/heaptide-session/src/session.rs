//! Starting a session: fork, make the capture for the process id that came out, exec.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use heaptide_format::{Mode, PYTHON_ALLOCATORS};

use crate::agent::PlacedAgent;
use crate::capture::{CaptureFile, Facts, run_metadata};
use crate::cgroup::{self, MemoryCgroup};
use crate::family::{self, Follow, Watcher};
use crate::launch::Suspended;
use crate::output::{self, Placeholders};
use crate::signals::Signals;
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
    /// `--trace-python-allocators`
    pub trace_python_allocators: bool,
    /// `--follow-fork`, `--follow-children`
    pub follow: Follow,
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

        let path = output::absolute(&choose_output(plan, pid)?, &working_directory);
        let group_id = match plan.follow {
            Follow::Nothing => [0; 16],
            _ => system::random_id(),
        };
        let options = if plan.trace_python_allocators {
            PYTHON_ALLOCATORS
        } else {
            0
        };
        let facts = Facts {
            pid,
            process_start_ticks: system::process_start_ticks(pid),
            memory_interval_ms: plan.memory_interval_ms,
            stack_node_budget: plan.stack_node_budget,
            mode: plan.mode,
            options,
            group_id,
            metadata: run_metadata(
                &plan.program.arguments,
                &plan.program.executable,
                plan.target.describe(),
                &working_directory,
                cgroup.as_ref().map(|cgroup| cgroup.path.as_str()),
            ),
        };
        let capture = CaptureFile::create(&path, plan.replace, &facts)?;
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
        })
    }

    /// The capture.
    #[must_use]
    pub fn capture(&self) -> &CaptureFile {
        &self.capture
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
