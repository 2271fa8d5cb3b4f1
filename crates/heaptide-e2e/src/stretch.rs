//! Programs that track stretches of themselves: plain Python, the agent in a file, and captures made for their process.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use heaptide_session::inside::{Prepared, Wanted};

use crate::build::target_directory;
use crate::{Mode, Sandbox, heaptide, run, with_native_stacks};

/// What the captures of a program that tracks itself are to hold.
#[derive(Clone, Debug)]
pub struct Stretches {
    /// Mode of each capture, and whether it holds requests to Python's allocators; the first is `0.tide`.
    pub captures: Vec<(Mode, bool)>,
    /// Forked children, too.
    pub follow_fork: bool,
    /// Which Python objects survive, too.
    pub track_object_lifetimes: bool,
    /// Of the memory samples.
    pub memory_interval_ms: u32,
    /// Tracked from before the program's first line, by its first capture, until the interpreter ends.
    pub whole: bool,
    /// With native stacks.
    pub native: bool,
}

impl Stretches {
    /// So many in one mode, of nothing but the C library's functions.
    #[must_use]
    pub fn of(mode: Mode, count: usize) -> Self {
        Self {
            captures: vec![(mode, false); count],
            follow_fork: false,
            track_object_lifetimes: false,
            memory_interval_ms: 0,
            whole: false,
            native: with_native_stacks(),
        }
    }
}

/// The agent of the product, taken out of it: it puts a file where it can be preloaded.
fn agent() -> &'static Path {
    static PLACED: OnceLock<PathBuf> = OnceLock::new();
    PLACED.get_or_init(|| {
        let cache = target_directory().join(format!("e2e-agent-{}", std::process::id()));
        let mut command = Command::new(heaptide());
        command
            .args(["run", "-q", "-f", "-o", "/dev/null", "--", "/bin/true"])
            .env("XDG_CACHE_HOME", &cache);
        run(&mut command);
        let placed = std::fs::read_dir(cache.join("heaptide")).expect("the agent's cache");
        let files: Vec<PathBuf> = placed
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert_eq!(files.len(), 1, "one agent");
        files[0].clone()
    })
}

impl Sandbox {
    /// Plain Python, which finds what it needs to track itself (`stretch.py`): the agent, and a capture for each stretch.
    #[must_use]
    pub fn tracking_itself(&self, stretches: &Stretches) -> Command {
        let file = self.outside("agent.so");
        if !file.exists() {
            std::fs::copy(agent(), file).expect("copy");
        }
        let mut command = self.plain();
        command.env("HEAPTIDE_STRETCH_AGENT", self.inside("agent.so"));
        if stretches.follow_fork {
            command.env("HEAPTIDE_STRETCH_FLAGS", "1");
        }
        if stretches.whole {
            command.env("HEAPTIDE_STRETCH_WHOLE", self.inside("0.tide"));
        }
        let wanted: Vec<Wanted> = stretches
            .captures
            .iter()
            .enumerate()
            .map(|(number, holds)| self.wanted(number, *holds, stretches))
            .collect();
        // SAFETY: the C library's allocator works in a child of a process with threads; nothing else is used that another
        // thread of the test may have held. Each capture is made by the very process that will be Python, below its root.
        unsafe {
            command.pre_exec(move || {
                for wanted in &wanted {
                    Prepared::create(wanted).map_err(std::io::Error::other)?;
                }
                Ok(())
            });
        }
        command
    }

    fn wanted(
        &self,
        number: usize,
        (mode, trace_python_allocators): (Mode, bool),
        stretches: &Stretches,
    ) -> Wanted {
        Wanted {
            path: self.inside(format!("{number}.tide")),
            overwrite: true,
            mode: match mode {
                Mode::Aggregated => heaptide_format::Mode::Aggregated,
                Mode::All => heaptide_format::Mode::All,
            },
            memory_interval_ms: stretches.memory_interval_ms,
            stack_node_budget: 1_000_000,
            native_stacks: stretches.native,
            trace_python_allocators,
            track_object_lifetimes: stretches.track_object_lifetimes,
            follow_fork: stretches.follow_fork,
            buffered: None,
            arguments: vec![OsString::from("stretches")],
            executable: self.python.path.clone(),
        }
    }

    /// Where the capture of a stretch is.
    #[must_use]
    pub fn stretch(&self, number: usize) -> PathBuf {
        self.outside(format!("{number}.tide"))
    }
}
