//! From a [`Capture`](heaptide_capture::Capture) to a [`Profile`]: who allocated what, what was
//! live at the peak, what is live at the end, what was thrown away at once.
//!
//! Pure functions: no input, no output, no clock. Bad data does not fail, it becomes a warning.
//! Work and memory are linear in the number of records of the capture, whatever they hold.
#![forbid(unsafe_code)]

mod accumulate;
mod counters;
mod figures;
mod group;
mod group_of_processes;
mod heap;
mod hybrid;
mod intervals;
mod live_table;
mod numbering;
mod object_events;
mod options;
mod position;
mod profile;
mod records;
mod replay;
mod stacks;
mod sums;
mod temporal;
mod tree;

pub use figures::{Amount, Figures, Metric};
pub use group::{
    FunctionRow, LocationRow, by_allocator, by_function, by_function_of, by_location, by_thread,
};
pub use group_of_processes::{
    CombinedPeak, Merger, Moment, Process, combined_curve, combined_peak,
};
pub use object_events::{ObjectEvent, ObjectEventKind, ObjectEvents, surviving_objects};
pub use options::{EngineError, ProfileOptions, Progress, TemporalOptions};
pub use position::{Position, position_of};
pub use profile::{Entry, InFlight, OwnFigures, Profile, ThreadInfo, Totals};
pub use records::{AllocationEvent, AllocationEvents, EventKind, allocation_sizes};
pub use stacks::{
    Frame, FrameId, Location, LocationId, NO_FILE, StackId, StackNode, Stacks, TextId,
};
pub use sums::Sums;
pub use temporal::{AtPeak, Lifetime, ProcessHistory, Temporal, TemporalKey};
pub use tree::{CallTree, TreeNode};
