//! A capture that has been opened, and what all its records refer to.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use heaptide_capture::Capture;
use heaptide_engine::{
    EngineError, Profile, ProfileOptions, Progress, StackId, Temporal, TemporalOptions, ThreadInfo,
};
use heaptide_format::MetadataKey;
use heaptide_memray::Error;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::errors::cannot_answer;
use crate::frames::Frames;

/// Opens whatever kind of capture a file is, by its first bytes.
///
/// Nothing else of the package knows where a [`Capture`] came from.
pub(crate) fn open(path: impl AsRef<Path>) -> Result<Capture, Error> {
    heaptide_memray::open(path)
}

/// A capture that is worked out when something is asked that needs it.
pub(crate) struct Opened {
    pub(crate) capture: Arc<Capture>,
    report_progress: bool,
    max_memory_records: usize,
    source: OnceLock<Arc<Source>>,
}

impl Opened {
    pub(crate) fn new(capture: Capture, report_progress: bool, max_memory_records: usize) -> Self {
        Self::shared(Arc::new(capture), report_progress, max_memory_records)
    }

    pub(crate) const fn shared(
        capture: Arc<Capture>,
        report_progress: bool,
        max_memory_records: usize,
    ) -> Self {
        Self {
            capture,
            report_progress,
            max_memory_records,
            source: OnceLock::new(),
        }
    }

    /// Without the GIL, please: another thread may be at it and need it.
    pub(crate) fn source(&self) -> &Arc<Source> {
        self.source
            .get_or_init(|| Arc::new(Source::of(Arc::clone(&self.capture), self.report_progress)))
    }

    /// The history. It is read anew each time: it may be large, and few ask twice.
    pub(crate) fn temporal(&self) -> PyResult<Temporal> {
        let source = self.source();
        let mut line = ProgressLine::new(self.report_progress);
        let temporal = line.whole(|progress| {
            let options = TemporalOptions {
                max_records: self.max_memory_records,
                progress,
            };
            Temporal::new(&source.capture, &source.profile, options)
        });
        temporal.map_err(|error| cannot_answer("get allocation history using", error))
    }

    /// Every so many samples of the capture there is a snapshot.
    pub(crate) fn stride(&self) -> usize {
        let most = self.max_memory_records.max(1);
        self.capture.samples.len().div_ceil(most).max(1)
    }
}

/// A capture worked out.
pub(crate) struct Source {
    pub(crate) capture: Arc<Capture>,
    pub(crate) profile: Profile,
    frames: Frames,
    /// Frames of the main thread below the one that started tracking.
    skipped_frames: usize,
}

impl Source {
    pub(crate) fn of(capture: Arc<Capture>, report_progress: bool) -> Self {
        let mut line = ProgressLine::new(report_progress);
        let profile = line.whole(|progress| {
            let options = ProfileOptions {
                progress,
                ..ProfileOptions::default()
            };
            // Only a threshold may be refused, and none is asked for.
            Profile::with(&capture, options).unwrap_or_else(|_| Profile::new(&capture))
        });
        let frames = Frames::of(&profile.stacks);
        let below = capture.metadata.text(MetadataKey::FramesBelow);
        let skipped_frames = below.and_then(|below| below.parse().ok()).unwrap_or(0);
        Self {
            capture,
            profile,
            frames,
            skipped_frames,
        }
    }

    /// The profile with another threshold of temporary blocks; its stacks have the same numbers.
    pub(crate) fn with_threshold(&self, threshold: u32) -> Result<Profile, EngineError> {
        let options = ProfileOptions {
            temporary_threshold: Some(threshold),
            ..ProfileOptions::default()
        };
        Profile::with(&self.capture, options)
    }

    fn thread(&self, thread: u32) -> Option<&ThreadInfo> {
        self.profile.threads.get(thread as usize)
    }

    /// The kernel's number of a thread; zero when there is none.
    pub(crate) fn thread_id(&self, thread: u32) -> u32 {
        self.thread(thread).map_or(0, |thread| thread.thread_id)
    }

    pub(crate) fn thread_name(&self, thread: u32) -> &str {
        self.thread(thread).map_or("", |thread| &thread.name)
    }

    /// How many frames of a stack are shown, of Python and native ones where it has both: as Memray, those from the frame
    /// on that started tracking.
    pub(crate) fn frames_shown(&self, stack: StackId, thread: u32) -> usize {
        let stacks = &self.profile.stacks;
        let main = self.capture.lifecycle.main_thread_id;
        if stacks.is_empty_combined(stack) {
            0
        } else if self.skipped_frames > 0 && self.thread_id(thread) == main {
            stacks.frames_above(stack, self.skipped_frames)
        } else {
            usize::MAX
        }
    }

    /// The Python frames of a stack. With a limit, so many whatever they are, as Memray.
    pub(crate) fn stack_trace<'py>(
        &self,
        py: Python<'py>,
        stack: StackId,
        thread: u32,
        max_stacks: Option<usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        let stacks = &self.profile.stacks;
        match max_stacks {
            Some(limit) => {
                let whole = stacks.walk(stacks.python_whole(stack));
                self.frames.list_of_nodes(py, stacks, whole.take(limit))
            }
            None => {
                let python = stacks.python(stack);
                let shown = self.frames_shown(python, thread);
                let nodes = stacks.walk_python(python).take(shown);
                self.frames.list_of_nodes(py, stacks, nodes)
            }
        }
    }

    /// What the native frames of a stack stand for. A limit is one of the frames: with functions that were inlined they
    /// may stand for more.
    pub(crate) fn native_stack_trace<'py>(
        &self,
        py: Python<'py>,
        stack: StackId,
        max_stacks: Option<usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        let stacks = &self.profile.stacks;
        let limit = max_stacks.unwrap_or(usize::MAX);
        self.frames
            .list(py, stacks, stacks.native_frames(stack, limit))
    }

    /// Python and native frames in one.
    pub(crate) fn hybrid_stack_trace<'py>(
        &self,
        py: Python<'py>,
        stack: StackId,
        thread: u32,
        max_stacks: Option<usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        if !self.capture.identity.holds_native_stacks() {
            return self.stack_trace(py, stack, thread, max_stacks);
        }
        let stacks = &self.profile.stacks;
        let limit = max_stacks.unwrap_or(usize::MAX);
        let limit = limit.min(self.frames_shown(stack, thread));
        self.frames
            .list_of_nodes(py, stacks, stacks.walk(stack).take(limit))
    }
}

/// Says on stderr how far the reading is, where that was asked for.
pub(crate) struct ProgressLine {
    wanted: bool,
    last_percent: Option<u64>,
}

impl ProgressLine {
    pub(crate) const fn new(wanted: bool) -> Self {
        Self {
            wanted,
            last_percent: None,
        }
    }

    /// Has something done that reports its progress.
    pub(crate) fn whole<T>(
        &mut self,
        work: impl FnOnce(Option<&mut dyn FnMut(Progress)>) -> T,
    ) -> T {
        let wanted = self.wanted;
        let mut report = |progress| self.report(progress);
        let result = if wanted {
            work(Some(&mut report))
        } else {
            work(None)
        };
        if self.last_percent.take().is_some() {
            // Wiped out, as it tells nothing any more. Nobody is left to tell when stderr is closed.
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        result
    }

    fn report(&mut self, progress: Progress) {
        let percent = (progress.done * 100).checked_div(progress.total);
        if let Some(percent) = percent.filter(|&percent| self.last_percent != Some(percent)) {
            self.last_percent = Some(percent);
            let _ = write!(std::io::stderr(), "\rreading events: {percent}%");
        }
    }
}
