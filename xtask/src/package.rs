//! The Python package: one wheel, installed into a fresh environment of every interpreter, where its tests run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::interpreters::{self, Interpreter};
use crate::{project, shell, venv};

/// What the package is compared with. One version of Python will do, but for objects: what is compared does not depend on that.
const MEMRAY: &str = "memray==1.20.0";
const EVERYTHING_ON_MINOR: u32 = 12;
/// Where Memray records objects (from 3.13.3 on), and there are wheels of it: `test_lifetimes_memray.py`.
const OBJECTS_ON_MINOR: u32 = 13;
/// The last version of Python that all packages which read columns have wheels for.
const LAST_WITH_COLUMNS: u32 = 13;
/// What runs on heaptide in Memray's place; it wants Memray, so it is installed without what it wants.
const PYTEST_MEMRAY: &str = "pytest-memray==1.11.0";

pub(crate) fn run() -> Result<()> {
    let interpreters = interpreters::discover();
    let newest = interpreters.iter().rev().find(|it| it.chroot.is_none());
    let Some(newest) = newest else {
        shell::note("no Python interpreter: the package is not tested");
        return Ok(());
    };
    let Some(builder) = builder(&newest.path) else {
        return Ok(());
    };
    let wheel = build(&builder)?;
    for interpreter in &interpreters {
        shell::step(&format!(
            "the package on CPython {}",
            interpreter.describe()
        ));
        match &interpreter.chroot {
            None => test(interpreter, &wheel)?,
            Some(root) => test_in(root, interpreter, &builder, &wheel)?,
        }
    }
    shell::step("pytest-memray on the package");
    test_shim(newest, &wheel)?;
    match interpreters::free_threaded()? {
        Some(interpreter) => test_free_threaded(&interpreter),
        None => Ok(()),
    }
}

/// The ABI of all other interpreters is not theirs: a wheel of their own, built by the interpreter itself.
fn test_free_threaded(interpreter: &Interpreter) -> Result<()> {
    shell::step(&format!(
        "the package on CPython {} without the GIL",
        interpreter.describe()
    ));
    let name = format!("wheel-3.{}t", interpreter.minor);
    let Some(builder) = venv::with_packages(&interpreter.path, &name, BUILD_WITH) else {
        return Ok(());
    };
    let wheel = build(&builder)?;
    test(interpreter, &wheel)
}

/// Builds the package and installs it for `python`.
pub(crate) fn install_into(python: &Path) -> Result<()> {
    let builder = builder(python).context("nothing to build the package with")?;
    install(python, &build(&builder)?)
}

const BUILD_WITH: &[&str] = &["maturin>=1.9,<2"];

fn builder(python: &Path) -> Option<PathBuf> {
    venv::with_packages(python, "wheel", BUILD_WITH)
}

/// As `pip install .` does it, but with what is there to build with.
fn build(python: &Path) -> Result<PathBuf> {
    let directory = shell::target().join("wheels");
    if directory.is_dir() {
        std::fs::remove_dir_all(&directory)?;
    }
    // Maturin's program is found beside the interpreter.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let first = python.parent().map(Path::to_owned);
    let path = std::env::join_paths(first.into_iter().chain(std::env::split_paths(&path)))?;
    let mut command = pip(python, "wheel");
    command
        .args(["--no-build-isolation", "--no-deps", "--wheel-dir"])
        .arg(&directory)
        .arg(shell::project())
        .env("PATH", path);
    shell::run(&mut command)?;
    let mut found = std::fs::read_dir(&directory)?.flatten();
    let wheel = found.find(|entry| entry.path().extension().is_some_and(|it| it == "whl"));
    Ok(wheel.context("no wheel was built")?.path())
}

fn test(interpreter: &Interpreter, wheel: &Path) -> Result<()> {
    let mut packages = vec!["pytest"];
    if interpreter.minor == EVERYTHING_ON_MINOR {
        packages.extend([MEMRAY, "ipython", "pytest-asyncio", "pytest-xdist"]);
        packages.extend(["duckdb", "polars", "pandas"]);
    }
    if interpreter.minor == OBJECTS_ON_MINOR && !interpreter.free_threaded {
        packages.push(MEMRAY);
    }
    if interpreter.minor <= LAST_WITH_COLUMNS {
        packages.push("pyarrow");
    }
    let abi = if interpreter.free_threaded { "t" } else { "" };
    let name = format!("package-3.{}{abi}", interpreter.minor);
    let Some(python) = venv::with_packages(&interpreter.path, &name, &packages) else {
        return Ok(());
    };
    install(&python, wheel)?;
    // Not in the project, where `heaptide` would be the directory of the sources.
    let mut command = Command::new(&python);
    let tests = shell::project().join("python/tests");
    shell::run(pytest(&mut command, &tests).current_dir(std::env::temp_dir()))?;
    if interpreter.minor == EVERYTHING_ON_MINOR {
        project::test(&python)?;
    }
    Ok(())
}

/// pytest-memray, on heaptide. In an environment of its own, because it fails to load without the shim.
fn test_shim(interpreter: &Interpreter, wheel: &Path) -> Result<()> {
    let Some(python) = venv::with_packages(&interpreter.path, "package-shim", &["pytest"]) else {
        return Ok(());
    };
    let mut without_memray = pip(&python, "install");
    without_memray.args(["--no-deps", "--only-binary", ":all:", PYTEST_MEMRAY]);
    if let Err(error) = shell::run(&mut without_memray) {
        shell::note(&format!("{PYTEST_MEMRAY} is not available: {error:#}"));
        return Ok(());
    }
    install(&python, wheel)?;
    let tests = shell::project().join("python/tests");
    let mut command = Command::new(&python);
    pytest(&mut command, &tests.join("test_shim.py"))
        .arg(tests.join("test_compatibility_pytest.py"))
        .env("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1");
    shell::run(command.current_dir(std::env::temp_dir()))
}

fn install(python: &Path, wheel: &Path) -> Result<()> {
    let mut install = pip(python, "install");
    let options = ["--no-index", "--no-deps", "--force-reinstall"];
    shell::run(install.args(options).arg(wheel))
}

/// In a chroot there is no pip: packages are put into a directory there, from outside.
fn test_in(root: &Path, interpreter: &Interpreter, builder: &Path, wheel: &Path) -> Result<()> {
    let inside = PathBuf::from(format!("/tmp/heaptide-package-{}", std::process::id()));
    let outside = root.join(inside.strip_prefix("/")?);
    let tested = test_copied(root, interpreter, builder, wheel, &inside, &outside);
    std::fs::remove_dir_all(&outside)?;
    tested
}

fn test_copied(
    root: &Path,
    interpreter: &Interpreter,
    builder: &Path,
    wheel: &Path,
    inside: &Path,
    outside: &Path,
) -> Result<()> {
    let mut install = pip(builder, "install");
    install
        .args(["--only-binary", ":all:", "--implementation", "cp"])
        .args(["--python-version", &format!("3.{}", interpreter.minor)])
        .arg("--target")
        .arg(outside)
        .arg("pytest")
        .arg(wheel);
    shell::run(&mut install)?;
    for directory in ["python/tests", "docs"] {
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(shell::project().join(directory));
        shell::run(copy.arg(outside))?;
    }
    let mut command = Command::new("chroot");
    command.arg(root).arg(&interpreter.path);
    pytest(&mut command, &inside.join("tests"))
        .env("PYTHONPATH", inside)
        .env("HEAPTIDE_DOCS", inside.join("docs"));
    shell::run(&mut command)
}

fn pip(python: &Path, verb: &str) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", verb, "--quiet", "--disable-pip-version-check"]);
    command
}

fn pytest<'a>(command: &'a mut Command, tests: &Path) -> &'a mut Command {
    let options = ["--quiet", "--no-header", "-p", "no:cacheprovider"];
    command.args(["-m", "pytest"]).args(options).arg(tests)
}
