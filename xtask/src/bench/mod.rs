//! `cargo xtask bench`: what profiling costs, against plain Python and against Memray.

mod machine;
mod measure;
mod modes;
pub(crate) mod readers;
mod report;
mod statistics;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use self::measure::{Affinity, measure};
use self::modes::{MODES, Mode};
use self::report::{Rows, StartUp};
use crate::{interpreters, shell, venv};

/// The version that is compared with.
const MEMRAY: &str = "memray==1.20.0";
/// What the workloads import; those that are missing are skipped by the workload itself.
const PACKAGES: [&str; 7] = [
    "numpy",
    "lxml",
    "pandas",
    "sqlalchemy",
    "flask",
    "aiohttp",
    "django",
];
/// The interpreter that the figures are for, unless another is asked for.
const MINOR: u32 = 12;

struct Options {
    rounds: usize,
    only: Option<String>,
    quick: bool,
    modes: Vec<&'static Mode>,
    minor: u32,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            rounds: 5,
            only: None,
            quick: false,
            modes: Vec::new(),
            minor: MINOR,
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} needs a value"))
            };
            match word.as_str() {
                "--quick" => (options.quick, options.rounds) = (true, 3),
                "--rounds" => options.rounds = value()?.parse()?,
                "--only" => options.only = Some(value()?.clone()),
                "--mode" => options.modes.push(Mode::named(value()?)?),
                "--python" => {
                    let minor = value()?.strip_prefix("3.").context("--python 3.N")?;
                    options.minor = minor.parse()?;
                }
                other => bail!(
                    "unknown option '{other}': cargo xtask bench [--quick] [--rounds N] [--only W] [--mode M]… [--python 3.N]"
                ),
            }
        }
        if options.modes.is_empty() {
            options.modes = MODES.iter().collect();
        }
        Ok(options)
    }

    /// Is this the run whose figures are kept?
    fn is_full(&self) -> bool {
        !self.quick && self.only.is_none() && self.modes.len() == MODES.len() && self.minor == MINOR
    }
}

/// A workload in one of its forms.
struct Workload {
    name: String,
    script: PathBuf,
    threads: Option<&'static str>,
}

/// Who takes part.
struct Bench {
    python: PathBuf,
    memray: Option<String>,
    /// Captures and results.
    directory: PathBuf,
}

/// One contender of a round.
#[derive(Clone, Copy)]
enum Contender {
    Plain,
    Heaptide(usize),
    Memray(usize),
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let options = Options::parse(arguments)?;
    shell::build()?;
    let bench = Bench::set_up(options.minor)?;
    let affinity = Affinity::current()?;

    let mut rows = Vec::new();
    for workload in &workloads(options.only.as_deref())? {
        // Parallel by its nature, and pointless on one core.
        if workload.threads.is_some() {
            affinity.all_cores()?;
        } else {
            affinity.one_core()?;
        }
        shell::step(&format!("{}, {} rounds", workload.name, options.rounds));
        match bench.compare(workload, &options) {
            Ok(found) => rows.push(found),
            Err(error) => shell::note(&format!("{} is left out: {error:#}", workload.name)),
        }
    }
    affinity.one_core()?;
    shell::step("start-up");
    let start_up = bench.start_up(if options.quick { 10 } else { 30 })?;
    affinity.all_cores()?;

    let machine = machine::describe(&bench.python, bench.memray.as_deref());
    let text = report::markdown(&rows, &options.modes, &start_up, &machine, options.rounds);
    println!("\n{text}");
    if options.is_full() {
        let path = shell::project().join("docs/benchmarks.md");
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        // Made by another chore.
        let readers = readers::section_of(&old);
        let space = if readers.is_empty() { "" } else { "\n" };
        std::fs::write(path, format!("{text}{space}{readers}"))?;
    } else {
        shell::note("docs/benchmarks.md is only written by a full run");
    }
    Ok(())
}

fn workloads(only: Option<&str>) -> Result<Vec<Workload>> {
    let directory = shell::project().join("benches/workloads");
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(&directory)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with('w')
                && name.ends_with(".py")
                && only.is_none_or(|only| name.starts_with(only))
        })
        .collect();
    scripts.sort();
    if scripts.is_empty() {
        bail!("no such workload in {}", directory.display());
    }
    let mut found = Vec::new();
    for script in scripts {
        let name = script.file_stem().unwrap_or_default().to_string_lossy();
        let name = name.into_owned();
        if !name.starts_with("w21") {
            found.push(Workload {
                name,
                script,
                threads: None,
            });
            continue;
        }
        for threads in ["1", "2"] {
            found.push(Workload {
                name: format!("{name}, THREADS={threads}"),
                script: script.clone(),
                threads: Some(threads),
            });
        }
    }
    Ok(found)
}

impl Bench {
    fn set_up(minor: u32) -> Result<Self> {
        let interpreters = interpreters::discover();
        let native = || {
            interpreters
                .iter()
                .filter(|interpreter| interpreter.chroot.is_none())
        };
        let chosen = native()
            .find(|interpreter| interpreter.minor == minor)
            .or_else(|| native().next_back());
        let base = &chosen.context("no Python interpreter")?.path;
        let mut packages = vec![MEMRAY];
        packages.extend(PACKAGES);
        let name = format!("bench-3.{minor}");
        let python = venv::with_packages(base, &name, &packages).unwrap_or_else(|| base.clone());
        let version = "import memray; print(memray.__version__)";
        let memray = shell::capture(Command::new(&python).args(["-c", version]));
        let directory = shell::target().join("bench");
        std::fs::create_dir_all(&directory)?;
        Ok(Self {
            python,
            memray,
            directory,
        })
    }

    fn plain(&self, script: &Path) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(script);
        command
    }

    fn heaptide(&self, mode: &Mode, more: &[&str], script: &Path) -> Command {
        let mut command = Command::new(shell::heaptide());
        command.arg("run").args(mode.flags).args(more);
        command
            .args(["--quiet", "--force", "-o"])
            .arg(self.capture("tide"))
            .arg("--python")
            .arg(&self.python)
            .arg(script);
        command
    }

    fn memray(&self, mode: &Mode, more: &[&str], script: &Path) -> Command {
        let mut command = Command::new(&self.python);
        command
            .args(["-m", "memray", "run"])
            .args(mode.flags)
            .args(more);
        command
            .args(["--quiet", "--force", "-o"])
            .arg(self.capture("bin"))
            .arg(script);
        command
    }

    fn capture(&self, extension: &str) -> PathBuf {
        self.directory.join("capture").with_extension(extension)
    }

    /// All contenders in turn, in another order each round, so that drift hits all alike.
    fn compare(&self, workload: &Workload, options: &Options) -> Result<Rows> {
        let result = self.directory.join("result.json");
        let measure = |mut command: Command| {
            if let Some(threads) = workload.threads {
                command.env("THREADS", threads);
            }
            measure(&mut command, Some(&result))
        };
        let mut rows = Rows::new(&workload.name, options.modes.len());
        let mut contenders = vec![Contender::Plain];
        for mode in 0..options.modes.len() {
            contenders.push(Contender::Heaptide(mode));
            if self.memray.is_some() {
                contenders.push(Contender::Memray(mode));
            }
        }
        let script = &workload.script;
        // Compiles the byte code and warms the page cache.
        let reference = measure(self.plain(script))?;
        for round in 0..options.rounds {
            for turn in 0..contenders.len() {
                let contender = contenders[(round + turn) % contenders.len()];
                let command = match contender {
                    Contender::Plain => self.plain(script),
                    Contender::Heaptide(mode) => self.heaptide(options.modes[mode], &[], script),
                    Contender::Memray(mode) => self.memray(options.modes[mode], &[], script),
                };
                let run = measure(command)?;
                if run.check != reference.check {
                    bail!(
                        "the program computed {} instead of {}",
                        run.check,
                        reference.check
                    );
                }
                match contender {
                    Contender::Plain => rows.plain.push(run),
                    Contender::Heaptide(mode) => {
                        rows.modes[mode].heaptide_bytes = length(&self.capture("tide"))?;
                        rows.modes[mode].heaptide.push(run);
                    }
                    Contender::Memray(mode) => {
                        rows.modes[mode].memray_bytes = length(&self.capture("bin"))?;
                        rows.modes[mode].memray.push(run);
                    }
                }
            }
        }
        for (mode, found) in options.modes.iter().zip(&mut rows.modes) {
            // Once more, untimed: what there is before it is compressed.
            measure(self.heaptide(mode, &["--no-compress"], script))?;
            let statistics = self.statistics()?;
            let ours = &statistics["heaptide"];
            let number = |value: &Value| value.as_f64().unwrap_or(0.0);
            found.events =
                number(&statistics["total_num_allocations"]) + number(&ours["deallocations"]);
            found.live_blocks = number(&ours["peak_count"]);
            found.uncompressed_bytes = on_disk(&self.capture("tide"))?;
            if !found.memray.is_empty() && mode.holds_events {
                measure(self.memray(mode, &["--no-compress"], script))?;
                found.memray_uncompressed_bytes = on_disk(&self.capture("bin"))?;
            }
        }
        Ok(rows)
    }

    fn statistics(&self) -> Result<Value> {
        let mut command = Command::new(shell::heaptide());
        let text = shell::capture(command.args(["stats", "--json"]).arg(self.capture("tide")));
        Ok(serde_json::from_str(
            &text.context("heaptide stats failed")?,
        )?)
    }

    fn start_up(&self, rounds: usize) -> Result<StartUp> {
        let empty = self.directory.join("empty.py");
        std::fs::write(&empty, "")?;
        let mode = &MODES[0];
        let (mut plain, mut heaptide, mut memray) = (vec![], vec![], vec![]);
        for _ in 0..rounds {
            plain.push(measure(&mut self.plain(&empty), None)?);
            heaptide.push(measure(&mut self.heaptide(mode, &[], &empty), None)?);
            if self.memray.is_some() {
                memray.push(measure(&mut self.memray(mode, &[], &empty), None)?);
            }
        }
        let added = |ours: &[measure::Measurement]| {
            statistics::paired(ours, &plain, |a, b| (a.wall - b.wall) * 1e3)
        };
        Ok(StartUp {
            plain: statistics::median(plain.iter().map(|run| run.wall * 1e3)),
            heaptide: added(&heaptide),
            memray: self.memray.as_ref().map(|_| added(&memray)),
        })
    }
}

fn length(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path)?.len())
}

/// A capture that was not compressed has holes where it had working memory.
fn on_disk(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path)?.blocks() * 512)
}
