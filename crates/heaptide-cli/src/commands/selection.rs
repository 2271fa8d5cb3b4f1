//! Which part of a capture a report shows: some threads, a stretch of time.

use std::ops::RangeInclusive;
use std::str::FromStr;

use heaptide_capture::Capture;
use heaptide_engine::{EngineError, ProcessHistory, Temporal, ThreadInfo};
use heaptide_report::{Part, end_unix_ns, keep_interval, keep_threads, visible};

use super::Loaded;
use crate::failure::Failure;

/// Which part of a capture a report shows.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "What to show")]
pub(crate) struct SelectionArguments {
    /// Only what this thread allocated, by its name or number; may be given more than once
    #[arg(long, value_name = "THREAD")]
    thread: Vec<String>,
    /// Only this stretch of time, in seconds since the start (`2.5`) or in percent of the run
    /// (`40%`): what was held at its peak, and with --leaks what was allocated in it and is alive at its
    /// end
    #[arg(long, value_names = ["START", "END"], num_args = 2)]
    between: Option<Vec<Point>>,
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Point {
    Seconds(f64),
    Percent(f64),
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "give seconds (2.5) or percent (40%)".to_owned();
        let number = |text: &str| -> Result<f64, String> {
            let number: f64 = text.parse().map_err(|_| wrong())?;
            if number.is_finite() && number >= 0.0 {
                Ok(number)
            } else {
                Err(wrong())
            }
        };
        match text.strip_suffix('%') {
            Some(percent) => number(percent).map(Self::Percent),
            None => number(text.strip_suffix('s').unwrap_or(text)).map(Self::Seconds),
        }
    }
}

impl Point {
    /// Nanoseconds since the Unix epoch, in a run from `start` to `end`.
    fn in_run(self, start: u64, end: u64) -> u64 {
        let since = match self {
            Self::Seconds(seconds) => seconds * 1e9,
            Self::Percent(percent) => percent / 100.0 * end.saturating_sub(start) as f64,
        };
        start.saturating_add(since as u64)
    }
}

impl SelectionArguments {
    /// Narrows captures that were made together down to the stretch of time, if one was given. Gives it in
    /// words.
    pub(super) fn narrow(&self, all: &mut [(Loaded, ProcessHistory)]) -> anyhow::Result<String> {
        let Some([from, to]) = self.between.as_deref() else {
            return Ok(String::new());
        };
        let started =
            |(one, _): &(Loaded, ProcessHistory)| one.capture.lifecycle.tracking_start_unix_ns;
        let start = all.iter().map(started).min().unwrap_or(0);
        let ends = all.iter().map(|(one, _)| end_unix_ns(&one.capture));
        let end = ends.max().unwrap_or(0).max(start);
        let (from, to) = (from.in_run(start, end), to.in_run(start, end));
        if from > to {
            return Err(Failure {
                what: "--between ends before it begins".to_owned(),
                why: None,
                hint: Some("give the earlier point first".to_owned()),
            }
            .into());
        }
        if from > end {
            return Err(Failure {
                what: "--between begins after the end of the run".to_owned(),
                why: Some(format!("it took {}", seconds(end - start))),
                hint: None,
            }
            .into());
        }
        let mut shown: Option<(u64, u64)> = None;
        let alone = all.len() == 1;
        for (one, history) in all {
            let mut range = history.intervals_within(from, to);
            if alone {
                range = Some(history.temporal.intervals_touched(from, to));
            }
            let Some(range) = range else {
                // It was not there.
                keep_interval(&mut one.profile, &Temporal::default(), &(0..=0));
                continue;
            };
            let (from, to) = narrow_one(one, history, &range);
            let (first, last) = shown.unwrap_or((from, to));
            shown = Some((first.min(from), last.max(to)));
        }
        let Some((from, to)) = shown else {
            return Ok(String::new());
        };
        let words = format!(
            "from {} to {} of {}, by the samples",
            seconds(from.saturating_sub(start)),
            seconds(to.min(end).saturating_sub(start)),
            seconds(end - start)
        );
        eprintln!("heaptide: {words}");
        Ok(words)
    }

    /// Of what the figures are.
    pub(super) fn part(&self) -> Part {
        match (self.is_interval(), self.thread.is_empty()) {
            (true, _) => Part::Interval,
            (_, false) => Part::Threads,
            _ => Part::Whole,
        }
    }

    /// Whether only a stretch of time is shown.
    pub(super) fn is_interval(&self) -> bool {
        self.between.is_some()
    }

    /// Refuses what a page that takes time apart cannot show.
    pub(super) fn refuse_with_temporal(&self) -> Result<(), Failure> {
        let (option, instead) = match self.part() {
            Part::Whole | Part::Records => return Ok(()),
            Part::Interval => ("--between", "choose the stretch of time in the page"),
            Part::Threads => (
                "--thread",
                "take --split-threads and choose the thread in the page",
            ),
        };
        Err(Failure {
            what: format!("--temporal shows the whole run, {option} a part of it"),
            why: None,
            hint: Some(format!("{instead}, or leave out --temporal")),
        })
    }

    /// Leaves only the threads that were asked for.
    pub(super) fn keep_threads(&self, loaded: &mut Loaded) -> Result<(), Failure> {
        if self.thread.is_empty() {
            return Ok(());
        }
        for wanted in &self.thread {
            if !loaded
                .profile
                .threads
                .iter()
                .any(|thread| is_meant(thread, wanted))
            {
                return Err(no_such_thread(wanted, &loaded.profile.threads));
            }
        }
        keep_threads(&mut loaded.profile, |thread| {
            self.thread.iter().any(|wanted| is_meant(thread, wanted))
        });
        if !loaded.shown.is_empty() {
            loaded.shown.push_str("; ");
        }
        loaded.shown.push_str("allocated by ");
        loaded.shown.push_str(&self.thread.join(", "));
        Ok(())
    }
}

/// By its name, its number, or its name without the process in front.
fn is_meant(thread: &ThreadInfo, wanted: &str) -> bool {
    let without_process = || {
        let (process, name) = thread.name.split_once(' ')?;
        process.parse::<u32>().ok().map(|_| name)
    };
    thread.name == wanted
        || wanted.parse() == Ok(thread.thread_id)
        || without_process() == Some(wanted)
}

fn no_such_thread(wanted: &str, threads: &[ThreadInfo]) -> Failure {
    /// More names would hide the error.
    const MOST: usize = 10;
    let mut names: Vec<String> = threads
        .iter()
        .filter(|thread| thread.thread_id != 0)
        .map(|thread| format!("{} ({})", visible(&thread.name), thread.thread_id))
        .collect();
    let more = names.len().saturating_sub(MOST);
    names.truncate(MOST);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    Failure {
        what: format!("no thread {wanted}"),
        why: Some(format!("the threads are {}", names.join(", "))),
        hint: None,
    }
}

/// Gives the stretch that was taken, in nanoseconds since the Unix epoch: whole intervals between samples.
fn narrow_one(
    one: &mut Loaded,
    history: &ProcessHistory,
    range: &RangeInclusive<usize>,
) -> (u64, u64) {
    let times = &history.temporal.times_unix_ns;
    keep_interval(&mut one.profile, &history.temporal, range);
    let before = range.start().checked_sub(1);
    let begin = before.map_or(history.start_unix_ns, |before| times[before]);
    let end = times.get(*range.end()).copied();
    (begin, end.unwrap_or(history.end_unix_ns))
}

pub(super) fn history_failure(capture: &Capture, error: &EngineError) -> Failure {
    Failure {
        what: format!("{} has no history", capture.path.display()),
        why: Some(error.to_string()),
        hint: None,
    }
}

fn seconds(nanoseconds: u64) -> String {
    format!("{:.2} s", nanoseconds as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time() {
        assert_eq!("2.5".parse(), Ok(Point::Seconds(2.5)));
        assert_eq!("3s".parse(), Ok(Point::Seconds(3.0)));
        assert_eq!("40%".parse(), Ok(Point::Percent(40.0)));
        for wrong in ["", "s", "-1", "inf", "NaN%", "x"] {
            assert!(wrong.parse::<Point>().is_err(), "{wrong}");
        }
        assert_eq!(Point::Percent(50.0).in_run(100, 300), 200);
        assert_eq!(Point::Seconds(1.5).in_run(7, 9), 1_500_000_007);
        assert_eq!(Point::Seconds(1e300).in_run(7, 9), u64::MAX);
    }

    #[test]
    fn threads_by_name_and_number() {
        let thread = |name: &str| ThreadInfo {
            number: 1,
            thread_id: 4712,
            name: name.to_owned(),
        };
        assert!(is_meant(&thread("worker-1"), "worker-1"));
        assert!(is_meant(&thread("worker-1"), "4712"));
        assert!(is_meant(&thread("99 worker-1"), "worker-1"));
        assert!(!is_meant(&thread("big worker-1"), "worker-1"));
        assert!(!is_meant(&thread("worker-1"), "471"));
    }
}
