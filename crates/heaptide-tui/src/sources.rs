//! The source of a frame, as it is on this machine now.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// The lines of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SourceFile {
    /// Without line ends.
    pub lines: Vec<String>,
    /// Whether the file was changed after the program had started, so that lines may have moved.
    pub changed: bool,
}

/// Where sources come from.
pub trait Sources {
    /// The file of this name, if there is one that can be read.
    fn file(&mut self, name: &str) -> Option<Rc<SourceFile>>;
}

/// Larger files are not source somebody reads.
const LARGEST_BYTES: u64 = 8 << 20;

/// Files of this machine.
#[derive(Debug)]
pub struct Files {
    /// Where names that are relative begin.
    working_directory: PathBuf,
    started: Option<SystemTime>,
    read: HashMap<String, Option<Rc<SourceFile>>>,
}

impl Files {
    /// For a program that ran in `working_directory` and started at `started_unix_ns` (zero: not
    /// known).
    #[must_use]
    pub fn new(working_directory: PathBuf, started_unix_ns: u64) -> Self {
        let started = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(started_unix_ns));
        Self {
            working_directory,
            started: started.filter(|_| started_unix_ns != 0),
            read: HashMap::new(),
        }
    }

    fn load(&self, name: &str) -> Option<SourceFile> {
        // `<string>` and `<frozen os>` are no files.
        if name.is_empty() || name.starts_with('<') {
            return None;
        }
        let path = self.working_directory.join(name);
        // Not to wait for a pipe that nobody writes to.
        let metadata = std::fs::metadata(&path).ok()?;
        if !metadata.is_file() || metadata.len() > LARGEST_BYTES {
            return None;
        }
        let mut bytes = Vec::new();
        let file = File::open(&path).ok()?;
        file.take(LARGEST_BYTES).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let modified = metadata.modified().ok();
        Some(SourceFile {
            lines: text.lines().map(str::to_owned).collect(),
            changed: modified
                .zip(self.started)
                .is_some_and(|(modified, started)| modified > started),
        })
    }
}

impl Sources for Files {
    fn file(&mut self, name: &str) -> Option<Rc<SourceFile>> {
        if let Some(known) = self.read.get(name) {
            return known.clone();
        }
        let file = self.load(name).map(Rc::new);
        self.read.insert(name.to_owned(), file.clone());
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_read() {
        let mut files = Files::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")), u64::MAX / 2);
        let own = files.file("src/sources.rs").expect("this file is there");
        assert!(own.lines[0].starts_with("//! The source of a frame"));
        assert!(!own.changed);
        for name in ["", "<string>", "src", "no/such.py", "/dev/zero"] {
            assert_eq!(files.file(name), None, "{name}");
        }
        let mut later = Files::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")), 1);
        assert!(later.file("src/sources.rs").expect("there").changed);
    }
}
