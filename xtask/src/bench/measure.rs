//! One run of one program, measured from outside and by itself.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What one run took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measurement {
    /// CPU time of the workload's body, seconds; without interpreter and profiler start-up.
    pub(crate) body_cpu: f64,
    /// Wall time of the workload's body, seconds.
    pub(crate) body_wall: f64,
    /// Wall time of the whole process, seconds.
    pub(crate) wall: f64,
    /// CPU time of the whole process and of the children it waited for, seconds.
    pub(crate) cpu: f64,
    /// Largest resident set of the program, MiB.
    pub(crate) peak_resident: f64,
    /// What the workload computed: must not depend on the profiler.
    pub(crate) check: Value,
}

/// Runs the command; `result` is the file in which the workload leaves its own figures, if it does.
pub(crate) fn measure(command: &mut Command, result: Option<&Path>) -> Result<Measurement> {
    if let Some(result) = result {
        let _ = std::fs::remove_file(result);
        command.env("BENCH_RESULT", result);
    }
    let started = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let (status, usage) = wait(child.id())?;
    let wall = started.elapsed().as_secs_f64();
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    let mut measurement = Measurement {
        wall,
        cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        ..Default::default()
    };
    // Linux counts this one in KiB.
    measurement.peak_resident = usage.ru_maxrss as f64 / 1024.0;
    if let Some(result) = result {
        let text = std::fs::read_to_string(result).context("the workload left no figures")?;
        let line: Value = serde_json::from_str(text.lines().last().unwrap_or_default())?;
        measurement.body_cpu = line["body_cpu_s"].as_f64().context("body_cpu_s")?;
        measurement.body_wall = line["body_s"].as_f64().context("body_s")?;
        measurement.check = line["check"].clone();
        if let Some(peak) = line["VmHWM"].as_f64() {
            measurement.peak_resident = peak / 1024.0;
        }
    }
    Ok(measurement)
}

fn wait(pid: u32) -> io::Result<(ExitStatus, libc::rusage)> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: all-zero is a valid value of this plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: our own child, not waited for by anyone else; both out-parameters are writable.
        if unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } == pid {
            return Ok((ExitStatus::from_raw(status), usage));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

/// Keeps this process and all it starts on one core, or on all that it had.
pub(crate) struct Affinity {
    all: libc::cpu_set_t,
}

impl Affinity {
    /// Remembers what we may use.
    pub(crate) fn current() -> io::Result<Self> {
        // SAFETY: all-zero is a valid, empty set.
        let mut all: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is writable and of the size given; 0 means this thread.
        if unsafe { libc::sched_getaffinity(0, size_of_val(&all), &raw mut all) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { all })
    }

    /// The last core: interrupts like the first one.
    pub(crate) fn one_core(&self) -> io::Result<()> {
        let limit = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
        // SAFETY: the index is below the size of the set.
        let last = (0..limit)
            .rev()
            .find(|&core| unsafe { libc::CPU_ISSET(core, &self.all) });
        // SAFETY: all-zero is a valid, empty set.
        let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the index is below the size of the set.
        unsafe { libc::CPU_SET(last.unwrap_or(0), &mut one) };
        Self::set(&one)
    }

    /// All cores again.
    pub(crate) fn all_cores(&self) -> io::Result<()> {
        Self::set(&self.all)
    }

    fn set(cores: &libc::cpu_set_t) -> io::Result<()> {
        // SAFETY: a readable set of the size given; 0 means this thread.
        if unsafe { libc::sched_setaffinity(0, size_of_val(cores), cores) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
