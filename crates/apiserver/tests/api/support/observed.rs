//! A store that counts what it is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use evroc_store::{
    KeyValue, Lease, LeaseId, Limits, RangePage, RangeRequest, Result, Revision, Store, Txn, TxnOutcome, WatchRequest,
    WatchStream,
};

/// Counts, and passes everything on.
pub struct ObservedStore {
    inner: Arc<dyn Store>,
    pub counts: Arc<Counts>,
}

#[derive(Default)]
pub struct Counts {
    /// Requests for the newest revision.
    pub revisions: AtomicUsize,
    /// Transactions that are being applied.
    transactions: AtomicUsize,
    /// The most of them at once.
    pub most_transactions: AtomicUsize,
}

impl ObservedStore {
    pub fn new(inner: Arc<dyn Store>) -> Self {
        ObservedStore { inner, counts: Arc::default() }
    }
}

#[async_trait]
impl Store for ObservedStore {
    async fn revision(&self) -> Result<Revision> {
        self.counts.revisions.fetch_add(1, Ordering::SeqCst);
        self.inner.revision().await
    }

    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<(Option<KeyValue>, Revision)> {
        self.inner.get(key, at).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangePage> {
        self.inner.range(request).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome> {
        let now = self.counts.transactions.fetch_add(1, Ordering::SeqCst) + 1;
        self.counts.most_transactions.fetch_max(now, Ordering::SeqCst);
        // Others that run at the same time begin before this one ends.
        tokio::task::yield_now().await;
        let outcome = self.inner.txn(txn).await;
        self.counts.transactions.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream> {
        self.inner.watch(request).await
    }

    async fn compact(&self, at: Revision) -> Result<()> {
        self.inner.compact(at).await
    }

    async fn compacted_at(&self) -> Result<Revision> {
        self.inner.compacted_at().await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<Lease> {
        self.inner.lease_grant(ttl).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease> {
        self.inner.lease_keep_alive(id).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision> {
        self.inner.lease_revoke(id).await
    }

    async fn lease(&self, id: LeaseId) -> Result<Lease> {
        self.inner.lease(id).await
    }

    async fn used_bytes(&self) -> Result<u64> {
        self.inner.used_bytes().await
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
