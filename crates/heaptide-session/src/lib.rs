//! A profiling session seen from outside: `heaptide run` without its command line.
//!
//! The order of things, each in a module of its own:
//!
//! 1. [`target`]: what to run, and the interpreter that runs it;
//! 2. [`output`]: where the capture goes;
//! 3. [`agent`]: a file on disk that the loader can preload;
//! 4. [`session`]: fork, make the capture ([`capture`]), exec;
//! 5. [`supervise`]: sleep, sample memory ([`samples`], [`cgroup`]), pass signals on ([`signals`]);
//! 6. [`outcome`]: how it ended, noted in the capture;
//! 7. `compress`: the captures of those that ended well made small.
//!
//! The program must not notice us: it keeps its arguments, streams, signal dispositions and
//! process group, and the supervisor does nothing but sleep and take a few numbers from `/proc`.
//!
//! What the caller owes: standard streams are left alone here, nothing is printed, and the
//! environment is only read (never changed), so the caller may have threads.
//!
//! Children are followed by the agent itself; [`family`] finds their captures and samples them.
//!
//! Programs that track stretches of themselves (`Tracker` in Python) use [`inside`] and [`loaded`] instead: there is no
//! supervisor then. Where their capture is to be written and not mapped, [`buffered`] has a process of its own for that.
//!
//! Not covered: attaching to a running process.

pub mod agent;
pub mod buffered;
pub mod capture;
pub mod cgroup;
mod compress;
mod detached;
mod error;
pub mod family;
pub mod inside;
mod kept;
mod launch;
pub mod loaded;
mod mirror;
pub mod outcome;
pub mod output;
pub mod port;
pub mod samples;
mod script;
pub mod session;
pub mod signals;
mod spare;
mod staging;
mod standard_streams;
pub mod supervise;
mod system;
pub mod target;
mod turn;
mod watched;

pub use error::{SessionError, plain};
