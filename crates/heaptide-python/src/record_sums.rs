//! `RecordSums`: what records say that somebody has chosen, as something that reports can be made of.

use std::io;
use std::sync::{Mutex, PoisonError};

use heaptide_capture::{Ending, Liveness};
use heaptide_engine::{Amount, Figures, Metric, ProcessHistory, Profile};
use heaptide_report::{
    ConfidentialFiles, FlamegraphOptions, MAX_MEMORY_RECORDS, Part, SummaryColumn, SummaryOptions,
    TableOptions, TextOptions, TreeOptions, flamegraph_html, gprof2dot_json, keep_biggest,
    speedscope_json, summary_text, table_html, transform_csv, tree_text,
};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::facts::{Facts, NANOSECONDS_PER_MILLISECOND, Snapshot, capture_of};
use crate::record_history::over_time;
use crate::record_reading::Reading;

/// Sums of records of any class that has what those of `AllocationRecord` have.
#[pyclass(frozen, module = "heaptide._heaptide")]
pub(crate) struct RecordSums {
    /// Held only for moments in which no Python runs.
    sums: Mutex<OneMetric>,
    /// Where the records say when: of which metric they are, and what the program held over time.
    history: Option<(Metric, ProcessHistory)>,
}

/// A profile that has amounts of one metric; which it is, whoever chose the records says with each page.
struct OneMetric {
    profile: Profile,
    metric: Metric,
}

impl OneMetric {
    /// The amounts are those of `metric`, which is the peak or what is live.
    fn as_of(&mut self, metric: Metric) -> &Profile {
        if self.metric != metric {
            let entries = self.profile.entries.iter_mut();
            let figures = entries.map(|entry| &mut entry.figures);
            for figures in figures.chain([&mut self.profile.totals.figures]) {
                std::mem::swap(&mut figures.peak, &mut figures.live);
            }
            self.metric = metric;
        }
        &self.profile
    }
}

#[pymethods]
impl RecordSums {
    /// Adds up records; `stacks` is the name of their method that gives a stack, the innermost frame first.
    #[new]
    fn new(records: &Bound<'_, PyAny>, stacks: &Bound<'_, PyString>) -> PyResult<Self> {
        let mut reading = Reading::new(stacks);
        for record in records.try_iter()? {
            let record = record?;
            let who = reading.who(&record)?;
            let peak = Amount {
                count: record.getattr("n_allocations")?.extract()?,
                bytes: record.getattr("size")?.extract()?,
            };
            let figures = Figures {
                peak,
                ..Figures::default()
            };
            reading.add(who, &figures);
        }
        Ok(Self::of(reading.finish(), Metric::Peak, None))
    }

    /// Adds up records that have `intervals`, of snapshots as those of `page`. `peaks`: how many bytes were held at
    /// the peak of each interval, of which the records say who held them; `None`: they are of lives.
    #[staticmethod]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "what comes from Python comes as values"
    )]
    fn over_time(
        records: &Bound<'_, PyAny>,
        stacks: &Bound<'_, PyString>,
        snapshots: Vec<Snapshot>,
        peaks: Option<Vec<u64>>,
    ) -> PyResult<Self> {
        let metric = match peaks {
            Some(_) => Metric::Peak,
            None => Metric::Live,
        };
        let (profile, history) = over_time(records, stacks, &snapshots, peaks)?;
        Ok(Self::of(profile, metric, Some(history)))
    }

    /// Memory by function as a table. `sort_column` is Memray's number of a column; `max_rows` none: all rows.
    #[pyo3(signature = (sort_column, max_rows, *, color, unicode))]
    fn summary(
        &self,
        py: Python<'_>,
        sort_column: u8,
        max_rows: Option<usize>,
        color: bool,
        unicode: bool,
    ) -> PyResult<String> {
        let sort = SummaryColumn::from_number(sort_column);
        let sort = sort.ok_or_else(|| {
            PyValueError::new_err(format!(
                "columns have the numbers 1 to 5, and not {sort_column}"
            ))
        })?;
        let options = SummaryOptions {
            sort,
            max_rows: max_rows.unwrap_or(usize::MAX),
            how_to_see_more: "",
            ..SummaryOptions::default()
        };
        let text = TextOptions { color, unicode };
        self.written(py, Metric::Peak, |profile, out| {
            summary_text(profile, options, text, out)
        })
    }

    /// Leaves only the stacks that have most, `biggest` of them, from now on. Gives how many there are, and were.
    fn keep_biggest(&self, py: Python<'_>, biggest: usize) -> (usize, usize) {
        py.detach(|| {
            let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
            let metric = sums.metric;
            let kept = keep_biggest(&mut sums.profile, metric, biggest);
            (kept.stacks, kept.of_stacks)
        })
    }

    /// Who called whom, as text.
    #[pyo3(signature = (*, color, unicode))]
    fn tree(&self, py: Python<'_>, color: bool, unicode: bool) -> PyResult<String> {
        let metric = Metric::Peak;
        let text = TextOptions { color, unicode };
        self.written(py, metric, |profile, out| {
            let options = TreeOptions {
                metric,
                ..TreeOptions::default()
            };
            tree_text(profile, options, text, out)
        })
    }

    /// The text of another tool's format, by Memray's name of it.
    fn transform(&self, py: Python<'_>, format: &str, command_line: &str) -> PyResult<String> {
        let metric = Metric::Peak;
        self.written(py, metric, |profile, out| match format {
            "csv" => transform_csv(profile, metric, out),
            "gprof2dot" => gprof2dot_json(profile, metric, out),
            "speedscope" => speedscope_json(command_line, profile, metric, out),
            _ => Err(io::Error::other(format!("Format not supported: {format}"))),
        })
    }

    /// A page as text. `report`: `flamegraph` or `table`; `start_ms`, `end_ms`: of tracking, milliseconds since the epoch;
    /// `snapshots`: milliseconds since the epoch, resident bytes and heap bytes.
    #[pyo3(signature = (report, metadata, *, start_ms, end_ms, aggregated, snapshots, leaks, inverted, split_threads, confidential_files))]
    #[expect(
        clippy::too_many_arguments,
        reason = "they are keywords, named by the only caller"
    )]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "what comes from Python comes as values"
    )]
    fn page(
        &self,
        py: Python<'_>,
        report: &str,
        metadata: Facts,
        start_ms: u64,
        end_ms: u64,
        aggregated: bool,
        snapshots: Vec<Snapshot>,
        leaks: bool,
        inverted: bool,
        split_threads: bool,
        confidential_files: &str,
    ) -> PyResult<String> {
        let confidential_files = match confidential_files {
            "all" => ConfidentialFiles::All,
            "none" => ConfidentialFiles::None,
            "default" => ConfidentialFiles::Default,
            other => {
                let text = format!("confidential_files is all, none or default, and not {other}");
                return Err(PyValueError::new_err(text));
            }
        };
        // What is known over time is known of one metric.
        let metric = match (&self.history, leaks) {
            (Some((of, _)), _) => *of,
            (None, true) => Metric::Live,
            (None, false) => Metric::Peak,
        };
        let histories = self.history.as_ref().map(|(_, history)| {
            let mut history = history.clone();
            history.start_unix_ns = start_ms.saturating_mul(NANOSECONDS_PER_MILLISECOND);
            history.end_unix_ns = end_ms.saturating_mul(NANOSECONDS_PER_MILLISECOND);
            history
        });
        let capture = capture_of(&metadata, (start_ms, end_ms), aggregated, &snapshots)?;
        self.written(py, metric, |profile, out| {
            let ending = Ending::Unseen;
            let liveness = Liveness::Finished { ending };
            let part = Part::Records;
            if report == "table" {
                let options = TableOptions {
                    metric,
                    split_threads,
                    confidential_files,
                    part,
                    shown: "",
                };
                table_html(&capture, profile, &liveness, options, out)
            } else {
                let options = FlamegraphOptions {
                    metric,
                    inverted,
                    split_threads,
                    confidential_files,
                    max_memory_records: MAX_MEMORY_RECORDS,
                    histories: histories.as_slice(),
                    part,
                    shown: "",
                };
                flamegraph_html(&capture, profile, &liveness, options, out)
            }
        })
    }
}

impl RecordSums {
    fn of(profile: Profile, metric: Metric, history: Option<ProcessHistory>) -> Self {
        Self {
            sums: Mutex::new(OneMetric { profile, metric }),
            history: history.map(|history| (metric, history)),
        }
    }

    /// What a report writes on the sums as those of a metric.
    fn written(
        &self,
        py: Python<'_>,
        metric: Metric,
        report: impl Fn(&Profile, &mut dyn io::Write) -> io::Result<()> + Send + Sync,
    ) -> PyResult<String> {
        let text = py.detach(|| {
            let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
            let mut text = Vec::new();
            report(sums.as_of(metric), &mut text)?;
            String::from_utf8(text).map_err(io::Error::other)
        });
        text.map_err(|error| PyOSError::new_err(error.to_string()))
    }
}
