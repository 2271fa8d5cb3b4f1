//! Writes the synthetic captures of the tests into a directory, to try reports on and as seeds of
//! the fuzzer. With `--wide=N` also one of N stacks.
use std::path::PathBuf;

use heaptide_testkit::fixtures;

fn main() -> std::io::Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| ".".into()));
    let write = |name: &str, bytes: Vec<u8>| std::fs::write(directory.join(name), bytes);
    write("tiny.tide", fixtures::tiny().build())?;
    write("tiny_events.tide", fixtures::tiny_events().build())?;
    write("tiny_objects.tide", fixtures::tiny_objects().build())?;
    write(
        "tiny_object_events.tide",
        fixtures::tiny_object_events().build(),
    )?;
    write("killed_service.tide", fixtures::killed_service().build())?;
    write("hostile.tide", fixtures::wide_tree(200, true).build())?;
    let wide = std::env::args().find_map(|argument| argument.strip_prefix("--wide=")?.parse().ok());
    if let Some(nodes) = wide {
        write("wide.tide", fixtures::wide_tree(nodes, false).build())?;
    }
    Ok(())
}
