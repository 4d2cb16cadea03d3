//! The host's agent: watches the objects that are bound to this host, brings the host to their specs, and reports.
//!
//! It is a client of the API like any other. What runs is found again by the runners after a restart of the agent; nothing
//! that runs depends on the agent being alive.

pub mod host;
pub mod image;
mod log_cursor;
mod log_lines;
pub mod log_sweep;
pub mod machine;
pub mod replica;
pub mod service_log;
pub mod streams;
pub mod volume;

pub use crate::drain_flag::DrainFlag;
