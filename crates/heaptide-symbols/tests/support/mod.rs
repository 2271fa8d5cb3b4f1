//! A library whose functions, inlines and lines are known, in all the forms that debug information comes in.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use heaptide_symbols::{Symbol, Symbolizer};
use tempfile::TempDir;

pub(crate) const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/known.cpp");

/// The library in a directory of its own, and where its marks are.
pub(crate) struct Library {
    pub(crate) directory: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) marks: BTreeMap<String, u64>,
}

pub(crate) fn run<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

impl Library {
    pub(crate) fn build(options: &[&str]) -> Self {
        Self::build_from(Path::new(SOURCE), options)
    }

    pub(crate) fn build_from(source: &Path, options: &[&str]) -> Self {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("libknown.so");
        let mut arguments = vec!["-shared", "-fPIC", "-O2", "-Wl,--build-id=sha1", "-o"];
        arguments.push(path.to_str().expect("UTF-8"));
        arguments.push(source.to_str().expect("UTF-8"));
        arguments.extend(options);
        run("g++", arguments);
        let mut marks = BTreeMap::new();
        for line in run("nm", [&path]).lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [address, _, name] = words[..] {
                let address = u64::from_str_radix(address, 16).expect("an address");
                marks.insert(name.to_owned(), address);
            }
        }
        Self {
            directory,
            path,
            marks,
        }
    }

    pub(crate) fn build_id(&self) -> Vec<u8> {
        let notes = run("readelf", [OsStr::new("-n"), self.path.as_os_str()]);
        let (_, id) = notes.split_once("Build ID: ").expect("a build-id");
        let id = id.split_whitespace().next().expect("a build-id");
        (0..id.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&id[at..at + 2], 16).expect("hexadecimal"))
            .collect()
    }

    pub(crate) fn objcopy(&self, arguments: &[&str]) {
        let path = self.path.to_str().expect("UTF-8");
        run("objcopy", arguments.iter().copied().chain([path]));
    }

    /// Moves the debug information into a file of its own.
    pub(crate) fn split_off(&self, debug_file: &Path) {
        let to = debug_file.to_str().expect("UTF-8");
        let path = self.path.to_str().expect("UTF-8");
        std::fs::create_dir_all(debug_file.parent().expect("a directory")).expect("a directory");
        run("objcopy", ["--only-keep-debug", path, to]);
        self.objcopy(&["--strip-all"]);
    }

    /// What is at a mark, as `function file:line`, without the directory of the file.
    pub(crate) fn at(&self, symbolizer: &mut Symbolizer, mark: &str) -> Vec<String> {
        let found = symbolizer.resolve(&self.path, None, self.marks[mark]);
        found.iter().map(text).collect()
    }
}

pub(crate) fn text(symbol: &Symbol) -> String {
    let Some(file) = &symbol.file else {
        assert_eq!(symbol.line, 0, "{symbol:?}");
        return symbol.function.clone();
    };
    assert!(file == SOURCE, "{symbol:?}");
    format!("{} {}", symbol.function, named_line(symbol.line))
}

/// The name that a comment of the source gives to its line.
fn named_line(line: u32) -> String {
    let source = std::fs::read_to_string(SOURCE).expect("the source");
    let text = source.lines().nth(line as usize - 1).expect("a line");
    let name = text
        .split_once("// line: ")
        .map(|(_, name)| name.to_owned());
    name.unwrap_or_else(|| format!("line {line}"))
}

/// What DWARF knows.
pub(crate) const GROW: [&str; 3] = [
    "space::Boxed<long>::grow(long) grow",
    "space::middle(space::Boxed<long>&, long) middle",
    "outer outer",
];
pub(crate) const PLAIN: [&str; 1] = ["space::plain(int, char const*) plain"];
