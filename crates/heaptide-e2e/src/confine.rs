//! Tight places: a small disk, a memory cgroup, a file size limit. Root only, where said.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether mounts and cgroups can be made.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A tmpfs of a given size on a directory, unmounted when dropped.
#[derive(Debug)]
pub struct TinyDisk(PathBuf);

impl TinyDisk {
    /// Mounts it over `directory`, which is made. `None` when that is not allowed here.
    #[must_use]
    pub fn mount(directory: PathBuf, options: &str) -> Option<Self> {
        std::fs::create_dir_all(&directory).expect("a directory");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&directory)
            .status();
        status
            .is_ok_and(|status| status.success())
            .then(|| Self(directory))
    }

    /// Mounts it again with other options.
    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount")
            .args(["-o", &options])
            .arg(&self.0)
            .status();
        assert!(status.is_ok_and(|status| status.success()), "remount");
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).status();
    }
}

/// A file system whose files cannot be mapped shared, unmounted when dropped.
#[derive(Debug)]
pub struct UnmappableDisk(PathBuf, Child);

impl UnmappableDisk {
    /// Mounts it over `directory`, which is made; `python` runs the server. `None` when that is not allowed here.
    #[must_use]
    pub fn mount(directory: PathBuf, python: &Path) -> Option<Self> {
        std::fs::create_dir_all(&directory).expect("a directory");
        let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/helper/unmappable_fs.py");
        let mut child = Command::new(python)
            .arg(server)
            .arg(&directory)
            .stdout(Stdio::piped())
            .spawn()
            .expect("an interpreter");
        let mut word = *b"ready\n";
        let ready = child.stdout.take().expect("piped").read_exact(&mut word);
        if ready.is_ok() {
            return Some(Self(directory, child));
        }
        let _ = child.wait();
        None
    }
}

impl Drop for UnmappableDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).status();
        // It ends when nobody has a file open there any more.
        let _ = self.1.wait();
    }
}

/// A memory cgroup with a hard limit and no swap, removed when dropped.
#[derive(Debug)]
pub struct Cage(PathBuf);

impl Cage {
    /// `None` when there is no memory controller, or we may not use it.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("heaptide-e2e-{}-{number}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/memory");
        let second = Path::new("/sys/fs/cgroup");
        let (directory, limits) = if first.is_dir() {
            let files = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];
            (first.join(name), files.map(|file| (file, limit_bytes)))
        } else if second.join("cgroup.controllers").is_file() {
            (
                second.join(name),
                [("memory.max", limit_bytes), ("memory.swap.max", 0)],
            )
        } else {
            return None;
        };
        std::fs::create_dir(&directory).ok()?;
        let cage = Self(directory);
        for (index, (file, value)) in limits.into_iter().enumerate() {
            let written = std::fs::write(cage.0.join(file), value.to_string());
            // The second is about swap, which not every kernel counts
            if index == 0 && written.is_err() {
                return None;
            }
        }
        Some(cage)
    }

    /// The most that was ever charged, bytes; `None` when this kernel does not tell.
    #[must_use]
    pub fn peak_bytes(&self) -> Option<u64> {
        ["memory.max_usage_in_bytes", "memory.peak"]
            .iter()
            .find_map(|file| std::fs::read_to_string(self.0.join(file)).ok())
            .and_then(|text| text.trim().parse().ok())
    }

    /// Makes the command start inside.
    pub fn confine<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        use std::os::fd::{AsRawFd, OwnedFd};
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(self.0.join("cgroup.procs"))
            .expect("cgroup.procs");
        let descriptor = OwnedFd::from(file);
        // SAFETY: write is async-signal-safe; the descriptor lives as long as the closure. "0" means
        // the process that writes.
        unsafe {
            command.pre_exec(move || {
                match libc::write(descriptor.as_raw_fd(), c"0".as_ptr().cast(), 1) {
                    1 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            })
        }
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // A cgroup cannot go while the last process is being taken apart
        for _ in 0..1000 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// Makes the command start with `RLIMIT_FSIZE` at `bytes` and `SIGXFSZ` ignored or at its default.
pub fn limit_file_size(command: &mut Command, bytes: u64) -> &mut Command {
    // SAFETY: setrlimit is async-signal-safe and given a valid struct.
    unsafe {
        command.pre_exec(move || {
            let limit = libc::rlimit {
                rlim_cur: bytes,
                rlim_max: bytes,
            };
            match libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        })
    }
}
