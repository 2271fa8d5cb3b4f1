//! The page of the HTML reports: is what is committed what its sources give, and does a browser show
//! what it should? Where Node.js, npm or a browser is missing, that is said and left out.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// What the test runner needs.
const OLDEST_NODE: u32 = 20;
/// Stacks of the pages whose speed is measured and printed.
const SIZES: [&str; 4] = [
    "--wide=100000",
    "--wide=1000000",
    "--large=100000",
    "--large=1000000",
];
const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

pub(crate) fn run() -> Result<()> {
    shell::step("the page of the HTML reports");
    let node = shell::capture(Command::new("node").arg("--version"));
    let version = node.as_deref().and_then(major_version);
    if version.is_none_or(|version| version < OLDEST_NODE) || !shell::exists("npm") {
        shell::note("no Node.js 20 or later with npm: web/ is not tested");
        return Ok(());
    }
    let web = shell::project().join("web");
    if !installed(&web)? {
        return Ok(());
    }
    for arguments in [
        &["run", "--silent", "check"][..],
        &["run", "--silent", "fresh"],
        &["test", "--silent"],
    ] {
        shell::run(Command::new("npm").args(arguments).current_dir(&web))?;
    }
    if !BROWSERS.iter().any(|browser| shell::exists(browser)) {
        shell::note("no Chromium on PATH: pages are not opened");
        return Ok(());
    }
    let pages = pages()?;
    shell::run(
        Command::new("npm")
            .args(["run", "--silent", "browser"])
            .env("HEAPTIDE_PAGES", pages)
            .current_dir(&web),
    )
}

fn major_version(text: &str) -> Option<u32> {
    text.strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// Installs what the lock file names, unless it is there already.
fn installed(web: &Path) -> Result<bool> {
    let lock = std::fs::read(web.join("package-lock.json")).context("web/package-lock.json")?;
    let stamp = web.join("node_modules/.installed-lock.json");
    if std::fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(true);
    }
    // Scripts of packages are not needed, so they are not run.
    let arguments = [
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--silent",
    ];
    let status = Command::new("npm")
        .args(arguments)
        .current_dir(web)
        .status()?;
    if !status.success() {
        shell::note("the packages of web/ cannot be installed: it is not tested");
        return Ok(false);
    }
    std::fs::write(&stamp, lock)?;
    Ok(true)
}

/// Writes the pages that are opened.
fn pages() -> Result<PathBuf> {
    let pages = shell::target().join("pages");
    std::fs::create_dir_all(&pages)?;
    let example = [
        "run",
        "--quiet",
        "--package",
        "heaptide-report",
        "--example",
        "make_pages",
        "--",
    ];
    let mut command = shell::cargo(&example);
    shell::run(command.arg(&pages).args(SIZES))?;
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_node() {
        assert_eq!(major_version("v20.20.2"), Some(20));
        assert_eq!(major_version("20"), None);
        assert_eq!(major_version("vx"), None);
    }
}
