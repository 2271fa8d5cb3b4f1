//! `cargo xtask bench`: what profiling costs, against plain Python and against Memray.

mod machine;
mod measure;
mod report;
mod statistics;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use self::measure::{Affinity, Measurement, measure};
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
/// The interpreter that the figures are for.
const MINOR: u32 = 12;

struct Options {
    rounds: usize,
    only: Option<String>,
    quick: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            rounds: 15,
            only: None,
            quick: false,
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => (options.quick, options.rounds) = (true, 3),
                "--rounds" => {
                    options.rounds = words.next().context("--rounds needs a number")?.parse()?;
                }
                "--only" => {
                    options.only = Some(words.next().context("--only needs a name")?.clone());
                }
                other => bail!(
                    "unknown option '{other}': cargo xtask bench [--quick] [--rounds N] [--only W]"
                ),
            }
        }
        Ok(options)
    }
}

/// Who takes part.
struct Bench {
    python: PathBuf,
    memray: Option<String>,
    /// Captures and results.
    directory: PathBuf,
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let options = Options::parse(arguments)?;
    shell::build()?;
    let bench = Bench::set_up()?;
    let affinity = Affinity::current()?;
    let workloads = workloads(options.only.as_deref())?;

    let mut rows = Vec::new();
    for workload in &workloads {
        let name = workload
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // Parallel by its nature, and pointless on one core.
        if name.starts_with("w21") {
            affinity.all_cores()?;
        } else {
            affinity.one_core()?;
        }
        shell::step(&format!("{name}, {} rounds", options.rounds));
        match bench.compare(&name, workload, options.rounds) {
            Ok(found) => rows.push(found),
            Err(error) => shell::note(&format!("{name} is left out: {error:#}")),
        }
    }
    affinity.one_core()?;
    shell::step("start-up");
    let start_up = bench.start_up(if options.quick { 10 } else { 30 })?;
    affinity.all_cores()?;

    let machine = machine::describe(&bench.python, bench.memray.as_deref());
    let text = report::markdown(&rows, &start_up, &machine, options.rounds);
    println!("\n{text}");
    if options.only.is_some() || options.quick {
        shell::note("docs/benchmarks.md is only written by a full run");
    } else {
        std::fs::write(shell::project().join("docs/benchmarks.md"), text)?;
    }
    Ok(())
}

fn workloads(only: Option<&str>) -> Result<Vec<PathBuf>> {
    let directory = shell::project().join("benches/workloads");
    let mut found: Vec<PathBuf> = std::fs::read_dir(&directory)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with('w')
                && name.ends_with(".py")
                && only.is_none_or(|only| name.starts_with(only))
        })
        .collect();
    found.sort();
    if found.is_empty() {
        bail!("no such workload in {}", directory.display());
    }
    Ok(found)
}

impl Bench {
    fn set_up() -> Result<Self> {
        let interpreters = interpreters::discover();
        let native = || {
            interpreters
                .iter()
                .filter(|interpreter| interpreter.chroot.is_none())
        };
        let chosen = native()
            .find(|interpreter| interpreter.minor == MINOR)
            .or_else(|| native().next_back());
        let base = &chosen.context("no Python interpreter")?.path;
        let mut packages = vec![MEMRAY];
        packages.extend(PACKAGES);
        let python = venv::with_packages(base, "bench", &packages).unwrap_or_else(|| base.clone());
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

    fn heaptide(&self, script: &Path) -> Command {
        let mut command = Command::new(shell::heaptide());
        command
            .args(["run", "--aggregate", "--quiet", "--force", "-o"])
            .arg(self.capture("tide"));
        command.arg("--python").arg(&self.python).arg(script);
        command
    }

    fn memray(&self, script: &Path) -> Command {
        let mut command = Command::new(&self.python);
        command.args([
            "-m",
            "memray",
            "run",
            "--aggregate",
            "--quiet",
            "--force",
            "-o",
        ]);
        command.arg(self.capture("bin")).arg(script);
        command
    }

    fn capture(&self, extension: &str) -> PathBuf {
        self.directory.join("capture").with_extension(extension)
    }

    /// All contenders in turn, in another order each round, so that drift hits all alike.
    fn compare(&self, name: &str, script: &Path, rounds: usize) -> Result<Rows> {
        let result = self.directory.join("result.json");
        let mut rows = Rows {
            workload: name.to_owned(),
            ..Rows::default()
        };
        // Compiles the byte code and warms the page cache.
        let reference = measure(&mut self.plain(script), Some(&result))?;
        for round in 0..rounds {
            for turn in 0..3 {
                let (mut command, runs): (Command, &mut Vec<Measurement>) = match (round + turn) % 3
                {
                    0 => (self.plain(script), &mut rows.plain),
                    1 => (self.heaptide(script), &mut rows.heaptide),
                    _ if self.memray.is_some() => (self.memray(script), &mut rows.memray),
                    _ => continue,
                };
                let run = measure(&mut command, Some(&result))?;
                if run.check != reference.check {
                    bail!(
                        "the program computed {} instead of {}",
                        run.check,
                        reference.check
                    );
                }
                runs.push(run);
            }
        }
        let statistics = self.statistics()?;
        let ours = &statistics["heaptide"];
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        rows.events = number(&statistics["total_num_allocations"]) + number(&ours["deallocations"]);
        rows.live_blocks = number(&ours["peak_count"]);
        rows.heaptide_bytes = std::fs::metadata(self.capture("tide"))?.len();
        if self.memray.is_some() {
            rows.memray_bytes = std::fs::metadata(self.capture("bin"))?.len();
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
        let (mut plain, mut heaptide, mut memray) = (vec![], vec![], vec![]);
        for _ in 0..rounds {
            plain.push(measure(&mut self.plain(&empty), None)?);
            heaptide.push(measure(&mut self.heaptide(&empty), None)?);
            if self.memray.is_some() {
                memray.push(measure(&mut self.memray(&empty), None)?);
            }
        }
        let added =
            |ours: &[Measurement]| statistics::paired(ours, &plain, |a, b| (a.wall - b.wall) * 1e3);
        Ok(StartUp {
            plain: statistics::median(plain.iter().map(|run| run.wall * 1e3)),
            heaptide: added(&heaptide),
            memray: self.memray.as_ref().map(|_| added(&memray)),
        })
    }
}
