//! Continuous compaction: history is kept for a while and not for ever.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::contract::{Revision, Store};
use crate::error::StoreError;

/// How much history stays readable.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// History at least this old is forgotten. Shorter breaks clients that page through long lists or come back after
    /// a pause (they list again); longer keeps more on disk.
    pub age: Duration,
    /// No more revisions than these are kept, however young.
    pub revisions: u64,
}

impl Default for Retention {
    /// Five minutes as the original API server, or a million revisions.
    fn default() -> Self {
        Retention { age: Duration::from_secs(300), revisions: 1_000_000 }
    }
}

/// How many times within [`Retention::age`] the store is compacted.
const STEPS: u32 = 10;

/// Compacts `store` again and again until it is closed. Failures are logged and tried again with the next step.
pub async fn compact_continuously(store: Arc<dyn Store>, clock: Arc<dyn Clock>, retention: Retention) {
    let mut seen: VecDeque<(Duration, Revision)> = VecDeque::new();
    let step = retention.age / STEPS;
    loop {
        let now = clock.now();
        match step_once(&*store, &mut seen, now, &retention).await {
            Ok(()) => {}
            Err(StoreError::Closed) => return,
            Err(error) => tracing::warn!(%error, "store was not compacted"),
        }
        clock.sleep_until(now + step).await;
    }
}

async fn step_once(
    store: &dyn Store,
    seen: &mut VecDeque<(Duration, Revision)>,
    now: Duration,
    retention: &Retention,
) -> Result<(), StoreError> {
    let newest = store.revision().await?;
    seen.push_back((now, newest));
    let mut target = Revision(newest.0.saturating_sub(retention.revisions));
    while let Some((time, revision)) = seen.front().copied()
        && now.saturating_sub(time) >= retention.age
    {
        target = target.max(revision);
        seen.pop_front();
    }
    if target > store.compacted_at().await? {
        store.compact(target).await?;
    }
    Ok(())
}
