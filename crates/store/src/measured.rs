//! A store that measures another: transactions, what they write, and how long they take.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use evroc_metrics::{Counter, Counters, Histogram, Registry, buckets, labels, words};

use crate::contract::{Operation, Result, Store, Txn, TxnOutcome};
use crate::layer::StoreLayer;

words! {
    enum Outcome {
        Committed = "committed",
        ConditionFailed = "condition_failed",
        Error = "error",
    }
}

labels! {
    struct Ended {
        outcome: Outcome,
    }
}

/// A store that measures another.
pub struct MeasuredStore {
    inner: Arc<dyn Store>,
    committed: Counter,
    condition_failed: Counter,
    errors: Counter,
    seconds: Histogram,
    keys: Counter,
    bytes: Counter,
}

impl MeasuredStore {
    /// Measures `inner` from now on.
    pub fn new(inner: Arc<dyn Store>, registry: &Registry) -> Self {
        let ends: Counters<Ended> = registry.counters("evroc_store_transactions", "Transactions, by their end");
        let end = |outcome| ends.get_or_create_owned(&Ended { outcome });
        Self {
            inner,
            committed: end(Outcome::Committed),
            condition_failed: end(Outcome::ConditionFailed),
            errors: end(Outcome::Error),
            seconds: registry.register(
                "evroc_store_transaction_duration_seconds",
                "Time until a transaction is on disk, in seconds",
                buckets::storage(),
            ),
            keys: registry.register(
                "evroc_store_written_keys",
                "Keys that were written or deleted",
                Counter::default(),
            ),
            bytes: registry.register(
                "evroc_store_written_bytes",
                "Bytes of the values that were written",
                Counter::default(),
            ),
        }
    }
}

#[async_trait]
impl StoreLayer for MeasuredStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome> {
        let keys = txn.operations.len() as u64;
        let bytes: usize = txn
            .operations
            .iter()
            .map(|operation| match operation {
                Operation::Put { value, .. } => value.len(),
                Operation::Delete { .. } => 0,
            })
            .sum();
        let begun = Instant::now();
        let ended = self.inner.txn(txn).await;
        self.seconds.observe(begun.elapsed().as_secs_f64());
        match &ended {
            Ok(TxnOutcome::Committed { .. }) => {
                self.committed.inc();
                self.keys.inc_by(keys);
                self.bytes.inc_by(bytes as u64);
            }
            Ok(TxnOutcome::ConditionFailed { .. }) => {
                self.condition_failed.inc();
            }
            Err(_) => {
                self.errors.inc();
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use evroc_metrics::read::read;

    use super::*;
    use crate::contract::Condition;
    use crate::embedded::EmbeddedStore;

    #[tokio::test]
    async fn transactions_are_counted_by_their_end_and_by_what_they_write() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::default();
        let store = EmbeddedStore::open(folder.path()).await.unwrap();
        store.measure(&registry);
        let store: Arc<dyn Store> = Arc::new(MeasuredStore::new(Arc::new(store), &registry));
        let put = || Txn {
            conditions: vec![Condition::Absent("a".into())],
            operations: vec![Operation::Put { key: "a".into(), value: "12345".into(), lease: None }],
        };
        assert!(matches!(store.txn(put()).await.unwrap(), TxnOutcome::Committed { .. }));
        assert!(matches!(store.txn(put()).await.unwrap(), TxnOutcome::ConditionFailed { .. }));
        let samples = read(&registry.text()).unwrap();
        let value = |name: &str, label: &str| {
            let is_it = |it: &&evroc_metrics::read::Sample| {
                it.name == name && (label.is_empty() || it.labels.values().any(|it| it == label))
            };
            samples.iter().find(is_it).map(|it| it.value)
        };
        assert_eq!(value("evroc_store_transactions_total", "committed"), Some(1.0));
        assert_eq!(value("evroc_store_transactions_total", "condition_failed"), Some(1.0));
        assert_eq!(value("evroc_store_written_keys_total", ""), Some(1.0));
        assert_eq!(value("evroc_store_written_bytes_total", ""), Some(5.0));
        assert_eq!(value("evroc_store_transaction_duration_seconds_count", ""), Some(2.0));
        assert!(value("evroc_store_syncs_total", "") >= Some(1.0));
        store.close().await;
    }
}
