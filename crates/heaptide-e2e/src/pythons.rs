//! The interpreters of this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{Mode, is_root, modes, not_tested};

/// The minor versions of Python 3 that heaptide supports.
const MINORS: std::ops::RangeInclusive<u32> = 9..=15;

/// An interpreter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    /// 12 in 3.12.
    pub minor: u32,
    /// Does it have no GIL (`--disable-gil`)? Only such as are named in `HEAPTIDE_TEST_PYTHONS` are tested.
    pub free_threaded: bool,
    /// Its path, as it is inside `root`.
    pub path: PathBuf,
    /// The directory to change the root to before it can be started.
    pub root: Option<PathBuf>,
}

impl Python {
    /// `3.12`, or `3.14t` without the GIL.
    #[must_use]
    pub fn version(&self) -> String {
        let suffix = if self.free_threaded { "t" } else { "" };
        format!("3.{}{suffix}", self.minor)
    }

    /// What `PYTHONMALLOC` can ask for.
    #[must_use]
    pub fn allocators(&self) -> &'static [&'static str] {
        if self.free_threaded {
            &["mimalloc", "mimalloc_debug"]
        } else {
            &["malloc", "malloc_debug", "pymalloc", "pymalloc_debug"]
        }
    }

    /// Starts the interpreter found at `path` and asks for its version.
    fn probe(path: &Path, root: Option<&Path>) -> Option<Self> {
        let mut command = match root {
            Some(root) => {
                let mut command = Command::new("chroot");
                command.arg(root).arg(path);
                command
            }
            None => Command::new(path),
        };
        let code = "import sys, sysconfig; print(sys.version_info[0], sys.version_info[1], \
                    sysconfig.get_config_var('Py_GIL_DISABLED') or 0)";
        let output = command.args(["-I", "-S", "-c", code]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let [major, minor, free_threaded] = text.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        (major == "3" && output.status.success()).then(|| Self {
            minor: minor.parse().expect("a version number"),
            free_threaded: free_threaded == "1",
            path: path.to_owned(),
            root: root.map(Path::to_owned),
        })
    }
}

/// All interpreters that can be tested here, oldest first. Never empty.
pub fn pythons() -> &'static [Python] {
    static FOUND: OnceLock<Vec<Python>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let found = match std::env::var_os("HEAPTIDE_TEST_PYTHONS") {
            Some(list) => std::env::split_paths(&list)
                .map(|path| {
                    Python::probe(&path, None)
                        .unwrap_or_else(|| panic!("{}: not a Python 3", path.display()))
                })
                .collect(),
            None => discover(),
        };
        assert!(
            !found.is_empty(),
            "no CPython 3.9 - 3.15 was found; name some in HEAPTIDE_TEST_PYTHONS"
        );
        found
    })
}

/// Those among all interpreters that are of these minor versions. May be empty.
pub fn pythons_of(minors: &[u32]) -> impl Iterator<Item = &'static Python> {
    pythons()
        .iter()
        .filter(move |python| minors.contains(&python.minor))
}

/// Runs a test on every interpreter, to the end, and fails with all failures.
#[track_caller]
pub fn each_python(test: impl Fn(&Python)) {
    each(pythons().iter(), test);
}

/// As [`each_python`], in each of the [`modes`].
#[track_caller]
pub fn each_python_in_each_mode(test: impl Fn(&Python, Mode)) {
    let modes = modes();
    let cases = pythons().iter().flat_map(|python| {
        let in_mode = move |&mode| (format!("{}, {mode:?}", python.version()), (python, mode));
        modes.iter().map(in_mode)
    });
    each_case(cases, |(python, mode)| test(python, mode));
}

/// As [`each_python`], on some of them.
#[track_caller]
pub fn each<'a>(pythons: impl Iterator<Item = &'a Python>, test: impl Fn(&Python)) {
    each_case(pythons.map(|python| (python.version(), python)), test);
}

#[track_caller]
fn each_case<T>(cases: impl Iterator<Item = (String, T)>, test: impl Fn(T)) {
    let mut failures = Vec::new();
    for (name, case) in cases {
        let test = std::panic::AssertUnwindSafe(|| test(case));
        if let Err(panic) = std::panic::catch_unwind(test) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            failures.push(format!("Python {name}: {}", text.unwrap_or_default()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn discover() -> Vec<Python> {
    let mut found = BTreeMap::new();
    for minor in MINORS {
        let candidates = pyenv(minor).into_iter().chain(on_path(minor));
        let python = candidates
            .filter_map(|path| Python::probe(&path, None))
            .find(|python| python.minor == minor && !python.free_threaded)
            .or_else(|| in_chroot(minor));
        match python {
            Some(python) => drop(found.insert(minor, python)),
            None => not_tested(&format!("CPython 3.{minor}: not found")),
        }
    }
    found.into_values().collect()
}

/// The highest patch release that pyenv has of a minor version.
fn pyenv(minor: u32) -> Option<PathBuf> {
    let output = Command::new("pyenv").arg("root").output().ok()?;
    let root = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()).join("versions");
    let prefix = format!("3.{minor}.");
    let patch = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let patch: u32 = name.strip_prefix(&prefix)?.parse().ok()?;
        Some((patch, entry.path().join("bin/python3")))
    };
    let versions = std::fs::read_dir(root).ok()?;
    let (_, path) = versions.filter_map(Result::ok).filter_map(patch).max()?;
    Some(path)
}

fn on_path(minor: u32) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        // pyenv's shims are scripts that start something else
        .filter(|directory| !directory.ends_with("shims"))
        .map(|directory| directory.join(format!("python3.{minor}")))
        .find(|candidate| candidate.is_file())
}

fn in_chroot(minor: u32) -> Option<Python> {
    let root = std::env::var_os("HEAPTIDE_TEST_CHROOT").map_or("/opt/forky".into(), PathBuf::from);
    let path = PathBuf::from(format!("/usr/bin/python3.{minor}"));
    let there = root.join(path.strip_prefix("/").expect("absolute"));
    if !there.is_file() || !is_root() {
        return None;
    }
    // Without /proc and /dev neither the interpreter nor the profiler is at home
    root.join("proc/self")
        .exists()
        .then(|| Python::probe(&path, Some(&root)))?
}
