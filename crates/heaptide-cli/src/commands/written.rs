//! What `transform` and `export` have in common: a capture, what of it, and a file beside it.

use std::path::PathBuf;

use heaptide_engine::Metric;

use super::merge::load_selected;
use super::{CaptureArgument, Loaded, MomentArgument, SelectionArguments};
use crate::output::FileArguments;
use crate::terminal::Terminal;

/// What is written, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct WrittenArguments {
    #[command(flatten)]
    capture: CaptureArgument,
    #[command(flatten)]
    moment: MomentArgument,
    #[command(flatten)]
    selection: SelectionArguments,
    #[command(flatten)]
    pub(crate) output: FileArguments,
}

impl WrittenArguments {
    /// Where a format of this name and suffix goes.
    pub(crate) fn path(&self, name: &str, suffix: &str) -> anyhow::Result<PathBuf> {
        Ok(self.output.path(&self.capture.path, name, suffix)?)
    }

    pub(crate) fn load(&self, terminal: &Terminal) -> anyhow::Result<Loaded> {
        load_selected(&self.capture, &self.selection, Some(&self.moment), terminal)
    }

    pub(crate) fn metric(&self) -> Metric {
        self.moment.metric()
    }
}
