//! Which module an allocation belongs to: that of the innermost frame outside the standard library.

use heaptide_capture::Capture;
use heaptide_engine::{Amount, Metric, NO_FILE, Profile, StackId};
use heaptide_format::MetadataKey;
use rustc_hash::FxHashMap;

/// Where no frame is outside the standard library.
const ROOT: &str = "<root>";
/// Packages whose frames stand below those of a program that is tracked.
const PROFILERS: [&str; 2] = ["heaptide", "memray"];

/// What one top-level module allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleRow {
    /// Its name; `<root>` where no frame is outside the standard library.
    pub module: String,
    /// How much.
    pub amount: Amount,
}

/// Per top-level module, in the order of the capture.
#[must_use]
pub fn by_module(capture: &Capture, profile: &Profile, metric: Metric) -> Vec<ModuleRow> {
    let stacks = &profile.stacks;
    let directories = program_directories(capture);
    let modules: Vec<Option<String>> = stacks
        .texts
        .iter()
        .map(|file| module_of(file, &directories))
        .collect();
    // A stack without a module of its own is its caller's; callers come first.
    let mut of_stack: Vec<&str> = vec![ROOT; stacks.nodes.len()];
    for (index, node) in stacks.nodes.iter().enumerate().skip(1) {
        let location = stacks.frames[node.frame.index()].location;
        let file = stacks.locations[location.index()].file;
        of_stack[index] = match &modules[file.index()] {
            Some(module) => module,
            None if node.parent == StackId::ROOT => ROOT,
            None => of_stack[node.parent.index()],
        };
    }
    let mut rows: Vec<ModuleRow> = Vec::new();
    let mut indices: FxHashMap<&str, usize> = FxHashMap::default();
    for entry in &profile.entries {
        let module = of_stack[stacks.python(entry.stack).index()];
        let index = *indices.entry(module).or_insert_with(|| {
            rows.push(ModuleRow {
                module: module.to_owned(),
                amount: Amount::default(),
            });
            rows.len() - 1
        });
        rows[index].amount.add(entry.figures.get(metric));
    }
    rows.retain(|row| !row.amount.is_zero());
    rows
}

/// The rows with most, ties in the order of the capture.
pub(crate) fn largest_modules(rows: &[ModuleRow], bytes: bool, limit: usize) -> Vec<&ModuleRow> {
    let mut rows: Vec<&ModuleRow> = rows.iter().collect();
    rows.sort_by_key(|row| {
        let Amount { count, bytes: size } = row.amount;
        std::cmp::Reverse(if bytes { (size, count) } else { (count, size) })
    });
    rows.truncate(limit);
    rows
}

/// What modules of the program are named relative to, the first that holds them: the entries of `sys.path`, those within
/// others first; then, for captures that do not have them and for what a program has added since, the directory of the
/// script and the working directory.
pub(crate) fn program_directories(capture: &Capture) -> Vec<String> {
    let target = capture.metadata.text(MetadataKey::Target);
    let script = target.as_deref().and_then(|target| target.rsplit_once('/'));
    let working = capture.metadata.text(MetadataKey::WorkingDirectory);
    let below = working.as_deref().unwrap_or_default();
    let entries = capture.metadata.search_path();
    let mut directories: Vec<String> = entries.iter().map(|entry| absolute(entry, below)).collect();
    directories.sort_by_key(|directory| std::cmp::Reverse(directory.len()));
    let script = script.map(|(directory, _)| absolute(directory, below));
    directories.extend(script.into_iter().chain(working));
    directories
}

/// A directory as the interpreter puts it before the names of modules.
fn absolute(directory: &str, below: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let from = if directory.starts_with('/') {
        ""
    } else {
        below
    };
    for part in from.split('/').chain(directory.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
        .iter()
        .fold(String::new(), |path, part| path + "/" + part)
}

/// The top-level module of a file; `None` for the standard library.
pub(crate) fn module_of(file: &str, directories: &[String]) -> Option<String> {
    if file == NO_FILE || file.starts_with("<frozen ") {
        return None;
    }
    for packages in ["/site-packages/", "/dist-packages/"] {
        if let Some((_, path)) = file.rsplit_once(packages) {
            let module = top_level(path);
            // What tracks a program is none of it, as the standard library that starts it is not.
            return (!PROFILERS.contains(&module.as_str())).then_some(module);
        }
    }
    if is_standard_library(file) {
        return None;
    }
    let below = |directory: &String| file.strip_prefix(directory.as_str())?.strip_prefix('/');
    let name = || file.rsplit('/').next().unwrap_or(file);
    Some(top_level(
        directories.iter().find_map(below).unwrap_or_else(name),
    ))
}

fn top_level(path: &str) -> String {
    let first = path.split('/').next().unwrap_or(path);
    let name = first.strip_suffix(".py").unwrap_or(first);
    // As Python names it: `a.b.py` is the module `a.b`, whose top level is `a`.
    name.split('.').next().unwrap_or(name).to_owned()
}

/// `…/lib/python3.12/…` or `…/python312.zip/…`.
fn is_standard_library(file: &str) -> bool {
    let mut after_lib = false;
    for part in file.split('/') {
        let version = part.strip_prefix("python3");
        if let Some(version) = version {
            let digits = version.strip_prefix('.').unwrap_or(version);
            let digits = digits.strip_suffix('t').unwrap_or(digits);
            if after_lib && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return true;
            }
            if version.ends_with(".zip") {
                return true;
            }
        }
        after_lib = matches!(part, "lib" | "lib64");
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use heaptide_capture::Metadata;
    use heaptide_testkit::fixtures;

    #[test]
    fn directories_of_scripts() {
        for (directory, expected) in [
            ("sub", "/srv/sub"),
            ("./sub", "/srv/sub"),
            ("../other/./x", "/other/x"),
            ("/a//b/../c", "/a/c"),
            ("", ""),
        ] {
            let below = if directory.is_empty() { "" } else { "/srv" };
            assert_eq!(absolute(directory, below), expected, "{directory}");
        }
        let directories = [absolute("sub", "/srv"), "/srv".to_owned()];
        let module = |file| module_of(file, &directories);
        assert_eq!(module("/srv/sub/app.py").as_deref(), Some("app"));
        assert_eq!(module("/srv/sub/pkg/mod.py").as_deref(), Some("pkg"));
    }

    #[test]
    fn modules_are_named_by_the_innermost_entry_of_the_search_path() {
        let mut capture =
            Capture::from_bytes(&fixtures::killed_service().build(), "x.tide").unwrap();
        capture.metadata = Metadata::from_iter([
            (MetadataKey::Target, b"bin/app.py".to_vec()),
            (MetadataKey::WorkingDirectory, b"/srv".to_vec()),
            (
                MetadataKey::SearchPath,
                b"/srv/bin\0/lib\0/lib/python3.12\0./plugins/\0/lib/own/nested\0\0".to_vec(),
            ),
        ]);
        let directories = program_directories(&capture);
        let check = |file: &str, module: Option<&str>| {
            assert_eq!(module_of(file, &directories).as_deref(), module, "{file}");
        };
        check("/srv/bin/app.py", Some("app"));
        check("/lib/own/a.py", Some("own"));
        check("/lib/own/nested/b/c.py", Some("b"));
        check("/lib/own/nestedly/c.py", Some("own"));
        check("/srv/plugins/x/y.py", Some("x"));
        // By the working directory, where the search path has it (`''`) or what was added later lies in it.
        check("/srv/late/z.py", Some("late"));
        check("/lib/python3.12/json/decoder.py", None);
        check("/lib/python3.12/site-packages/six.py", Some("six"));
        check("/else/where.py", Some("where"));
    }

    #[test]
    fn modules_of_files() {
        let directories = ["/srv".to_owned()];
        let check = |file: &str, module: Option<&str>| {
            assert_eq!(module_of(file, &directories).as_deref(), module, "{file}");
        };
        check("/usr/lib/python3.12/json/decoder.py", None);
        check("/opt/lib/python3.14t/abc.py", None);
        check("<frozen importlib._bootstrap>", None);
        check(NO_FILE, None);
        check(
            "/usr/lib/python3/dist-packages/yaml/loader.py",
            Some("yaml"),
        );
        check(
            "/v/lib/python3.12/site-packages/numpy/core/x.py",
            Some("numpy"),
        );
        check("/v/lib/python3.12/site-packages/six.py", Some("six"));
        check("/v/lib/python3.12/site-packages/memray/__main__.py", None);
        check("/srv/memray/app.py", Some("memray"));
        check("/srv/app.py", Some("app"));
        check("/srv/shop/cart.py", Some("shop"));
        check("/elsewhere/shop/cart.py", Some("cart"));
        check("<string>", Some("<string>"));
    }
}
