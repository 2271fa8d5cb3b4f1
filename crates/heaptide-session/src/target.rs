//! What to run: a script, a module, code or any command, and the interpreter for the first three.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::{SessionError, script};

/// What the user asked to run. Arguments are the program's own and are never looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `script.py args…`; `-` is standard input.
    Script(OsString, Vec<OsString>),
    /// `-m module args…`
    Module(OsString, Vec<OsString>),
    /// `-c code args…`
    Code(OsString, Vec<OsString>),
    /// `-- command args…`
    Command(OsString, Vec<OsString>),
}

/// What to `exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Path of the executable.
    pub executable: PathBuf,
    /// Its arguments, `argv[0]` included.
    pub arguments: Vec<OsString>,
}

/// What decides which interpreter runs a script, from the caller's options and environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `--python`
    pub python_option: Option<OsString>,
    /// `HEAPTIDE_PYTHON`
    pub heaptide_python: Option<OsString>,
    /// `VIRTUAL_ENV`
    pub virtual_env: Option<OsString>,
    /// `PATH`
    pub path: Option<OsString>,
}

impl Environment {
    /// From the environment of this process.
    #[must_use]
    pub fn current(python_option: Option<OsString>) -> Self {
        let non_empty = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            python_option,
            heaptide_python: non_empty("HEAPTIDE_PYTHON"),
            virtual_env: non_empty("VIRTUAL_ENV"),
            path: std::env::var_os("PATH"),
        }
    }
}

impl Target {
    /// Reads the words after our own options, as `python` itself would: whatever follows the
    /// script, the module or the code belongs to the program, flags that look like ours too.
    ///
    /// `command` tells that `--` stood before the words.
    ///
    /// # Errors
    /// [`SessionError::Usage`] when nothing is named, [`SessionError::UnknownOption`] when an option of the interpreter is given.
    pub fn parse(words: &[OsString], command: bool) -> Result<Self, SessionError> {
        let usage = |text: &str| Err(SessionError::Usage(text.to_owned()));
        let Some((first, rest)) = words.split_first() else {
            return usage(
                "nothing to run: give a script, -m MODULE, -c CODE or -- COMMAND, after all options of heaptide",
            );
        };
        if command {
            return Ok(Self::Command(first.clone(), rest.to_vec()));
        }
        let bytes = first.as_bytes();
        let make = match bytes {
            [b'-', b'm', ..] => Self::Module,
            [b'-', b'c', ..] => Self::Code,
            [b'-'] | [] => return Ok(Self::Script(first.clone(), rest.to_vec())),
            [b'-', ..] => {
                return Err(SessionError::UnknownOption {
                    option: first.clone(),
                });
            }
            _ => return Ok(Self::Script(first.clone(), rest.to_vec())),
        };
        // `-mjson.tool` and `-m json.tool` are the same, as for the interpreter.
        let attached = &bytes[2..];
        if !attached.is_empty() {
            return Ok(make(OsString::from_vec(attached.to_vec()), rest.to_vec()));
        }
        match rest.split_first() {
            Some((value, arguments)) => Ok(make(value.clone(), arguments.to_vec())),
            None => usage(&format!("option '{}' needs an argument", first.display())),
        }
    }

    /// The word that stands for the target in the capture's default name.
    #[must_use]
    pub fn stem(&self) -> OsString {
        let base = |name: &OsString| {
            Path::new(name)
                .file_name()
                .map_or_else(|| OsString::from("program"), OsStr::to_owned)
        };
        match self {
            Self::Script(path, _) if path == "-" => "stdin".into(),
            Self::Script(path, _) => {
                let name = base(path);
                match name.as_bytes().strip_suffix(b".py") {
                    Some(stem) if !stem.is_empty() => OsString::from_vec(stem.to_vec()),
                    _ => name,
                }
            }
            Self::Module(module, _) => {
                // A module name has no slash; if it has, the interpreter is the one to complain.
                OsString::from_vec(
                    module
                        .as_bytes()
                        .iter()
                        .map(|&b| if b == b'/' { b'_' } else { b })
                        .collect(),
                )
            }
            Self::Code(..) => "string".into(),
            Self::Command(program, _) => base(program),
        }
    }

    /// The target as a reader of the capture sees it.
    #[must_use]
    pub fn describe(&self) -> OsString {
        match self {
            Self::Script(path, _) => path.clone(),
            Self::Module(module, _) => {
                let mut text = OsString::from("-m ");
                text.push(module);
                text
            }
            Self::Code(..) => "-c".into(),
            Self::Command(program, _) => program.clone(),
        }
    }

    /// Resolves the target to an executable and its arguments.
    ///
    /// # Errors
    /// When the script, the interpreter or the command is not there. Nothing has been made yet.
    pub fn resolve(&self, environment: &Environment) -> Result<Program, SessionError> {
        if let Self::Command(name, arguments) = self {
            let executable = find_executable(name, environment.path.as_deref())?;
            return Ok(program(executable, name.clone(), &[], arguments));
        }
        if let Self::Script(path, _) = self
            && path != "-"
        {
            script::check(Path::new(path)).map_err(|error| {
                if error.is_missing_script()
                    && find_executable(path, environment.path.as_deref()).is_ok()
                {
                    SessionError::CommandAsScript { name: path.clone() }
                } else {
                    error
                }
            })?;
        }
        if let Self::Code(code, _) = self
            && Path::new(code).exists()
        {
            return Err(SessionError::Usage(
                "remove the option -c to run a file".to_owned(),
            ));
        }
        let (executable, name) = interpreter(environment)?;
        Ok(match self {
            Self::Module(module, arguments) => {
                program(executable, name, &["-m".into(), module.clone()], arguments)
            }
            Self::Code(code, arguments) => {
                program(executable, name, &["-c".into(), code.clone()], arguments)
            }
            Self::Script(path, arguments) | Self::Command(path, arguments) => {
                program(executable, name, std::slice::from_ref(path), arguments)
            }
        })
    }
}

fn program(executable: PathBuf, name: OsString, head: &[OsString], tail: &[OsString]) -> Program {
    let mut arguments = vec![name];
    arguments.extend_from_slice(head);
    arguments.extend_from_slice(tail);
    Program {
        executable,
        arguments,
    }
}

/// The interpreter and the `argv[0]` it is to see, which is the word a user would have typed.
fn interpreter(environment: &Environment) -> Result<(PathBuf, OsString), SessionError> {
    let path = environment.path.as_deref();
    if let Some(name) = environment
        .python_option
        .as_ref()
        .or(environment.heaptide_python.as_ref())
    {
        return Ok((find_executable(name, path)?, name.clone()));
    }
    if let Some(root) = &environment.virtual_env {
        let python = Path::new(root).join("bin/python");
        if is_executable(&python).is_ok() {
            return Ok((python.clone(), python.into_os_string()));
        }
    }
    for name in ["python3", "python"] {
        if let Ok(found) = find_executable(OsStr::new(name), path) {
            return Ok((found, name.into()));
        }
    }
    Err(SessionError::NoInterpreter)
}

/// `execvp`'s search, before anything is made. A name with a slash is a path.
fn find_executable(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, SessionError> {
    if name.as_bytes().contains(&b'/') {
        let found = PathBuf::from(name);
        return match is_executable(&found) {
            Ok(()) => Ok(found),
            Err(source) => Err(SessionError::Exec {
                program: found,
                source,
            }),
        };
    }
    let not_found = || SessionError::CommandNotFound {
        name: name.to_owned(),
    };
    if name.is_empty() {
        return Err(not_found());
    }
    // The fallback of the C library when PATH is unset.
    let path = path.unwrap_or(OsStr::new("/bin:/usr/bin"));
    let mut refused = None;
    for directory in std::env::split_paths(path) {
        // An empty entry means the current directory.
        let candidate = if directory.as_os_str().is_empty() {
            Path::new(".").join(name)
        } else {
            directory.join(name)
        };
        match is_executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied && candidate.is_file() =>
            {
                refused.get_or_insert(SessionError::Exec {
                    program: candidate,
                    source: error,
                });
            }
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(not_found))
}

fn is_executable(path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    // Root may execute a file only if someone may; for others the kernel decides at the exec.
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn everything_after_the_target_is_the_programs_own() {
        let parse = |text: &str| Target::parse(&words(text), false).unwrap();
        assert_eq!(
            parse("app.py -q -o x -m y"),
            Target::Script("app.py".into(), words("-q -o x -m y"))
        );
        assert_eq!(
            parse("-m pytest -x -f"),
            Target::Module("pytest".into(), words("-x -f"))
        );
        assert_eq!(
            parse("-mpytest -x"),
            Target::Module("pytest".into(), words("-x"))
        );
        assert_eq!(
            parse("-c pass -- a"),
            Target::Code("pass".into(), words("-- a"))
        );
        assert_eq!(parse("- a"), Target::Script("-".into(), words("a")));
    }

    #[test]
    fn a_command_is_taken_as_it_is() {
        let target = Target::parse(&words("-m odd --flag"), true).unwrap();
        assert_eq!(target, Target::Command("-m".into(), words("odd --flag")));
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for text in ["", "-m", "-c", "-X dev app.py", "--live app.py"] {
            assert!(
                Target::parse(&words(text), false).unwrap_err().is_usage(),
                "{text}"
            );
        }
    }

    #[test]
    fn stems_name_the_capture() {
        let stem = |text: &str, command| Target::parse(&words(text), command).unwrap().stem();
        assert_eq!(stem("dir/app.py", false), "app");
        assert_eq!(stem("dir/tool", false), "tool");
        assert_eq!(stem(".py", false), ".py");
        assert_eq!(stem("pkg/", false), "pkg");
        assert_eq!(stem("..", false), "program");
        assert_eq!(stem("-", false), "stdin");
        assert_eq!(stem("-m json.tool", false), "json.tool");
        assert_eq!(stem("-c pass", false), "string");
        assert_eq!(stem("./venv/bin/gunicorn app:app", true), "gunicorn");
    }

    #[test]
    fn the_interpreter_is_chosen_in_the_documented_order() {
        let root = tempfile::tempdir().unwrap();
        let executable = |relative: &str| {
            let path = root.path().join(relative);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let on_path = executable("path/python3");
        let in_venv = executable("venv/bin/python");
        let by_variable = executable("other/python");
        let by_option = executable("path/python3.11");
        let target = Target::Module("m".into(), vec![]);

        let mut environment = Environment {
            path: Some(root.path().join("path").into()),
            ..Environment::default()
        };
        let program = target.resolve(&environment).unwrap();
        assert_eq!(program.executable, on_path);
        assert_eq!(program.arguments, words("python3 -m m"));
        environment.virtual_env = Some(root.path().join("venv").into());
        assert_eq!(target.resolve(&environment).unwrap().executable, in_venv);
        environment.heaptide_python = Some(by_variable.clone().into());
        assert_eq!(
            target.resolve(&environment).unwrap().executable,
            by_variable
        );
        environment.python_option = Some("python3.11".into());
        let program = target.resolve(&environment).unwrap();
        assert_eq!(program.executable, by_option);
        assert_eq!(program.arguments[0], "python3.11");
    }

    #[test]
    fn missing_things_are_told_before_anything_is_made() {
        let environment = Environment {
            path: Some("/nonexistent".into()),
            ..Environment::default()
        };
        let resolve = |target: Target| target.resolve(&environment).unwrap_err();
        let code = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(
            resolve(Target::Script("/nonexistent/x.py".into(), vec![])),
            SessionError::Script { .. }
        ));
        let environment_with_commands = Environment {
            path: Some("/bin".into()),
            ..Environment::default()
        };
        assert!(matches!(
            Target::Script("sh".into(), vec![]).resolve(&environment_with_commands),
            Err(SessionError::CommandAsScript { .. })
        ));
        assert!(matches!(
            resolve(Target::Code(code.path().into(), vec![])),
            SessionError::Usage(_)
        ));
        assert!(matches!(
            resolve(Target::Module("m".into(), vec![])),
            SessionError::NoInterpreter
        ));
        assert!(matches!(
            resolve(Target::Command("nope".into(), vec![])),
            SessionError::CommandNotFound { .. }
        ));
        assert!(matches!(
            resolve(Target::Command("/nonexistent/p".into(), vec![])),
            SessionError::Exec { .. }
        ));
    }
}
