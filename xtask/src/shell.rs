//! Running other programs, and where things are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The project's directory.
pub(crate) fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where builds go, also those of virtual environments.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| project().join("target"), |path| project().join(path))
}

/// The command that a user would have after `cargo build --release`.
pub(crate) fn heaptide() -> PathBuf {
    target().join("release/heaptide")
}

/// `cargo` with these arguments, in the project.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(project());
    // Set for us by the outer cargo; a nested one finds its own.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        command.env_remove(name);
    }
    command
}

/// Builds the command, with the agent in it, and returns the agent.
pub(crate) fn build() -> Result<PathBuf> {
    let arguments = [
        "build",
        "--release",
        "--package",
        "heaptide-cli",
        "--message-format",
        "json-render-diagnostics",
    ];
    let mut command = cargo(&arguments);
    step(&display(&command));
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be run")?;
    if !output.status.success() {
        bail!("the build failed: {}", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let agent = messages.lines().find_map(agent_of_message);
    agent.context("the build script of heaptide-cli did not name the agent")
}

/// The build script of the command tells where it put the agent, fresh or not.
fn agent_of_message(line: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let variables = message["env"].as_array()?;
    let named = variables
        .iter()
        .find(|pair| pair[0] == "HEAPTIDE_AGENT_LIBRARY")?;
    Some(PathBuf::from(named[1].as_str()?))
}

/// `cargo` for builds other than the release: they take the agent as it is, instead of building it
/// once more.
pub(crate) fn cargo_with_agent(arguments: &[&str], agent: &Path) -> Command {
    let mut command = cargo(arguments);
    command.env("HEAPTIDE_PREBUILT_AGENT", agent);
    command
}

/// Shows a command and runs it; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    step(&display(command));
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", display(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", display(command));
    }
    Ok(())
}

/// Output of a command, trimmed; `None` when it fails or is not there.
pub(crate) fn capture(command: &mut Command) -> Option<String> {
    let output = command
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Says what is done now.
pub(crate) fn step(text: &str) {
    eprintln!("\n==> {text}");
}

/// Says something worth knowing, such as what had to be left out.
pub(crate) fn note(text: &str) {
    eprintln!("    note: {text}");
}

/// Whether the program is on `PATH`.
pub(crate) fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn display(command: &Command) -> String {
    let project = project();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words.map(|word| {
        let path = Path::new(word);
        path.strip_prefix(&project)
            .unwrap_or(path)
            .display()
            .to_string()
    });
    shown.collect::<Vec<_>>().join(" ")
}
