//! The agent as bytes: `build.rs` builds it once, and the command and the Python package carry it inside.
#![forbid(unsafe_code)]

/// The shared library `libheaptide_agent.so`.
pub static AGENT: &[u8] = include_bytes!(env!("HEAPTIDE_AGENT_LIBRARY"));
