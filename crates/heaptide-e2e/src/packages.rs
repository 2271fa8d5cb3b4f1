//! Packages from PyPI that some tests want: installed once per interpreter under `target/`.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::target_directory;
use crate::{Python, Sandbox, not_tested};

/// A sandbox in which `package` can be imported; `None`, and a line that says so, when it cannot be
/// had for this interpreter (no network, no wheel).
#[must_use]
pub fn with_package(python: &Python, package: &str) -> Option<Sandbox> {
    let directory = target_directory()
        .join("e2e-packages")
        .join(python.version())
        .join(package);
    let _one_at_a_time = lock(&directory);
    if !directory.join(package).is_dir() && !install(python, package, &directory) {
        not_tested(&format!(
            "{package} on CPython {}: pip has no wheel for it here",
            python.version()
        ));
        return None;
    }
    let sandbox = Sandbox::new(python);
    for entry in std::fs::read_dir(&directory)
        .expect("the packages")
        .filter_map(Result::ok)
    {
        copy(&entry.path(), &sandbox.outside(entry.file_name()));
    }
    Some(sandbox)
}

/// The interpreter of a virtual environment of `python` with `packages` and all that they need, made once
/// under `target/`; `None`, and a line that says so, when it cannot be had.
#[must_use]
pub fn virtual_environment(python: &Python, name: &str, packages: &[&str]) -> Option<PathBuf> {
    let directory = target_directory().join("e2e-packages").join(name);
    let _one_at_a_time = lock(&directory);
    let interpreter = directory.join("bin/python");
    let marker = directory.join(".packages");
    let wanted = format!("{}\n{}\n", python.path.display(), packages.join("\n"));
    if std::fs::read_to_string(&marker).is_ok_and(|found| found == wanted) {
        return Some(interpreter);
    }
    let succeeds = |command: &mut Command| {
        let output = command.output();
        output.is_ok_and(|output| output.status.success())
    };
    let made = succeeds(
        Command::new(&python.path)
            .args(["-m", "venv", "--clear"])
            .arg(&directory),
    ) && succeeds(
        Command::new(&interpreter)
            .args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
            .arg("--only-binary=:all:")
            .args(packages),
    );
    if !made || std::fs::write(&marker, wanted).is_err() {
        not_tested(&format!(
            "{}: pip cannot install it here",
            packages.join(", ")
        ));
        return None;
    }
    Some(interpreter)
}

/// Other tests, of this process or another, wait here until the directory is made. Held until it is dropped.
fn lock(directory: &Path) -> File {
    let parent = directory.parent().expect("below target/");
    std::fs::create_dir_all(parent).expect("a directory below target/");
    let mut name = directory.as_os_str().to_owned();
    name.push(".lock");
    let file = File::create(name).expect("a file below target/");
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0);
    file
}

/// pip of the interpreter that runs pip on this machine; it can fetch wheels for any other.
fn install(python: &Python, package: &str, directory: &Path) -> bool {
    // Installed beside and renamed, so that half an installation is never taken for a whole one
    let part: PathBuf = directory.with_extension(format!("part-{}", std::process::id()));
    let pip = Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
        ])
        .args([
            "--implementation",
            "cp",
            "--python-version",
            &format!("3.{}", python.minor),
        ])
        .args(
            python
                .free_threaded
                .then(|| format!("--abi=cp3{}t", python.minor)),
        )
        .arg("--target")
        .arg(&part)
        .arg(package)
        .output();
    let installed = pip.is_ok_and(|output| output.status.success());
    installed && std::fs::rename(&part, directory).is_ok()
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .arg("-r")
        .arg(from)
        .arg(to)
        .status()
        .expect("cp");
    assert!(status.success(), "copying {}", from.display());
}
