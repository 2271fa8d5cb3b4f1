//! Helpers of the tests: synthetic captures and a model of the writer.
#![forbid(unsafe_code)]

pub mod builder;
pub mod conversation;
pub mod events;
pub mod fixtures;
pub mod large;
pub mod linetable;
pub mod random;
pub mod simulation;
pub mod storm;

pub use builder::CaptureBuilder;
pub use events::EventWriter;
pub use random::Random;
pub use simulation::Simulation;
