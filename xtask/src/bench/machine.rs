//! The machine in one paragraph, without names that identify it.

use std::path::Path;
use std::process::Command;

use crate::shell;

/// Processor, kernel, memory, and the versions of what was compared.
pub(crate) fn describe(python: &Path, memray: Option<&str>) -> String {
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |name: &str| {
        let line = processors.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, value)| value)
            .trim()
            .to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: String = kernel
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    let version = "import platform, sysconfig; print(platform.python_version(), sysconfig.get_config_var('OPT'))";
    let python = shell::capture(Command::new(python).args(["-c", version])).unwrap_or_default();
    let python = match python.split_once(' ') {
        Some((version, flags)) => {
            let optimised = flags
                .split(' ')
                .find(|flag| flag.starts_with("-O"))
                .unwrap_or("");
            format!("CPython {version} ({optimised})")
        }
        None => format!("CPython {python}"),
    };
    let memray = memray.map_or_else(
        || "no Memray".to_owned(),
        |version| format!("Memray {version}"),
    );
    format!(
        "{} ({cores} cores, {:.0} GiB), Linux {}, {python}, {memray}, heaptide {}",
        value("model name"),
        kib as f64 / f64::from(1 << 20),
        kernel.trim_end_matches('.'),
        env!("CARGO_PKG_VERSION"),
    )
}
