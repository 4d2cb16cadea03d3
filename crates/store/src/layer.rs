//! A store around another one: what a layer does not do itself, the store beneath does.

use std::time::Duration;

use async_trait::async_trait;

use crate::contract::{
    KeyValue, Lease, LeaseId, Limits, RangePage, RangeRequest, Result, Revision, Store, Txn, TxnOutcome, WatchRequest,
    WatchStream,
};

/// A store around another one. Each function has the contract of that of [`Store`] with its name, and passes the call on unless a layer
/// has its own. A layer is a [`Store`].
#[async_trait]
#[allow(missing_docs)]
pub trait StoreLayer: Send + Sync + 'static {
    /// The store beneath.
    fn inner(&self) -> &dyn Store;

    async fn revision(&self) -> Result<Revision> {
        self.inner().revision().await
    }

    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<(Option<KeyValue>, Revision)> {
        self.inner().get(key, at).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangePage> {
        self.inner().range(request).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome> {
        self.inner().txn(txn).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream> {
        self.inner().watch(request).await
    }

    async fn compact(&self, at: Revision) -> Result<()> {
        self.inner().compact(at).await
    }

    async fn compacted_at(&self) -> Result<Revision> {
        self.inner().compacted_at().await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<Lease> {
        self.inner().lease_grant(ttl).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease> {
        self.inner().lease_keep_alive(id).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision> {
        self.inner().lease_revoke(id).await
    }

    async fn lease(&self, id: LeaseId) -> Result<Lease> {
        self.inner().lease(id).await
    }

    async fn used_bytes(&self) -> Result<u64> {
        self.inner().used_bytes().await
    }

    fn limits(&self) -> Limits {
        self.inner().limits()
    }

    async fn close(&self) {
        self.inner().close().await;
    }
}

#[async_trait]
impl<L: StoreLayer> Store for L {
    async fn revision(&self) -> Result<Revision> {
        StoreLayer::revision(self).await
    }

    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<(Option<KeyValue>, Revision)> {
        StoreLayer::get(self, key, at).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangePage> {
        StoreLayer::range(self, request).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome> {
        StoreLayer::txn(self, txn).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream> {
        StoreLayer::watch(self, request).await
    }

    async fn compact(&self, at: Revision) -> Result<()> {
        StoreLayer::compact(self, at).await
    }

    async fn compacted_at(&self) -> Result<Revision> {
        StoreLayer::compacted_at(self).await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<Lease> {
        StoreLayer::lease_grant(self, ttl).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease> {
        StoreLayer::lease_keep_alive(self, id).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision> {
        StoreLayer::lease_revoke(self, id).await
    }

    async fn lease(&self, id: LeaseId) -> Result<Lease> {
        StoreLayer::lease(self, id).await
    }

    async fn used_bytes(&self) -> Result<u64> {
        StoreLayer::used_bytes(self).await
    }

    fn limits(&self) -> Limits {
        StoreLayer::limits(self)
    }

    async fn close(&self) {
        StoreLayer::close(self).await;
    }
}
