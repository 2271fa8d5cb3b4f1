//! `heaptide run`: start a program, watch it, say how it ended.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use heaptide_format::{State, StopReason};
use heaptide_session::SessionError;
use heaptide_session::agent::{self, AgentSource, PlacedAgent, Places};
use heaptide_session::outcome::{self, End};
use heaptide_session::session::{Plan, Session};
use heaptide_session::supervise::Ended;
use heaptide_session::target::{Environment, Target};

/// The agent, as `build.rs` made it.
static AGENT: &[u8] = include_bytes!(env!("HEAPTIDE_AGENT_LIBRARY"));

/// Exit code for a command line that makes no sense.
const EXIT_USAGE: u8 = 2;
/// The signal that the OOM killer sends.
const SIGKILL: i32 = 9;
/// Exit code when the program could not be started.
const EXIT_FAILURE: u8 = 1;

/// Run a Python program and record its memory.
#[derive(Debug, Args)]
#[command(
    override_usage = "heaptide run --aggregate [OPTIONS] <SCRIPT | -m MODULE | -c CODE> [ARGS]...
       heaptide run --aggregate [OPTIONS] -- <COMMAND> [ARGS]...",
    after_help = "\
Everything after the script, the module or the code belongs to the program.

Examples:
  heaptide run --aggregate app.py --port 8000
  heaptide run --aggregate -m pytest -x
  heaptide run --aggregate -o 'captures/%p.tide' -- ./venv/bin/gunicorn app:app

The exit code is the program's own; a program killed by a signal ends heaptide by the same signal.
Environment: HEAPTIDE_PYTHON names the interpreter, HEAPTIDE_AGENT another build of the agent."
)]
pub(crate) struct RunArguments {
    /// Write the capture to FILE; %p is the process id, %t the Unix time, %h the host name. A
    /// directory takes the default name [default: heaptide-<program>.<pid>.tide]
    #[arg(short, long, value_name = "FILE")]
    output: Option<OsString>,

    /// Overwrite the capture if it exists
    #[arg(short, long)]
    force: bool,

    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,

    /// Count per call stack instead of keeping every allocation (the only mode of this version)
    #[arg(long)]
    aggregate: bool,

    /// Run the script with this interpreter [default: $HEAPTIDE_PYTHON, $VIRTUAL_ENV/bin/python,
    /// python3, python]
    #[arg(long, value_name = "PATH")]
    python: Option<OsString>,

    /// Sample the program's memory this often, in milliseconds; 0 = never
    #[arg(long, value_name = "MS", default_value_t = 10)]
    memory_interval: u32,

    /// Keep at most this many distinct stack frames; beyond, stacks are folded and counted
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..))]
    stack_budget: u32,

    /// Script and its arguments, or -m MODULE, -c CODE, -- COMMAND
    #[arg(value_name = "PROGRAM", trailing_var_arg = true, allow_hyphen_values = true, num_args = 0.., hide = true)]
    program: Vec<OsString>,
}

/// Runs the program. Returns only when it exited by itself (or never started): a program that was
/// killed takes this process along, by the same signal.
pub(crate) fn run(arguments: &RunArguments) -> ExitCode {
    let raw: Vec<OsString> = std::env::args_os().collect();
    match prepare(arguments, follows_double_dash(&raw, &arguments.program)) {
        Ok((plan, agent)) => start_and_watch(arguments, &plan, agent),
        Err(error) => fail(&error),
    }
}

/// Whether `--` stood right before the program's words. The parser swallows it, but the words are
/// always the end of the command line.
fn follows_double_dash(raw: &[OsString], program: &[OsString]) -> bool {
    let before = raw.len().checked_sub(program.len() + 1);
    before
        .and_then(|index| raw.get(index))
        .is_some_and(|word| word == "--")
}

fn prepare(arguments: &RunArguments, command: bool) -> Result<(Plan, PlacedAgent), SessionError> {
    let target = Target::parse(&arguments.program, command)?;
    if !arguments.aggregate {
        return Err(SessionError::Usage(
            "only aggregated captures exist in this version: add --aggregate".to_owned(),
        ));
    }
    let program = target.resolve(&Environment::current(arguments.python.clone()))?;
    let override_path = std::env::var_os("HEAPTIDE_AGENT")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    let source = override_path
        .as_deref()
        .map_or(AgentSource::Embedded(AGENT), AgentSource::File);
    let agent = agent::place(source, &Places::current())?;
    let plan = Plan {
        target,
        program,
        output: arguments.output.clone(),
        replace: arguments.force,
        memory_interval_ms: arguments.memory_interval,
        stack_node_budget: arguments.stack_budget,
    };
    Ok((plan, agent))
}

fn start_and_watch(arguments: &RunArguments, plan: &Plan, agent: PlacedAgent) -> ExitCode {
    let session = match Session::start(plan, &agent) {
        Ok(session) => session,
        Err(error) => return fail(&error),
    };
    let path = shown(session.capture().path());
    if !arguments.quiet {
        say(&format!("heaptide: writing {}", path.display()));
    }
    let ended = match session.supervise() {
        Ok(ended) => ended,
        Err(error) => {
            say(&format!(
                "heaptide: error: cannot wait for the program: {error}"
            ));
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    tell(arguments, &session, &path, &ended);
    drop(session);
    // Before `end_like`, which never returns: the agent may be in a directory that has to go.
    drop(agent);
    outcome::end_like(ended.end)
}

fn fail(error: &SessionError) -> ExitCode {
    say(&format!("heaptide: error: {error}"));
    if let Some(hint) = error.hint() {
        say(&format!("  {hint}"));
    }
    ExitCode::from(if error.is_usage() {
        EXIT_USAGE
    } else {
        EXIT_FAILURE
    })
}

/// stderr may be closed, and that is no reason to fail the program.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The path as the user would type it.
fn shown(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).to_owned()
}

fn tell(arguments: &RunArguments, session: &Session, path: &Path, ended: &Ended) {
    for problem in &ended.problems {
        say(&format!("heaptide: warning: {problem}"));
    }
    if let Some(text) = death_text(ended) {
        say(&format!("heaptide: {text}"));
    }
    if !ended.tracked() {
        untracked(session, path, ended);
        return;
    }
    if let Some(text) = stopped_text(ended) {
        say(&format!("heaptide: warning: {text}"));
    }
    let killed = matches!(ended.end, End::Signaled(_));
    if killed || !arguments.quiet {
        say(&format!("heaptide: capture complete: {}", path.display()));
        say(&format!("  next: heaptide flamegraph {}", path.display()));
    }
}

/// How the program died, when a signal or the OOM killer was part of it.
fn death_text(ended: &Ended) -> Option<String> {
    let times = if ended.oom_kills == 1 {
        "once".to_owned()
    } else {
        format!("{} times", ended.oom_kills)
    };
    match ended.end {
        End::Signaled(SIGKILL) if ended.oom_kills > 0 => Some(format!(
            "the program was killed by the kernel's OOM killer (SIGKILL; it struck {times} in the memory cgroup)"
        )),
        End::Signaled(signal) => {
            let core = if ended.core_dumped {
                ", core dumped"
            } else {
                ""
            };
            Some(format!(
                "the program was killed by {}{core}",
                outcome::signal_name(signal)
            ))
        }
        End::Exited(_) if ended.oom_kills > 0 => Some(format!(
            "the kernel's OOM killer struck {times} in the program's memory cgroup during the run"
        )),
        End::Exited(_) => None,
    }
}

fn stopped_text(ended: &Ended) -> Option<String> {
    let lifecycle = ended
        .lifecycle
        .as_ref()
        .filter(|_| ended.state() == Some(State::Stopped))?;
    let reason =
        StopReason::from_raw(lifecycle.stop_reason).map_or("unknown reason", StopReason::name);
    let cause = match lifecycle.stop_errno {
        0 => String::new(),
        code => format!(
            " ({})",
            heaptide_session::plain(&std::io::Error::from_raw_os_error(code))
        ),
    };
    Some(format!(
        "tracking stopped early: {reason}{cause}; the figures are true up to then"
    ))
}

/// An empty capture helps nobody: it is removed, and the reasons are given.
fn untracked(session: &Session, path: &Path, ended: &Ended) {
    let removed = session.capture().remove();
    let reason = match stopped_text(ended) {
        Some(text) => text,
        None => "no CPython 3.9 or later started in this process".to_owned(),
    };
    say(&format!("heaptide: error: nothing was recorded: {reason}"));
    if ended.state() == Some(State::Armed) {
        say(
            "  The command must be a dynamically linked CPython, or become one by exec. Children are not followed, and",
        );
        say("  a set-user-ID or statically linked program cannot be recorded.");
    }
    if let Err(error) = removed {
        say(&format!(
            "heaptide: warning: the empty capture {} could not be removed: {error}",
            path.display()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Wrapper {
        #[command(flatten)]
        run: RunArguments,
    }

    /// Options as they were understood, and the target.
    fn check(line: &str) -> (RunArguments, Target) {
        let raw: Vec<OsString> = std::iter::once("run")
            .chain(line.split(' '))
            .map(OsString::from)
            .collect();
        let run = Wrapper::try_parse_from(&raw)
            .unwrap_or_else(|error| panic!("{line}: {error}"))
            .run;
        let command = follows_double_dash(&raw, &run.program);
        let target = Target::parse(&run.program, command).unwrap();
        (run, target)
    }

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn our_options_end_where_the_program_begins() {
        let (run, target) = check("--aggregate -o x.tide -f app.py -q --force -o other -- -m");
        assert!(run.aggregate && run.force && !run.quiet);
        assert_eq!(run.output, Some("x.tide".into()));
        assert_eq!(
            target,
            Target::Script("app.py".into(), words("-q --force -o other -- -m"))
        );

        let (run, target) = check("-q -m pytest -q -x --aggregate");
        assert!(run.quiet && !run.aggregate);
        assert_eq!(
            target,
            Target::Module("pytest".into(), words("-q -x --aggregate"))
        );

        let (run, target) = check("--aggregate -mpytest -q");
        assert!(!run.quiet);
        assert_eq!(target, Target::Module("pytest".into(), words("-q")));

        let (_, target) = check("-c pass -f -- --help");
        assert_eq!(target, Target::Code("pass".into(), words("-f -- --help")));
    }

    #[test]
    fn a_double_dash_before_the_program_makes_it_a_command() {
        let (_, target) = check("--aggregate -- gunicorn -q -- x");
        assert_eq!(target, Target::Command("gunicorn".into(), words("-q -- x")));
        let (_, target) = check("-- -m x");
        assert_eq!(target, Target::Command("-m".into(), words("x")));
        let (_, target) = check("app.py --");
        assert_eq!(target, Target::Script("app.py".into(), words("--")));
    }

    #[test]
    fn options_may_follow_each_other_in_any_order() {
        let (run, target) =
            check("-fq --memory-interval 0 --stack-budget 5000 --python python3.9 --aggregate -");
        assert!(run.force && run.quiet && run.aggregate);
        assert_eq!((run.memory_interval, run.stack_budget), (0, 5000));
        assert_eq!(run.python, Some("python3.9".into()));
        assert_eq!(target, Target::Script("-".into(), vec![]));
    }
}
