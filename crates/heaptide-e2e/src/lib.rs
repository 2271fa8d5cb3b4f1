//! The harness of the end-to-end tests: it finds interpreters, builds the product and the C helper,
//! runs programs with known answers under `heaptide run`, and compares captures with the truth.
//!
//! Environment:
//! - `HEAPTIDE_TEST_PYTHONS`: interpreters to test, separated by colons, instead of discovery.
//! - `HEAPTIDE_TEST_CHROOT`: a directory with further interpreters (default `/opt/forky`).
//! - `HEAPTIDE_TEST_BINARY`: the `heaptide` to test, instead of a build of this workspace.
//! - `HEAPTIDE_TEST_MODE`: `all` or `aggregated`: the one mode to test. Else most tests take the aggregated one; those
//!   of figures, and of what harms programs, both.
//! - `HEAPTIDE_TEST_NATIVE`: `1` for captures with native stacks; the frames of C are left out again before anything is compared.
//! - `HEAPTIDE_TEST_EARLY_STOP`: `HEAPTIDE_EARLY_STOP` for all that is profiled; with `check` every early stop of every test must be right.
//! - `HEAPTIDE_SUITE`: `quick` (default) or `full`, see `tests/cpython_suite.rs`.
//!
//! What cannot be tested on a machine is printed as `not tested: …`; a test never passes in silence
//! because it found no interpreter.

mod build;
mod capture;
mod child;
mod confine;
mod native;
mod packages;
mod page;
mod pythons;
mod sandbox;
mod stretch;
mod truth;

pub use build::{heaptide, helper};
pub use capture::{Capture, Cell, Counters, Frame, own_cost, stats};
pub use child::{Finished, Running, kill, kill_stranger, run, spawn};
pub use confine::{Cage, TinyDisk, UnmappableDisk, is_root, limit_file_size};
pub use native::{NativeLibraries, check_native_stacks};
pub use packages::{virtual_environment, with_package};
pub use page::{Page, PageCounters, STORM_THREADS};
pub use pythons::{Python, each, each_python, each_python_in_each_mode, pythons, pythons_of};
pub use sandbox::{Mode, Sandbox, every_event, modes, with_native_stacks};
pub use stretch::Stretches;
pub use truth::{
    Expected, Profiled, check_against_truth, check_bookkeeping, ground_truth,
    ground_truth_from_inside,
};

/// Says that something is not tested here, and why. Shown by `cargo test -- --nocapture`, and in the
/// output of a failing test.
pub fn not_tested(what: &str) {
    eprintln!("not tested: {what}");
}
