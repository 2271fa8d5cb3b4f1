//! Rows of two profilers side by side.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use heaptide_e2e::{Python, virtual_environment};
use serde::Deserialize;

/// The programs that run under both.
const PROGRAMS: [&str; 2] = ["reference.py", "phases.py"];

#[derive(Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) function: String,
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// Stack, thread, and the allocator where Memray keeps allocators apart.
pub(crate) type Key = (Vec<Place>, String, Option<String>);
/// Count and bytes.
pub(crate) type Sums = BTreeMap<Key, (u64, u64)>;

/// The frames up to the program's own code; `None` for what no function of the program is responsible for. What
/// lies further out is the runner: Memray's is a Python program, ours is none.
pub(crate) fn of_the_program(stack: Vec<Place>) -> Option<Vec<Place>> {
    let ours = |place: &Place| PROGRAMS.iter().any(|program| place.file.ends_with(program));
    let outermost = stack
        .iter()
        .rposition(|place| ours(place) && place.function != "<module>")?;
    // The interpreter maps a piece of its own stack where the frames have used up the last one, which comes a
    // little sooner below the runner's frames. What the C library keeps for a thread goes when the thread does,
    // which is some time after `join`.
    if ["down", "start"].contains(&stack[0].function.as_str()) {
        return None;
    }
    Some(stack.into_iter().take(outermost + 1).collect())
}

pub(crate) fn sums(rows: impl Iterator<Item = (Key, (u64, u64))>) -> Sums {
    let mut sums = Sums::new();
    for (key, (count, bytes)) in rows.filter(|(_, figures)| *figures != (0, 0)) {
        let sum = sums.entry(key).or_default();
        sum.0 += count;
        sum.1 += bytes;
    }
    sums
}

pub(crate) fn expect_equal(name: &str, memray: &Sums, heaptide: &Sums) {
    let keys = memray.keys().chain(heaptide.keys());
    let differences: Vec<String> = keys
        .filter(|key| memray.get(*key) != heaptide.get(*key))
        .map(|key| {
            format!(
                "{key:?}:\n  Memray {:?}\n  heaptide {:?}",
                memray.get(key),
                heaptide.get(key)
            )
        })
        .collect();
    assert!(
        differences.is_empty(),
        "{name}: {} differences\n{}",
        differences.len(),
        differences[..differences.len().min(6)].join("\n")
    );
}

/// An interpreter that has Memray; one test at a time makes it.
pub(crate) fn with_memray(python: &Python) -> Option<PathBuf> {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock();
    virtual_environment(python, "memray", &["memray==1.20.0", "numpy==2.5.5"])
}
