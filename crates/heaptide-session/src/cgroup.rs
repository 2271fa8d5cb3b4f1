//! The memory cgroup of the program: what it uses, what it may use, how often the OOM killer struck.
//!
//! Both versions of the interface: v1 has a hierarchy for memory alone, v2 one for everything.
//! Everything here is advice for a report: what cannot be read is left out, never an error.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Limits from here on mean "none": v1 prints the largest multiple of the page size instead of a word.
const NO_LIMIT: u64 = 1 << 60;

/// Version of the cgroup interface that carries the memory controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy of its own.
    V1,
    /// The unified hierarchy.
    V2,
}

impl Version {
    fn usage_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.usage_in_bytes",
            Self::V2 => "memory.current",
        }
    }

    fn limit_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.limit_in_bytes",
            Self::V2 => "memory.max",
        }
    }

    fn events_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.oom_control",
            Self::V2 => "memory.events",
        }
    }
}

/// The memory cgroup of this process, and so of the program it starts.
#[derive(Debug)]
pub struct MemoryCgroup {
    /// As in `/proc/PID/cgroup`.
    pub path: String,
    /// Usage and limit of the level whose limit binds, kept open; `None` when nothing is limited.
    bounded: Option<(File, File)>,
    /// Where these are.
    places: Option<(PathBuf, PathBuf)>,
    /// The file with the `oom_kill` counter.
    events: PathBuf,
}

impl MemoryCgroup {
    /// The memory cgroup of this process, if there is one that can be read.
    #[must_use]
    pub fn current() -> Option<Self> {
        let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        // A hybrid system mounts v2 as well, but without the memory controller.
        [Version::V1, Version::V2]
            .into_iter()
            .find_map(|version| Self::open(version, &membership, &mounts))
    }

    fn open(version: Version, membership: &str, mounts: &str) -> Option<Self> {
        let path = membership_path(version, membership)?;
        let (root, point) = mount(version, mounts)?;
        let directory = directory(&root, &point, path);
        let events = directory.join(version.events_file());
        let level = tightest_level(version, &directory, &point);
        let (places, bounded) = level.unzip();
        // The root cgroup of v2 has none of these files.
        if bounded.is_none() && !events.exists() {
            return None;
        }
        Some(Self {
            path: path.to_owned(),
            bounded,
            places,
            events,
        })
    }

    /// The files with usage and limit; `None` when nothing is limited.
    #[must_use]
    pub fn files(&self) -> Option<(&Path, &Path)> {
        let (usage, limit) = self.places.as_ref()?;
        Some((usage, limit))
    }

    /// Bytes used and the limit, both zero when there is no limit.
    #[must_use]
    pub fn usage_and_limit(&self) -> (u64, u64) {
        let Some((usage, limit)) = &self.bounded else {
            return (0, 0);
        };
        let (usage, limit) = (
            read_number(usage).unwrap_or(0),
            read_number(limit).unwrap_or(0),
        );
        (usage, if limit >= NO_LIMIT { 0 } else { limit })
    }

    /// How often the OOM killer has struck in this cgroup since it was made.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let text = std::fs::read_to_string(&self.events).unwrap_or_default();
        keyed_number(&text, "oom_kill").unwrap_or(0)
    }
}

/// How often the OOM killer has struck in the whole system. For programs in no cgroup but the root.
#[must_use]
pub fn system_oom_kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    keyed_number(&text, "oom_kill").unwrap_or(0)
}

/// The cgroup path of a process from its `/proc/PID/cgroup`.
fn membership_path(version: Version, text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let matches = match version {
            Version::V1 => controllers
                .split(',')
                .any(|controller| controller == "memory"),
            Version::V2 => hierarchy == "0" && controllers.is_empty(),
        };
        matches.then_some(path)
    })
}

/// Root and mount point of the hierarchy from `/proc/PID/mountinfo`.
fn mount(version: Version, text: &str) -> Option<(PathBuf, PathBuf)> {
    text.lines().find_map(|line| {
        let (places, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let (file_system, options) = (kind.next()?, kind.nth(1).unwrap_or(""));
        let matches = match version {
            Version::V1 => {
                file_system == "cgroup" && options.split(',').any(|option| option == "memory")
            }
            Version::V2 => file_system == "cgroup2",
        };
        let mut places = places.split(' ').skip(3);
        let (root, point) = (places.next()?, places.next()?);
        matches.then(|| (unescape(root), unescape(point)))
    })
}

/// Where the cgroup's files are. A container often sees only a part of the hierarchy: the mount's
/// root is then a prefix of the path, or the path is unknown here and the mount point is ours.
fn directory(root: &Path, point: &Path, path: &str) -> PathBuf {
    let Ok(relative) = Path::new(path).strip_prefix(root) else {
        return point.to_owned();
    };
    let directory = point.join(relative);
    if directory.is_dir() {
        directory
    } else {
        point.to_owned()
    }
}

/// Usage and limit: where they are, and open.
type Level = ((PathBuf, PathBuf), (File, File));

/// Usage and limit files of the level, from `directory` up to the mount point, with the smallest
/// limit: that is where the OOM killer strikes first.
fn tightest_level(version: Version, directory: &Path, point: &Path) -> Option<Level> {
    let mut tightest: Option<(u64, Level)> = None;
    for level in directory
        .ancestors()
        .take_while(|level| level.starts_with(point))
    {
        let Ok(limit_file) = File::open(level.join(version.limit_file())) else {
            continue;
        };
        let Some(limit) = read_number(&limit_file) else {
            continue;
        };
        if limit >= NO_LIMIT || tightest.as_ref().is_some_and(|(found, _)| *found <= limit) {
            continue;
        }
        let places = (
            level.join(version.usage_file()),
            level.join(version.limit_file()),
        );
        if let Ok(usage_file) = File::open(&places.0) {
            tightest = Some((limit, (places, (usage_file, limit_file))));
        }
    }
    tightest.map(|(_, level)| level)
}

/// A cgroup file with one number, or the word `max`.
fn read_number(file: &File) -> Option<u64> {
    let mut buffer = [0; 32];
    let length = file.read_at(&mut buffer, 0).ok()?;
    parse_number(std::str::from_utf8(&buffer[..length]).ok()?)
}

fn parse_number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The number behind `key` in lines of the form `key number`.
fn keyed_number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'\\'
            && let Some(octal) = tail.get(..3)
            && let Some(byte) = std::str::from_utf8(octal)
                .ok()
                .and_then(|o| u8::from_str_radix(o, 8).ok())
        {
            bytes.push(byte);
            rest = &tail[3..];
        } else {
            bytes.push(first);
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "9:name=systemd:/\n4:memory:/service/a:b\n3:cpu,cpuacct:/\n0::/unified\n";
    const MOUNTS: &str = "\
30 25 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
31 25 0:27 /service /sys/fs/cgroup/my\\040memory rw,relatime - cgroup cgroup rw,memory
32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
garbage
";

    #[test]
    fn membership_of_both_versions() {
        assert_eq!(membership_path(Version::V1, HYBRID), Some("/service/a:b"));
        assert_eq!(membership_path(Version::V2, HYBRID), Some("/unified"));
        assert_eq!(membership_path(Version::V1, "0::/user.slice\n"), None);
        assert_eq!(membership_path(Version::V2, ""), None);
    }

    #[test]
    fn mounts_of_both_versions() {
        let (root, point) = mount(Version::V1, MOUNTS).unwrap();
        assert_eq!(
            (root.as_path(), point.as_path()),
            (Path::new("/service"), Path::new("/sys/fs/cgroup/my memory"))
        );
        assert_eq!(
            mount(Version::V2, MOUNTS).unwrap().1,
            Path::new("/sys/fs/cgroup/unified")
        );
        assert_eq!(mount(Version::V2, "garbage - x"), None);
    }

    #[test]
    fn numbers_and_words() {
        assert_eq!(parse_number("104857600\n"), Some(104_857_600));
        assert_eq!(parse_number("max\n"), Some(u64::MAX));
        assert_eq!(parse_number("?"), None);
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n";
        let v2 = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(keyed_number(v1, "oom_kill"), Some(7));
        assert_eq!(keyed_number(v2, "oom_kill"), Some(2));
        assert_eq!(keyed_number("", "oom_kill"), None);
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let root = tempfile::tempdir().unwrap();
        let point = root.path().join("memory");
        let leaf = point.join("pod/container");
        std::fs::create_dir_all(&leaf).unwrap();
        let write = |level: &Path, limit: &str, usage: &str| {
            std::fs::write(level.join("memory.max"), limit).unwrap();
            std::fs::write(level.join("memory.current"), usage).unwrap();
        };
        write(&leaf, "max\n", "10\n");
        write(&point.join("pod"), "1000\n", "300\n");
        write(&point, "5000\n", "400\n");
        std::fs::write(leaf.join("memory.events"), "oom_kill 4\n").unwrap();
        let mounts = format!("1 1 0:1 / {} rw - cgroup2 c rw\n", point.display());
        let cgroup = MemoryCgroup::open(Version::V2, "0::/pod/container\n", &mounts).unwrap();
        assert_eq!(cgroup.usage_and_limit(), (300, 1000));
        assert_eq!(cgroup.oom_kills(), 4);
        assert_eq!(cgroup.path, "/pod/container");
    }

    #[test]
    fn a_container_that_sees_only_its_own_part() {
        let root = tempfile::tempdir().unwrap();
        let point = root.path();
        assert_eq!(directory(Path::new("/docker/1"), point, "/docker/1"), point);
        assert_eq!(directory(Path::new("/"), point, "/not/mounted/here"), point);
        assert_eq!(directory(Path::new("/other"), point, "/docker/1"), point);
    }
}
