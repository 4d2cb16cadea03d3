//! The flag that the host is being stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set for good once the host is being stopped: nothing is started any more.
#[derive(Clone, Debug, Default)]
pub struct DrainFlag(Arc<AtomicBool>);

impl DrainFlag {
    /// Forbids starts from now on.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the host is being stopped.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
