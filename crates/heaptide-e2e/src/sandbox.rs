//! A directory for one program under one interpreter, visible inside and outside a chroot.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::build::programs;
use crate::{Python, heaptide, helper};

/// A directory with all programs, the helper and (in a chroot) the product.
#[derive(Debug)]
pub struct Sandbox {
    directory: TempDir,
    /// The interpreter.
    pub python: Python,
    mode: Mode,
}

impl Sandbox {
    /// A fresh one, removed when dropped, in the mode under test, else the aggregated one.
    #[must_use]
    pub fn new(python: &Python) -> Self {
        Self::in_mode(python, mode_under_test().unwrap_or(Mode::Aggregated))
    }

    /// As [`Self::new`], in this mode.
    #[must_use]
    pub fn in_mode(python: &Python, mode: Mode) -> Self {
        let parent = match &python.root {
            Some(root) => root.join("tmp"),
            None => std::env::temp_dir(),
        };
        let directory = TempDir::with_prefix_in("heaptide-e2e-", parent).expect("a directory");
        let sandbox = Self {
            directory,
            python: python.clone(),
            mode,
        };
        for source in [programs().as_path(), helper()] {
            for entry in std::fs::read_dir(source).expect("a directory of this crate") {
                let path = entry.expect("an entry").path();
                if path.is_file() {
                    let name = path.file_name().expect("a file name");
                    std::fs::copy(&path, sandbox.outside(name)).expect("copy");
                }
            }
        }
        if python.root.is_some() {
            // By another process: a child that another test forks meanwhile would inherit the descriptor that
            // is open for writing, and a file that is open for writing cannot be run (ETXTBSY).
            let mut copy = Command::new("cp");
            copy.arg(heaptide()).arg(sandbox.outside("heaptide"));
            let status = copy.status().expect("cp");
            assert!(status.success(), "the product could not be copied");
        }
        sandbox
    }

    /// Where the test finds a file of the sandbox.
    #[must_use]
    pub fn outside(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.directory.path().join(name.as_ref())
    }

    /// Where the program finds it.
    #[must_use]
    pub fn inside(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.outside(name);
        match &self.python.root {
            Some(root) => Path::new("/").join(path.strip_prefix(root).expect("below the root")),
            None => path,
        }
    }

    /// A command with a small and fixed environment, started in the sandbox.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", "/tmp")
            .env("LANG", "C.UTF-8")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONHASHSEED", "0")
            .env("PYTHONPATH", self.inside("").as_os_str());
        if let Some(value) = std::env::var_os("HEAPTIDE_TEST_EARLY_STOP") {
            command.env("HEAPTIDE_EARLY_STOP", value);
        }
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let root = self.python.root.as_deref().map(text);
        let place = text(&self.inside(""));
        // SAFETY: chroot and chdir are async-signal-safe, their strings were made before the fork.
        unsafe {
            command.pre_exec(move || {
                if root
                    .as_ref()
                    .is_some_and(|root| libc::chroot(root.as_ptr()) != 0)
                    || libc::chdir(place.as_ptr()) != 0
                {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        command
    }

    /// The product, as the sandbox sees it.
    #[must_use]
    pub fn heaptide(&self) -> PathBuf {
        if self.python.root.is_some() {
            self.inside("heaptide")
        } else {
            heaptide().to_owned()
        }
    }

    /// The line of a program that ends with the comment `# marker`.
    #[track_caller]
    #[must_use]
    pub fn line(&self, program: &str, marker: &str) -> u32 {
        let text = std::fs::read_to_string(self.outside(program)).expect("a program");
        let ending = format!("# {marker}");
        let index = text.lines().position(|line| line.ends_with(&ending));
        let index = index.unwrap_or_else(|| panic!("{program} has no line {marker}"));
        u32::try_from(index).expect("small") + 1
    }

    /// Plain Python.
    #[must_use]
    pub fn plain(&self) -> Command {
        self.command(&self.python.path)
    }

    /// `heaptide run -q -f -o capture.tide --python PYTHON`, in the sandbox's mode; what is to run follows.
    #[must_use]
    pub fn profiled(&self) -> Command {
        self.profiled_in(self.mode)
    }

    /// As [`Self::profiled`], with further options.
    #[must_use]
    pub fn profiled_with(&self, options: &[&str]) -> Command {
        let mut command = self.profiled();
        command.args(options);
        command
    }

    /// As [`Self::profiled`], so that every small object is an event.
    #[must_use]
    pub fn profiled_with_small_objects(&self) -> Command {
        let mut command = self.profiled();
        if self.python.free_threaded {
            // Only mimalloc can be asked for there.
            command.arg("--trace-python-allocators");
        } else {
            command.env("PYTHONMALLOC", "malloc");
        }
        command
    }

    /// As [`Self::profiled`], in this mode.
    #[must_use]
    pub fn profiled_in(&self, mode: Mode) -> Command {
        self.profiled_by(mode, &self.python)
    }

    /// As [`Self::profiled_in`], with another interpreter than the sandbox's.
    #[must_use]
    pub fn profiled_by(&self, mode: Mode, python: &Python) -> Command {
        let mut command = self.command(self.heaptide());
        command
            .arg("run")
            .args((mode == Mode::Aggregated).then_some("--aggregate"))
            .args(with_native_stacks().then_some("--native"))
            .args(["-q", "-f", "-o"])
            .arg(self.inside("capture.tide"))
            .arg("--python")
            .arg(&python.path);
        command
    }

    /// The capture that [`Self::profiled`] makes.
    #[must_use]
    pub fn capture(&self) -> PathBuf {
        self.outside("capture.tide")
    }
}

/// What a capture keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Counters of each stack.
    Aggregated,
    /// Every event.
    All,
}

impl Mode {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Aggregated, Self::All];
}

/// The one mode that `HEAPTIDE_TEST_MODE` asks for, if it is set.
fn mode_under_test() -> Option<Mode> {
    match std::env::var("HEAPTIDE_TEST_MODE").as_deref() {
        Ok("all") => Some(Mode::All),
        Ok("aggregated") => Some(Mode::Aggregated),
        Err(_) => None,
        Ok(other) => panic!("HEAPTIDE_TEST_MODE is {other:?}: neither all nor aggregated"),
    }
}

/// Is mode "all" under test (`HEAPTIDE_TEST_MODE=all`)? Else it is the aggregated mode.
#[must_use]
pub fn every_event() -> bool {
    mode_under_test() == Some(Mode::All)
}

/// Do all captures have native stacks, too (`HEAPTIDE_TEST_NATIVE`)?
#[must_use]
pub fn with_native_stacks() -> bool {
    std::env::var_os("HEAPTIDE_TEST_NATIVE").is_some_and(|value| value == "1")
}

/// The modes that a test goes through which is about both: both, unless `HEAPTIDE_TEST_MODE` asks for one.
#[must_use]
pub fn modes() -> Vec<Mode> {
    mode_under_test().map_or_else(|| Mode::BOTH.to_vec(), |mode| vec![mode])
}
