//! The host's agent: watches what is bound to this host, makes it so, and reports.
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

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set for good once the host is being stopped: nothing is started any more.
#[derive(Clone, Debug, Default)]
pub struct Draining(Arc<AtomicBool>);

impl Draining {
    /// Nothing is started from now on.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the host is being stopped.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
