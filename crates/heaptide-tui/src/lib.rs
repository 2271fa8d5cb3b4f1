//! `heaptide tree` full screen: the call tree of a profile, with the source of what is selected.
//!
//! [`State`] is what is shown and selected, pure and without a terminal; `view` draws it; `keys`
//! says what a key means; [`run`] is the loop around them and the only place that touches the
//! terminal.
#![forbid(unsafe_code)]

mod keys;
mod screen;
mod sources;
mod state;
mod view;

pub use keys::{Action, action_of};
pub use screen::run;
pub use sources::{Files, SourceFile, Sources};
pub use state::{Next, Options, State};
pub use view::{Theme, render};
