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
    /// When the storage in use has grown by so many bytes since the last compaction, all but the newest history is
    /// forgotten, however young.
    pub bytes: u64,
}

impl Default for Retention {
    /// Five minutes as the original API server, a million revisions, or a quarter of etcd's quota by default.
    fn default() -> Self {
        Retention { age: Duration::from_secs(300), revisions: 1_000_000, bytes: 512 << 20 }
    }
}

/// How many times within [`Retention::age`] the store is compacted.
const STEPS: u32 = 10;

/// Compacts `store` again and again until it is closed. Failures are logged and tried again with the next step.
pub async fn compact_continuously(store: Arc<dyn Store>, clock: Arc<dyn Clock>, retention: Retention) {
    let mut seen = Seen::default();
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

/// What earlier steps have seen.
#[derive(Default)]
struct Seen {
    /// The newest revision at each step that is younger than what is kept.
    revisions: VecDeque<(Duration, Revision)>,
    /// The least storage in use since the last compaction: what no compaction can make free.
    least_bytes: Option<u64>,
}

async fn step_once(store: &dyn Store, seen: &mut Seen, now: Duration, retention: &Retention) -> Result<(), StoreError> {
    let newest = store.revision().await?;
    let used = store.used_bytes().await?;
    let mut target = Revision(newest.0.saturating_sub(retention.revisions));
    let least = seen.least_bytes.map_or(used, |least| least.min(used));
    seen.least_bytes = Some(least);
    if used - least > retention.bytes {
        // What was there at the last step: whoever lists or watches now is not disturbed.
        target = target.max(seen.revisions.back().map_or(Revision::ZERO, |(_, revision)| *revision));
    }
    seen.revisions.push_back((now, newest));
    while let Some((time, revision)) = seen.revisions.front().copied()
        && now.saturating_sub(time) >= retention.age
    {
        target = target.max(revision);
        seen.revisions.pop_front();
    }
    if target > store.compacted_at().await? {
        store.compact(target).await?;
        // What is in use now, with what is forgotten but not yet removed, is measured anew by the steps to come.
        seen.least_bytes = None;
    }
    Ok(())
}
