//! What native stacks can say of the interpreter that runs this.

use std::collections::BTreeSet;
use std::path::PathBuf;

use heaptide_symbols::Symbolizer;
use pyo3::prelude::*;

/// No functions have names: stacks of Python and native frames are Python's alone.
const NONE: u32 = 1;
/// They have no files and lines.
const FUNCTION_NAME_ONLY: u32 = 2;
const TOTAL: u32 = 3;

/// As Memray's levels, by the function that evaluates Python. Reads the symbols of the files that are mapped here.
#[pyfunction]
pub(crate) fn symbolic_support(py: Python<'_>) -> u32 {
    py.detach(|| {
        let mut symbolizer = Symbolizer::new();
        let levels = interpreters().into_iter().map(|file| {
            let functions = symbolizer.resolve_named(&file, |name| {
                name == b"_PyEval_EvalFrameDefault" || name.starts_with(b"_TAIL_CALL_")
            });
            match functions.last() {
                None => NONE,
                Some(function) if function.file.is_none() => FUNCTION_NAME_ONLY,
                Some(_) => TOTAL,
            }
        });
        levels.max().unwrap_or(NONE)
    })
}

/// Files that may have the interpreter in them: the program, and what is mapped under the name of its library.
fn interpreters() -> BTreeSet<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let paths = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| &line[at..]));
    let mut files: BTreeSet<PathBuf> = paths
        .map(PathBuf::from)
        .filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with("libpython")
        })
        .collect();
    files.extend(std::env::current_exe());
    files
}
