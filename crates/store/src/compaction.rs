//! Continuous compaction: keeps history for a limited time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::contract::{Revision, Store};
use crate::error::StoreError;

/// The amount of history that stays readable.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// The age at which history is compacted. Shorter breaks clients that page through long lists or resume after a pause (they
    /// list again); longer keeps more on disk.
    pub age: Duration,
    /// The maximum number of revisions to keep, independent of their age.
    pub revisions: u64,
    /// When the storage in use has grown by this many bytes since the last compaction, all but the newest history is compacted,
    /// independent of its age.
    pub bytes: u64,
}

impl Default for Retention {
    /// Five minutes as in Kubernetes' API server, a million revisions, or a quarter of etcd's default quota.
    fn default() -> Self {
        Retention { age: Duration::from_secs(300), revisions: 1_000_000, bytes: 512 << 20 }
    }
}

/// The number of compactions within [`Retention::age`].
const STEPS: u32 = 10;

/// Compacts `store` periodically until it is closed. Failures are logged and retried at the next step.
pub async fn compact_continuously(store: Arc<dyn Store>, clock: Arc<dyn Clock>, retention: Retention) {
    let mut seen = Seen::default();
    let step = retention.age / STEPS;
    loop {
        let now = clock.now();
        match step_once(&*store, &mut seen, now, &retention).await {
            Ok(()) => {}
            Err(StoreError::Closed) => return,
            Err(error) => tracing::warn!(%error, "compacting the store failed"),
        }
        clock.sleep_until(now + step).await;
    }
}

/// The observations of earlier steps.
#[derive(Default)]
struct Seen {
    /// The newest revision at each step within the retention age.
    revisions: VecDeque<(Duration, Revision)>,
    /// The least storage in use since the last compaction, which a compaction cannot free.
    least_bytes: Option<u64>,
}

async fn step_once(store: &dyn Store, seen: &mut Seen, now: Duration, retention: &Retention) -> Result<(), StoreError> {
    let newest = store.revision().await?;
    let used = store.used_bytes().await?;
    let mut target = Revision(newest.0.saturating_sub(retention.revisions));
    let least = seen.least_bytes.map_or(used, |least| least.min(used));
    seen.least_bytes = Some(least);
    if used - least > retention.bytes {
        // Keep the state of the last step, so that current lists and watches are not disturbed.
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
        // The storage in use still includes compacted rows that are not removed yet, so the next steps measure it again.
        seen.least_bytes = None;
    }
    Ok(())
}
