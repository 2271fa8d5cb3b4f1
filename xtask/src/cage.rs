//! A memory cgroup with a hard limit, in which the kernel's own OOM killer ends a program.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A cgroup of its own, removed on drop.
#[derive(Debug)]
pub(crate) struct Cage {
    directory: PathBuf,
}

impl Cage {
    /// A cgroup with this limit; an error where there is no memory controller that we may use.
    pub(crate) fn new(limit_bytes: u64) -> io::Result<Self> {
        let name = format!("heaptide-demo-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        if v1.is_dir() {
            let cage = Self::create(v1.join(name))?;
            cage.limit("memory.limit_in_bytes", limit_bytes)?;
            // Swap would only put the end off. The file is not there when swap is not accounted for.
            let _ = cage.limit("memory.memsw.limit_in_bytes", limit_bytes);
            return Ok(cage);
        }
        let v2 = Path::new("/sys/fs/cgroup");
        let controllers = fs::read_to_string(v2.join("cgroup.controllers"))?;
        if !controllers
            .split_whitespace()
            .any(|controller| controller == "memory")
        {
            return Err(io::Error::other("no memory controller in this cgroup"));
        }
        // Most often enabled already; refused in a container that sees a part of the tree only.
        let _ = fs::write(v2.join("cgroup.subtree_control"), "+memory");
        let cage = Self::create(v2.join(name))?;
        cage.limit("memory.max", limit_bytes)?;
        let _ = cage.limit("memory.swap.max", 0);
        Ok(cage)
    }

    fn create(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir(&directory)?;
        Ok(Self { directory })
    }

    fn limit(&self, file: &str, bytes: u64) -> io::Result<()> {
        fs::write(self.directory.join(file), bytes.to_string())
    }

    /// The command, to be started inside.
    pub(crate) fn wrap(&self, program: &Path, arguments: &[OsString]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]);
        command.arg(&self.directory).arg(program).args(arguments);
        command
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // The kernel needs a moment to let go of a dead process.
        let deadline = Instant::now() + Duration::from_secs(2);
        while fs::remove_dir(&self.directory).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
