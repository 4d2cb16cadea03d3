//! A store that counts what it is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use evroc_store::{Result, Revision, Store, StoreLayer, Txn, TxnOutcome};

/// Counts, and passes everything on.
pub struct ObservedStore {
    inner: Arc<dyn Store>,
    pub counts: Arc<Counts>,
}

#[derive(Default)]
pub struct Counts {
    /// Requests for the newest revision.
    pub revisions: AtomicUsize,
    /// All transactions.
    pub all_transactions: AtomicUsize,
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
impl StoreLayer for ObservedStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    async fn revision(&self) -> Result<Revision> {
        self.counts.revisions.fetch_add(1, Ordering::SeqCst);
        self.inner.revision().await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome> {
        self.counts.all_transactions.fetch_add(1, Ordering::SeqCst);
        let now = self.counts.transactions.fetch_add(1, Ordering::SeqCst) + 1;
        self.counts.most_transactions.fetch_max(now, Ordering::SeqCst);
        // Others that run at the same time begin before this one ends.
        tokio::task::yield_now().await;
        let outcome = self.inner.txn(txn).await;
        self.counts.transactions.fetch_sub(1, Ordering::SeqCst);
        outcome
    }
}
