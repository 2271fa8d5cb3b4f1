//! `heaptide run`: start a program, watch it, say how it ended.

mod messages;
mod refusal;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use heaptide_embedded_agent::AGENT;
use heaptide_format::Mode;
use heaptide_session::SessionError;
use heaptide_session::agent::{self, AgentSource, PlacedAgent, Places};
use heaptide_session::family::Follow;
use heaptide_session::outcome;
use heaptide_session::session::{Plan, Session};
use heaptide_session::target::{Environment, Target};

use self::messages::Messages;
use crate::failure::{self, Failure};
use crate::terminal::Terminal;

/// Exit code for a command line that makes no sense.
const EXIT_USAGE: u8 = 2;
/// Exit code when the program could not be started.
const EXIT_FAILURE: u8 = 1;

#[derive(Debug, clap::Args)]
#[command(
    override_usage = "heaptide run [OPTIONS] <SCRIPT | -m MODULE | -c CODE> [ARGS]...
       heaptide run [OPTIONS] -- <COMMAND> [ARGS]...",
    after_help = "\
Everything after the script, the module or the code belongs to the program.

Examples:
  heaptide run app.py --port 8000
  heaptide run --aggregate -m pytest -x
  heaptide run --aggregate -o 'captures/%p.tide' -- ./venv/bin/gunicorn app:app

The exit code is the program's own; a program killed by a signal ends heaptide by the same signal.
Environment: HEAPTIDE_PYTHON names the interpreter, HEAPTIDE_AGENT another build of the agent."
)]
pub(crate) struct Arguments {
    /// Write the capture to FILE; %p is the process id, %t the Unix time, %h the host name. A
    /// directory takes the default name, /dev/null records everything and keeps nothing [default:
    /// heaptide-<program>.<pid>.tide]
    #[arg(short, long, value_name = "FILE")]
    output: Option<OsString>,

    /// Overwrite the capture if it exists
    #[arg(short, long)]
    force: bool,

    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,

    /// Count per call stack instead of keeping every event: the capture grows with the program's stacks,
    /// not with time
    #[arg(long)]
    aggregate: bool,

    /// Compress the capture when the program has ended well (the default). While it runs, and when it is
    /// killed, the capture is as it was written
    #[arg(long, conflicts_with = "no_compress")]
    compress_on_exit: bool,

    /// Leave the capture as it was written
    #[arg(long)]
    no_compress: bool,

    /// Record the native functions of each stack, too: what of C, C++ or Rust has allocated below the Python
    /// line. Takes more time and memory; reports name the functions by the files that they are in
    #[arg(long)]
    native: bool,

    /// Record every request to Python's own allocators, too: objects, buffers and raw memory, one by one
    #[arg(long)]
    trace_python_allocators: bool,

    /// Write the capture instead of mapping it, for file systems without shared mappings (some network and
    /// FUSE ones). What is not yet written is lost if heaptide or the machine dies
    #[arg(long)]
    buffered_file_io: bool,

    /// Record children that the program forks, too, each in a capture of its own: FILE.<pid>
    #[arg(long)]
    follow_fork: bool,

    /// Record forked children and all Python programs that it starts (subprocess, multiprocessing, exec)
    #[arg(long)]
    follow_children: bool,

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

/// Runs the program. Returns only when the program could not be started: else this process ends as
/// the program did, by its exit code or by the same signal.
pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> ExitCode {
    let raw: Vec<OsString> = std::env::args_os().collect();
    match start(arguments, follows_double_dash(&raw, &arguments.program)) {
        Ok((session, agent)) => watch(arguments, &session, agent, terminal),
        Err(error) => {
            let code = if error.is_usage() {
                EXIT_USAGE
            } else {
                EXIT_FAILURE
            };
            let failure = Failure {
                what: error.to_string(),
                why: None,
                hint: refusal::hint(&raw, arguments, &error),
            };
            failure::report(&failure.into(), terminal);
            ExitCode::from(code)
        }
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

fn start(arguments: &Arguments, command: bool) -> Result<(Session, PlacedAgent), SessionError> {
    let target = Target::parse(&arguments.program, command)?;
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
        mode: if arguments.aggregate {
            Mode::Aggregated
        } else {
            Mode::All
        },
        native_stacks: arguments.native,
        trace_python_allocators: arguments.trace_python_allocators,
        follow: match (arguments.follow_children, arguments.follow_fork) {
            (true, _) => Follow::Children,
            (false, true) => Follow::Forks,
            (false, false) => Follow::Nothing,
        },
        buffered: arguments.buffered_file_io,
    };
    Ok((Session::start(&plan, &agent)?, agent))
}

fn watch(
    arguments: &Arguments,
    session: &Session,
    agent: PlacedAgent,
    terminal: &Terminal,
) -> ExitCode {
    let messages = Messages::new(
        session,
        arguments.quiet,
        arguments.trace_python_allocators,
        terminal,
    );
    messages.started();
    let mut ended = match session.supervise() {
        Ok(ended) => ended,
        Err(error) => {
            let error = anyhow::Error::new(error).context("cannot wait for the program");
            failure::report(&error, terminal);
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    let compress = arguments.compress_on_exit || !arguments.no_compress;
    if ended.tracked() {
        if compress {
            let problems =
                session.compress(&ended, &mut |path, bytes| messages.compressing(path, bytes));
            ended.problems.extend(problems);
        } else {
            session.give_back_spare_room(&ended);
        }
    }
    messages.ended(&ended);
    session.clean_up();
    // Before `end_like`, which never returns: the agent may be in a directory that has to go.
    drop(agent);
    outcome::end_like(ended.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, FromArgMatches, Parser};

    #[derive(Debug, Parser)]
    struct Wrapper {
        #[command(flatten)]
        run: Arguments,
    }

    /// Options as they were understood, and the target.
    fn check(line: &str) -> (Arguments, Target) {
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

    #[test]
    fn abbreviated_options_are_ours_up_to_the_program_only() {
        let command = Wrapper::command().infer_long_args(true);
        let parse = |line: &str| {
            let matches = command.clone().try_get_matches_from(line.split(' '));
            Wrapper::from_arg_matches(&matches.unwrap()).unwrap().run
        };
        let run = parse("run --agg --nat --trace --out x.tide app.py --for --buf");
        assert!(run.aggregate && run.native && run.trace_python_allocators);
        assert!(!run.force && !run.buffered_file_io);
        assert_eq!(run.output, Some("x.tide".into()));
        assert_eq!(run.program, words("app.py --for --buf"));
        // Options of other interpreters, and Memray's that there are none of, are no abbreviations.
        assert_eq!(parse("run --x app.py").program, words("--x app.py"));
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

        let (run, target) = check("--native -m pytest --native");
        assert!(run.native);
        assert_eq!(target, Target::Module("pytest".into(), words("--native")));
        let (run, _) = check("app.py --native");
        assert!(!run.native);

        let (run, target) = check("--aggregate --trace-python-allocators -mpytest -q");
        assert!(!run.quiet && run.trace_python_allocators);
        assert_eq!(target, Target::Module("pytest".into(), words("-q")));

        let (_, target) = check("-c pass -f -- --help");
        assert_eq!(target, Target::Code("pass".into(), words("-f -- --help")));
    }

    #[test]
    fn a_capture_is_compressed_or_not() {
        let parse = |line: &str| Wrapper::try_parse_from(line.split(' '));
        assert!(
            !parse("run --compress-on-exit a.py")
                .unwrap()
                .run
                .no_compress
        );
        assert!(parse("run --no-compress a.py").unwrap().run.no_compress);
        let error = parse("run --no-compress --compress-on-exit a.py").unwrap_err();
        assert_eq!(error.exit_code(), i32::from(EXIT_USAGE));
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
