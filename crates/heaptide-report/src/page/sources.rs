//! Lines of source for the page, read where the report is made.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use heaptide_capture::Capture;
use heaptide_engine::{NO_FILE, Profile, TextId};
use heaptide_format::MetadataKey;
use serde_json::{Value, json};

use super::tree::PageTree;
use crate::format::visible;

/// Of which files no source line may be in a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConfidentialFiles {
    /// All: pages have no source lines.
    All,
    /// None: pages have the lines of every file that can be read.
    None,
    /// Those that are neither named `.py`, nor readable by everybody, nor executable.
    #[default]
    Default,
}

/// Lines before and after, so that a reader knows where they are.
const CONTEXT: i64 = 3;
/// Beyond so many places only their own lines are taken.
const MOST_PLACES_WITH_CONTEXT: usize = 20_000;
/// No Python file is larger; reading stops there.
const LARGEST_FILE: u64 = 16 << 20;
/// Of all lines together.
const MOST_BYTES: usize = 8 << 20;
/// A line of a minified file would be the whole file.
const LONGEST_LINE: usize = 500;

/// Runs of lines: `[{file, changed, first, lines}]`; `file` is the text of `files` in the page.
pub(crate) fn sources(
    capture: &Capture,
    profile: &Profile,
    tree: &PageTree,
    confidential: ConfidentialFiles,
) -> Vec<Value> {
    if confidential == ConfidentialFiles::All {
        return Vec::new();
    }
    let context = if tree.locations.len() > MOST_PLACES_WITH_CONTEXT {
        0
    } else {
        CONTEXT
    };
    let mut wanted: BTreeMap<TextId, Vec<i64>> = BTreeMap::new();
    for id in &tree.locations {
        let location = profile.stacks.locations[id.index()];
        if location.line > 0 {
            let lines = wanted.entry(location.file).or_default();
            lines.push(location.line.into());
        }
    }
    let working = capture.metadata.text(MetadataKey::WorkingDirectory);
    let directory = PathBuf::from(working.unwrap_or_default());
    let recorded = super::time::start_unix_ns(capture);
    let mut left = MOST_BYTES;
    let mut runs = Vec::new();
    for (file, mut lines) in wanted {
        let name = profile.stacks.text(file);
        if name == NO_FILE || name.starts_with('<') {
            continue;
        }
        let Some((text, changed)) = read(&directory.join(name), confidential, recorded) else {
            continue;
        };
        lines.sort_unstable();
        let text: Vec<&str> = text.lines().collect();
        for (first, lines) in runs_of(&lines, context, text.len() as i64) {
            let lines: Vec<&str> = text[first..lines].iter().map(|line| cut(line)).collect();
            let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
            let Some(rest) = left.checked_sub(bytes) else {
                return runs;
            };
            left = rest;
            runs.push(json!({
                "file": visible(name),
                "changed": changed,
                "first": first + 1,
                "lines": lines,
            }));
        }
    }
    runs
}

/// The text of a file, and whether it was changed after `recorded` (Unix time, ns).
fn read(path: &Path, confidential: ConfidentialFiles, recorded: u64) -> Option<(String, bool)> {
    let metadata = fs::metadata(path).ok()?;
    // Devices and pipes have no lines, but reading them may never end.
    if !metadata.is_file() || metadata.len() > LARGEST_FILE {
        return None;
    }
    let mode = metadata.permissions().mode();
    let harmless = mode & 0o004 != 0 || mode & 0o111 != 0 || has_python_name(path);
    if confidential == ConfidentialFiles::Default && !harmless {
        return None;
    }
    let modified = metadata.modified().ok()?;
    let modified = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    let text = fs::read(path).ok()?;
    let changed = recorded != 0 && modified.as_nanos() > u128::from(recorded);
    Some((String::from_utf8_lossy(&text).into_owned(), changed))
}

fn has_python_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "py")
}

fn cut(line: &str) -> &str {
    match line.char_indices().nth(LONGEST_LINE) {
        Some((end, _)) => &line[..end],
        None => line,
    }
}

/// Ranges of indices of lines, apart from each other, around sorted line numbers.
fn runs_of(lines: &[i64], context: i64, count: i64) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &line in lines.iter().filter(|&&line| line <= count) {
        let first = (line - 1 - context).max(0) as usize;
        let end = (line + context).min(count) as usize;
        match runs.last_mut() {
            Some(run) if first <= run.1 => run.1 = end.max(run.1),
            _ => runs.push((first, end)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_lines_do_not_overlap() {
        assert_eq!(runs_of(&[1, 2, 9, 40], 3, 20), [(0, 12)]);
        assert_eq!(runs_of(&[1, 20], 3, 20), [(0, 4), (16, 20)]);
        assert_eq!(runs_of(&[5, 5, 7], 0, 20), [(4, 5), (6, 7)]);
        assert_eq!(runs_of(&[5], 3, 0), []);
    }

    #[test]
    fn confidential_files_stay_at_home() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str, mode: u32| {
            let path = directory.path().join(name);
            fs::write(&path, "secret = 1\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let cases = [
            (file("a.py", 0o600), true),
            (file("b.txt", 0o600), false),
            (file("c.txt", 0o644), true),
            (file("d", 0o700), true),
        ];
        for (path, shown) in cases {
            let by_default = read(&path, ConfidentialFiles::Default, 0);
            assert_eq!(by_default.is_some(), shown, "{}", path.display());
            let none = read(&path, ConfidentialFiles::None, 1).expect("every file");
            assert_eq!(none, ("secret = 1\n".to_owned(), true));
        }
        assert!(read(Path::new("/dev/zero"), ConfidentialFiles::None, 0).is_none());
    }
}
