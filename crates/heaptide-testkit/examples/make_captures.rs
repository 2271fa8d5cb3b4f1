//! Writes the synthetic captures of the tests into a directory, to try reports on.
use std::path::PathBuf;

use heaptide_testkit::fixtures;

fn main() -> std::io::Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| ".".into()));
    std::fs::write(
        directory.join("killed_service.tide"),
        fixtures::killed_service().build(),
    )?;
    std::fs::write(
        directory.join("wide.tide"),
        fixtures::wide_tree(100_000, false).build(),
    )?;
    std::fs::write(
        directory.join("hostile.tide"),
        fixtures::wide_tree(200, true).build(),
    )
}
