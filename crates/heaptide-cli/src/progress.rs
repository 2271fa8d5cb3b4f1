//! How far a long piece of work is, in one line on a terminal.

use std::fmt;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use heaptide_engine::Progress;

/// Work that is done sooner is not worth a word.
const PATIENCE: Duration = Duration::from_millis(500);
const BAR_WIDTH: u64 = 30;

/// A line on stderr that is drawn over and taken away at the end; none when stderr is no terminal.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    what: &'static str,
    started: Instant,
    enabled: bool,
    /// What is on the screen, percent.
    shown: Option<u64>,
}

impl ProgressLine {
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            started: Instant::now(),
            enabled: stderr().is_terminal(),
            shown: None,
        }
    }

    /// Notes how far the work is.
    pub(crate) fn report(&mut self, progress: Progress) {
        if !self.enabled || self.started.elapsed() < PATIENCE {
            return;
        }
        let percent = percent_of(progress);
        if self.shown != Some(percent) {
            self.shown = Some(percent);
            self.draw(format_args!("\r{}", bar(self.what, percent)));
        }
    }

    /// A terminal that is gone is no reason to fail.
    fn draw(&self, line: fmt::Arguments<'_>) {
        let mut out = stderr().lock();
        let _ = out.write_fmt(line).and_then(|()| out.flush());
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.shown.is_some() {
            self.draw(format_args!("\r\x1b[K"));
        }
    }
}

fn percent_of(progress: Progress) -> u64 {
    let done = u128::from(progress.done.min(progress.total));
    let percent = (done * 100).checked_div(u128::from(progress.total));
    percent.map_or(100, |percent| percent as u64)
}

/// Plain letters: the line is short-lived and must come out right everywhere.
fn bar(what: &str, percent: u64) -> String {
    let full = (percent * BAR_WIDTH / 100) as usize;
    let empty = BAR_WIDTH as usize - full;
    format!(
        "heaptide: {what} [{}{}] {percent:3} %",
        "#".repeat(full),
        ".".repeat(empty)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_what_is_done() {
        let percent = |done, total| percent_of(Progress { done, total });
        assert_eq!(percent(0, 10), 0);
        assert_eq!(percent(u64::MAX / 2, u64::MAX), 49);
        assert_eq!(percent(11, 10), 100);
        assert_eq!(percent(0, 0), 100);
        assert_eq!(
            bar("reading events", 50),
            "heaptide: reading events [###############...............]  50 %"
        );
        assert!(bar("x", 0).contains("[..............................]   0 %"));
        assert!(bar("x", 100).contains("[##############################] 100 %"));
    }

    #[test]
    fn nothing_is_said_of_short_work() {
        let mut line = ProgressLine::new("reading events");
        line.enabled = true;
        line.report(Progress { done: 1, total: 2 });
        assert_eq!(line.shown, None);
        line.started -= PATIENCE;
        line.enabled = false;
        line.report(Progress { done: 1, total: 2 });
        assert_eq!(line.shown, None);
    }
}
