//! The CPython interpreters of this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;

/// The oldest and the newest minor version of CPython 3 that is supported.
const SUPPORTED: std::ops::RangeInclusive<u32> = 9..=15;

/// An interpreter that was asked for its version.
#[derive(Clone, Debug)]
pub(crate) struct Interpreter {
    /// Path of the executable; inside the chroot when there is one.
    pub(crate) path: PathBuf,
    /// Minor version.
    pub(crate) minor: u32,
    /// Full version, such as `3.12.1`.
    pub(crate) version: String,
    /// A Debian of a later release, in which the interpreter runs.
    pub(crate) chroot: Option<PathBuf>,
    /// Without the GIL.
    pub(crate) free_threaded: bool,
}

impl Interpreter {
    /// For people.
    pub(crate) fn describe(&self) -> String {
        match &self.chroot {
            Some(root) => format!(
                "{} (chroot {}: {})",
                self.version,
                root.display(),
                self.path.display()
            ),
            None => format!("{} ({})", self.version, self.path.display()),
        }
    }
}

/// One interpreter for each supported minor version: of pyenv, of `PATH`, of a chroot, in this order.
pub(crate) fn discover() -> Vec<Interpreter> {
    let mut found: BTreeMap<u32, Interpreter> = BTreeMap::new();
    let mut add = |path: &Path, chroot: Option<&Path>| {
        if let Some(interpreter) = ask(path, chroot).filter(|it| !it.free_threaded) {
            found.entry(interpreter.minor).or_insert(interpreter);
        }
    };
    if let Some(root) = shell::capture(Command::new("pyenv").arg("root")) {
        let versions = std::fs::read_dir(Path::new(&root).join("versions"));
        let mut paths: Vec<PathBuf> = versions
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("bin/python"))
            .collect();
        paths.sort();
        for path in paths {
            add(&path, None);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for directory in std::env::split_paths(&path) {
        for minor in SUPPORTED {
            let candidate = directory.join(format!("python3.{minor}"));
            if candidate.is_file() {
                add(&candidate, None);
            }
        }
        let plain = directory.join("python3");
        if plain.is_file() {
            add(&plain, None);
        }
    }
    // Made by a tool of the project's surroundings, where there is one: Debian's next release.
    let forky = std::env::var_os("HEAPTIDE_TEST_CHROOT")
        .map_or_else(|| PathBuf::from("/opt/forky"), PathBuf::from);
    for minor in SUPPORTED {
        let candidate = PathBuf::from(format!("/usr/bin/python3.{minor}"));
        if forky
            .join(candidate.strip_prefix("/").unwrap_or(&candidate))
            .exists()
        {
            add(&candidate, Some(&forky));
        }
    }
    found.into_values().collect()
}

/// The interpreter without the GIL that `HEAPTIDE_TEST_FREE_THREADED` names; it is not looked for.
///
/// # Errors
/// When there is none.
pub(crate) fn free_threaded() -> anyhow::Result<Option<Interpreter>> {
    const VARIABLE: &str = "HEAPTIDE_TEST_FREE_THREADED";
    let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let path = PathBuf::from(path);
    let found = ask(&path, None).filter(|it| it.free_threaded);
    anyhow::ensure!(
        found.is_some(),
        "{VARIABLE}={}: not a CPython without the GIL",
        path.display()
    );
    Ok(found)
}

fn ask(path: &Path, chroot: Option<&Path>) -> Option<Interpreter> {
    let mut command = match chroot {
        Some(root) => {
            let mut command = Command::new("chroot");
            command.arg(root).arg(path);
            command
        }
        None => Command::new(path),
    };
    let question = "import sys, sysconfig; print(sys.implementation.name, *sys.version_info[:2], sys.executable); \
        print(sys.version.split()[0], sysconfig.get_config_var('Py_GIL_DISABLED') or 0)";
    let answer = shell::capture(command.args(["-I", "-c", question]))?;
    let (first, second) = answer.split_once('\n')?;
    let (version, free_threaded) = second.trim().split_once(' ')?;
    let mut words = first.splitn(4, ' ');
    let (name, major, minor) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
    if name != "cpython" || major != "3" || !SUPPORTED.contains(&minor) {
        return None;
    }
    // A shim of pyenv is a script: the interpreter itself knows better where it is.
    let executable = words
        .next()
        .filter(|path| !path.is_empty())
        .map_or_else(|| path.to_owned(), PathBuf::from);
    Some(Interpreter {
        path: executable,
        minor,
        version: version.to_owned(),
        chroot: chroot.map(Path::to_owned),
        free_threaded: free_threaded == "1",
    })
}
