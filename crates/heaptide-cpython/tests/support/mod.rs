//! The interpreters of this machine.

#![allow(
    dead_code,
    reason = "shared by several tests, none of which uses all of it"
)]

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Versions that ought to be tested. A missing one is said, not passed over.
const WANTED: [&str; 8] = [
    "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.14t", "3.15",
];

/// One interpreter with its headers.
pub(crate) struct Python {
    /// `3.14`, or `3.14t` without the GIL
    pub(crate) version: String,
    /// The directory of `Python.h`.
    pub(crate) include: PathBuf,
    /// The directory above, when the headers include one another from there (Debian).
    pub(crate) base_include: Option<PathBuf>,
    /// The executable, as seen inside `root`.
    pub(crate) executable: PathBuf,
    /// Where to `chroot` to before running it.
    pub(crate) root: Option<PathBuf>,
}

impl Python {
    /// The 14 of 3.14.
    pub(crate) fn minor(&self) -> u32 {
        self.version
            .rsplit('.')
            .next()
            .and_then(|minor| minor.trim_end_matches('t').parse().ok())
            .expect("a minor version")
    }

    /// A command that runs the interpreter.
    pub(crate) fn command(&self) -> Command {
        self.program(&self.executable)
    }

    /// A command that runs a program where the interpreter is.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.root {
            None => Command::new(program),
            Some(root) => {
                let mut command = Command::new("chroot");
                command.arg(root).arg(program.as_ref());
                command
            }
        }
    }

    /// An empty directory that the interpreter can see.
    pub(crate) fn directory(&self) -> tempfile::TempDir {
        match &self.root {
            None => tempfile::tempdir().unwrap(),
            Some(root) => tempfile::tempdir_in(root.join("tmp")).unwrap(),
        }
    }

    /// A path as the interpreter sees it.
    pub(crate) fn inside(&self, path: &Path) -> PathBuf {
        match &self.root {
            None => path.to_owned(),
            Some(root) => Path::new("/").join(path.strip_prefix(root).expect("within the root")),
        }
    }

    fn new(include: PathBuf, executable: PathBuf, root: Option<PathBuf>) -> Option<Self> {
        let version = include
            .file_name()?
            .to_str()?
            .strip_prefix("python")?
            .to_owned();
        let base_include = root
            .as_ref()
            .and_then(|_| include.parent())
            .map(Path::to_owned);
        let is_wanted = WANTED.contains(&version.as_str());
        let seen_from_here = match &root {
            None => executable.clone(),
            Some(root) => root.join(executable.strip_prefix("/").ok()?),
        };
        (is_wanted && include.join("Python.h").exists() && seen_from_here.exists()).then_some(
            Self {
                version,
                include,
                base_include,
                executable,
                root,
            },
        )
    }
}

/// The interpreters to test: those in `HEAPTIDE_TEST_PYTHONS` (executables, separated by colons), else pyenv's and those of the chroot
/// `HEAPTIDE_TEST_CHROOT` (default `/opt/forky`).
pub(crate) fn pythons() -> Vec<Python> {
    let mut pythons = match env::var_os("HEAPTIDE_TEST_PYTHONS") {
        Some(executables) => env::split_paths(&executables)
            .map(|path| of_executable(&path))
            .collect(),
        None => found(),
    };
    pythons.sort_by_key(|python| WANTED.iter().position(|version| *version == python.version));
    for version in WANTED {
        if !pythons.iter().any(|python| python.version == version) {
            eprintln!("not tested: CPython {version} (not installed)");
        }
    }
    assert!(
        !pythons.is_empty(),
        "no CPython with headers found: set HEAPTIDE_TEST_PYTHONS"
    );
    pythons
}

fn of_executable(executable: &Path) -> Python {
    let script = "import sysconfig; print(sysconfig.get_path('include'))";
    let output = Command::new(executable)
        .args(["-c", script])
        .output()
        .expect("an interpreter");
    let include = PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim());
    Python::new(include, executable.to_owned(), None).unwrap_or_else(|| {
        panic!(
            "{}: no headers, or not a supported version",
            executable.display()
        )
    })
}

fn found() -> Vec<Python> {
    let mut pythons = Vec::new();
    let pyenv = env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".pyenv")));
    for prefix in pyenv
        .iter()
        .flat_map(|root| entries(&root.join("versions")))
    {
        for include in entries(&prefix.join("include")) {
            let executable = prefix
                .join("bin")
                .join(include.file_name().unwrap_or_default());
            pythons.extend(Python::new(include, executable, None));
        }
    }
    let root = env::var_os("HEAPTIDE_TEST_CHROOT")
        .map_or_else(|| PathBuf::from("/opt/forky"), PathBuf::from);
    for include in entries(&root.join("usr/include")) {
        let executable = Path::new("/usr/bin").join(include.file_name().unwrap_or_default());
        pythons.extend(Python::new(include, executable, Some(root.clone())));
    }
    pythons
}

/// What is in a directory; nothing if it is not there.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    entries.sort();
    entries
}
