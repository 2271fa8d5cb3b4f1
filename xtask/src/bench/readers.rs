//! `cargo xtask bench-readers`: what reading a capture of every event costs, against Memray's reader.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::machine;
use super::measure::{Measurement, measure};
use super::statistics::{median, paired};
use super::{Bench, MINOR};
use crate::{package, shell};

/// Where the section begins in `docs/benchmarks.md`.
pub(crate) const HEADING: &str = "## Reading captures of every event";

struct Options {
    rounds: usize,
    pairs: u64,
    write: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            rounds: 9,
            pairs: 5_000_000,
            write: true,
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut number = |name| words.next().context(format!("{name} needs a number"));
            match word.as_str() {
                "--rounds" => options.rounds = number("--rounds")?.parse()?,
                "--quick" => {
                    (options.rounds, options.pairs, options.write) = (3, 500_000, false);
                }
                other => bail!(
                    "unknown option '{other}': cargo xtask bench-readers [--quick] [--rounds N]"
                ),
            }
        }
        Ok(options)
    }
}

/// What is asked of both.
struct Question {
    name: &'static str,
    asked: Asked,
}

#[derive(Clone, Copy)]
enum Asked {
    /// A report: a command with these words, and whether it writes a file.
    Report(&'static [&'static str], bool),
    /// A query of `benches/readers/records.py`.
    Python(&'static str),
}

const QUESTIONS: [Question; 7] = [
    Question {
        name: "stats",
        asked: Asked::Report(&["stats"], false),
    },
    Question {
        name: "table",
        asked: Asked::Report(&["table"], true),
    },
    Question {
        name: "flamegraph",
        asked: Asked::Report(&["flamegraph"], true),
    },
    Question {
        name: "flamegraph --temporal",
        asked: Asked::Report(&["flamegraph", "--temporal"], true),
    },
    Question {
        name: "`FileReader`, each record",
        asked: Asked::Python("records"),
    },
    Question {
        name: "`FileReader`, and its address, size and allocator",
        asked: Asked::Python("figures"),
    },
    Question {
        name: "`FileReader`, and its innermost frame",
        asked: Asked::Python("stacks"),
    },
];

struct Row {
    report: &'static str,
    heaptide: Vec<Measurement>,
    memray: Vec<Measurement>,
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let options = Options::parse(arguments)?;
    shell::build()?;
    let bench = Bench::set_up(MINOR)?;
    if let Err(error) = package::install_into(&bench.python) {
        shell::note(&format!(
            "the package is not there to be measured: {error:#}"
        ));
    }
    let script = shell::project().join("benches/workloads/w18_event_storm.py");
    let captures = Captures::record(&bench, &script, options.pairs)?;
    let mut rows = Vec::new();
    for question in &QUESTIONS {
        shell::step(&format!("{}, {} rounds", question.name, options.rounds));
        match compare(&bench, &captures, question, options.rounds) {
            Ok(row) => rows.push(row),
            Err(error) => shell::note(&format!("{} is left out: {error:#}", question.name)),
        }
    }
    let machine = machine::describe(&bench.python, bench.memray.as_deref());
    let section = markdown(&rows, &captures, &machine, &options);
    println!("\n{section}");
    if options.write {
        let path = shell::project().join("docs/benchmarks.md");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(path, with_section(&text, &section))?;
    } else {
        shell::note("docs/benchmarks.md is only written by a full run");
    }
    Ok(())
}

/// The same program, recorded by both.
struct Captures {
    heaptide: PathBuf,
    memray: Option<PathBuf>,
    events: u64,
}

impl Captures {
    fn record(bench: &Bench, script: &Path, pairs: u64) -> Result<Self> {
        shell::step(&format!("recording {pairs} allocations and frees"));
        let pairs = pairs.to_string();
        let heaptide = bench.directory.join("readers.tide");
        let mut command = Command::new(shell::heaptide());
        command.args(["run", "--quiet", "--force", "--python"]);
        command.arg(&bench.python).arg("-o").arg(&heaptide);
        measure(command.arg(script).arg(&pairs), None)?;
        let memray = bench.directory.join("readers.bin");
        let recorded = bench.memray.as_ref().map(|_| {
            let mut command = Command::new(&bench.python);
            command.args(["-m", "memray", "run", "--quiet", "--force", "-o"]);
            measure(command.arg(&memray).arg(script).arg(&pairs), None)
        });
        let memray = recorded.transpose()?.map(|_| memray);
        let mut command = Command::new(shell::heaptide());
        let text = shell::capture(command.args(["stats", "--json"]).arg(&heaptide));
        let statistics: serde_json::Value =
            serde_json::from_str(&text.context("heaptide stats failed")?)?;
        let number = |value: &serde_json::Value| value.as_u64().unwrap_or(0);
        Ok(Self {
            events: number(&statistics["total_num_allocations"])
                + number(&statistics["heaptide"]["deallocations"]),
            heaptide,
            memray,
        })
    }
}

fn compare(bench: &Bench, captures: &Captures, question: &Question, rounds: usize) -> Result<Row> {
    let mut row = Row {
        report: question.name,
        heaptide: Vec::new(),
        memray: Vec::new(),
    };
    for _ in 0..rounds {
        let ours = ask(
            bench,
            Command::new(shell::heaptide()),
            "heaptide",
            question.asked,
            &captures.heaptide,
        )?;
        row.heaptide.push(ours);
        if let Some(capture) = &captures.memray {
            let mut program = Command::new(&bench.python);
            program.args(["-m", "memray"]);
            row.memray
                .push(ask(bench, program, "memray", question.asked, capture)?);
        }
    }
    Ok(row)
}

/// Asks a profiler, by its program or its package.
fn ask(
    bench: &Bench,
    mut program: Command,
    package: &str,
    asked: Asked,
    capture: &Path,
) -> Result<Measurement> {
    let mut command = match asked {
        Asked::Report(words, writes) => {
            program.args(words);
            if writes {
                let output = bench.directory.join("report.html");
                program.arg("--force").arg("-o").arg(output);
            }
            program
        }
        Asked::Python(query) => {
            let mut script = bench.plain(&shell::project().join("benches/readers/records.py"));
            script.args([package, query]);
            script
        }
    };
    measure(command.arg(capture), None)
}

fn markdown(rows: &[Row], captures: &Captures, machine: &str, options: &Options) -> String {
    let mut text = format!("{HEADING}\n\n");
    let _ = writeln!(
        text,
        "Made by `cargo xtask bench-readers` on {machine}.\n\n\
         The program is `w18_event_storm`, {} events, recorded by each profiler in its default mode. {} interleaved rounds on all cores: time of\n\
         the whole command by the clock, its CPU time (user and system, of all threads) and its largest resident set; medians, and medians of\n\
         the ratios within a round.\n\n\
         | report | heaptide s | Memray s | Memray / heaptide | heaptide CPU s | Memray CPU s | Memray / heaptide | heaptide CPU ns/event | heaptide MiB | Memray MiB |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        captures.events, options.rounds
    );
    for row in rows {
        let of =
            |runs: &[Measurement], what: fn(&Measurement) -> f64| median(runs.iter().map(what));
        let clock = |run: &Measurement| run.wall;
        let cpu = |run: &Measurement| run.cpu;
        let memory = |run: &Measurement| run.peak_resident;
        let memray = |value: f64, digits: usize| {
            if row.memray.is_empty() {
                "–".to_owned()
            } else {
                format!("{value:.digits$}")
            }
        };
        let ratio = |what: fn(&Measurement) -> f64| {
            let each = paired(&row.memray, &row.heaptide, |memray, ours| {
                what(memray) / what(ours)
            });
            memray(each, 1)
        };
        let _ = writeln!(
            text,
            "| {} | {:.3} | {} | {} | {:.3} | {} | {} | {:.1} | {:.1} | {} |",
            row.report,
            of(&row.heaptide, clock),
            memray(of(&row.memray, clock), 3),
            ratio(clock),
            of(&row.heaptide, cpu),
            memray(of(&row.memray, cpu), 3),
            ratio(cpu),
            of(&row.heaptide, cpu) * 1e9 / (captures.events.max(1) as f64),
            of(&row.heaptide, memory),
            memray(of(&row.memray, memory), 1),
        );
    }
    text
}

/// The section of a document, if it has one, with what follows upon it.
pub(crate) fn section_of(text: &str) -> &str {
    text.find(HEADING).map_or("", |start| &text[start..])
}

/// A document with its section exchanged.
fn with_section(text: &str, section: &str) -> String {
    let (before, old) = text.split_at(text.len() - section_of(text).len());
    let after = old.find("\n## ").map_or("", |end| &old[end..]);
    format!("{}\n\n{section}{after}", before.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_exchanged_and_the_rest_stays() {
        let old = format!("# Benchmarks\n\nfirst\n\n{HEADING}\n\nold\n");
        assert_eq!(section_of(&old), format!("{HEADING}\n\nold\n"));
        let new = format!("{HEADING}\n\nnew\n");
        let expected = format!("# Benchmarks\n\nfirst\n\n{new}");
        assert_eq!(with_section(&old, &new), expected);
        assert_eq!(with_section("# Benchmarks\n\nfirst\n", &new), expected);
        let last = "\n## Pages\n\nlast\n";
        assert_eq!(
            with_section(&format!("{old}{last}"), &new),
            format!("{expected}{last}")
        );
        assert_eq!(section_of("# Benchmarks\n"), "");
    }

    #[test]
    fn a_table_without_memray_has_dashes() {
        let row = Row {
            report: "stats",
            heaptide: vec![Measurement {
                wall: 0.09,
                cpu: 0.1,
                peak_resident: 14.0,
                ..Measurement::default()
            }],
            memray: Vec::new(),
        };
        let captures = Captures {
            heaptide: PathBuf::new(),
            memray: None,
            events: 10_000_000,
        };
        let options = Options::parse(&[]).unwrap();
        let text = markdown(&[row], &captures, "a machine", &options);
        assert!(
            text.ends_with("| stats | 0.090 | – | – | 0.100 | – | – | 10.0 | 14.0 | – |\n"),
            "{text}"
        );
    }
}
