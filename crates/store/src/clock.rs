//! Time as an argument: a [`Clock`] ends leases, so that tests control when they end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;

/// A monotonic clock.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// Time since an origin that never changes while the process lives.
    fn now(&self) -> Duration;

    /// Returns as soon as [`Clock::now`] has reached `deadline`.
    async fn sleep_until(&self, deadline: Duration);
}

/// The machine's monotonic clock.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock { origin: Instant::now() }
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    async fn sleep_until(&self, deadline: Duration) {
        tokio::time::sleep(deadline.saturating_sub(self.now())).await;
    }
}

/// A clock that advances only when a test moves it.
#[derive(Clone, Debug)]
pub struct ManualClock {
    now: Arc<watch::Sender<Duration>>,
}

impl Default for ManualClock {
    fn default() -> Self {
        ManualClock { now: Arc::new(watch::Sender::new(Duration::ZERO)) }
    }
}

impl ManualClock {
    /// Moves the clock forward and wakes tasks whose deadline has passed.
    pub fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now += by);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.now.borrow()
    }

    async fn sleep_until(&self, deadline: Duration) {
        let mut now = self.now.subscribe();
        // The sender is in `self`, so waiting cannot fail.
        let _ = now.wait_for(|now| *now >= deadline).await;
    }
}
