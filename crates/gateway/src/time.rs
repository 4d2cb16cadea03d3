//! The time: the runtime's own. In this crate's tests it moves when nothing else can happen.

#[cfg(not(test))]
pub use real::{now, sleep, sleep_until, timeout, timeout_at, timer};

#[cfg(test)]
pub use crate::tests::time::{now, sleep, sleep_until, timeout, timeout_at, timer};

#[cfg(not(test))]
mod real {
    pub use tokio::time::{sleep, sleep_until, timeout, timeout_at};

    pub fn now() -> tokio::time::Instant {
        tokio::time::Instant::now()
    }

    pub fn timer() -> hyper_util::rt::TokioTimer {
        hyper_util::rt::TokioTimer::new()
    }
}
