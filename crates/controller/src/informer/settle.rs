//! Reading one's own writes: waits until a watch has come as far as a write.
//!
//! Assumes that resource versions are numbers that grow over all kinds, as those of this API server do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kube::Resource;
use tokio::sync::watch;

/// How long to wait for a watch. Too low tries reconciliations again that only had to wait; too high hides a watch that does not
/// get on.
const LONGEST: Duration = Duration::from_secs(5);

/// How far a watch has come, and how far it has to come.
#[derive(Debug)]
pub(super) struct Settle {
    seen: watch::Sender<u64>,
    expected: AtomicU64,
    expected_at_list: AtomicU64,
}

impl Default for Settle {
    fn default() -> Self {
        Self { seen: watch::Sender::new(0), expected: AtomicU64::new(0), expected_at_list: AtomicU64::new(0) }
    }
}

impl Settle {
    /// Records a version that was written.
    pub(super) fn expect(&self, written: &impl Resource) {
        self.expected.fetch_max(version(written), Ordering::SeqCst);
    }

    /// Records a version that the watch has brought.
    pub(super) fn seen(&self, object: &impl Resource) {
        self.advance(version(object));
    }

    /// Records that a list begins: it will contain everything that is written by now.
    pub(super) fn list_begins(&self) {
        self.expected_at_list.store(self.expected.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Records that the list is in the store.
    pub(super) fn list_ends(&self) {
        self.advance(self.expected_at_list.load(Ordering::SeqCst));
    }

    fn advance(&self, version: u64) {
        self.seen.send_if_modified(|seen| {
            let is_news = version > *seen;
            *seen = version.max(*seen);
            is_news
        });
    }

    /// Waits until everything that was expected when it was called has been seen.
    pub(super) async fn wait(&self) -> Result<(), tokio::time::error::Elapsed> {
        let expected = self.expected.load(Ordering::SeqCst);
        let mut seen = self.seen.subscribe();
        // The sender lives as long as this does.
        let arrived = async { seen.wait_for(|seen| *seen >= expected).await.map(drop).unwrap_or_default() };
        tokio::time::timeout(LONGEST, arrived).await
    }
}

fn version(object: &impl Resource) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
