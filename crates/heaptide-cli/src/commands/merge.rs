//! `heaptide merge`: a group of processes, and the loading of captures that belong together.

use std::path::{Path, PathBuf};

use heaptide_engine::{Merger, Process, ProcessHistory, Temporal, TemporalOptions, combined_curve};
use heaptide_format::{MAGIC, Origin, Sample};
use heaptide_report::{Reported, end_unix_ns, processes_json, processes_text};

use super::selection::history_failure;
use super::{
    CaptureArgument, Loaded, MomentArgument, SelectionArguments, load, no_history, open,
    open_with_history, tell,
};
use crate::failure::Failure;
use crate::output::OutputArguments;
use crate::terminal::Terminal;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  heaptide merge captures/
  heaptide merge --json app.tide app.tide.4712 | jq .combined_peak
  heaptide tree --process 4712 captures/")]
pub(crate) struct Arguments {
    /// Captures, or directories of captures
    #[arg(value_name = "CAPTURE", required = true)]
    paths: Vec<PathBuf>,
    /// Print JSON (schema: docs/json.md)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    output: OutputArguments,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<()> {
    let mut reported = Vec::new();
    let mut groups = Vec::new();
    for path in expanded(&arguments.paths)? {
        let loaded = open(&path, None)?;
        groups.push(loaded.capture.identity.group_id);
        reported.push(Reported {
            process: Process::new(&loaded.capture, &loaded.profile, &loaded.liveness),
            liveness: loaded.liveness,
        });
    }
    warn_of_strangers(groups, terminal);
    reported.sort_by_key(|one| (one.process.start_unix_ns, one.process.pid));
    arguments.output.write(|out| {
        if arguments.json {
            processes_json(&reported, out)
        } else {
            processes_text(&reported, out)
        }
    })
}

/// Loads what a report is made of: one capture, one process of several, or all as one.
pub(crate) fn load_group(
    argument: &CaptureArgument,
    terminal: &Terminal,
) -> anyhow::Result<Loaded> {
    load_selected(argument, &SelectionArguments::default(), None, terminal)
}

/// As [`load_group`], the part of it that was asked for, and with temporary allocations by another
/// threshold than that of the capture.
pub(crate) fn load_selected(
    argument: &CaptureArgument,
    selection: &SelectionArguments,
    moment: Option<&MomentArgument>,
    terminal: &Terminal,
) -> anyhow::Result<Loaded> {
    let threshold = moment.and_then(MomentArgument::temporary_threshold);
    if selection.is_interval() && threshold.is_some() {
        return Err(Failure {
            what: "temporary allocations of a stretch of time are not known".to_owned(),
            why: None,
            hint: Some("leave --between or the option for temporary allocations out".to_owned()),
        }
        .into());
    }
    let paths = chosen(argument)?;
    let mut loaded = match &paths[..] {
        [only] if !selection.is_interval() => load(only, threshold, terminal)?,
        [only] => {
            let mut loaded = [opened_to_narrow(only)?];
            tell(&loaded[0].0, terminal);
            let shown = selection.narrow(&mut loaded)?;
            let [(loaded, _)] = loaded;
            Loaded { shown, ..loaded }
        }
        _ => merged(&paths, selection, threshold, terminal)?,
    };
    selection.keep_threads(&mut loaded)?;
    Ok(loaded)
}

/// As [`load_group`], with the history of each process, whose keys are those of the profile.
pub(crate) fn load_with_histories(
    argument: &CaptureArgument,
    max_records: usize,
    terminal: &Terminal,
) -> anyhow::Result<(Loaded, Vec<ProcessHistory>)> {
    let opened = |path: &PathBuf| {
        let (loaded, temporal) =
            open_with_history(path, max_records, |_, error| no_history(error))?;
        let history = history_of(&loaded, temporal);
        Ok((loaded, history))
    };
    let paths = chosen(argument)?;
    if let [only] = &paths[..] {
        let (loaded, history) = opened(only)?;
        tell(&loaded, terminal);
        return Ok((loaded, vec![history]));
    }
    let all = paths.iter().map(opened).collect::<anyhow::Result<_>>()?;
    Ok(as_one(all, String::new(), terminal))
}

/// A capture with its history, by which it can be narrowed down.
fn opened_to_narrow(path: &Path) -> anyhow::Result<(Loaded, ProcessHistory)> {
    let boundaries = TemporalOptions::default().max_records;
    let (loaded, temporal) = open_with_history(path, boundaries, history_failure)?;
    let history = history_of(&loaded, temporal);
    Ok((loaded, history))
}

fn history_of(loaded: &Loaded, temporal: Temporal) -> ProcessHistory {
    ProcessHistory {
        temporal,
        start_unix_ns: loaded.capture.lifecycle.tracking_start_unix_ns,
        end_unix_ns: end_unix_ns(&loaded.capture),
    }
}

/// The captures that were named, or the one of the process that was.
fn chosen(argument: &CaptureArgument) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = vec![argument.path.clone()];
    paths.extend_from_slice(&argument.more);
    let mut paths = expanded(&paths)?;
    if let Some(pid) = argument.process {
        let all = paths.len();
        paths.retain(|path| heaptide_memray::open(path).is_ok_and(|one| one.identity.pid == pid));
        if paths.is_empty() {
            return Err(Failure {
                what: format!("no capture of process {pid}"),
                why: Some(format!("none of the {all} captures is its")),
                hint: Some("`heaptide merge` lists the processes".to_owned()),
            }
            .into());
        }
    }
    Ok(paths)
}

/// As [`load_group`], for reports of a capture's records, which cannot be merged.
pub(crate) fn load_one(argument: &CaptureArgument, terminal: &Terminal) -> anyhow::Result<Loaded> {
    let several = !argument.more.is_empty() || argument.path.is_dir();
    if several && argument.process.is_none() {
        return Err(Failure {
            what: "this shows the records of one capture".to_owned(),
            why: Some("several were named".to_owned()),
            hint: Some("choose one with --process PID".to_owned()),
        }
        .into());
    }
    load_group(argument, terminal)
}

/// All captures as one; what concerns the capture as a whole is the root's, or the first one's.
fn merged(
    paths: &[PathBuf],
    selection: &SelectionArguments,
    threshold: Option<u32>,
    terminal: &Terminal,
) -> anyhow::Result<Loaded> {
    let mut shown = String::new();
    let all = if selection.is_interval() {
        let opened = paths.iter().map(|path| opened_to_narrow(path));
        let mut all = opened.collect::<anyhow::Result<Vec<_>>>()?;
        shown = selection.narrow(&mut all)?;
        all
    } else {
        let opened = paths.iter().map(|path| {
            let loaded = open(path, threshold)?;
            Ok((loaded, ProcessHistory::default()))
        });
        opened.collect::<anyhow::Result<_>>()?
    };
    Ok(as_one(all, shown, terminal).0)
}

/// Captures of at least two processes as one, and their histories in its terms.
fn as_one(
    mut all: Vec<(Loaded, ProcessHistory)>,
    shown: String,
    terminal: &Terminal,
) -> (Loaded, Vec<ProcessHistory>) {
    let groups = all.iter().map(|(one, _)| one.capture.identity.group_id);
    warn_of_strangers(groups.collect(), terminal);
    all.sort_by_key(|(one, _)| {
        let root = Origin::from_raw(one.capture.identity.origin) == Some(Origin::Root);
        (!root, one.capture.identity.created_unix_ns)
    });
    let processes: Vec<Process> = all
        .iter()
        .map(|(one, _)| Process::new(&one.capture, &one.profile, &one.liveness))
        .collect();
    let curve = combined_curve(&processes);
    eprintln!(
        "heaptide: {} processes as one: peak figures are the sum of what each held at its own peak (see `heaptide merge`)",
        all.len()
    );
    let mut all = all.into_iter();
    let Some((first, history)) = all.next() else {
        unreachable!("there are at least two")
    };
    let mut histories = vec![history];
    let mut capture = first.capture;
    let mut merger = Merger::new(first.profile, capture.identity.pid);
    for (one, mut history) in all {
        merger.add_with_history(one.profile, &mut history.temporal, one.capture.identity.pid);
        histories.push(history);
        capture.file_bytes += one.capture.file_bytes;
        let (own, its) = (&mut capture.own, one.capture.own);
        own.anonymous_bytes = own.anonymous_bytes.saturating_add(its.anonymous_bytes);
    }
    let profile = merger.finish();
    capture.heap = profile.heap;
    capture.samples = curve
        .iter()
        .map(|moment| Sample {
            unix_ns: moment.unix_ns,
            resident_bytes: moment.resident_bytes,
            heap_bytes: moment.heap_bytes,
            ..Sample::default()
        })
        .collect();
    let loaded = Loaded {
        capture,
        profile,
        liveness: first.liveness,
        shown,
    };
    (loaded, histories)
}

/// Captures of one directory may be of several runs, which is not forbidden but seldom meant.
fn warn_of_strangers(mut groups: Vec<[u8; 16]>, terminal: &Terminal) {
    let captures = groups.len();
    groups.sort_unstable();
    // Each without a group is one by itself.
    groups.dedup_by(|one, other| one == other && *one != [0; 16]);
    if captures > 1 && groups.len() > 1 {
        let title = terminal.stderr_style("33", "warning:");
        let runs = groups.len();
        eprintln!("heaptide: {title} these captures are of {runs} different runs");
    }
}

/// Files as they are named, and of directories the captures in them.
fn expanded(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|error| Failure {
            what: format!("cannot read the directory {}", path.display()),
            why: Some(error.to_string()),
            hint: None,
        })?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| is_capture(path))
            .collect();
        found.sort();
        files.append(&mut found);
    }
    if files.is_empty() {
        return Err(Failure {
            what: "there are no captures here".to_owned(),
            why: Some("no file in the directory begins as a capture does".to_owned()),
            hint: Some("name files that `heaptide run` has written, or their directory".to_owned()),
        }
        .into());
    }
    Ok(files)
}

fn is_capture(path: &Path) -> bool {
    use std::io::Read;
    let mut start = [0; MAGIC.len()];
    path.is_file()
        && std::fs::File::open(path)
            .and_then(|mut file| file.read_exact(&mut start))
            .is_ok()
        && start == MAGIC
}
