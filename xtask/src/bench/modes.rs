//! The ways of recording that are compared: each has the same flags in both profilers.

use anyhow::{Context, Result};

/// A way of recording.
#[derive(Debug)]
pub(crate) struct Mode {
    /// What `--mode` calls it.
    pub(crate) name: &'static str,
    /// Its title in the report.
    pub(crate) title: &'static str,
    /// Flags of `heaptide run` and of `memray run`.
    pub(crate) flags: &'static [&'static str],
    /// Does the capture hold every event?
    pub(crate) holds_events: bool,
}

pub(crate) static MODES: [Mode; 6] = [
    Mode {
        name: "all",
        title: "Every event (the default)",
        flags: &[],
        holds_events: true,
    },
    Mode {
        name: "aggregate",
        title: "`--aggregate`",
        flags: &["--aggregate"],
        holds_events: false,
    },
    Mode {
        name: "python",
        title: "`--trace-python-allocators`",
        flags: &["--trace-python-allocators"],
        holds_events: true,
    },
    Mode {
        name: "python-aggregate",
        title: "`--trace-python-allocators --aggregate`",
        flags: &["--trace-python-allocators", "--aggregate"],
        holds_events: false,
    },
    Mode {
        name: "native",
        title: "`--native`",
        flags: &["--native"],
        holds_events: true,
    },
    Mode {
        name: "python-native",
        title: "`--native --trace-python-allocators`",
        flags: &["--native", "--trace-python-allocators"],
        holds_events: true,
    },
];

impl Mode {
    pub(crate) fn named(name: &str) -> Result<&'static Self> {
        MODES
            .iter()
            .find(|mode| mode.name == name)
            .with_context(|| {
                let names: Vec<&str> = MODES.iter().map(|mode| mode.name).collect();
                format!("no mode '{name}': one of {}", names.join(", "))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_go_by_their_names() {
        for mode in &MODES {
            assert_eq!(Mode::named(mode.name).expect("a mode").flags, mode.flags);
        }
        assert!(Mode::named("nothing").is_err());
    }
}
