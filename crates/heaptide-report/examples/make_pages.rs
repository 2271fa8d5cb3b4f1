//! Writes the pages of synthetic captures into a directory, for the tests of `web/`. With `--wide=N`
//! also one of N stacks.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use heaptide_capture::{Capture, ProcessState};
use heaptide_engine::{Metric, Profile};
use heaptide_report::{
    ConfidentialFiles, FlamegraphOptions, TableOptions, flamegraph_html, table_html,
};
use heaptide_testkit::{CaptureBuilder, fixtures};

struct Page {
    capture: Capture,
    profile: Profile,
    directory: PathBuf,
}

impl Page {
    fn new(builder: &CaptureBuilder, directory: &str) -> Self {
        let capture = Capture::from_bytes(&builder.build(), "example.tide").expect("readable");
        let profile = Profile::new(&capture);
        let directory = PathBuf::from(directory);
        Self {
            capture,
            profile,
            directory,
        }
    }

    fn flamegraph(&self, name: &str, options: FlamegraphOptions) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(self.directory.join(name))?);
        let liveness = self.capture.liveness_given(|| ProcessState::Gone);
        flamegraph_html(&self.capture, &self.profile, &liveness, options, &mut out)?;
        out.flush()
    }

    fn table(&self, name: &str, split_threads: bool) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(self.directory.join(name))?);
        let liveness = self.capture.liveness_given(|| ProcessState::Gone);
        let options = TableOptions {
            metric: Metric::Allocated,
            split_threads,
            confidential_files: ConfidentialFiles::Default,
        };
        table_html(&self.capture, &self.profile, &liveness, options, &mut out)?;
        out.flush()
    }
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = arguments.first().map_or(".", String::as_str);
    let allocated = FlamegraphOptions {
        metric: Metric::Allocated,
        ..FlamegraphOptions::default()
    };
    let split = FlamegraphOptions {
        split_threads: true,
        ..FlamegraphOptions::default()
    };

    let service = Page::new(&fixtures::killed_service(), directory);
    service.flamegraph("service.html", split)?;
    service.table("service-table.html", true)?;
    let inverted = FlamegraphOptions {
        inverted: true,
        ..FlamegraphOptions::default()
    };
    service.flamegraph("service-inverted.html", inverted)?;

    let hostile = Page::new(&fixtures::wide_tree(200, true), directory);
    hostile.flamegraph("hostile.html", split)?;
    hostile.table("hostile-table.html", false)?;

    Page::new(&CaptureBuilder::new(), directory)
        .flamegraph("empty.html", FlamegraphOptions::default())?;

    let wide = arguments
        .iter()
        .filter_map(|argument| argument.strip_prefix("--wide="));
    for stacks in wide {
        let number = stacks.parse().map_err(io::Error::other)?;
        let page = Page::new(&fixtures::wide_tree(number, false), directory);
        page.flamegraph(&format!("wide-{stacks}.html"), allocated)?;
        page.table(&format!("wide-{stacks}-table.html"), false)?;
    }
    Ok(())
}
