//! Writes the pages of synthetic captures into a directory, for the tests of `web/`. With `--wide=N`
//! also those of N stacks that share few places, with `--large=N` one of N stacks that have most of theirs for
//! themselves, with threads and ranges of time.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use heaptide_capture::{Capture, ProcessState};
use heaptide_engine::{Merger, Metric, ProcessHistory, Profile, Temporal, TemporalOptions};
use heaptide_format::{Allocator, MetadataKey};
use heaptide_report::{
    ConfidentialFiles, FlamegraphOptions, Part, TableOptions, end_unix_ns, flamegraph_html,
    table_html,
};
use heaptide_testkit::large::large_program;
use heaptide_testkit::{CaptureBuilder, Simulation, fixtures};

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

    fn history(&self) -> io::Result<ProcessHistory> {
        let options = TemporalOptions::default();
        let temporal = Temporal::new(&self.capture, &self.profile, options);
        Ok(ProcessHistory {
            temporal: temporal.map_err(io::Error::other)?,
            start_unix_ns: self.capture.lifecycle.tracking_start_unix_ns,
            end_unix_ns: end_unix_ns(&self.capture),
        })
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
            part: Part::Whole,
            shown: "",
        };
        table_html(&self.capture, &self.profile, &liveness, options, &mut out)?;
        out.flush()
    }
}

/// A program whose source is beside its page; every line allocates from the columns that the testkit's
/// line tables have.
fn with_source(directory: &str) -> io::Result<CaptureBuilder> {
    let path = std::fs::canonicalize(directory)?.join("shop.py");
    let lines = [
        "# <b>not bold</b> \u{202e} and not turned around",
        "def cart(rows):",
        "\treturn [dict(row) for row in rows]",
        "",
        "x = cart(range(1_000_000))",
    ];
    std::fs::write(&path, lines.join("\n"))?;
    let mut capture = CaptureBuilder::new();
    capture.metadata(MetadataKey::CommandLine, b"python\0shop.py\0");
    let thread = capture.thread(4711, "python", "");
    let path = path.to_string_lossy();
    let module = capture.function("<module>", &path, 1, 5);
    let cart = capture.function("cart", &path, 2, 2);
    let outer = capture.frame(0, module, 4);
    let inner = capture.frame(outer, cart, 1);
    let mut program = Simulation::new();
    program.allocate(&mut capture, thread, inner, Allocator::Malloc, 3 << 20);
    program.allocate(&mut capture, thread, outer, Allocator::Malloc, 1 << 20);
    Ok(capture)
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

    Page::new(&with_source(directory)?, directory).flamegraph("source.html", split)?;

    let phases = Page::new(&fixtures::phases(), directory);
    let histories = [phases.history()?];
    let history = FlamegraphOptions {
        histories: &histories,
        ..split
    };
    phases.flamegraph("phases.html", history)?;
    // The same process again, a second later, and both as one.
    let mut later = histories[0].clone();
    later.start_unix_ns += 1_000_000_000;
    later.end_unix_ns += 1_000_000_000;
    for time in &mut later.temporal.times_unix_ns {
        *time += 1_000_000_000;
    }
    let mut merger = Merger::new(Profile::new(&phases.capture), 4711);
    merger.add_with_history(Profile::new(&phases.capture), &mut later.temporal, 4800);
    let group = Page {
        profile: merger.finish(),
        ..Page::new(&fixtures::phases(), directory)
    };
    let group_histories = [histories[0].clone(), later];
    let of_both = FlamegraphOptions {
        histories: &group_histories,
        ..split
    };
    group.flamegraph("phases-group.html", of_both)?;
    let left = FlamegraphOptions {
        metric: Metric::Live,
        ..history
    };
    phases.flamegraph("phases-leaks.html", left)?;

    let hostile = Page::new(&fixtures::wide_tree(200, true), directory);
    hostile.flamegraph("hostile.html", split)?;
    hostile.table("hostile-table.html", false)?;

    Page::new(&CaptureBuilder::new(), directory)
        .flamegraph("empty.html", FlamegraphOptions::default())?;

    let numbers = |option: &str| -> io::Result<Vec<u32>> {
        let values = arguments.iter().filter_map(|it| it.strip_prefix(option));
        values
            .map(|value| value.parse().map_err(io::Error::other))
            .collect()
    };
    for stacks in numbers("--wide=")? {
        let page = Page::new(&fixtures::wide_tree(stacks, false), directory);
        page.flamegraph(&format!("wide-{stacks}.html"), allocated)?;
        page.table(&format!("wide-{stacks}-table.html"), false)?;
    }
    for stacks in numbers("--large=")? {
        let page = Page::new(&large_program(stacks), directory);
        let history = [page.history()?];
        let with_history = FlamegraphOptions {
            histories: &history,
            ..split
        };
        page.flamegraph(&format!("large-{stacks}.html"), with_history)?;
    }
    Ok(())
}
